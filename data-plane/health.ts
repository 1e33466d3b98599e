/**
 * PURE. Passive health of Physical Models and Providers: what failed cools down, then is tried again with one request at a
 * time. Besides, an average of its failures and one of its latency say how much of its weight counts. Times are
 * milliseconds of one clock that the caller gives.
 */

import { FAILURE_HALF_LIFE_MS, faded } from "../core/failure_average.ts";
import { healthShare } from "../core/routing.ts";

export interface HealthSettings {
  /** Failures in a row before a Physical Model cools down; for a Provider, failures to connect. */
  readonly failuresToCool: number;
  /** Failures in a row, of several Physical Models, before their Provider cools down. */
  readonly providerFailuresToCool: number;
  /** The first cooldown; each further failed trial doubles it. */
  readonly cooldownMs: number;
  readonly cooldownMsMax: number;
  /** Cooldown after 429 without `retry-after`. */
  readonly rateLimitMs: number;
  /** Cooldown when the upstream refuses our credentials, our account or the model. */
  readonly accountMs: number;
}

export const HEALTH_DEFAULTS: HealthSettings = {
  failuresToCool: 3,
  providerFailuresToCool: 5,
  cooldownMs: 5_000,
  cooldownMsMax: 60_000,
  rateLimitMs: 5_000,
  accountMs: 60_000,
};

/** A longer `retry-after` of an upstream counts as this. */
export const RETRY_AFTER_MS_MAX = 60_000;
/** A trial that never came back blocks the next one no longer than this. */
export const TRIAL_MS_MAX = 120_000;
/** The end of a cooldown that is over, whatever the time. */
const LONG_PAST = 1;

/** What one result moves the failure average by: a failure among successes is noise, half failing shows within ten. */
const FAILURE_STEP = 0.1;
/** Up to this average a target has its whole weight; see `healthShare`. */
const FAILURE_NOISE = 0.1;
/** A share is computed anew this often, as it returns. */
const SHARE_KEPT_MS = 100;
/** What one answer moves a latency average by. */
const LATENCY_STEP = 0.1;
/** An answer slower than so many averages counts as that: one that stalls is no trend. */
const LATENCY_TIMES_MAX = 4;
/** A latency that was not seen for so long is not known any more, so that a slow target gets another chance. */
export const LATENCY_KEPT_MS = 60_000;

/** Another node's failures are not taken over for so long after a success here: its network may be at fault. */
export const SUCCESS_WINS_MS = 2_000;
/** For the same reason no failure that others saw keeps this node away for longer than this without a trial of its own. */
export const ADOPTED_FAILURE_MS_MAX = 15_000;
/** With fewer results of late than this, what other nodes say of the failures counts. */
export const FEW_RESULTS = 5;

/** Other nodes hear of an average when it moved by this much, and no more often than this. */
const TELL_FAILURE_MOVED = 0.1;
const TELL_LATENCY_TIMES = 1.3;
const TELL_FAILURE_MS = 1_000;
const TELL_LATENCY_MS = 5_000;

/**
 * How an attempt failed, as far as health goes. `connection`: there was none. `account`: the upstream refuses our
 * credentials or account; `model`: it does not know the model or refuses it. `ignore`: it says nothing about the target.
 */
export type FailureKind = "failure" | "connection" | "rate_limit" | "account" | "model" | "ignore";

/** Why something cools down; numbers equal `tokenbill.node.v1.HealthCause`. */
export const HealthCause = { FAILURE: 1, RATE_LIMIT: 2, ACCOUNT: 3 } as const;
export type HealthCause = (typeof HealthCause)[keyof typeof HealthCause];

/** What another node saw. */
export interface SeenElsewhere {
  /** It cools down for so long from now; 0: it does not. */
  readonly coolMs: number;
  /** A HealthCause. 0: only the figures are told of. */
  readonly cause: number;
  readonly failurePercent: number;
  /** 0: not known. */
  readonly firstContentMs: number;
}

/** The health of one Physical Model or one Provider on this node. */
export class Health {
  /** In a row. */
  failures = 0;
  /** 0: well. Else the end of the cooldown; after it one trial at a time is allowed until one succeeds. */
  coolUntil = 0;
  /** Of the last cooldown; 0: there was none. */
  cause: HealthCause | 0 = 0;
  /** Until then it has failed so much that not all of its weight counts. */
  dimUntil = 0;
  /** The part of its weight that counts, as far as failures go; see `refreshShare`. 1 from `dimUntil` on. */
  share = 1;
  private shareAt = 0;
  private coolMs = 0;
  /** The upstream wants to be left alone until then, whatever else it answers. */
  private restUntil = 0;
  private trialSince = 0;
  private successAt = Number.NEGATIVE_INFINITY;
  /** From 0 to 1, as of `averageAt`. */
  private average = 0;
  private averageAt = 0;
  /** How many results there were of late; they fade as the average does. */
  private results = 0;
  private streamMs = 0;
  private streamAt = 0;
  private jsonMs = 0;
  private jsonAt = 0;
  /** Of a Provider: which Physical Model the row of failures began with, and whether it is not the only one. */
  private failedPm = "";
  private severalFailed = false;
  private unconnected = 0;
  /** What other nodes have heard, and when. */
  private toldAverage = 0;
  private toldStreamMs = 0;
  private toldAt = Number.NEGATIVE_INFINITY;

  /** True if a request may go there without need: well, or due for a trial with none under way. */
  available(now: number): boolean {
    if (this.coolUntil === 0) return true;
    return now >= this.coolUntil && (this.trialSince === 0 || now - this.trialSince > TRIAL_MS_MAX);
  }

  /** Call when an attempt begins; its end must call `succeed`, one of the two `fail…` or `release`. */
  begin(now: number): void {
    if (this.coolUntil !== 0) this.trialSince = now;
  }

  /** The attempt ended without a verdict, as when the client went away. */
  release(): void {
    this.trialSince = 0;
  }

  succeed(now: number): void {
    this.failures = this.unconnected = this.trialSince = 0;
    // Calls from before a 429 still come back with content: that is no leave to send more.
    if (now >= this.restUntil) this.coolUntil = this.coolMs = this.restUntil = 0;
    this.failedPm = "";
    this.severalFailed = false;
    this.successAt = now;
    this.count(0, now);
  }

  /** Of a Physical Model. `retryAfterMs` is the upstream's wish, 0 if it had none. */
  fail(kind: FailureKind, retryAfterMs: number, now: number, settings: HealthSettings): void {
    this.trialSince = 0;
    if (kind === "ignore") return;
    this.failures++;
    this.count(1, now);
    const wish = Math.min(Math.max(retryAfterMs, 0), RETRY_AFTER_MS_MAX);
    if (kind === "rate_limit") {
      // The upstream knows best when it takes requests again.
      this.cool(HealthCause.RATE_LIMIT, settings.rateLimitMs, wish, wish > 0, now, settings);
    } else if (kind === "account" || kind === "model") {
      this.cool(HealthCause.ACCOUNT, settings.accountMs, 0, false, now, settings);
    } else if (this.coolUntil !== 0 || this.failures >= settings.failuresToCool || wish > 0) {
      this.cool(HealthCause.FAILURE, settings.cooldownMs, wish, false, now, settings);
    }
  }

  /**
   * Of a Provider, through one of its Physical Models. One that is sick says nothing of the others, so it takes failures
   * of several; or failures to connect, which do not depend on the model. Only these lower the Provider's share.
   */
  failThrough(pmId: string, connection: boolean, now: number, settings: HealthSettings): void {
    this.trialSince = 0;
    this.failures++;
    this.unconnected = connection ? this.unconnected + 1 : 0;
    this.count(connection ? 1 : 0, now);
    if (this.failures === 1) this.failedPm = pmId;
    else if (this.failedPm !== pmId) this.severalFailed = true;
    const inARow = this.severalFailed && this.failures >= settings.providerFailuresToCool;
    if (this.coolUntil !== 0 || inARow || this.unconnected >= settings.failuresToCool)
      this.cool(HealthCause.FAILURE, settings.cooldownMs, 0, false, now, settings);
  }

  /** How long an answer took until its first content. */
  took(stream: boolean, ms: number, now: number): void {
    if (ms <= 0) return;
    const known = this.latencyMs(stream, now);
    const next = known === 0 ? ms : known + LATENCY_STEP * (Math.min(ms, LATENCY_TIMES_MAX * known) - known);
    if (stream) {
      this.streamMs = next;
      this.streamAt = now;
    } else {
      this.jsonMs = next;
      this.jsonAt = now;
    }
  }

  /** Typical time to the first content, of streams or of JSON answers; 0: not known. */
  latencyMs(stream: boolean, now: number): number {
    if (stream) return now - this.streamAt < LATENCY_KEPT_MS ? this.streamMs : 0;
    return now - this.jsonAt < LATENCY_KEPT_MS ? this.jsonMs : 0;
  }

  /** From 0 to 1: of its calls so many failed of late, the newest counting most. */
  failing(now: number): number {
    return faded(this.average, now - this.averageAt);
  }

  /** Brings `share` to the present, for all that matters: an exponential for each target of each choice would not be cheap. */
  refreshShare(now: number): void {
    if (now - this.shareAt < SHARE_KEPT_MS && now < this.dimUntil) return;
    this.share = now < this.dimUntil ? healthShare(100 * this.failing(now)) : 1;
    this.shareAt = now;
  }

  /** What it failed by may be mended: if it cools down, it is due for a trial now. */
  retry(): void {
    this.restUntil = 0;
    if (this.coolUntil !== 0) this.coolUntil = LONG_PAST;
  }

  /**
   * Takes in what another node saw. Its cooldown ends in a trial like an own one, and early when that node is well again;
   * one for failures does not count if there was a success here just now.
   */
  adopt(seen: SeenElsewhere, now: number): void {
    const { cause, firstContentMs } = seen;
    if (cause !== 0 && seen.coolMs === 0) {
      if (now >= this.restUntil) this.retry();
    } else if (cause !== 0) this.adoptCooldown(seen, now);
    if (this.latencyMs(true, now) === 0 && firstContentMs > 0) {
      this.streamMs = this.toldStreamMs = firstContentMs;
      this.streamAt = now;
    }
    const failing = Math.min(seen.failurePercent, 100) / 100;
    if (faded(this.results, now - this.averageAt) >= FEW_RESULTS || failing <= this.failing(now)) return;
    this.results = faded(this.results, now - this.averageAt);
    this.setAverage(failing, now);
    // The others know already.
    this.toldAverage = failing;
  }

  private adoptCooldown({ coolMs, cause }: SeenElsewhere, now: number): void {
    // A cause that this node does not know yet is a failure of some kind.
    const known = cause === HealthCause.RATE_LIMIT || cause === HealthCause.ACCOUNT ? cause : HealthCause.FAILURE;
    // What the upstream itself answered is not that node's network.
    if (known === HealthCause.FAILURE && now - this.successAt < SUCCESS_WINS_MS) return;
    const ms = Math.min(coolMs, known === HealthCause.FAILURE ? ADOPTED_FAILURE_MS_MAX : RETRY_AFTER_MS_MAX);
    if (now + ms <= this.coolUntil) return;
    this.coolUntil = now + ms;
    this.coolMs = Math.max(this.coolMs, ms);
    this.cause = known;
    if (known === HealthCause.RATE_LIMIT) this.restUntil = this.coolUntil;
  }

  /** True if an average moved so much that other nodes should hear of it; then they count as told. */
  hasNews(now: number): boolean {
    if (now - this.toldAt < TELL_FAILURE_MS) return false;
    const failureMoved = Math.abs(this.average - this.toldAverage) >= TELL_FAILURE_MOVED;
    if (!failureMoved && !(now - this.toldAt >= TELL_LATENCY_MS && this.latencyMoved())) return false;
    this.told(now);
    return true;
  }

  told(now: number): void {
    this.toldAverage = this.average;
    this.toldStreamMs = this.streamMs;
    this.toldAt = now;
  }

  private latencyMoved(): boolean {
    const { streamMs, toldStreamMs } = this;
    return streamMs > toldStreamMs * TELL_LATENCY_TIMES || streamMs * TELL_LATENCY_TIMES < toldStreamMs;
  }

  private count(failed: 0 | 1, now: number): void {
    this.results = faded(this.results, now - this.averageAt) + 1;
    const before = this.failing(now);
    this.setAverage(before + FAILURE_STEP * (failed - before), now);
  }

  private setAverage(average: number, now: number): void {
    this.average = average;
    this.averageAt = now;
    const above = average / FAILURE_NOISE;
    this.dimUntil = above > 1 ? now + FAILURE_HALF_LIFE_MS * Math.log2(above) : 0;
    this.share = healthShare(100 * average);
    this.shareAt = now;
  }

  /** `exact`: for as long as the upstream wishes; else at least that long. */
  private cool(
    cause: HealthCause,
    baseMs: number,
    wish: number,
    exact: boolean,
    now: number,
    settings: HealthSettings,
  ): void {
    if (wish > 0) this.restUntil = Math.max(this.restUntil, now + wish);
    if (this.coolUntil > now) {
      // An attempt from before, or the last resort: no trial, so the cooldown stands unless the upstream wants a longer one.
      if (now + wish <= this.coolUntil) return;
      this.coolUntil = now + wish;
    } else {
      const doubled = this.coolUntil === 0 ? 0 : Math.min(this.coolMs * 2, settings.cooldownMsMax);
      this.coolMs = Math.max(baseMs, doubled);
      this.coolUntil = now + (exact ? wish : Math.max(this.coolMs, wish));
      if (cause === HealthCause.RATE_LIMIT) this.restUntil = this.coolUntil;
    }
    this.cause = cause;
  }
}
