/**
 * What keeps the checkout from being abused: to try stolen cards, to guess secrets, to fill the database. What is refused
 * is not counted, so that whoever waits as told is let in.
 */

import type { Logger } from "pino";
import { Counter } from "prom-client";
import { DomainError } from "../domain/errors.ts";
import {
  MemoryThrottleStore,
  RedisThrottleStore,
  type ThrottleCount,
  type ThrottleRefusal,
  type ThrottleRule,
  type ThrottleStore,
} from "./throttle_store.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** Of strangers: merchants are known by their token. */
export const SESSIONS_BY_ADDRESS: ThrottleRule = {
  limit: "checkout_sessions_per_address",
  max: 20,
  windowMs: MINUTE_MS,
};
export const SESSIONS_BY_VE: ThrottleRule = { limit: "checkout_sessions_per_ve", max: 60, windowMs: MINUTE_MS };
export const PAYMENTS_BY_SESSION: ThrottleRule = { limit: "payments_per_session", max: 10, windowMs: MINUTE_MS };
export const PAYMENTS_BY_VE: ThrottleRule = { limit: "payments_per_ve", max: 30, windowMs: HOUR_MS };
/** Of payers: a merchant's own server pays for many. */
export const PAYMENTS_BY_ADDRESS: ThrottleRule = { limit: "payments_per_address", max: 60, windowMs: HOUR_MS };
/** The processor is asked at each. */
export const CHECKS_BY_SESSION: ThrottleRule = { limit: "payment_checks_per_session", max: 120, windowMs: MINUTE_MS };
export const WRONG_SECRETS_BY_ADDRESS: ThrottleRule = {
  limit: "wrong_secrets_per_address",
  max: 60,
  windowMs: MINUTE_MS,
};

/**
 * What is counted of a VE. Those who may see its wallet (by a signed link, or by the merchant) are counted apart from those
 * who know its id alone, so that strangers cannot shut its payers out.
 */
export function veSubject(veId: string, linked: boolean): string {
  return linked ? `${veId}:linked` : veId;
}

/** So many declined payments of one VE within the window are somebody who tries cards. */
export const DECLINES_MAX = 5;
export const DECLINES_WINDOW_MS = HOUR_MS;
/** After the last of them. */
export const DECLINES_PAUSE_MS = HOUR_MS;

const throttled = new Counter({
  name: "tokenbill_control_throttled_total",
  help: "Calls that were refused because there were too many, by limit.",
  labelNames: ["limit"],
});

/** @throws DomainError limit_reached, always */
function refuse(limit: string, max: number, waitMs: number): never {
  throttled.inc({ limit });
  const seconds = String(Math.max(1, Math.ceil(waitMs / 1000)));
  throw new DomainError("limit_reached", `there were too many of these calls: try again in ${seconds} s`, {
    metadata: { limit, max: String(max), retry_after_s: seconds },
  });
}

/**
 * Refuses where cards are being tried. `declinedAt`: when payments of one VE were declined, of linked sessions or of the others, newest first, at least the
 * newest DECLINES_MAX.
 * @throws DomainError limit_reached
 */
export function checkDeclines(declinedAt: readonly Date[], nowMs: number): void {
  const newest = declinedAt[0]?.getTime();
  const oldest = declinedAt[DECLINES_MAX - 1]?.getTime();
  if (newest === undefined || oldest === undefined || newest - oldest > DECLINES_WINDOW_MS) return;
  const waitMs = newest + DECLINES_PAUSE_MS - nowMs;
  if (waitMs > 0) refuse("declined_payments_per_ve", DECLINES_MAX, waitMs);
}

export interface ThrottleOptions {
  /** Null: there is one control plane, and it counts in memory. */
  readonly redisUrl: string | null;
  readonly log: Logger;
  /** Milliseconds since 1970, alike on all replicas. */
  now(): number;
}

export class Throttle {
  readonly #memory = new MemoryThrottleStore();
  readonly #redis: ThrottleStore | null;
  readonly #log: Logger;
  readonly #now: () => number;

  constructor({ redisUrl, log, now }: ThrottleOptions) {
    this.#log = log;
    this.#now = now;
    this.#redis = redisUrl === null ? null : new RedisThrottleStore(redisUrl, log);
  }

  /** Counts one call for each of `counts`. @throws DomainError limit_reached if one is full; then none is counted */
  async take(...counts: readonly ThrottleCount[]): Promise<void> {
    const refusal = await this.#take(counts);
    if (refusal === null) return;
    const [{ limit, max }] = counts[refusal.index]!;
    refuse(limit, max, refusal.waitMs);
  }

  async close(): Promise<void> {
    await this.#redis?.close();
  }

  /** Where Redis does not answer, what this replica has seen meanwhile is better than nothing. */
  async #take(counts: readonly ThrottleCount[]): Promise<ThrottleRefusal | null> {
    const nowMs = this.#now();
    if (this.#redis === null) return this.#memory.take(counts, nowMs);
    try {
      return await this.#redis.take(counts, nowMs);
    } catch (error) {
      this.#log.debug({ reason: (error as Error).message }, "throttles are counted here alone now");
      return this.#memory.take(counts, nowMs);
    }
  }
}
