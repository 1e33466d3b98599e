/** The attempts of a request that are under way: one, or two where it is hedged. */

import type { Admitted } from "./admitted.ts";
import { Attempt, type AttemptFailure, type AttemptHost } from "./attempt.ts";
import type { Reservation } from "./budget/budget.ts";
import type { Core } from "./core.ts";
import { hedgeReservation } from "./hedging.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import { AttemptResult } from "./outcome.ts";
import { owesInput, Overtaken } from "./overtaken.ts";
import { routable, type RoutePm } from "./route_types.ts";
import type { Timing } from "./timing.ts";
import type { Choice, Trail } from "./trail.ts";
import type { Exchange } from "./transport.ts";

/** Between a failure that is safe to repeat and the same call again. */
export const RETRY_DELAY_MS = 50;

export class Attempts {
  /** The one under way; once there is content, the one that serves. Null: none (any more). */
  current: Attempt | null = null;
  /** The one that was begun because `current` is slow. */
  private rival: Attempt | null = null;
  private hedged = false;
  /** Covers the input of the attempt that loses. */
  private extra: Reservation | null = null;
  /** The target that is called again when the deadline comes. */
  private retry: RoutePm | null = null;
  private readonly core: Core;
  private readonly request: Admitted;
  private readonly exchange: Exchange;
  private readonly trail: Trail;
  private readonly timing: Timing;
  private readonly host: AttemptHost;

  constructor(core: Core, request: Admitted, exchange: Exchange, trail: Trail, timing: Timing, host: AttemptHost) {
    this.core = core;
    this.request = request;
    this.exchange = exchange;
    this.trail = trail;
    this.timing = timing;
    this.host = host;
  }

  /** Begins the next one. False: no target is left. */
  next(): boolean {
    const choice = this.trail.next();
    if (choice !== null) this.start(choice);
    return choice !== null;
  }

  /**
   * Before any content the deadlines of the attempts are their own; the request's is for what comes next: the same call once
   * more, or a hedge. False: there is nothing under way, nor to do.
   */
  goOn(): boolean {
    const pm = this.retry;
    if (pm === null) {
      this.hedge();
      return true;
    }
    this.retry = null;
    if (!routable(pm)) return false;
    this.start(this.trail.retry(pm));
    return true;
  }

  /** The head of an answer came: the target is not slow. */
  answers(attempt: Attempt): void {
    if (attempt === this.current && this.rival === null) this.timing.untilTotal();
  }

  /** An attempt is over. True: the other one goes on. */
  drop(attempt: Attempt): boolean {
    if (attempt === this.current) this.current = this.rival;
    this.rival = null;
    return this.current !== null;
  }

  /** True: the call that failed is made once more in a moment. */
  again(attempt: Attempt, failure: AttemptFailure): boolean {
    if (failure.again !== "safe" || !this.trail.mayRetry(attempt.pm)) return false;
    this.retry = attempt.pm;
    this.timing.within(RETRY_DELAY_MS);
    return true;
  }

  /** The target of a hedge was passed over: the one after it is asked in its place. */
  hedgeAgain(): void {
    this.close();
    this.hedged = false;
    this.hedge();
  }

  /** This attempt decides: another one that is under way has lost. */
  serveBy(attempt: Attempt): void {
    const { core, request, extra } = this;
    const lost = this.keep(attempt, AttemptResult.HEDGE_LOST);
    if (lost !== null && extra !== null && owesInput(lost.other)) {
      this.extra = null;
      new Overtaken(core, request, extra, lost.other, lost.entry).begin();
      return;
    }
    lost?.other.release();
    // Not only at the end: a long stream would keep it from other requests all the while.
    this.close();
  }

  /** This attempt is the last, and nobody serves: another one that is under way ends likewise, and is not billed either. */
  endBy(attempt: Attempt, result: AttemptResult): void {
    this.keep(attempt, result)?.other.release();
  }

  /** Nothing more is begun. */
  stopTrying(): void {
    this.retry = null;
  }

  /** Nobody waits any more. Of two calls the one that was accepted goes on, as it would alone. */
  abandon(): void {
    this.stopTrying();
    const { current, rival } = this;
    if (current !== null && rival !== null)
      this.serveBy(rival.relay !== null && current.relay === null ? rival : current);
  }

  /** What was held for a hedge that was not needed is given back. */
  close(): void {
    if (this.extra !== null) this.core.deps.budget.settle(this.extra, 0n);
    this.extra = null;
  }

  /** Something went wrong: only `current` is still of interest. */
  crash(): void {
    this.stopTrying();
    const { rival } = this;
    this.rival = null;
    if (rival === null) return;
    rival.end();
    rival.release();
    // Half-open health allows one trial at a time: it must not wait for one that nobody will hear of.
    this.core.health.release(rival.pm);
  }

  /** Only `attempt` goes on. The other one is ended and recorded; null: there was none. */
  private keep(attempt: Attempt, result: AttemptResult): { other: Attempt; entry: AttemptEntry } | null {
    const other = attempt === this.current ? this.rival : this.current;
    this.current = attempt;
    this.rival = null;
    if (other === null) return null;
    other.end();
    this.core.health.release(other.pm);
    return { other, entry: this.trail.record(other, result, "") };
  }

  private start(choice: Choice): void {
    const { hedgeAfterMs } = this.request.lm.spec.routing;
    if (hedgeAfterMs > 0 && !this.hedged) this.timing.within(hedgeAfterMs);
    else this.timing.untilTotal();
    this.current = this.make(choice);
    this.current.begin();
  }

  private make(choice: Choice): Attempt {
    return new Attempt(this.core, this.request, this.exchange, choice, this.host);
  }

  /** The present attempt is slow to answer: the next target is asked too, if one is well and the wallet covers it. */
  private hedge(): void {
    this.timing.untilTotal();
    const { current, request, core, trail } = this;
    if (this.hedged || current === null || current.head !== null) return;
    this.hedged = true;
    const choice = trail.hedge();
    if (choice === null) return;
    this.extra = hedgeReservation(core.deps.budget, request, current.pm, choice.pm);
    if (this.extra === null) return trail.putBack(choice);
    this.rival = this.make(choice);
    this.rival.begin();
  }
}
