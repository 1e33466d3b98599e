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

/**
 * Subjects of one limit that are counted at the same time; beyond it the one that was counted longest ago is forgotten. Each
 * limit has room of its own, so that a flood of addresses does not make a VE's count forgotten.
 */
export const THROTTLE_KEYS_MAX = 20_000;

/** What is over is looked for among so many of the oldest at every turn, so that it goes faster than new ones come. */
const SWEEP_KEYS = 2;

/** Of each subject, when it was counted: milliseconds since 1970, ascending. The subject that was counted last is last. */
type Seen = Map<string, number[]>;

export class MemoryThrottleStore implements ThrottleStore {
  readonly #keysMax: number;
  readonly #limits = new Map<string, Seen>();

  constructor(keysMax: number = THROTTLE_KEYS_MAX) {
    this.#keysMax = keysMax;
  }

  /** Subjects that are remembered, of all limits. */
  get size(): number {
    return [...this.#limits.values()].reduce((sum, seen) => sum + seen.size, 0);
  }

  async take(counts: readonly ThrottleCount[], nowMs: number): Promise<ThrottleRefusal | null> {
    for (const [index, [rule, subject]] of counts.entries()) {
      const seen = this.#seenBy(rule, nowMs);
      const times = seen.get(subject) ?? [];
      while (times.length > 0 && times[0]! <= nowMs - rule.windowMs) times.shift();
      if (times.length >= rule.max) return { index, waitMs: times[0]! + rule.windowMs - nowMs };
    }
    for (const [rule, subject] of counts) this.#count(this.#limits.get(rule.limit)!, subject, nowMs);
    return null;
  }

  async close(): Promise<void> {}

  /** What was counted for a limit, without the oldest that are over. */
  #seenBy({ limit, windowMs }: ThrottleRule, nowMs: number): Seen {
    const seen = this.#limits.get(limit) ?? new Map<string, number[]>();
    this.#limits.set(limit, seen);
    let looked = 0;
    for (const [subject, times] of seen) {
      if (looked++ === SWEEP_KEYS) break;
      if (times.length === 0 || times.at(-1)! <= nowMs - windowMs) seen.delete(subject);
    }
    return seen;
  }

  #count(seen: Seen, subject: string, nowMs: number): void {
    const times = seen.get(subject) ?? [];
    times.push(nowMs);
    seen.delete(subject);
    seen.set(subject, times);
    if (seen.size > this.#keysMax) seen.delete(seen.keys().next().value!);
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
