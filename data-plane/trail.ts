/** The attempts of one request: which target is next, what became of the ones before, and what to say when none is left. */

import type { Core } from "./core.ts";
import { type ErrorAnswer, limitUnavailable, modelLimitReached, noTarget, rateLimited } from "./errors.ts";
import type { FailureKind } from "./health.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import type { LimitFailure } from "./limits.ts";
import { AttemptResult } from "./outcome.ts";
import { choose, lastResort, tierOf } from "./router.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";

/** Calls of one request to upstreams, whatever the number of targets. Those passed over for a limit are none. */
export const ATTEMPTS_MAX = 8;
/** Targets passed over for a limit that the record of one request tells of. */
export const LIMIT_ENTRIES_MAX = 32;

export class Trail {
  /** For the request log. */
  readonly attempts: AttemptEntry[] = [];
  /** How many of them were calls. */
  tries = 0;
  private readonly core: Core;
  private readonly group: RouteGroup;
  private readonly arriveUs: number;
  private tried: RoutePm[] | null = null;
  private usedLastResort = false;
  /** A target whose connection broke before it answered, and may be asked once more. */
  private resend: RoutePm | null = null;
  private resent = false;
  private onlyRateLimits = true;
  private shortages = 0;
  /** Targets passed over for a limit, and whether all limits are known to be reached. */
  private limitedCount = 0;
  private onlyReached = true;
  private limitRetryMs = Number.POSITIVE_INFINITY;
  private retryAfterMs = Number.POSITIVE_INFINITY;
  private startUs = 0;

  constructor(core: Core, group: RouteGroup, arriveUs: number) {
    this.core = core;
    this.group = group;
    this.arriveUs = arriveUs;
  }

  /** The next target, its attempt begun; null when there is none. */
  next(): RoutePm | null {
    if (this.tries >= ATTEMPTS_MAX) return null;
    const now = this.core.deps.now();
    const pm =
      choose(this.group, this.tried, this.core.deps.random, now) ?? this.takeLastResort(now) ?? this.takeResend();
    if (pm === null) return null;
    this.startUs = this.core.nowUs();
    this.core.health.begin(pm, now);
    return pm;
  }

  record(pm: RoutePm, result: AttemptResult, httpStatus: number): void {
    this.core.deps.metrics.attempt(result);
    if (result !== AttemptResult.LIMIT_REACHED) this.tries++;
    else if (this.limitedCount > LIMIT_ENTRIES_MAX) return;
    this.attempts.push({
      physicalModelId: pm.id,
      tier: tierOf(this.group, pm),
      result,
      httpStatus,
      startUs: Math.max(0, this.startUs - this.arriveUs),
      durationUs: Math.max(0, this.core.nowUs() - this.startUs),
    });
  }

  /** `resendable`: the connection broke after it stood and before an answer, as kept connections do. */
  failed(pm: RoutePm, kind: FailureKind, retryAfterMs: number, resendable: boolean): void {
    const { deps, health } = this.core;
    health.fail(pm, kind, retryAfterMs, deps.now());
    // Ours to mend, not the client's and not the upstream's: it must be seen.
    if (kind === "account")
      deps.log.warn({ pm: pm.id, provider: pm.provider.id }, "an upstream refuses our account or model");
    (this.tried ??= []).push(pm);
    if (resendable && !this.resent) this.resend = pm;
    if (kind === "rate_limit")
      this.retryAfterMs = Math.min(this.retryAfterMs, retryAfterMs || health.settings.rateLimitMs);
    else this.onlyRateLimits = false;
  }

  /** This node had no connection to spare: nothing was tried, and the target's health stays as it was. */
  skipped(pm: RoutePm, detail: string): void {
    this.core.health.release(pm);
    (this.tried ??= []).push(pm);
    this.onlyRateLimits = false;
    this.shortages++;
    this.core.shortage(pm, detail);
  }

  /** At a limit, as far as this node can tell: nothing was tried. */
  limited(pm: RoutePm, failure: LimitFailure, retryMs: number): void {
    this.core.health.release(pm);
    (this.tried ??= []).push(pm);
    this.limitedCount++;
    if (failure === "unavailable") this.onlyReached = false;
    this.limitRetryMs = Math.min(this.limitRetryMs, retryMs);
    // If it was the last resort, another may be.
    this.usedLastResort = false;
    this.record(pm, AttemptResult.LIMIT_REACHED, 0);
  }

  /** What the client is told when no target is left. */
  error(model: string): ErrorAnswer {
    if (this.limitedCount > 0 && this.tries + this.shortages === 0)
      return this.onlyReached ? modelLimitReached(model, this.limitRetryMs / 1000) : limitUnavailable(model);
    const limited = this.onlyRateLimits && this.tries > 0;
    return limited ? rateLimited(model, this.retryAfterMs / 1000) : noTarget(model);
  }

  private takeLastResort(now: number): RoutePm | null {
    if (this.usedLastResort) return null;
    this.usedLastResort = true;
    return lastResort(this.group, this.tried, now);
  }

  /** Only where there is no other target: one more try at the one whose connection broke. */
  private takeResend(): RoutePm | null {
    const pm = this.resend;
    this.resend = null;
    if (pm !== null) this.resent = true;
    return pm;
  }
}
