import { describe, expect, test } from "vitest";
import { Health, HEALTH_DEFAULTS, TRIAL_MS_MAX } from "./health.ts";
import { RouteTable } from "./route_table.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";
import { choose, lastResort, tierOf } from "./router.ts";
import { gatewayResources, snapshot, VE } from "./testing.ts";

/** A small generator with a known sequence, so that statistics are the same on every run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function groupOf(targets: readonly [tier: number, weight: number][]): RouteGroup {
  const table = new RouteTable();
  const urls = targets.map((_, i) => `https://u${i}.example`);
  snapshot(table, gatewayResources(urls, { targets: targets.map(([tier, weight]) => ({ tier, weight })) }));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group;
}

function orderOf(group: RouteGroup, random: () => number, now = 0): string[] {
  const tried: RoutePm[] = [];
  for (;;) {
    const pm = choose(group, tried, random, now);
    if (pm === null) return tried.map(({ id }) => id.slice(3));
    tried.push(pm);
  }
}

/** The 0.999 quantile of chi-square for these degrees of freedom. */
const CHI_SQUARE_999: Record<number, number> = { 1: 10.83, 2: 13.82, 3: 16.27, 5: 20.52 };

function chiSquare(seen: readonly number[], shares: readonly number[]): number {
  const total = seen.reduce((a, b) => a + b, 0);
  const weight = shares.reduce((a, b) => a + b, 0);
  return seen.reduce((sum, n, i) => {
    const expected = (total * shares[i]!) / weight;
    return sum + (n - expected) ** 2 / expected;
  }, 0);
}

describe("the first choice", () => {
  test.each([[[1, 1]], [[70, 20, 10]], [[1, 2, 3, 4]], [[999_999, 1_000_000]]])("is drawn by weight %j", (weights) => {
    const group = groupOf(weights.map((weight) => [0, weight]));
    const random = seeded(7);
    const seen = weights.map(() => 0);
    for (let i = 0; i < 100_000; i++) seen[Number(choose(group, null, random, 0)!.id.slice(3))]!++;
    expect(chiSquare(seen, weights)).toBeLessThan(CHI_SQUARE_999[weights.length - 1]!);
  });

  test("is exact at the borders of the draw", () => {
    const group = groupOf([
      [0, 3],
      [0, 1],
    ]);
    const at = (point: number) => choose(group, null, () => point, 0)!.id;
    expect([at(0), at(0.7499), at(0.75), at(0.999999)]).toEqual(["pm_0", "pm_0", "pm_1", "pm_1"]);
  });

  test("among the rest when the drawn one cools down stays in proportion", () => {
    const group = groupOf([
      [0, 5],
      [0, 3],
      [0, 1],
    ]);
    group.pms[0]!.health.fail("account", 0, 0, HEALTH_DEFAULTS);
    const random = seeded(3);
    const seen = [0, 0, 0];
    for (let i = 0; i < 100_000; i++) seen[Number(choose(group, null, random, 1)!.id.slice(3))]!++;
    expect(seen[0]).toBe(0);
    expect(chiSquare(seen.slice(1), [3, 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });
});

describe("the order of fallback", () => {
  test("goes tier by tier, every order within a tier occurs, equally often after the first", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
      [3, 1],
      [3, 1],
    ]);
    const random = seeded(11);
    const orders = new Map<string, number>();
    for (let i = 0; i < 60_000; i++) {
      const order = orderOf(group, random);
      expect(order.length).toBe(5);
      const key = order.join("");
      orders.set(key, (orders.get(key) ?? 0) + 1);
    }
    const first = new Map<string, number>();
    const second = new Map<string, number>();
    for (const [key, n] of orders) {
      first.set(key.slice(0, 3), (first.get(key.slice(0, 3)) ?? 0) + n);
      second.set(key.slice(3), (second.get(key.slice(3)) ?? 0) + n);
    }
    expect([...first.keys()].sort()).toEqual(["012", "021", "102", "120", "201", "210"]);
    expect([...second.keys()].sort()).toEqual(["34", "43"]);
    expect(chiSquare([...first.values()], [1, 1, 1, 1, 1, 1])).toBeLessThan(CHI_SQUARE_999[5]!);
    expect(chiSquare([...second.values()], [1, 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });

  test("the first of a later tier is drawn by weight too", () => {
    const group = groupOf([
      [0, 1],
      [1, 9],
      [1, 1],
    ]);
    const random = seeded(5);
    let heavy = 0;
    for (let i = 0; i < 20_000; i++) if (orderOf(group, random)[1] === "1") heavy++;
    expect(chiSquare([heavy, 20_000 - heavy], [9, 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });

  test("weight 0 is used only after its siblings, and alone in a tier it is used", () => {
    const group = groupOf([
      [0, 1],
      [0, 0],
      [0, 0],
      [1, 0],
      [2, 5],
    ]);
    const random = seeded(2);
    const seen = new Set<string>();
    for (let i = 0; i < 200; i++) seen.add(orderOf(group, random).join(""));
    expect([...seen].sort()).toEqual(["01234", "02134"]);
  });

  test("the tier of a choice is known", () => {
    const group = groupOf([
      [0, 1],
      [7, 1],
    ]);
    expect(group.pms.map((pm) => tierOf(group, pm))).toEqual([0, 7]);
  });
});

describe("health", () => {
  test("cools down after failures in a row, then lets one trial through at a time", () => {
    const health = new Health();
    for (let i = 1; i < HEALTH_DEFAULTS.failuresToCool; i++) health.fail("failure", 0, 0, HEALTH_DEFAULTS);
    expect(health.available(0)).toBe(true);
    health.fail("failure", 0, 0, HEALTH_DEFAULTS);
    expect(health.available(HEALTH_DEFAULTS.cooldownMs - 1)).toBe(false);
    const due = HEALTH_DEFAULTS.cooldownMs;
    expect(health.available(due)).toBe(true);
    health.begin(due);
    expect(health.available(due)).toBe(false);
    health.release();
    expect(health.available(due)).toBe(true);
    health.begin(due);
    health.fail("failure", 0, due, HEALTH_DEFAULTS);
    expect(health.available(due + 2 * HEALTH_DEFAULTS.cooldownMs - 1)).toBe(false);
    health.begin(due + 2 * HEALTH_DEFAULTS.cooldownMs);
    health.succeed();
    expect(health.available(0)).toBe(true);
  });

  test("a success in between starts the count again; what says nothing does not count", () => {
    const health = new Health();
    for (let i = 0; i < 10; i++) {
      health.fail("failure", 0, 0, HEALTH_DEFAULTS);
      health.fail("ignore", 0, 0, HEALTH_DEFAULTS);
      health.succeed();
    }
    expect(health.available(0)).toBe(true);
  });

  test("obeys retry-after up to a minute", () => {
    const health = new Health();
    health.fail("rate_limit", 7_000, 0, HEALTH_DEFAULTS);
    expect([health.available(6_999), health.available(7_000)]).toEqual([false, true]);
    health.fail("rate_limit", 86_400_000, 0, HEALTH_DEFAULTS);
    expect([health.available(59_999), health.available(60_000)]).toEqual([false, true]);
  });

  test("the cooldown has a longest", () => {
    const health = new Health();
    let now = 0;
    for (let i = 0; i < 20; i++) {
      health.fail("failure", 0, now, HEALTH_DEFAULTS);
      now = Math.max(now, health.coolUntil);
    }
    const before = now;
    health.fail("failure", 0, now, HEALTH_DEFAULTS);
    expect(health.coolUntil - before).toBe(HEALTH_DEFAULTS.cooldownMsMax);
  });

  test("a trial that never ends does not block for ever", () => {
    const health = new Health();
    health.fail("account", 0, 0, HEALTH_DEFAULTS);
    health.begin(60_000);
    expect(health.available(60_000 + TRIAL_MS_MAX + 1)).toBe(true);
  });

  test("when all cool down the one that is well first is the last resort", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [1, 1],
    ]);
    group.pms.forEach((pm, i) => pm.health.fail("rate_limit", [9_000, 4_000, 6_000][i]!, 0, HEALTH_DEFAULTS));
    expect(choose(group, null, () => 0, 1)).toBeNull();
    expect(lastResort(group, null, 1)?.id).toBe("pm_1");
    expect(lastResort(group, [group.pms[1]!], 1)?.id).toBe("pm_2");
    expect(choose(group, null, () => 0, 4_000)?.id).toBe("pm_1");
  });
});
