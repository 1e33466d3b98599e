/**
 * The end of one request: the bill, once, to the budget, the limits and the journal. Where the upstream reported no usage
 * the tokenizer counts first: the reservation is held meanwhile, and the last bytes of the answer wait, but not for long.
 */

import type { Admitted } from "./admitted.ts";
import { UnitKind, unitsOfKind } from "../core/meters.ts";
import { UNIT } from "./budget/accounts.ts";
import type { Core } from "./core.ts";
import type { Growth } from "./growth.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import type { LimitHolds } from "./limits.ts";
import type { Outcome } from "./outcome.ts";
import type { RateHold } from "./rates/rates.ts";
import type { Delivered } from "./relay.ts";
import {
  type Bill,
  type Billed,
  billEstimated,
  billReported,
  NOTHING_BILLED,
  settlementOf,
  isUnpriced,
} from "./settlement.ts";
import type { Timing } from "./timing.ts";
import { readInput } from "./tokenizer/input.ts";
import { NO_TEXT, type TokenCounts } from "./tokenizer/tokens.ts";

/** The last bytes of an answer wait this long for the tokenizer; then its bytes are counted instead of its tokens. */
export const ESTIMATE_WAIT_MS = 1_000;

/** What ended, and what of it is billed. */
export interface End {
  readonly outcome: Outcome;
  readonly bill: Bill;
  /** The upstream's name of the model that served. */
  readonly model: string;
  /** Null: nothing is billed. */
  readonly delivered: Delivered | null;
  /** The answer came whole. */
  readonly whole: boolean;
  /** What is held of the limits of the target; null: it has none. */
  readonly limits: LimitHolds | null;
  /** What is held of rate limits: of the key, the VE, and the target. */
  readonly rates: readonly RateHold[];
  /** The attempt that is billed; null: none was made. */
  readonly attempt: AttemptEntry | null;
  /** How the reservation of a stream grew; null: it is none. */
  readonly growth: Growth | null;
  /** The status that the client saw, 0 if it saw none. */
  readonly status: number;
  readonly errorCode: string;
  readonly upstreamRequestId: string;
}

/** Whose settlement it is. */
export interface SettlingHost {
  /** It is in the journal: the last bytes may leave. */
  onSettled(): void;
  /** Something went wrong outside of any call of the host's. */
  crash(error: unknown): void;
}

export class Settling {
  private readonly core: Core;
  private readonly request: Admitted;
  private readonly timing: Timing;
  private readonly attempts: readonly AttemptEntry[];
  private readonly end: End;
  private readonly host: SettlingHost;
  /** It ended before it was billed. */
  private readonly durationUs: number;
  private over = false;

  constructor(
    core: Core,
    request: Admitted,
    timing: Timing,
    attempts: readonly AttemptEntry[],
    end: End,
    host: SettlingHost,
  ) {
    this.core = core;
    this.request = request;
    this.timing = timing;
    this.attempts = attempts;
    this.durationUs = timing.sinceArrivalUs();
    this.end = end;
    this.host = host;
  }

  /** False: the tokenizer is asked, and `conclude` must be called when ESTIMATE_WAIT_MS are over. */
  begin(): boolean {
    const { bill, delivered, whole } = this.end;
    const billed = billReported(bill, this.request, delivered, whole);
    if (billed !== null) {
      this.settle(billed);
      return true;
    }
    const { tokens } = this.core.deps;
    if (tokens === undefined) {
      this.conclude();
      return true;
    }
    const input = readInput(this.request.body.bytes);
    const output = (this.request.endpoint.hasOutput && delivered!.text?.sample()) || NO_TEXT;
    tokens.count({ model: this.end.model, input, output }, (counts) => {
      try {
        if (this.over) return;
        if (counts === null) return this.conclude();
        // What arrived without its text being kept can only be measured by its bytes.
        const out = delivered!.text === null ? delivered!.outputTokens : counts.output;
        this.estimated({ input: counts.input, output: out });
      } catch (error) {
        this.host.crash(error);
      }
    });
    return false;
  }

  /** Nothing more is waited for. Safe to call at any time, also when all is done. */
  conclude(): void {
    if (!this.over) this.estimated(null);
  }

  /**
   * Something went wrong. True: the bill is made by bytes, and the host hears of it as ever. False: it was made already, or
   * cannot be made at all, and what is held was given back.
   */
  rescue(): boolean {
    if (this.over) return false;
    try {
      this.conclude();
      return true;
    } catch (error) {
      this.core.deps.log.error({ err: error, id: this.request.id }, "a request could not be billed");
      if (this.over) return false;
      this.over = true;
      this.core.deps.budget.settle(this.request.reservation, 0n);
      this.end.limits?.release();
      for (const hold of this.end.rates) hold.settle(0);
      return false;
    }
  }

  private estimated(counts: TokenCounts | null): void {
    const { bill, delivered, growth } = this.end;
    this.settle(delivered === null ? NOTHING_BILLED : billEstimated(bill, this.request, delivered, counts, growth));
  }

  private settle(billed: Billed): void {
    this.over = true;
    const { core, request, end } = this;
    const { budget, journal, metrics } = core.deps;
    const { outcome, status, errorCode, upstreamRequestId } = end;
    const { attempts, durationUs } = this;
    const { arriveUnixUs, firstByteUs, firstContentUs } = this.timing;
    budget.settle(request.reservation, billed.credits);
    const uses = end.limits?.settle(billed.units, billed.credits);
    if (end.rates.length > 0) {
      const tokens = Number(unitsOfKind(billed.units, UnitKind.TOKENS) / UNIT);
      for (const hold of end.rates) hold.settle(tokens);
    }
    if (end.attempt !== null) end.attempt.credits = billed.credits;
    if (billed.credits === 0n && isUnpriced(end.bill, billed.units)) core.unpriced(end.bill.pmId);
    // A call that lost to another of its request is no request that was answered.
    if (request.hedgeOf === undefined) metrics.request(request.endpoint.number, status, outcome, durationUs);
    // If the write failed the journal keeps the record and says so itself; the client has paid for its answer.
    const ending = { outcome, status, errorCode, attempts, firstByteUs, firstContentUs, durationUs, upstreamRequestId };
    journal.settle(settlementOf(request, arriveUnixUs, end.bill, billed, ending, uses), () => this.host.onSettled());
  }
}
