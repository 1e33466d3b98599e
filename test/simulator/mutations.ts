/**
 * Faults planted on purpose, each as an edit of the real source: the simulator must find every one of them, or its silence
 * about the others means nothing.
 */

export interface Mutation {
  readonly name: string;
  /** What goes wrong, in a sentence. */
  readonly fault: string;
  readonly file: string;
  /** Exactly once in the file. */
  readonly from: string;
  readonly to: string;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "grant-beyond-available",
    fault: "what other nodes hold is granted again",
    file: "control-plane/domain/leases.ts",
    from: "    available: available(settled.wallet),",
    to: "    available: available(settled.wallet) + settled.wallet.escrowed,",
  },
  {
    name: "duplicate-applied",
    fault: "a report that came before is applied again",
    file: "control-plane/domain/report.ts",
    from: 'if (seq <= cursor.lastSeq) return "duplicate";',
    to: 'if (seq < cursor.lastSeq) return "duplicate"; if (seq === cursor.lastSeq) return "apply";',
  },
  {
    name: "expiry-ignored",
    fault: "a node goes on spending a lease that has ended",
    file: "data-plane/budget/lease.ts",
    from: "if (now >= this.expiresAt && this.lease > used) {",
    to: "if (now < 0 && this.lease > used) {",
  },
  {
    name: "counted-from-answer",
    fault: "a node counts its lease from the answer, not from sending the report",
    file: "data-plane/budget/lease.ts",
    from: "this.expiresAt = sentAt + ttl - Math.min(EXPIRY_MARGIN_MS, ttl / 10);",
    to: "this.expiresAt = sentAt + 2 * ttl;",
  },
  {
    name: "sweep-without-hold",
    fault: "leases are taken back before the journal could come back",
    file: "control-plane/domain/service_clock.ts",
    from: "return serviceMs - reportMs > ttlMs + holdMs + SERVICE_TICK_MAX_MS;",
    to: "return serviceMs - reportMs > ttlMs + SERVICE_TICK_MAX_MS;",
  },
  {
    name: "spend-not-kept",
    fault: "the spend of requests that are not reported yet is forgotten",
    file: "data-plane/budget/lease.ts",
    from: "    this.unacked += spent;\n",
    to: "",
  },
  {
    name: "acknowledged-twice",
    fault: "spend that was reported is taken off twice",
    file: "data-plane/budget/lease.ts",
    from: "    this.unacked -= spent;\n",
    to: "    this.unacked -= 2n * spent;\n",
  },
  {
    name: "last-byte-first",
    fault: "the client has its answer before the settlement is written",
    file: "data-plane/journal/file_journal.ts",
    from: "    this.#callbacks.push(written);\n",
    to: "    written();\n",
  },
  {
    name: "crash-billed-again",
    fault: "a stream that was settled is billed again when its process dies",
    file: "data-plane/journal/recovery.ts",
    from: "      streams.settle(head.id);\n",
    to: "",
  },
  {
    name: "crash-forgotten",
    fault: "a stream that its process died in is not billed",
    file: "data-plane/journal/recovery.ts",
    from: "if (type === FrameType.PROGRESS) streams.progress(head.id, payload);",
    to: "",
  },
  {
    name: "old-buffer-read",
    fault: "a segment that grew is not read again (a fault that the simulator found)",
    file: "data-plane/journal/journal_records.ts",
    from: " || this.#cursor.lastNo < from) {",
    to: ") {",
  },
  {
    name: "debt-kept",
    fault: "Credits that come in do not repay the debt",
    file: "control-plane/domain/wallet.ts",
    from: "  const credits = repayable(after);",
    to: "  const credits = repayable(after) / 2n;",
  },
  {
    name: "grow-unlooked",
    fault: "a stream takes its next slice whether it is there or not",
    file: "data-plane/budget/wallets.ts",
    from: "    if (wallet.lease.free(now, this.#offline) >= amount) {\n      wallet.lease.hold(amount, now);",
    to: "    {\n      wallet.lease.hold(amount, now);",
  },
  {
    name: "hedge-not-held",
    fault: "a second call is made without holding its input",
    file: "data-plane/hedging.ts",
    from: "maxCredits(inputOf(a), inputOf(b))",
    to: "0n * maxCredits(inputOf(a), inputOf(b))",
  },
  {
    name: "recall-ignored",
    fault: "a node that is asked to give back does not",
    file: "data-plane/budget/wallet.ts",
    from: "const giveBack = this.recalled ||",
    to: "const giveBack =",
  },
  {
    name: "release-not-taken",
    fault: "what was given back is still counted on by the node",
    file: "data-plane/budget/lease.ts",
    from: "    this.lease -= free;\n",
    to: "",
  },
  {
    name: "damage-unseen",
    fault: "a frame that is torn or rotten is taken for sound",
    file: "data-plane/journal/frame.ts",
    from: "  if (buffer.readUInt32LE(at + CRC_AT) !== crc32c(buffer, at + TYPE_AT, end)) return null;\n",
    to: "",
  },
  {
    name: "first-not-missed",
    fault: "records before the first one on disk are not missed (a fault that the simulator found)",
    file: "data-plane/journal/recovery.ts",
    from: "  if (whole) return first > reportedNo ? reportedNo : first - 1 + numbers.missingUpTo(reportedNo);\n",
    to: "  if (whole) return numbers.missingUpTo(reportedNo);\n",
  },
  {
    name: "claim-forgotten",
    fault: "a journal whose recovery failed once is left alone for ever (a fault that the simulator found)",
    file: "data-plane/journal/recovery.ts",
    from: "this.#taken.get(bootId) ?? takeOver(",
    to: "takeOver(",
  },
  {
    name: "way-to-files-unsynced",
    fault: "the directory of a boot can be lost with the machine (a fault that the simulator found)",
    file: "data-plane/journal/boot_dir.ts",
    from: "    disk.fsyncSync(fd);\n",
    to: "",
  },
];
