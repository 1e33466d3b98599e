/** Both stores do the same, decided by the same rules. */

import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OwnRedis } from "../../test/support/redis_server.ts";
import { until } from "../../test/support/part.ts";
import { COLD_MS, RateKind, type RateReport } from "../domain/rates.ts";
import { MemoryRateStore } from "./memory_store.ts";
import { RedisRateStore } from "./redis_store.ts";
import type { RateShared, RateStore } from "./store.ts";

const log = pino({ level: "silent" });
const draw = (): number => 0.5;
/** After this a limit is no longer one that nodes have just begun to use, for either clock. */
const WARM_MS = COLD_MS + 20;
let redis: OwnRedis;
let first: RedisRateStore;
let second: RedisRateStore;
let subjects = 0;

beforeAll(async () => {
  redis = await OwnRedis.start();
  first = new RedisRateStore({ url: redis.url, log, draw });
  second = new RedisRateStore({ url: redis.url, log, draw });
  for (const store of [first, second]) await answering(store);
});

afterAll(async () => {
  await first?.close();
  await second?.close();
  await redis?.close();
});

async function answering(store: RateStore): Promise<void> {
  await until("Redis answers", () =>
    store.remaining("key", [{ kind: 1, limit: 1 }]).then(
      () => true,
      () => false,
    ),
  );
}

function memory(): MemoryRateStore {
  return new MemoryRateStore(() => performance.now(), draw);
}

/** Two that share their figures: two control planes on one Redis, or the one that counts in memory, twice. */
const STORES: [string, () => [RateStore, RateStore]][] = [
  [
    "memory",
    () => {
      const one = memory();
      return [one, one];
    },
  ],
  ["Redis", () => [first, second]],
];

function reportOf(subjectId: string, fields: Partial<RateReport> = {}): RateReport {
  return { subjectId, kind: RateKind.REQUESTS, limit: 100, used: 0, held: 0, want: 0, ...fields };
}

describe.each(STORES)("rates in %s", (_, open) => {
  const subject = (): string => `key_${subjects++}`;
  const share = (
    store: RateStore,
    bootId: string,
    reports: readonly RateReport[],
    final = false,
  ): Promise<RateShared> => store.share({ bootId, reports, final, withTight: true });

  test("nodes see what the others used and hold", async () => {
    const [a, b] = open();
    const key = subject();
    expect((await share(a, "boot_1", [reportOf(key, { used: 20, want: 30 })])).grants).toEqual([
      { allowance: 40, remaining: 80 },
    ]);
    expect((await share(b, "boot_2", [reportOf(key, { used: 10, want: 50 })])).grants).toEqual([
      { allowance: 30, remaining: 70 },
    ]);
    expect(await b.remaining(key, [{ kind: RateKind.REQUESTS, limit: 100 }])).toEqual([70]);
  });

  test("a report that is repeated changes nothing", async () => {
    const [a, b] = open();
    const key = subject();
    await share(a, "boot_2", [reportOf(key, { used: 50, want: 30 })]);
    const once = await share(a, "boot_1", [reportOf(key, { used: 5, want: 30 })]);
    expect((await share(b, "boot_1", [reportOf(key, { used: 5, want: 30 })])).grants).toEqual(once.grants);
  });

  test("what a node had counts until it says that it has less", async () => {
    const [a, b] = open();
    const key = subject();
    await share(a, "boot_1", [reportOf(key, { want: 100 })]);
    await share(a, "boot_1", [reportOf(key, { used: 10, held: 90, want: 1 })]);
    expect((await share(b, "boot_2", [reportOf(key, { want: 5 })])).grants[0]!.allowance).toBe(0);
    await share(a, "boot_1", [reportOf(key, { used: 10, held: 0, want: 1 })]);
    expect((await share(b, "boot_2", [reportOf(key, { want: 5 })])).grants[0]!.allowance).toBeGreaterThanOrEqual(5);
  });

  test("a node that stops gives back what it held, and what it used counts on", async () => {
    const [a, b] = open();
    const key = subject();
    await share(a, "boot_1", [reportOf(key, { used: 10, want: 90 })]);
    const { nodes } = await share(a, "boot_2", [reportOf(key, { want: 50 })]);
    await share(b, "boot_1", [reportOf(key, { used: 30 })], true);
    const after = await share(b, "boot_2", [reportOf(key, { want: 90 })]);
    expect(after).toMatchObject({ grants: [{ allowance: 70, remaining: 70 }], nodes: nodes - 1 });
  });

  test("one that has forgotten a limit is as if it had never been there", async () => {
    const [a] = open();
    const key = subject();
    await share(a, "boot_1", [reportOf(key, { used: 10, want: 5 })]);
    await share(a, "boot_1", [reportOf(key, { limit: 0 })]);
    await share(a, "boot_2", [reportOf(key)]);
    await delay(WARM_MS);
    expect((await share(a, "boot_2", [reportOf(key)])).grants).toEqual([{ allowance: 50, remaining: 100 }]);
  });

  test("kinds and subjects do not mix; many go in one call", async () => {
    const [a, b] = open();
    const key = subject();
    const reports = Array.from({ length: 250 }, (_none, i) => reportOf(`${key}_${i}`, { used: i }));
    await share(a, "boot_1", [...reports, reportOf(key, { kind: RateKind.CONCURRENT, used: 7 })]);
    const limits = [
      { kind: RateKind.REQUESTS, limit: 100 },
      { kind: RateKind.TOKENS, limit: 100 },
      { kind: RateKind.CONCURRENT, limit: 100 },
    ];
    expect(await b.remaining(key, limits)).toEqual([100, 100, 93]);
    expect(await b.remaining(`${key}_42`, limits)).toEqual([58, 100, 100]);
  });

  test("what has less than a tenth left is named to all nodes, until there is more", async () => {
    const [a, b] = open();
    const key = subject();
    const named = async (): Promise<unknown[]> =>
      (await share(b, "boot_2", [])).tight.filter(({ subjectId }) => subjectId === key);
    await share(a, "boot_1", [reportOf(key, { used: 91 }), reportOf(key, { kind: RateKind.TOKENS, used: 90 })]);
    expect(await named()).toEqual([{ subjectId: key, kind: RateKind.REQUESTS }]);
    await share(a, "boot_1", [reportOf(key, { used: 90 })]);
    expect(await named()).toEqual([]);
  });

  test("nodes that begin together keep their shares until they have an answer", async () => {
    const [a, b] = open();
    const key = subject();
    for (const boot of ["boot_1", "boot_2"]) await share(a, boot, []);
    const { nodes } = await share(b, "boot_3", []);
    const part = Math.floor(600 / nodes);
    const first = await share(a, "boot_1", [reportOf(key, { limit: 600, used: 5, held: part - 5, want: 600 })]);
    expect(first.grants[0]!.allowance).toBe(600 - 5 - (nodes - 1) * part);
    const second = await share(b, "boot_2", [reportOf(key, { limit: 600, held: part, want: 1 })]);
    expect(second.grants[0]!.allowance).toBe(part);
    await delay(WARM_MS);
    await share(a, "boot_2", [reportOf(key, { limit: 600, used: 10 })]);
    const later = await share(b, "boot_1", [reportOf(key, { limit: 600, used: 10, want: 600 })]);
    expect(later.grants[0]!.allowance).toBeGreaterThan(200);
  });

  test("what a node lacks is named to all nodes, however much others hold ready", async () => {
    const [a, b] = open();
    const key = subject();
    const kind = RateKind.CONCURRENT;
    const isNamed = ({ tight }: RateShared): boolean => tight.some((one) => one.subjectId === key && one.kind === kind);
    await share(a, "boot_1", [reportOf(key, { kind, limit: 2 })]);
    await delay(WARM_MS);
    await share(a, "boot_1", [reportOf(key, { kind, limit: 2, want: 2 })]);
    const lacking = await share(b, "boot_2", [reportOf(key, { kind, limit: 2, want: 1 })]);
    expect(lacking.grants).toEqual([{ allowance: 0, remaining: 2 }]);
    expect(isNamed(lacking)).toBe(true);
    // Who has enough does not take it off the list.
    expect(isNamed(await share(a, "boot_1", [reportOf(key, { kind, limit: 2, held: 2, want: 2 })]))).toBe(true);
    await share(a, "boot_1", [reportOf(key, { kind, limit: 2, held: 0, want: 0 })]);
    const given = await share(b, "boot_2", [reportOf(key, { kind, limit: 2, want: 1 })]);
    expect(given.grants[0]!.allowance).toBeGreaterThanOrEqual(1);
    expect(isNamed(given)).toBe(false);
  });

  test("limits as large as they may be", async () => {
    const [a, b] = open();
    const key = subject();
    const big = { kind: RateKind.TOKENS, limit: 1_000_000_000_000 };
    await share(a, "boot_1", [reportOf(key, { ...big, used: 400_000_000_001, want: 1 })]);
    await delay(WARM_MS);
    expect((await share(b, "boot_2", [reportOf(key, { ...big, want: 300_000_000_000 })])).grants).toEqual([
      { allowance: 300_000_000_000, remaining: 599_999_999_999 },
    ]);
  });
});

describe("any sequence of reports", () => {
  const step = fc.record({
    boot: fc.nat(4),
    kind: fc.constantFrom(RateKind.REQUESTS, RateKind.TOKENS, RateKind.CONCURRENT),
    limit: fc.constantFrom(0, 1, 7, 100, 1_000_000_000_000),
    used: fc.nat(120),
    held: fc.nat(30),
    want: fc.oneof(fc.nat(10), fc.nat(200)),
    final: fc.boolean(),
  });

  test("is answered alike by both, and never grants more than there is", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const key = `key_${subjects++}`;
        const one = memory();
        // The two clocks may not agree on when the first moments are over, so those are past; and as many nodes are known.
        const kinds = [RateKind.REQUESTS, RateKind.TOKENS, RateKind.CONCURRENT].map((kind) => reportOf(key, { kind }));
        for (let boot = 0; boot < 6; boot++) {
          const begun = { bootId: `boot_${boot}`, reports: boot === 5 ? kinds : [], final: false, withTight: false };
          for (const store of [one, first]) await store.share(begun);
        }
        await delay(WARM_MS);
        for (const { boot, final, ...fields } of steps) {
          const given = {
            bootId: `boot_${boot}`,
            reports: [reportOf(key, fields)],
            final: final && boot === 0,
            withTight: true,
          };
          const [expected, seen] = [await one.share(given), await first.share(given)];
          expect(seen.grants).toEqual(expected.grants);
          const { allowance, remaining } = expected.grants[0]!;
          expect(allowance).toBeLessThanOrEqual(remaining);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe("without Redis", () => {
  test("calls fail at once, and work again when it is back, with nothing in it", async () => {
    const key = "key_lost";
    await first.share({ bootId: "boot_1", reports: [reportOf(key, { used: 50 })], final: false, withTight: false });
    await redis.kill();
    await expect(first.share({ bootId: "boot_1", reports: [], final: false, withTight: false })).rejects.toThrow();
    await redis.start();
    await answering(first);
    expect(await first.remaining(key, [{ kind: RateKind.REQUESTS, limit: 100 }])).toEqual([100]);
    await first.share({ bootId: "boot_1", reports: [reportOf(key, { used: 50 })], final: false, withTight: false });
    expect(await first.remaining(key, [{ kind: RateKind.REQUESTS, limit: 100 }])).toEqual([50]);
  });
});
