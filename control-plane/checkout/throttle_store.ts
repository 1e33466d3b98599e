/** Sliding windows: how often something happened lately, in memory for one control plane and in Redis for several. */

import type { Logger } from "pino";
import { RedisScripts, script } from "../redis.ts";

/** At most `max` in any `windowMs`. `limit` names it, for clients and as part of its keys. */
export interface ThrottleRule {
  readonly limit: string;
  readonly max: number;
  readonly windowMs: number;
}

/** One rule, and what it is counted for: an address, a VE. */
export type ThrottleCount = readonly [rule: ThrottleRule, subject: string];

/** Which of the counts is full, and for how long. */
export interface ThrottleRefusal {
  readonly index: number;
  readonly waitMs: number;
}

export interface ThrottleStore {
  /** Counts all of them, or none if one is full. `nowMs`: milliseconds since 1970. @throws when it cannot be known now */
  take(counts: readonly ThrottleCount[], nowMs: number): Promise<ThrottleRefusal | null>;
  close(): Promise<void>;
}

/** Subjects that are counted at the same time; beyond it the one that was seen longest ago is forgotten. */
export const THROTTLE_KEYS_MAX = 50_000;

/** What is over is looked for among the oldest of this many at every turn, so that it goes as fast as new ones come. */
const SWEEP_KEYS = 2;

interface Seen {
  readonly windowMs: number;
  /** Milliseconds since 1970, ascending; at most the rule's `max`. */
  readonly times: number[];
}

export class MemoryThrottleStore implements ThrottleStore {
  readonly #keysMax: number;
  /** The one that was counted last is last. */
  readonly #seen = new Map<string, Seen>();

  constructor(keysMax: number = THROTTLE_KEYS_MAX) {
    this.#keysMax = keysMax;
  }

  get size(): number {
    return this.#seen.size;
  }

  async take(counts: readonly ThrottleCount[], nowMs: number): Promise<ThrottleRefusal | null> {
    this.#sweep(nowMs);
    for (const [index, [rule, subject]] of counts.entries()) {
      const times = this.#seen.get(keyOf(rule, subject))?.times ?? [];
      while (times.length > 0 && times[0]! <= nowMs - rule.windowMs) times.shift();
      if (times.length >= rule.max) return { index, waitMs: times[0]! + rule.windowMs - nowMs };
    }
    for (const [rule, subject] of counts) this.#count(keyOf(rule, subject), rule.windowMs, nowMs);
    return null;
  }

  async close(): Promise<void> {}

  #count(key: string, windowMs: number, nowMs: number): void {
    const times = this.#seen.get(key)?.times ?? [];
    times.push(nowMs);
    this.#seen.delete(key);
    this.#seen.set(key, { windowMs, times });
    if (this.#seen.size > this.#keysMax) this.#seen.delete(this.#seen.keys().next().value!);
  }

  #sweep(nowMs: number): void {
    let looked = 0;
    for (const [key, { windowMs, times }] of this.#seen) {
      if (looked++ === SWEEP_KEYS) return;
      if (times.length === 0 || times.at(-1)! <= nowMs - windowMs) this.#seen.delete(key);
    }
  }
}

function keyOf({ limit }: ThrottleRule, subject: string): string {
  return `${limit}:${subject}`;
}

/** All keys are in one slot of a Redis Cluster. */
const KEY_PREFIX = "{tokenbill}:throttle:";

/**
 * KEYS: lists of moments, the oldest first. ARGV: now, then most and window for each. Returns the place of a full one
 * (from 0) and how long it is so, or nothing after counting all.
 */
const TAKE = script(`
local now = tonumber(ARGV[1])
for i = 1, #KEYS do
  local most, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local first = redis.call('LINDEX', KEYS[i], 0)
  while first and tonumber(first) <= now - window do
    redis.call('LPOP', KEYS[i])
    first = redis.call('LINDEX', KEYS[i], 0)
  end
  if redis.call('LLEN', KEYS[i]) >= most then return { i - 1, first + window - now } end
end
for i = 1, #KEYS do
  redis.call('RPUSH', KEYS[i], ARGV[1])
  redis.call('PEXPIRE', KEYS[i], ARGV[2 * i + 1])
end
return {}
`);

export class RedisThrottleStore implements ThrottleStore {
  readonly #redis: RedisScripts;

  constructor(url: string, log: Logger) {
    this.#redis = new RedisScripts({ url, log, withoutIt: "each control plane throttles checkouts by itself" });
  }

  async take(counts: readonly ThrottleCount[], nowMs: number): Promise<ThrottleRefusal | null> {
    const keys = counts.map(([rule, subject]) => KEY_PREFIX + keyOf(rule, subject));
    const values = counts.flatMap(([{ max, windowMs }]) => [max, windowMs]);
    const [index, waitMs] = await this.#redis.run(TAKE, keys, [nowMs, ...values]);
    return index === undefined ? null : { index: Number(index), waitMs: Number(waitMs) };
  }

  close(): Promise<void> {
    return this.#redis.close();
  }
}
