/** The attempts of one request: which target is next, what became of the ones before, and what to say when none is left. */

import type { Core } from "./core.ts";
import { type ErrorAnswer, noTarget, rateLimited } from "./errors.ts";
import type { FailureKind } from "./health.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import type { AttemptResult } from "./outcome.ts";
import { choose, lastResort, tierOf } from "./router.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";

/** Attempts of one request, whatever the number of targets. */
export const ATTEMPTS_MAX = 8;

export class Trail {
  readonly attempts: AttemptEntry[] = [];
  private readonly core: Core;
  private readonly group: RouteGroup;
  private readonly arriveUs: number;
  private tried: RoutePm[] | null = null;
  private usedLastResort = false;
  /** A target whose connection broke before it answered, and may be asked once more. */
  private resend: RoutePm | null = null;
  private resent = false;
  private onlyRateLimits = true;
  private retryAfterMs = Number.POSITIVE_INFINITY;
  private startUs = 0;

  constructor(core: Core, group: RouteGroup, arriveUs: number) {
    this.core = core;
    this.group = group;
    this.arriveUs = arriveUs;
  }

  /** The next target, its attempt begun; null when there is none. */
  next(): RoutePm | null {
    if (this.attempts.length >= ATTEMPTS_MAX) return null;
    const now = this.core.deps.now();
    const pm =
      choose(this.group, this.tried, this.core.deps.random, now) ?? this.takeLastResort(now) ?? this.takeResend();
    if (pm === null) return null;
    this.startUs = this.core.nowUs();
    pm.health.begin(now);
    return pm;
  }

  record(pm: RoutePm, result: AttemptResult, httpStatus: number): void {
    this.core.deps.metrics.attempt(result);
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
    pm.health.fail(kind, retryAfterMs, deps.now(), health);
    // Ours to mend, not the client's and not the upstream's: it must be seen.
    if (kind === "account")
      deps.log.warn({ pm: pm.id, provider: pm.provider.id }, "an upstream refuses our account or model");
    (this.tried ??= []).push(pm);
    if (resendable && !this.resent) this.resend = pm;
    if (kind === "rate_limit") this.retryAfterMs = Math.min(this.retryAfterMs, retryAfterMs || health.rateLimitMs);
    else this.onlyRateLimits = false;
  }

  /** This node had no connection to spare: nothing was tried, and the target's health stays as it was. */
  skipped(pm: RoutePm, detail: string): void {
    pm.health.release();
    (this.tried ??= []).push(pm);
    this.onlyRateLimits = false;
    this.core.shortage(pm, detail);
  }

  /** What the client is told when no target is left. */
  error(model: string): ErrorAnswer {
    const limited = this.onlyRateLimits && this.attempts.length > 0;
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
