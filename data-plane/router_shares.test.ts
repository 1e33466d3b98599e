import { describe, expect, test } from "vitest";
import { healthShare, stickyHash } from "../core/routing.ts";
import { HEALTH_DEFAULTS } from "./health.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";
import { choose } from "./router.ts";
import { TargetHealth } from "./target_health.ts";
import { CHI_SQUARE_999, chiSquare, groupOf, seeded, targetsOf } from "./testing_router.ts";

const T = 1_000_000;
const DRAWS = 100_000;

/** So many of a hundred of its calls failed, as other nodes say. */
function failing(pm: RoutePm, failurePercent: number, now = T): void {
  pm.health.adopt({ coolMs: 0, cause: 0, failurePercent, firstContentMs: 0 }, now);
}

function count(group: RouteGroup, now = T, stream = false, random = seeded(7)): number[] {
  const seen = group.pms.map(() => 0);
  for (let i = 0; i < DRAWS; i++) seen[Number(choose(group, null, random, now, stream)!.id.slice(3))]!++;
  return seen;
}

describe("the draw", () => {
  test("is by weight times what failures leave of it", () => {
    const group = groupOf([
      [0, 4],
      [0, 2],
      [0, 1],
      [0, 1],
    ]);
    failing(targetsOf(group)[0]!, 50);
    failing(targetsOf(group)[1]!, 90);
    const shares = [4 * healthShare(50), 2 * healthShare(90), 1, 1];
    expect(chiSquare(count(group), shares)).toBeLessThan(CHI_SQUARE_999[3]!);
  });

  test("is by weight times what latency leaves of it, apart for streams and JSON answers", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    for (const [i, ms] of [400, 2_000, 60_000].entries()) targetsOf(group)[i]!.health.took(true, ms, T);
    expect(chiSquare(count(group, T, true), [1, 0.4, 0.1])).toBeLessThan(CHI_SQUARE_999[2]!);
    expect(chiSquare(count(group, T, false), [1, 1, 1])).toBeLessThan(CHI_SQUARE_999[2]!);
  });

  test("compares latency with those that can be used", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    for (const [i, ms] of [100, 2_000, 2_000].entries()) targetsOf(group)[i]!.health.took(true, ms, T);
    targetsOf(group)[0]!.health.fail("model", 0, T, HEALTH_DEFAULTS);
    const seen = count(group, T, true);
    expect(seen[0]).toBe(0);
    expect(chiSquare(seen.slice(1), [1, 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });

  test("leaves those out that cool down while others have a share", () => {
    const group = groupOf([
      [0, 5],
      [0, 3],
      [0, 1],
    ]);
    targetsOf(group)[0]!.health.fail("model", 0, T, HEALTH_DEFAULTS);
    failing(targetsOf(group)[1]!, 50);
    const seen = count(group);
    expect(seen[0]).toBe(0);
    expect(chiSquare(seen.slice(1), [3 * healthShare(50), 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });

  test("of what follows is by the share alone", () => {
    const group = groupOf([
      [0, 1],
      [0, 9],
      [0, 1],
    ]);
    failing(targetsOf(group)[1]!, 50);
    const random = seeded(5);
    const seen = [0, 0];
    for (let i = 0; i < DRAWS; i++)
      seen[choose(group, [targetsOf(group)[0]!], random, T) === targetsOf(group)[1]! ? 0 : 1]!++;
    expect(chiSquare(seen, [healthShare(50), 1])).toBeLessThan(CHI_SQUARE_999[1]!);
  });

  test("minds a Provider that cannot be connected to, for each of its models", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    const { health } = targetsOf(group)[0]!.provider;
    health.adopt({ coolMs: 0, cause: 0, failurePercent: 50, firstContentMs: 0 }, T);
    failing(targetsOf(group)[0]!, 30);
    expect(chiSquare(count(group), [healthShare(50), 1, 1])).toBeLessThan(CHI_SQUARE_999[2]!);
  });

  test("is by weight when targets that could be slow are alike", () => {
    const group = groupOf([
      [0, 3],
      [0, 1],
      [0, 1],
    ]);
    for (const [i, ms] of [900, 1_300, 700].entries()) targetsOf(group)[i]!.health.took(true, ms, T);
    expect(chiSquare(count(group, T, true), [3, 1, 1])).toBeLessThan(CHI_SQUARE_999[2]!);
  });

  test("reaches more targets in one tier than any configuration has", () => {
    const group = groupOf(Array.from({ length: 150 }, () => [0, 1] as [number, number]));
    failing(targetsOf(group)[0]!, 50);
    const seen = count(group);
    expect(Math.min(...seen)).toBeGreaterThan(0);
  });
});

test("the share of a target that fails half its calls falls, and returns when it recovers", () => {
  const group = groupOf([
    [0, 1],
    [0, 1],
    [0, 1],
  ]);
  const health = new TargetHealth({ ...HEALTH_DEFAULTS, failuresToCool: 1_000 });
  const sick = targetsOf(group)[0]!;
  const random = seeded(3);
  let now = T;
  /** Of a minute's traffic, 20 requests a second, how much went to the sick one in its last half. */
  const shareOfMinute = (failsAt: number): number => {
    let hits = 0;
    for (let i = 0; i < 1_200; i++) {
      now += 50;
      const pm = choose(group, null, random, now)!;
      health.begin(pm, now);
      if (pm === sick && random() < failsAt) health.fail(pm, "failure", 0, now);
      else health.succeed(pm, now, false, 0);
      if (i >= 600 && pm === sick) hits++;
    }
    return hits / 600;
  };
  expect(shareOfMinute(0)).toBeGreaterThan(0.28);
  expect(shareOfMinute(0.5)).toBeLessThan(0.25);
  expect(shareOfMinute(1)).toBeLessThan(0.12);
  expect(shareOfMinute(0)).toBeGreaterThan(0.28);
});

describe("sticky requests", () => {
  const keys = Array.from({ length: 20_000 }, (_, i) => stickyHash(`user-${i}`));
  const never = (): number => {
    throw new Error("a sticky request draws nothing");
  };
  const homes = (group: RouteGroup, tried: readonly RoutePm[] | null = null): RoutePm[] =>
    keys.map((key) => choose(group, tried, never, T, false, key)!);
  const counts = (group: RouteGroup, chosen: readonly RoutePm[]): number[] =>
    targetsOf(group).map((pm) => chosen.filter((each) => each === pm).length);

  test("go where their key says, by weight", () => {
    const group = groupOf([
      [0, 1],
      [0, 2],
      [0, 3],
      [0, 4],
    ]);
    const chosen = homes(group);
    expect(homes(group)).toEqual(chosen);
    expect(chiSquare(counts(group, chosen), [1, 2, 3, 4])).toBeLessThan(CHI_SQUARE_999[3]!);
  });

  test("move only from a target that cools down, spread by weight, and come back", () => {
    const group = groupOf([
      [0, 3],
      [0, 1],
      [0, 2],
    ]);
    const before = homes(group);
    const gone = targetsOf(group)[0]!;
    gone.health.fail("model", 0, T, HEALTH_DEFAULTS);
    const meanwhile = homes(group);
    const moved = meanwhile.filter((_, i) => before[i] === gone);
    meanwhile.forEach((pm, i) => {
      if (before[i] !== gone) expect(pm).toBe(before[i]);
    });
    expect(chiSquare(counts(group, moved).slice(1), [1, 2])).toBeLessThan(CHI_SQUARE_999[1]!);
    gone.health.succeed(T);
    expect(homes(group)).toEqual(before);
  });

  test("leave a target that fails as its share falls, and no others move", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    const before = homes(group);
    failing(targetsOf(group)[0]!, 50);
    const after = homes(group);
    after.forEach((pm, i) => {
      if (before[i] !== targetsOf(group)[0]) expect(pm).toBe(before[i]);
    });
    expect(chiSquare(counts(group, after), [healthShare(50), 1, 1])).toBeLessThan(CHI_SQUARE_999[2]!);
  });

  test("fall back in the order that cooling targets would leave them, then to those of weight 0, then to the next tier", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [0, 1],
      [0, 0],
      [1, 1],
      [1, 1],
    ]);
    for (const key of keys.slice(0, 200)) {
      const order: RoutePm[] = [];
      for (let pm = choose(group, null, never, T, true, key); pm !== null;) {
        order.push(pm);
        pm = choose(group, order, never, T, true, key);
      }
      expect(order).toHaveLength(6);
      expect(new Set(order.slice(0, 3))).toEqual(new Set(targetsOf(group).slice(0, 3)));
      expect(order[3]).toBe(targetsOf(group)[3]);
      const [first, second] = order;
      first!.health.fail("model", 0, T, HEALTH_DEFAULTS);
      expect(choose(group, null, never, T, true, key)).toBe(second);
      first!.health.succeed(T);
    }
  });

  test("have homes that do not depend on each other's tiers", () => {
    const group = groupOf([
      [0, 1],
      [0, 1],
      [1, 1],
      [1, 1],
    ]);
    const first = homes(group);
    const later = homes(group, targetsOf(group).slice(0, 2));
    for (const home of targetsOf(group).slice(0, 2)) {
      const seen = counts(
        group,
        later.filter((_, i) => first[i] === home),
      ).slice(2);
      expect(chiSquare(seen, [1, 1])).toBeLessThan(CHI_SQUARE_999[1]!);
    }
  });
});
