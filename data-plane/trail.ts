/** The attempts of one request: which target is next, what became of the ones before, and what to say when none is left. */

import type { Core } from "./core.ts";
import {
  type ErrorAnswer,
  inputTooLarge,
  limitUnavailable,
  modelLimitReached,
  noTarget,
  rateLimited,
} from "./errors.ts";
import type { FailureKind } from "./health.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import { AttemptKind, AttemptResult } from "./outcome.ts";
import { choose, lastResort, tierOf } from "./router.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";

/** Calls of one request to upstreams, whatever the number of targets. Those passed over for a limit are none. */
export const ATTEMPTS_MAX = 16;
/** Targets passed over for a limit that the record of one request tells of. */
export const LIMIT_ENTRIES_MAX = 32;
/** Calls of one target again after a failure that is safe to repeat. */
export const RETRIES_PER_TARGET_MAX = 1;

/** Results of attempts that called nobody. */
const PASSED_OVER: ReadonlySet<AttemptResult> = new Set([
  AttemptResult.LIMIT_REACHED,
  AttemptResult.RATE_LIMITED,
  AttemptResult.NO_CONNECTION,
  AttemptResult.UNSUPPORTED,
]);

export interface Choice {
  readonly pm: RoutePm;
  readonly kind: AttemptKind;
}

/** What the record of an attempt says beyond its result. */
export interface AttemptFacts {
  readonly pm: RoutePm;
  readonly kind: AttemptKind;
  readonly startUs: number;
  readonly firstByteUs: number;
  readonly firstContentUs: number;
  readonly httpStatus: number;
}

/**
 * Why a target was passed over. `reached`: a Unit Limit or Credit Limit has too little left. `unavailable`: one cannot be
 * asked about. `rate`: a rate limit. `too_large`: the input alone is more than one allows. `connection`: this node has no connection to spare.
 * `unsupported`: the target cannot do what the request asks for.
 */
export type Shortage = "reached" | "unavailable" | "rate" | "too_large" | "connection" | "unsupported";

export class Trail {
  /** For the request log. */
  readonly attempts: AttemptEntry[] = [];
  /** How many of them were calls. */
  tries = 0;
  private readonly core: Core;
  private readonly group: RouteGroup;
  private readonly arriveUs: number;
  private readonly stream: boolean;
  private readonly sticky: number;
  /** Of the tries, those that were begun. */
  private begun = 0;
  private newest: RoutePm | null = null;
  private tried: RoutePm[] | null = null;
  private usedLastResort = false;
  /** A target whose connection broke before it answered, and may be asked once more. */
  private resend: RoutePm | null = null;
  private resent = false;
  private retries = 0;
  private onlyRateLimits = true;
  private shortages = 0;
  private tooLarge = 0;
  /** Calls that were refused for what another target may take, and the words of the first target that cannot. */
  private refusedTries = 0;
  private refusal: ErrorAnswer | null = null;
  /** Targets passed over for a limit, and whether all limits are known to be reached. */
  private limitedCount = 0;
  private onlyReached = true;
  private limitRetryMs = Number.POSITIVE_INFINITY;
  private retryAfterMs = Number.POSITIVE_INFINITY;

  /** `sticky`: the hash of the key that the request sticks by, 0 if it does not. */
  constructor(core: Core, group: RouteGroup, arriveUs: number, stream: boolean, sticky: number) {
    this.core = core;
    this.group = group;
    this.arriveUs = arriveUs;
    this.stream = stream;
    this.sticky = sticky;
  }

  /** The next target, its attempt begun; null when there is none. */
  next(): Choice | null {
    if (this.begun >= ATTEMPTS_MAX) return null;
    const now = this.core.deps.now();
    const pm = this.choose(now);
    if (pm !== null) return this.begin(pm, this.begun === 0 ? AttemptKind.FIRST : AttemptKind.FALLBACK, now);
    const last = this.takeLastResort(now);
    if (last !== null) return this.begin(last, AttemptKind.LAST_RESORT, now);
    const again = this.takeResend();
    return again === null ? null : this.begin(again, AttemptKind.RETRY, now);
  }

  /** A target beside the one that is slow, its attempt begun; null when there is none that is well. */
  hedge(): Choice | null {
    if (this.begun >= ATTEMPTS_MAX) return null;
    const now = this.core.deps.now();
    const pm = this.choose(now);
    return pm === null ? null : this.begin(pm, AttemptKind.HEDGE, now);
  }

  /** The target of `hedge` is not called after all. */
  putBack({ pm }: Choice): void {
    this.begun--;
    this.newest = null;
    this.core.health.release(pm);
  }

  /**
   * True: the target that just failed may be called again, since the failure is known to be safe to repeat. Its Provider's
   * budget is charged. A retry never takes the place of a target that was not tried: that one may be well.
   */
  mayRetry(pm: RoutePm): boolean {
    const tried = (this.tried?.length ?? 0) + (this.newest === null ? 0 : 1);
    const untried = this.group.pms.length - tried;
    if (this.retries >= RETRIES_PER_TARGET_MAX || this.begun + untried >= ATTEMPTS_MAX) return false;
    if (!this.core.health.available(pm, this.core.deps.now()) || !pm.provider.retries.take()) return false;
    this.retries++;
    return true;
  }

  /** The attempt that `mayRetry` allowed is begun. */
  retry(pm: RoutePm): Choice {
    return this.begin(pm, AttemptKind.RETRY, this.core.deps.now());
  }

  record(facts: AttemptFacts, result: AttemptResult, detail: string): AttemptEntry {
    const { pm, kind, startUs, httpStatus, firstByteUs, firstContentUs } = facts;
    this.core.deps.metrics.attempt(result, kind);
    const entry: AttemptEntry = {
      physicalModelId: pm.id,
      tier: tierOf(this.group, pm),
      result,
      httpStatus,
      startUs: Math.max(0, startUs - this.arriveUs),
      durationUs: Math.max(0, this.core.nowUs() - startUs),
      kind,
      firstByteUs,
      firstContentUs,
      detail,
      credits: 0n,
    };
    if (!PASSED_OVER.has(result)) this.tries++;
    else if (this.limitedCount + this.shortages > LIMIT_ENTRIES_MAX) return entry;
    this.attempts.push(entry);
    return entry;
  }

  /** Hedged attempts end in any order: the record shows them in the order of their begin. */
  sorted(): readonly AttemptEntry[] {
    return this.attempts.length < 2 ? this.attempts : this.attempts.sort((a, b) => a.startUs - b.startUs);
  }

  /** `resendable`: the connection broke after it stood and before an answer, as kept connections do. */
  failed(pm: RoutePm, kind: FailureKind, retryAfterMs: number, resendable: boolean): void {
    const { deps, health } = this.core;
    health.fail(pm, kind, retryAfterMs, deps.now());
    // Ours to mend, not the client's and not the upstream's: it must be seen.
    if (kind === "account" || kind === "model")
      deps.log.warn({ pm: pm.id, provider: pm.provider.id }, "an upstream refuses our account or model");
    if (resendable && !this.resent) this.resend = pm;
    if (kind === "rate_limit")
      this.retryAfterMs = Math.min(this.retryAfterMs, retryAfterMs || health.settings.rateLimitMs);
    else this.onlyRateLimits = false;
  }

  /** A target refused what another may take. */
  refusedHere(refusal: ErrorAnswer): void {
    this.refusedTries++;
    this.refusal ??= refusal;
  }

  /** What a target cannot do, in words for the client, should no other be able to. */
  cannot(refusal: ErrorAnswer): void {
    this.refusal ??= refusal;
  }

  /** Nothing was called, and the target's health stays as it was. `retryMs`: when there is hope again. */
  passedOver(facts: AttemptFacts, why: Shortage, retryMs: number, detail: string): void {
    const { pm } = facts;
    this.core.health.release(pm);
    this.begun--;
    if (why === "connection") {
      this.onlyRateLimits = false;
      this.shortages++;
      this.core.shortage(pm, detail);
      this.record(facts, AttemptResult.NO_CONNECTION, detail);
      return;
    }
    // If it was the last resort, another may be.
    this.usedLastResort = false;
    if (why === "unsupported") {
      this.record(facts, AttemptResult.UNSUPPORTED, detail);
      return;
    }
    if (why === "rate" || why === "too_large") {
      this.shortages++;
      if (why === "too_large") this.tooLarge++;
      else this.retryAfterMs = Math.min(this.retryAfterMs, retryMs);
      this.record(facts, AttemptResult.RATE_LIMITED, detail);
      return;
    }
    this.limitedCount++;
    if (why === "unavailable") this.onlyReached = false;
    this.limitRetryMs = Math.min(this.limitRetryMs, retryMs);
    this.record(facts, AttemptResult.LIMIT_REACHED, detail);
  }

  /** What the client is told when no target is left. */
  error(model: string): ErrorAnswer {
    const others = this.tries - this.refusedTries + this.shortages + this.limitedCount;
    if (this.refusal !== null && others === 0) return this.refusal;
    if (this.limitedCount > 0 && this.tries + this.shortages === 0)
      return this.onlyReached ? modelLimitReached(model, this.limitRetryMs / 1000) : limitUnavailable(model);
    if (this.tooLarge > 0 && this.tooLarge === this.tries + this.shortages + this.limitedCount)
      return inputTooLarge(model);
    const limited = this.onlyRateLimits && this.retryAfterMs < Number.POSITIVE_INFINITY;
    return limited ? rateLimited(model, this.retryAfterMs / 1000) : noTarget(model);
  }

  private choose(now: number): RoutePm | null {
    if (this.newest !== null) (this.tried ??= []).push(this.newest);
    this.newest = null;
    return choose(this.group, this.tried, this.core.deps.random, now, this.stream, this.sticky);
  }

  private begin(pm: RoutePm, kind: AttemptKind, now: number): Choice {
    this.begun++;
    if (kind !== AttemptKind.RETRY) {
      this.newest = pm;
      this.retries = 0;
      pm.provider.retries.deposit();
    }
    this.core.health.begin(pm, now);
    return { pm, kind };
  }

  private takeLastResort(now: number): RoutePm | null {
    if (this.usedLastResort) return null;
    this.usedLastResort = true;
    return lastResort(this.group, this.tried, now);
  }

  /** Only where there is no other target: one more try at the one whose connection broke, within its Provider's budget. */
  private takeResend(): RoutePm | null {
    const pm = this.resend;
    this.resend = null;
    if (pm === null || !pm.provider.retries.take()) return null;
    this.resent = true;
    return pm;
  }
}
