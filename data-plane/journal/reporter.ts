/**
 * Brings the journal's records and what the wallets have to say to the control plane, one report at a time, and the
 * answers back.
 */

import { create } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import { type Credits, parseCredits } from "../../core/credits.ts";
import {
  ReportStatus,
  type ReportUsageRequest,
  ReportUsageRequestSchema,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { WalletBalance } from "../budget/budget.ts";
import type { LeaseLine, WalletLink } from "../budget/wallet_link.ts";
import type { Wallets } from "../budget/wallets.ts";
import type { ReportClient } from "../control_plane.ts";
import type { FileJournal } from "./file_journal.ts";
import { answersOf, requestLines, spentByVe } from "./report_lines.ts";
import { backoffMs, type Delivered, ReportSender } from "./report_sender.ts";

/** Something to say waits at most this long. */
export const REPORT_EVERY_MS = 1_000;
/** Low leases do not bring reports closer together than this. */
export const LOW_REPORT_EVERY_MS = 100;
/** With nothing to say, a report is sent this often, which keeps the leases alive. */
export const KEEP_ALIVE_MS = 10_000;
export const REPORT_RECORDS_MAX = 2_000;
export const REPORT_BYTES_MAX = 1024 * 1024;
/** Accounts in one report beside those of its records; with them, below the 10,000 each of the schema. */
export const REPORT_LEASES_MAX = 5_000;

export interface ReporterOptions {
  readonly client: ReportClient;
  readonly journal: FileJournal;
  readonly wallets: Wallets;
  readonly nodeId: string;
  readonly bootId: string;
  readonly log: Logger;
  /** Milliseconds of a clock that only goes forward: the one of the wallets. */
  now(): number;
  /** In [0, 1). */
  random(): number;
}

interface Cut {
  readonly request: ReportUsageRequest;
  readonly lines: readonly LeaseLine[];
  /** Spend that the wallets have not been told is acknowledged. */
  readonly spent: ReadonlyMap<string, Credits>;
  readonly lastNo: number;
  /** There was more to say than fits. */
  readonly more: boolean;
}

export interface ReporterStats {
  applied: number;
  duplicate: number;
  gap: number;
  failed: number;
  /** When the last answer came, by the reporter's clock; 0: never. */
  answeredAt: number;
  online: boolean;
}

const URGENCY = { low: 1, need: 2, recall: 2 } as const;

export class Reporter implements WalletLink {
  readonly stats: ReporterStats = { applied: 0, duplicate: 0, gap: 0, failed: 0, answeredAt: 0, online: false };
  readonly #options: ReporterOptions;
  readonly #sender: ReportSender;
  readonly #abort = new AbortController();
  #seq = 0;
  /** The next record to report. */
  #nextNo = 1;
  /** All records up to this one are acknowledged. */
  #ackedNo = 0;
  #cutAt = Number.NEGATIVE_INFINITY;
  #urgency = 0;
  #stopping = false;
  #wakeUp: () => void = () => undefined;
  #flushes: { readonly recordNo: number; readonly done: () => void }[] = [];
  #running: Promise<void> = Promise.resolve();

  constructor(options: ReporterOptions) {
    this.#options = options;
    const { client, log, now, random } = options;
    this.#sender = new ReportSender({ client, log, now, random, onAttempt: (delivered) => this.#onAttempt(delivered) });
  }

  start(): void {
    const { journal, wallets } = this.#options;
    wallets.attach(this);
    journal.onDurable(() => {
      if (this.#flushes.length > 0) this.wake("need");
    });
    this.#running = this.#run();
  }

  wake(reason: "need" | "recall" | "low"): void {
    this.#urgency = Math.max(this.#urgency, URGENCY[reason]);
    if (reason !== "low") this.#sender.kick();
    this.#wakeUp();
  }

  flush(timeoutMs: number): Promise<void> {
    const { journal } = this.#options;
    const recordNo = journal.lastNo;
    if (recordNo <= this.#ackedNo) return Promise.resolve();
    return new Promise((done) => {
      const entry = { recordNo, done: () => (clearTimeout(timer), done()) };
      const timer = setTimeout(() => {
        this.#flushes = this.#flushes.filter((other) => other !== entry);
        done();
      }, timeoutMs);
      this.#flushes.push(entry);
      void journal.sync();
    });
  }

  async getWallet(veId: string, timeoutMs: number): Promise<(WalletBalance & { readonly state: number }) | null> {
    try {
      const { wallet } = await this.#options.client.getWallet({ veId }, { timeoutMs });
      if (wallet === undefined) return null;
      const { creditRemaining, creditBudget, state } = wallet;
      return { creditRemaining: parseCredits(creditRemaining), creditBudget: parseCredits(creditBudget), state };
    } catch {
      return null;
    }
  }

  /**
   * Reports everything that is left, and that the boot is over. True if the control plane has all of it; false when
   * `deadlineMs` passed first: then the next start takes the journal over.
   */
  async stop(deadlineMs: number): Promise<boolean> {
    const timer = setTimeout(() => this.#abort.abort(), deadlineMs);
    this.#stopping = true;
    this.#wakeUp();
    this.#sender.kick();
    try {
      await this.#running;
      await this.#options.journal.sync();
      for (let done = false; !done;) {
        this.#abort.signal.throwIfAborted();
        const cut = await this.#cut(true);
        done = (await this.#deliver(cut)) && cut.request.final;
      }
      return this.#ackedNo === this.#options.journal.lastNo;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      for (const { done } of this.#flushes) done();
    }
  }

  async #run(): Promise<void> {
    let more = false;
    while (!this.#stopping) {
      if (!more) await this.#waitTurn();
      if (this.#stopping) return;
      try {
        more = await this.#turn();
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        // Nothing here is known to throw; were it to, the next turn must still come.
        this.#options.log.error({ err: error }, "reporting failed");
        more = false;
      }
    }
  }

  /** One report, if there is something to say. True if there is more. */
  async #turn(): Promise<boolean> {
    const { journal, wallets, now } = this.#options;
    this.#urgency = 0;
    wallets.tick();
    const quiet = this.#nextNo > journal.durableNo && !wallets.hasWork();
    if (quiet && now() - this.#cutAt < KEEP_ALIVE_MS && this.stats.answeredAt > 0) {
      return false;
    }
    this.#cutAt = now();
    const cut = await this.#cut(false);
    return (await this.#deliver(cut)) ? cut.more : true;
  }

  /** Until a second has passed, or something is urgent. */
  async #waitTurn(): Promise<void> {
    const { now } = this.#options;
    const begin = now();
    while (!this.#stopping && this.#urgency < URGENCY.need) {
      const end = this.#urgency === URGENCY.low ? this.#cutAt + LOW_REPORT_EVERY_MS : begin + REPORT_EVERY_MS;
      const left = Math.min(end, begin + REPORT_EVERY_MS) - now();
      if (left <= 0) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, Math.ceil(left));
      this.#wakeUp = resolve;
      await promise;
      clearTimeout(timer);
    }
  }

  async #cut(final: boolean): Promise<Cut> {
    const { journal, wallets, nodeId, bootId } = this.#options;
    const limits = { records: REPORT_RECORDS_MAX, bytes: REPORT_BYTES_MAX };
    const records = await journal.read(this.#nextNo, limits);
    const lastNo = records.at(-1)?.recordNo ?? this.#nextNo - 1;
    const spent = spentByVe(records, this.#ackedNo);
    journal.limitUses.addTo(spent, lastNo);
    const lines = wallets.cut(spent, final ? 0 : REPORT_LEASES_MAX);
    const request = create(ReportUsageRequestSchema, {
      nodeId,
      bootId,
      seq: BigInt(this.#seq + 1),
      firstRecordNo: BigInt(records.length > 0 ? this.#nextNo : 0),
      records: records.map(({ bytes }) => bytes),
      ...requestLines(lines),
      final: final && lastNo === journal.lastNo,
    });
    const more = lastNo < journal.durableNo || lines.length >= spent.size + REPORT_LEASES_MAX;
    return { request, lines, spent, lastNo, more };
  }

  /** False: it was refused, and what it said is to be cut anew. */
  async #deliver(cut: Cut): Promise<boolean> {
    const { journal, wallets, now } = this.#options;
    const delivered = await this.#sender.send(cut.request, this.#abort.signal);
    const { response, sentAt, firstSentAt } = delivered;
    this.stats.answeredAt = now();
    if (response.status === ReportStatus.GAP) {
      await this.#onGap(cut, delivered);
      return false;
    }
    const repeated = response.status === ReportStatus.DUPLICATE;
    if (repeated) this.stats.duplicate++;
    else this.stats.applied++;
    this.#seq = Number(cut.request.seq);
    this.#nextNo = cut.lastNo + 1;
    this.#ackedNo = Math.max(this.#ackedNo, cut.lastNo);
    journal.acknowledge(cut.lastNo);
    // An earlier attempt may be the one that was applied, and then the time runs from there.
    wallets.answer(cut.lines, cut.spent, answersOf(response), repeated ? firstSentAt : sentAt, repeated);
    this.#flushes = this.#flushes.filter(({ recordNo, done }) => recordNo > this.#ackedNo || done() !== undefined);
    return true;
  }

  /** The control plane is at another place than this node, such as after a restored backup: go on from there. */
  async #onGap(cut: Cut, { response }: Delivered): Promise<void> {
    const facts = {
      seq: Number(cut.request.seq),
      lastSeq: Number(response.lastSeq),
      lastRecordNo: Number(response.lastRecordNo),
    };
    this.#options.log.error(facts, "the control plane misses reports of this boot; going on from where it is");
    this.stats.gap++;
    this.#seq = facts.lastSeq;
    this.#nextNo = facts.lastRecordNo + 1;
    this.#options.wallets.recut(cut.lines);
    await new Promise((done) => setTimeout(done, backoffMs(1, this.#options.random())));
  }

  #onAttempt(delivered: boolean): void {
    if (!delivered) this.stats.failed++;
    this.stats.online = delivered;
    this.#options.wallets.setOnline(delivered);
  }
}
