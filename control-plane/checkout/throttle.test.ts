/** Both stores count alike; and the checkout goes on without Redis. */

import fc from "fast-check";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../test/support/part.ts";
import { OwnRedis } from "../../test/support/redis_server.ts";
import { DomainError } from "../domain/errors.ts";
import { checkDeclines, DECLINES_MAX, Throttle } from "./throttle.ts";
import { MemoryThrottleStore, RedisThrottleStore, type ThrottleRule, type ThrottleStore } from "./throttle_store.ts";

const log = pino({ level: "silent" });
const NOW = 1_790_000_000_000;
const TWO: ThrottleRule = { limit: "two", max: 2, windowMs: 60_000 };
const THREE: ThrottleRule = { limit: "three", max: 3, windowMs: 3_600_000 };
let redis: OwnRedis;
let first: RedisThrottleStore;
let second: RedisThrottleStore;
let subjects = 0;

beforeAll(async () => {
  redis = await OwnRedis.start();
  first = new RedisThrottleStore(redis.url, log);
  second = new RedisThrottleStore(redis.url, log);
  for (const store of [first, second]) await answering(store);
});

afterAll(async () => {
  await first?.close();
  await second?.close();
  await redis?.close();
});

async function answering(store: ThrottleStore): Promise<void> {
  await until("Redis answers", () => store.take([], NOW).then(() => true));
}

/** Two that count together: two control planes on one Redis, or the one that counts in memory, twice. */
const STORES: [string, () => [ThrottleStore, ThrottleStore]][] = [
  [
    "memory",
    () => {
      const one = new MemoryThrottleStore();
      return [one, one];
    },
  ],
  ["Redis", () => [first, second]],
];

describe.each(STORES)("windows in %s", (_, open) => {
  const subject = (): string => `subject_${subjects++}`;

  test("slide", async () => {
    const [a, b] = open();
    const one = subject();
    expect(await a.take([[TWO, one]], NOW)).toBeNull();
    expect(await b.take([[TWO, one]], NOW + 20_000)).toBeNull();
    expect(await a.take([[TWO, one]], NOW + 20_001)).toEqual({ index: 0, waitMs: 39_999 });
    expect(await a.take([[TWO, one]], NOW + 59_999)).toEqual({ index: 0, waitMs: 1 });
    expect(await b.take([[TWO, one]], NOW + 60_000)).toBeNull();
    expect(await b.take([[TWO, one]], NOW + 60_000)).toEqual({ index: 0, waitMs: 20_000 });
  });

  test("do not mix subjects or limits", async () => {
    const [a] = open();
    const [one, other] = [subject(), subject()];
    for (let i = 0; i < 2; i++) expect(await a.take([[TWO, one]], NOW)).toBeNull();
    expect(await a.take([[TWO, other]], NOW)).toBeNull();
    expect(await a.take([[THREE, one]], NOW)).toBeNull();
  });

  test("count all or none", async () => {
    const [a] = open();
    const [ve, address] = [subject(), subject()];
    for (let i = 0; i < 2; i++) await a.take([[TWO, address]], NOW);
    const both = [
      [THREE, ve],
      [TWO, address],
    ] as const;
    for (let i = 0; i < 5; i++) expect(await a.take(both, NOW + 1)).toEqual({ index: 1, waitMs: 59_999 });
    for (let i = 0; i < 3; i++) expect(await a.take([[THREE, ve]], NOW + 1)).toBeNull();
    expect(await a.take([[THREE, ve]], NOW + 1)).toMatchObject({ index: 0 });
  });

  test("let exactly as many in as they say, however many come at once", async () => {
    const [a, b] = open();
    const one = subject();
    const taken = await Promise.all(Array.from({ length: 40 }, (_none, i) => [a, b][i % 2]!.take([[THREE, one]], NOW)));
    expect(taken.filter((refusal) => refusal === null)).toHaveLength(3);
  });
});

test("any sequence is answered alike by both", async () => {
  const step = fc.record({
    pause: fc.nat(50_000),
    who: fc.nat(2),
    rules: fc.constantFrom([TWO], [THREE], [TWO, THREE]),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const key = `any_${subjects++}`;
      const memory = new MemoryThrottleStore();
      let now = NOW;
      for (const { pause, who, rules } of steps) {
        now += pause;
        const counts = rules.map((rule) => [rule, `${key}_${who}`] as const);
        expect(await first.take(counts, now)).toEqual(await memory.take(counts, now));
      }
    }),
    { numRuns: 30 },
  );
});

test("memory holds so many subjects, and forgets the one that was seen longest ago", async () => {
  const store = new MemoryThrottleStore(3);
  for (const subject of ["a", "b", "a", "c", "d"]) await store.take([[TWO, subject]], NOW);
  expect(store.size).toBe(3);
  expect(await store.take([[TWO, "a"]], NOW)).toMatchObject({ index: 0 });
  expect(await store.take([[TWO, "b"]], NOW)).toBeNull();
  // Another limit has room of its own.
  const flooded = new MemoryThrottleStore(3);
  for (let i = 0; i < 2; i++) await flooded.take([[TWO, "ve"]], NOW);
  for (let i = 0; i < 50; i++) await flooded.take([[THREE, `address_${i}`]], NOW);
  expect(flooded.size).toBe(4);
  expect(await flooded.take([[TWO, "ve"]], NOW)).toMatchObject({ index: 0 });
  // What is over goes by itself.
  const swept = new MemoryThrottleStore();
  for (let i = 0; i < 100; i++) await swept.take([[TWO, `old_${i}`]], NOW);
  for (let i = 0; i < 60; i++) await swept.take([[TWO, "new"]], NOW + 60_000 + i);
  expect(swept.size).toBe(1);
});

async function refusalOf(call: Promise<void>): Promise<DomainError | null> {
  try {
    await call;
    return null;
  } catch (error) {
    if (error instanceof DomainError) return error;
    throw error;
  }
}

test("a refusal says which limit, and when to come again", async () => {
  let now = NOW;
  const throttle = new Throttle({ redisUrl: null, log, now: () => now });
  await throttle.take([TWO, "x"], [THREE, "y"]);
  await throttle.take([TWO, "x"]);
  now += 500;
  expect(await refusalOf(throttle.take([THREE, "y"], [TWO, "x"]))).toMatchObject({
    code: "limit_reached",
    metadata: { limit: "two", max: "2", retry_after_s: "60" },
  });
  now += 59_499;
  expect((await refusalOf(throttle.take([TWO, "x"])))!.metadata["retry_after_s"]).toBe("1");
  now += 1;
  expect(await refusalOf(throttle.take([TWO, "x"]))).toBeNull();
});

test("without Redis each control plane counts by itself, says so once, and shares again when it is back", async () => {
  const own = await OwnRedis.start();
  const lines: string[] = [];
  const warn = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const [one, two] = [0, 1].map(() => new Throttle({ redisUrl: own.url, log: warn, now: () => NOW })) as [
    Throttle,
    Throttle,
  ];
  await until("they are connected", async () => lines.length >= 2);
  await one.take([TWO, "x"]);
  await two.take([TWO, "x"]);
  expect(await refusalOf(one.take([TWO, "x"]))).not.toBeNull();
  lines.length = 0;
  await own.kill();
  for (let i = 0; i < 2; i++) expect(await refusalOf(one.take([TWO, "x"]))).toBeNull();
  expect(await refusalOf(one.take([TWO, "x"]))).not.toBeNull();
  await until("both said so", async () => lines.length >= 2);
  expect(lines.filter((line) => line.includes("Redis does not answer"))).toHaveLength(2);
  await own.start();
  // The new Redis knows nothing: that a third is refused means that both count there.
  await until("they share again", async () => {
    const key = `again_${subjects++}`;
    await one.take([TWO, key]);
    await two.take([TWO, key]);
    return (await refusalOf(one.take([TWO, key]))) !== null;
  });
  await one.close();
  await two.close();
  await own.close();
});

describe("declined payments", () => {
  const minutesAgo = (...minutes: number[]): Date[] => minutes.map((ago) => new Date(NOW - ago * 60_000));

  test.each([
    ["none", minutesAgo(), null],
    ["four", minutesAgo(1, 2, 3, 4), null],
    ["five within the hour", minutesAgo(1, 2, 3, 4, 50), "3540"],
    ["five within an hour that is over", minutesAgo(60, 61, 62, 63, 64), null],
    ["almost over", minutesAgo(59.99, 61, 62, 63, 64), "1"],
    ["five in more than an hour", minutesAgo(1, 2, 3, 4, 62), null],
    ["the fifth came late", minutesAgo(0, 30, 40, 50, 60), "3600"],
    ["the newest five count", minutesAgo(1, 2, 3, 4, 5, 600), "3540"],
  ])("%s", (_name, times, retryAfterS) => {
    let seen: string | null = null;
    try {
      checkDeclines(times, NOW);
    } catch (error) {
      const { code, metadata } = error as DomainError;
      expect(code).toBe("limit_reached");
      expect(metadata).toMatchObject({ limit: "declined_payments_per_ve", max: String(DECLINES_MAX) });
      seen = metadata["retry_after_s"]!;
    }
    expect(seen).toBe(retryAfterS);
  });
});
