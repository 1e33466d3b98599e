import { describe, expect, test } from "vitest";
import { HEALTH_DEFAULTS } from "./health.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";
import { choose, lastResort, tierOf } from "./router.ts";
import { CHI_SQUARE_999, chiSquare, groupOf, seeded } from "./testing_router.ts";

function orderOf(group: RouteGroup, random: () => number, now = 0): string[] {
  const tried: RoutePm[] = [];
  for (;;) {
    const pm = choose(group, tried, random, now);
    if (pm === null) return tried.map(({ id }) => id.slice(3));
    tried.push(pm);
  }
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

describe("the last resort", () => {
  test("is the target that will be well first when all cool down", () => {
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
