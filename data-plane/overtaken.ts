/**
 * A call of a hedged request that another call overtook: it is cancelled, and billed by what it delivered, with a record of
 * its own. What an upstream that had accepted the request has read is its input.
 */

import type { Admitted } from "./admitted.ts";
import type { Attempt } from "./attempt.ts";
import type { Reservation } from "./budget/budget.ts";
import type { Core, Live } from "./core.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import { OnDisconnect, Outcome } from "./outcome.ts";
import type { Delivered } from "./relay.ts";
import { type End, ESTIMATE_WAIT_MS, Settling, type SettlingHost } from "./settling.ts";
import type { Timed } from "./timers.ts";
import { Timing } from "./timing.ts";

/** No content of it counts, since the client saw none. */
const INPUT_ALONE: Delivered = { usage: null, counted: [], outputTokens: 0, pieces: 0, hasContent: false, text: null };

/** True if a call that is cancelled now is billed. */
export function owesInput({ relay, pm }: Attempt): boolean {
  return relay !== null && pm.provider.onDisconnect !== OnDisconnect.FREE;
}

export class Overtaken implements SettlingHost, Timed, Live {
  liveAt = -1;
  private readonly core: Core;
  private readonly timing: Timing;
  private readonly settling: Settling;

  /**
   * `reservation` covers the input at this target; it is settled here, and so is what the attempt holds of limits. `entry`
   * is the attempt as it stands in the record of the request.
   */
  constructor(core: Core, request: Admitted, reservation: Reservation, attempt: Attempt, entry: AttemptEntry) {
    this.core = core;
    this.timing = new Timing(core, this, request.arriveMs, Number.POSITIVE_INFINITY);
    this.timing.firstByteUs = entry.startUs + entry.firstByteUs;
    const own: Admitted = { ...request, id: core.deps.newId("usg_"), reservation, hedgeOf: request.id };
    const { pm, bill, head, limits, rate } = attempt;
    const end: End = {
      outcome: Outcome.HEDGE_LOST,
      bill,
      model: pm.upstreamName,
      delivered: INPUT_ALONE,
      whole: false,
      limits,
      rates: rate === null ? [] : [rate],
      attempt: entry,
      growth: null,
      status: 0,
      errorCode: "",
      upstreamRequestId: head?.requestId() ?? "",
    };
    attempt.limits = attempt.rate = null;
    this.settling = new Settling(core, own, this.timing, [entry], end, this);
  }

  begin(): void {
    this.core.opened(this);
    try {
      if (!this.settling.begin()) this.timing.after(ESTIMATE_WAIT_MS);
    } catch (error) {
      this.crash(error);
    }
  }

  onSettled(): void {
    this.timing.stop();
    this.core.closed(this);
  }

  onDeadline(): void {
    try {
      this.settling.conclude();
    } catch (error) {
      this.crash(error);
    }
  }

  onProgressTick(): void {}

  /** The node stops: the tokenizer is not waited for. */
  abort(): void {
    this.onDeadline();
  }

  crash(error: unknown): void {
    this.core.deps.log.error({ err: error }, "a call that was overtaken could not be billed");
    if (!this.settling.rescue()) this.onSettled();
  }
}
