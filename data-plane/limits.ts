/**
 * What one attempt holds of the limits of its Physical Model: taken before the call, given back when the attempt fails,
 * settled with what the record says. A limit stops requests before they begin; what runs is finished and counted, so a
 * stream holds no more as it grows.
 */

import { UnitKind, type UnitQuantity, unitsOfKind } from "../core/meters.ts";
import type { Admitted } from "./admitted.ts";
import { limitAccount, LimitKind, UNIT } from "./budget/accounts.ts";
import type { Budget, Reservation, ReserveFailure } from "./budget/budget.ts";
import { type Admission, admissionOf, type RequestSize } from "./budget/estimate.ts";
import type { LimitUse } from "./journal/journal.ts";
import type { AdmissionRates, RoutePm } from "./route_types.ts";

/** `reached`: a limit has too little left. `unavailable`: the lease is used up and the control plane cannot be asked. */
export type LimitFailure = "reached" | "unavailable";

/** Hears that everything is held, or why not and after how many milliseconds there is hope again. */
export type LimitAnswer = (failure: LimitFailure | null, retryMs: number) => void;

/** Counts tokens as if one cost one Unit. */
const TOKEN_RATES: AdmissionRates = {
  input: UNIT,
  output: UNIT,
  dearInput: UNIT,
  dearOutput: UNIT,
  request: 0n,
  image: 0n,
  second: 0n,
  character: 0n,
  toolCall: 0n,
};

/** What is known of Units of other kinds before the answer; at least one. */
function wishOf({ images, characters, seconds }: RequestSize, unit: UnitKind): Admission {
  let pieces = 1;
  if (unit === UnitKind.IMAGES) pieces = images;
  else if (unit === UnitKind.CHARACTERS) pieces = characters;
  else if (unit === UnitKind.SECONDS) pieces = Math.ceil(seconds / 1000);
  const amount = UNIT * BigInt(Math.max(1, pieces));
  return { amount, minimum: amount };
}

function sizeOf({ size, clampTo }: Admitted): RequestSize {
  return clampTo === null ? size : { ...size, outputTokensMax: clampTo };
}

export class LimitHolds {
  private readonly budget: Budget;
  private readonly pm: RoutePm;
  private readonly unit: UnitKind | 0;
  private readonly done: LimitAnswer;
  private readonly holds: Reservation[] = [];
  private asking = 0;
  private failure: LimitFailure | null = null;
  private retryMs = 0;
  /** Given back or settled: an answer that still comes is given back. */
  private over = false;

  constructor(budget: Budget, pm: RoutePm, done: LimitAnswer) {
    this.budget = budget;
    this.pm = pm;
    this.unit = pm.unitLimit;
    this.done = done;
  }

  /**
   * True: all that the request is expected to use is held. False: the control plane is asked, and `done` hears of it, but
   * never before this returns, and not after `release` or `settle`.
   */
  take(request: Admitted): boolean {
    return this.takeSize(sizeOf(request));
  }

  /** The same for what is no request with a body, such as a turn of a realtime session. */
  takeSize(size: RequestSize): boolean {
    const { pm, unit } = this;
    if (unit !== 0)
      this.hold(LimitKind.UNITS, unit === UnitKind.TOKENS ? this.expected(size, TOKEN_RATES) : wishOf(size, unit));
    if (pm.creditLimited) this.hold(LimitKind.CREDITS, this.expected(size, pm.rates!));
    return this.asking === 0;
  }

  /** Gives everything back. Safe to call twice. */
  release(): void {
    this.over = true;
    for (const hold of this.holds.splice(0)) this.budget.settle(hold, 0n);
  }

  /** Ends with what the record says; returns what it used of each limit. */
  settle(units: readonly UnitQuantity[], credits: bigint): LimitUse[] {
    this.over = true;
    return this.holds.splice(0).map((hold) => {
      const { account } = hold;
      const ofUnits = account === limitAccount(this.pm.id, LimitKind.UNITS) && this.unit !== 0;
      const amount = ofUnits ? unitsOfKind(units, this.unit as UnitKind) : credits;
      this.budget.settle(hold, amount);
      return { account, amount };
    });
  }

  private expected(size: RequestSize, rates: AdmissionRates): Admission {
    return admissionOf(size, [{ rates, maxOutputTokens: this.pm.maxOutputTokens }], false);
  }

  private hold(kind: LimitKind, { amount, minimum }: Admission): void {
    const account = limitAccount(this.pm.id, kind);
    const held = this.budget.reserve(account, amount);
    if (held !== null) {
      this.holds.push(held);
      return;
    }
    this.asking++;
    this.budget.reserveSlow(account, amount, minimum, (result) => this.answered(account, result));
  }

  private answered(account: string, result: Reservation | ReserveFailure): void {
    this.asking--;
    if (typeof result === "string") {
      // One that is known to be reached says more than one that cannot be asked.
      if (this.failure !== "reached") this.failure = result === "exhausted" ? "reached" : "unavailable";
      this.retryMs = Math.max(this.retryMs, this.budget.retryMs(account));
    } else {
      this.holds.push(result);
    }
    if (this.over) return this.release();
    if (this.asking > 0) return;
    if (this.failure !== null) this.release();
    this.done(this.failure, this.retryMs);
  }
}
