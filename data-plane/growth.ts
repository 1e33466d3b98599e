/** How a stream's reservation grows while it runs. */

import type { Budget, Reservation } from "./budget/budget.ts";
import { GROW_AT_PERCENT, outputTokensAt, SLICE_TOKENS, sliceCost } from "./budget/estimate.ts";
import type { AdmissionRates } from "./route_types.ts";

/** A stream whose wish for more was refused asks again after so many tokens. */
const GROW_AGAIN_TOKENS = 32;
/** Half of the slice that a stream may overdraw; the other half is left for the frame that crosses the line. */
const OVERDRAW_TOKENS = SLICE_TOKENS / 2;

export class Growth {
  private readonly budget: Budget;
  private readonly reservation: Reservation;
  private readonly rates: AdmissionRates;
  private readonly inputCredits: bigint;
  /** Output tokens at which to look again. */
  private lookAt: number;

  /** `rates` are those of the target that serves. */
  constructor(budget: Budget, reservation: Reservation, rates: AdmissionRates, bodyBytes: number) {
    this.budget = budget;
    this.reservation = reservation;
    this.rates = rates;
    this.inputCredits = BigInt(bodyBytes) * rates.input + rates.request;
    this.lookAt = this.tokensAt(GROW_AT_PERCENT);
  }

  /** True if the wallet covers so many output tokens but for one slice, having taken more from it where needed. */
  covers(outputTokens: number): boolean {
    while (outputTokens >= this.lookAt) {
      if (this.budget.grow(this.reservation, sliceCost(this.rates))) {
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

  private tokensAt(percent: bigint): number {
    return outputTokensAt(this.reservation.held, this.inputCredits, this.rates.output, percent);
  }
}
