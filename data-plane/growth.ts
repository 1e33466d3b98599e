/** How a stream's reservation grows while it runs. */

import type { Budget, Reservation } from "./budget/budget.ts";
import {
  GROW_AT_PERCENT,
  inputCost,
  outputTokensAt,
  type RequestSize,
  SLICE_TOKENS,
  sliceCost,
} from "./budget/estimate.ts";
import { estimateTokens } from "./meter.ts";
import type { AdmissionRates } from "./route_types.ts";

/** A stream whose wish for more was refused asks again after so many tokens. */
const GROW_AGAIN_TOKENS = 32;
/** Half of the slice that a stream may overdraw; the other half is left for the frame that crosses the line. */
const OVERDRAW_TOKENS = SLICE_TOKENS / 2;
/**
 * An answer that keeps to its limit must not be cut for long words, so here a token has more bytes than on average
 * (where each piece is a token, as with most upstreams, that does not matter).
 */
const STRICT_BYTES_PER_TOKEN = 6;

export class Growth {
  private readonly budget: Budget;
  private readonly reservation: Reservation;
  private readonly rates: AdmissionRates;
  private readonly strict: boolean;
  private readonly inputCredits: bigint;
  /** Output tokens at which to look again. */
  private lookAt: number;

  /** `rates` are those of the target that serves. */
  constructor(budget: Budget, reservation: Reservation, rates: AdmissionRates, size: RequestSize, strict: boolean) {
    this.budget = budget;
    this.reservation = reservation;
    this.rates = rates;
    this.strict = strict;
    this.inputCredits = inputCost(size, rates, strict);
    this.lookAt = strict ? this.tokensAt(100n) + 1 : this.tokensAt(GROW_AT_PERCENT);
  }

  /**
   * True if the wallet covers so much, in BALANCED but for one slice, having taken more from it where needed. STRICT has
   * told the upstream how long the answer may be, and holds all of that: this ends only what goes on beyond.
   */
  covers(textBytes: number, pieces: number): boolean {
    if (this.strict) return this.coversStrictly(Math.max(pieces, Math.ceil(textBytes / STRICT_BYTES_PER_TOKEN)));
    const outputTokens = estimateTokens(textBytes, pieces);
    while (outputTokens >= this.lookAt) {
      if (this.budget.grow(this.reservation, sliceCost(this.rates, false))) {
        this.lookAt = this.tokensAt(GROW_AT_PERCENT);
        continue;
      }
      const end = this.tokensAt(100n) + OVERDRAW_TOKENS;
      if (outputTokens >= end) return false;
      // What is held lasts a little longer, and the report that the refusal causes may bring more.
      this.lookAt = Math.min(outputTokens + GROW_AGAIN_TOKENS, end);
    }
    return true;
  }

  /**
   * How many output tokens an estimate may bill: all that the wallet covers, which is taken from it, and one slice in
   * BALANCED. Frames that cross the line by more than that are the merchant's risk, not the wallet's.
   */
  billable(outputTokens: number): number {
    const { budget, reservation, rates, strict } = this;
    const missing = outputTokens - this.tokensAt(100n);
    if (missing <= 0) return outputTokens;
    budget.grow(reservation, BigInt(missing) * (strict ? rates.dearOutput : rates.output));
    return Math.min(outputTokens, this.tokensAt(100n) + (strict ? 0 : SLICE_TOKENS));
  }

  private coversStrictly(outputTokens: number): boolean {
    while (outputTokens >= this.lookAt) {
      if (!this.budget.grow(this.reservation, sliceCost(this.rates, true))) return false;
      this.lookAt = this.tokensAt(100n) + 1;
    }
    return true;
  }

  private tokensAt(percent: bigint): number {
    const { reservation, inputCredits, rates, strict } = this;
    return outputTokensAt(reservation.held, inputCredits, strict ? rates.dearOutput : rates.output, percent);
  }
}
