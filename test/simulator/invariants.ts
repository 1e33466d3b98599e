/** What must hold: the cheap part after every step that moves Credits, all of it at the end. */

import { fromBinary } from "@bufbuild/protobuf";
import { auditEvents, auditRecords, auditWallet } from "../../control-plane/domain/audit.ts";
import { available } from "../../control-plane/domain/wallet.ts";
import type { Credits } from "../../core/credits.ts";
import { Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Books, Entry } from "./books.ts";
import { VES } from "./catalogue.ts";
import type { Control } from "./control.ts";
import type { MemoryEvent } from "./memory_ledger.ts";
import type { Network } from "./network.ts";
import type { SimNode } from "./node.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Violations } from "./violations.ts";

/** Credits that lie there for so long are available to everybody: no request may be refused for want of them. */
const PHANTOM_MS = 1_000;
/** A node counts as well connected only after so long without trouble. */
const STEADY_MS = 3_000;

interface Sample {
  readonly at: number;
  readonly credits: Credits;
}

export interface Watched {
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly control: Control;
  readonly books: Books;
  readonly nodes: readonly SimNode[];
  readonly violations: Violations;
}

export class Invariants {
  readonly #world: Watched;
  /** Spend of applied reports whose answer their boot has not read: by boot, then seq, then VE. */
  readonly #unanswered = new Map<string, Map<bigint, ReadonlyMap<string, Credits>>>();
  readonly #debts = new Map<string, Credits>();
  #transfersSeen = 0;
  /** What could be used of each wallet in the last second. */
  readonly #usable = new Map<string, Sample[]>();
  readonly #dirty = new Set<string>();
  /** The first answer of each node since its last trouble ended. */
  readonly #heard = new Map<string, { readonly since: number; readonly at: number }>();
  phantomChecks = 0;

  constructor(world: Watched) {
    this.#world = world;
  }

  // --- Credits --------------------------------------------------------------------------------------------------------

  /** After every transaction. */
  ledgerChanged(): void {
    const { control, violations, books } = this.#world;
    const { transfers } = control.ledger;
    for (; this.#transfersSeen < transfers.length; this.#transfersSeen++) {
      const { debit, veId, credits } = transfers[this.#transfersSeen]!;
      if (debit === "debt") this.#debts.set(veId, (this.#debts.get(veId) ?? 0n) + credits);
    }
    for (const evidence of control.ledger.readEvidence()) {
      violations.checks += 8;
      for (const broken of auditWallet(evidence))
        violations.add(broken.invariant, `${broken.subject}: expected ${broken.expected}, found ${broken.found}`);
      const debt = this.#debts.get(evidence.veId) ?? 0n;
      const allowed = books.allowance.get(evidence.veId) ?? 0n;
      if (debt > allowed)
        violations.add(
          "overspend: STRICT 0, BALANCED a slice for each request",
          `${evidence.veId}: ${debt} > ${allowed}`,
        );
      this.#dirty.add(evidence.veId);
    }
    this.leasesHold();
  }

  applied(bootId: string, seq: bigint, spend: ReadonlyMap<string, Credits>): void {
    let reports = this.#unanswered.get(bootId);
    if (reports === undefined) this.#unanswered.set(bootId, (reports = new Map()));
    reports.set(seq, spend);
  }

  /** A boot has read the answer to its report `seq`. */
  answered(bootId: string, seq: bigint): void {
    const reports = this.#unanswered.get(bootId);
    for (const each of reports?.keys() ?? []) if (each <= seq) reports!.delete(each);
    const { nodes, network, scheduler } = this.#world;
    const node = nodes.find(({ boot }) => boot?.bootId === bootId);
    if (node !== undefined) {
      const since = Math.max(node.steadySince, network.calmSince(node.name));
      const known = this.#heard.get(node.name)?.since === since;
      if (since < Number.POSITIVE_INFINITY && !known) this.#heard.set(node.name, { since, at: scheduler.now });
    }
    this.leasesHold(bootId);
  }

  /** No node counts on more than the control plane holds for it, but for answers under way. */
  leasesHold(only?: string): void {
    const { control, nodes, violations } = this.#world;
    const held = new Map(control.ledger.leases().map((lease) => [`${lease.bootId} ${lease.veId}`, lease.credits]));
    for (const { boot, stopping } of nodes) {
      // One that stops gives everything back with its last report, and admits nothing any more.
      if (boot === null || stopping || (only !== undefined && boot.bootId !== only)) continue;
      const now = boot.now();
      for (const { id } of VES) {
        const lease = boot.wallets.look(id)?.lease;
        if (lease === undefined || now >= lease.expiresAt) continue;
        let ours = held.get(`${boot.bootId} ${id}`) ?? 0n;
        for (const spend of this.#unanswered.get(boot.bootId)?.values() ?? []) ours += spend.get(id) ?? 0n;
        violations.checks++;
        const free = lease.lease - lease.unacked - lease.reserved;
        if (lease.lease > ours && free > 0n)
          violations.add("a node's lease is covered", `${boot.bootId} ${id}: counts on ${lease.lease}, has ${ours}`);
      }
    }
  }

  /** A request holds Credits: of a lease that has not ended. */
  held({ boot }: SimNode, veId: string, credits: Credits): void {
    const lease = boot?.wallets.look(veId)?.lease;
    if (lease === undefined || credits === 0n) return;
    this.#world.violations.check(
      "nothing is held of a lease that has ended",
      boot!.now() < lease.expiresAt,
      () => `${boot!.bootId} ${veId}: ${credits}, ended at ${lease.expiresAt}, now ${boot!.now()}`,
    );
  }

  // --- phantoms -------------------------------------------------------------------------------------------------------

  accountChanged(veId: string): void {
    this.#dirty.add(veId);
  }

  /** After each event. */
  sample(): void {
    if (this.#dirty.size === 0) return;
    const { now } = this.#world.scheduler;
    for (const veId of this.#dirty) {
      const credits = this.#usableNow(veId);
      const samples = this.#usable.get(veId) ?? [];
      this.#usable.set(veId, samples);
      // Of the second before, the least counts: what is not less than a later one says nothing.
      while (samples.length > 0 && samples.at(-1)!.credits >= credits && samples.at(-1)!.at > now - PHANTOM_MS)
        samples.pop();
      samples.push({ at: now, credits });
      while (samples.length > 1 && samples[1]!.at <= now - PHANTOM_MS) samples.shift();
    }
    this.#dirty.clear();
  }

  #isSteady(node: SimNode): boolean {
    const { scheduler, network } = this.#world;
    if (node.boot === null || node.frozen || node.stopping || node.troubled) return false;
    const since = Math.max(node.steadySince, network.calmSince(node.name));
    // A call that was lost is noticed late: only with an answer it is known that they hear each other again.
    const heard = this.#heard.get(node.name);
    return heard !== undefined && heard.since === since && scheduler.now - heard.at >= STEADY_MS;
  }

  #usableNow(veId: string): Credits {
    const { control, nodes } = this.#world;
    let sum = available(control.ledger.getWallet(veId)!);
    for (const node of nodes) {
      const lease = node.boot?.wallets.look(veId)?.lease;
      if (lease === undefined) continue;
      const free = lease.lease - lease.unacked - lease.reserved;
      // Where requests have spent more than was held, what lies there belongs to those that still run.
      if (free < 0n || (this.#isSteady(node) && node.boot!.now() < lease.expiresAt)) sum += free;
    }
    return sum;
  }

  #whereIs(veId: string): string {
    const { control, nodes } = this.#world;
    const leases = nodes.map(({ name, boot }) => {
      const wallet = boot?.wallets.look(veId);
      if (wallet === undefined) return name;
      const { lease, unacked, reserved } = wallet.lease;
      return `${name} ${lease}-${unacked}-${reserved}, ${wallet.waiters.length} wait`;
    });
    return `available ${available(control.ledger.getWallet(veId)!)}; ${leases.join("; ")}`;
  }

  /** A node tells a client that there is not `minimum`. */
  refused(node: SimNode, veId: string, minimum: Credits): void {
    const { scheduler, control, violations } = this.#world;
    if (!this.#isSteady(node) || scheduler.now - control.wellSince < STEADY_MS) return;
    const samples = this.#usable.get(veId) ?? [];
    if (samples.length === 0 || samples[0]!.at > scheduler.now - PHANTOM_MS) return;
    this.phantomChecks++;
    let least = samples[0]!.credits;
    for (const { credits } of samples) if (credits < least) least = credits;
    // Where others wait as well, what one of them needs is not there for all: then it must be enough for each.
    for (const { boot } of this.#world.nodes) {
      for (const waiter of boot?.wallets.look(veId)?.waiters ?? []) least -= waiter.minimum;
    }
    violations.check(
      "no phantom 429",
      least < minimum,
      () => `${node.name} refused ${veId} ${minimum}, while ${least} lay there for a second: ${this.#whereIs(veId)}`,
    );
  }

  // --- the end --------------------------------------------------------------------------------------------------------

  /** Everything came back and was reported: the ledger is what the books say. */
  atEnd(): void {
    const { control, books, violations } = this.#world;
    const { ledger } = control;
    this.ledgerChanged();
    for (const broken of ledger.readEventEvidence().flatMap(auditEvents))
      violations.add(broken.invariant, `${broken.subject}: expected ${broken.expected}, found ${broken.found}`);
    for (const broken of ledger.readRecordEvidence().flatMap(auditRecords))
      violations.add(broken.invariant, `${broken.subject}: expected ${broken.expected}, found ${broken.found}`);
    const events = new Map<string, MemoryEvent>();
    const settled = new Map<string, Credits>();
    for (const event of ledger.events) {
      violations.check("nothing is counted twice", !events.has(event.id), () => `${event.id} of ${event.bootId}`);
      events.set(event.id, event);
      settled.set(event.veId, (settled.get(event.veId) ?? 0n) + event.credits);
      if (!books.entries.has(event.id)) violations.add("the ledger holds only what happened", event.id);
    }
    for (const entry of books.entries.values()) this.#checkEntry(entry, events.get(entry.id));
    for (const [veId, wallet] of ledger.wallets) {
      const purchased = books.initial.get(veId) ?? 0n;
      const same = wallet.purchased === purchased && wallet.settled === (settled.get(veId) ?? 0n);
      violations.check("the ledger is exact", same, () => `${veId}: ${wallet.purchased} ${purchased}`);
    }
    for (const { bootId, recordNo, reason } of ledger.quarantined) {
      if (!books.damaged.has(bootId)) violations.add("nothing is set aside", `${bootId} ${recordNo}: ${reason}`);
    }
    for (const { kind, subject } of ledger.alarms)
      if (kind === "price_mismatch") violations.add("both sides compute the same Credits", subject);
  }

  #checkEntry(entry: Entry, event: MemoryEvent | undefined): void {
    const { violations } = this.#world;
    const { id, veId, state, must, crashed } = entry;
    violations.checks++;
    if (event === undefined) {
      if (must && (state !== "live" || crashed))
        violations.add("no settled record is lost", `${id} of ${entry.bootId} (${state})`);
      return;
    }
    if (event.veId !== veId) violations.add("a record is the right wallet's", id);
    if (state !== "live" && event.credits === entry.credits) return;
    const { outcome } = fromBinary(UsageRecordSchema, event.body);
    const asCrash = (outcome as number) === Outcome.NODE_CRASHED && (crashed || !must);
    // What a power cut left of the progress notes may be an earlier one.
    const known = [0n, ...entry.progress];
    const fits = must ? known.slice(-1) : known;
    if (!asCrash || !fits.includes(event.credits))
      violations.add("the ledger has what was settled", `${id}: ${event.credits}, settled ${entry.credits} (${state})`);
  }
}
