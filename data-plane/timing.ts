/** When the parts of one request happened, and by when the next must. */

import type { Core } from "./core.ts";
import { Deadline, type Timed } from "./timers.ts";

export class Timing extends Deadline {
  readonly arriveUs: number;
  /** Microseconds after arrival; 0: it never came to that. */
  firstByteUs = 0;
  firstContentUs = 0;
  private readonly core: Core;
  private readonly totalAt: number;

  constructor(core: Core, owner: Timed, arriveMs: number, totalMs: number) {
    super(owner);
    this.core = core;
    this.arriveUs = Math.round(arriveMs * 1000);
    this.totalAt = arriveMs + totalMs;
  }

  /** By the wall clock as it is now: what it was at the start of the process may have been wrong. */
  get arriveUnixUs(): number {
    return this.arriveUs + this.core.wallLeadUs();
  }

  sinceArrivalUs(): number {
    return Math.max(0, this.core.nowUs() - this.arriveUs);
  }

  /** The deadline of the whole has passed. */
  get isOver(): boolean {
    return this.core.deps.now() >= this.totalAt;
  }

  /** The next thing must happen within so many milliseconds, before `until`, and before the deadline of the whole. */
  within(ms: number, until = Number.POSITIVE_INFINITY): void {
    this.core.wheel.set(this, Math.min(this.core.deps.now() + ms, this.totalAt, until));
  }

  /** Only the deadline of the whole counts for now. */
  untilTotal(): void {
    this.core.wheel.set(this, this.totalAt);
  }

  /** The deadline of the whole no longer matters. */
  after(ms: number): void {
    this.core.wheel.set(this, this.core.deps.now() + ms);
  }

  stop(): void {
    this.core.wheel.clear(this);
  }
}
