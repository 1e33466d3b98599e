/**
 * PURE. Passive health of Physical Models: what failed cools down, then is tried again with one request at a time.
 * Times are milliseconds.
 */

export interface HealthSettings {
  /** Failures in a row before a target cools down. */
  readonly failuresToCool: number;
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
  cooldownMs: 5_000,
  cooldownMsMax: 60_000,
  rateLimitMs: 5_000,
  accountMs: 60_000,
};

/** A longer `retry-after` of an upstream counts as this. */
export const RETRY_AFTER_MS_MAX = 60_000;
/** A trial that never came back blocks the next one no longer than this. */
export const TRIAL_MS_MAX = 120_000;

/** How an attempt failed, as far as health goes. `ignore`: it says nothing about the target. */
export type FailureKind = "failure" | "rate_limit" | "account" | "ignore";

/** The health of one Physical Model on this node. */
export class Health {
  failures = 0;
  /** 0: well. Else the end of the cooldown; after it one trial at a time is allowed until one succeeds. */
  coolUntil = 0;
  private coolMs = 0;
  private trialSince = 0;

  /** True if a request may go there without need: well, or due for a trial with none under way. */
  available(now: number): boolean {
    if (this.coolUntil === 0) return true;
    return now >= this.coolUntil && (this.trialSince === 0 || now - this.trialSince > TRIAL_MS_MAX);
  }

  /** Call when an attempt begins; its end must call `succeed`, `fail` or `release`. */
  begin(now: number): void {
    if (this.coolUntil !== 0) this.trialSince = now;
  }

  /** The attempt ended without a verdict, as when the client went away. */
  release(): void {
    this.trialSince = 0;
  }

  succeed(): void {
    this.failures = 0;
    this.coolUntil = 0;
    this.coolMs = 0;
    this.trialSince = 0;
  }

  /** `retryAfterMs` is the upstream's wish, 0 if it had none. */
  fail(kind: FailureKind, retryAfterMs: number, now: number, settings: HealthSettings): void {
    const trial = this.coolUntil !== 0;
    this.trialSince = 0;
    if (kind === "ignore") return;
    this.failures++;
    const wish = Math.min(Math.max(retryAfterMs, 0), RETRY_AFTER_MS_MAX);
    if (kind === "rate_limit") {
      this.coolUntil = now + (wish || settings.rateLimitMs);
    } else if (kind === "account") {
      this.coolUntil = now + settings.accountMs;
    } else if (trial || this.failures >= settings.failuresToCool || wish > 0) {
      this.coolMs = this.coolMs === 0 ? settings.cooldownMs : Math.min(this.coolMs * 2, settings.cooldownMsMax);
      this.coolUntil = now + Math.max(this.coolMs, wish);
    }
  }
}
