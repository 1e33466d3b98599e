/** Whether the two sides of a session are still there, and take what they are sent. */

import type { Lane } from "./lane.ts";
import type { RealtimeLimits } from "./limits.ts";

export class Watch {
  private readonly lanes: readonly Lane[];
  private readonly limits: RealtimeLimits;
  private pingedMs: number;
  /** Pings in a row without an answer, of the side that each lane comes from. */
  private readonly missed = [0, 0];

  constructor(up: Lane, down: Lane, limits: RealtimeLimits, now: number) {
    this.lanes = [up, down];
    this.limits = limits;
    this.pingedMs = now;
  }

  /** Breaks the connection of a side that is gone. */
  check(now: number): void {
    const { lanes, limits, missed } = this;
    for (const { from } of lanes) {
      if (from.fullSince > 0 && performance.now() - from.fullSince >= limits.stallMs) return from.terminate();
    }
    if (now - this.pingedMs < limits.pingMs) return;
    this.pingedMs = now;
    for (const [i, lane] of lanes.entries()) {
      // A side that is not read cannot be heard to answer.
      missed[i] = lane.from.answered || lane.stopped ? 0 : missed[i]! + 1;
      if (missed[i] * limits.pingMs >= limits.silenceMs) return lane.from.terminate();
      lane.from.ping();
    }
  }
}
