/** For tests of choices: groups of targets, a known sequence of random numbers, and statistics. */

import { RouteTable } from "./route_table.ts";
import type { RouteGroup, RoutePm } from "./route_types.ts";
import { gatewayResources, snapshot, VE } from "./testing.ts";

/** A small generator with a known sequence, so that statistics are the same on every run. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A Logical Model with these targets, `pm_0` and so on, each at a Provider of its own unless `pm` names one. */
export function groupOf(
  targets: readonly [tier: number, weight: number][],
  pm: Record<string, unknown> = {},
): RouteGroup {
  const table = new RouteTable();
  const urls = targets.map((_, i) => `https://u${i}.example`);
  snapshot(table, gatewayResources(urls, { targets: targets.map(([tier, weight]) => ({ tier, weight })), pm }));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group;
}

/** The 0.999 quantile of chi-square for these degrees of freedom. */
export const CHI_SQUARE_999: Record<number, number> = { 1: 10.83, 2: 13.82, 3: 16.27, 5: 20.52 };

export function chiSquare(seen: readonly number[], shares: readonly number[]): number {
  const total = seen.reduce((a, b) => a + b, 0);
  const weight = shares.reduce((a, b) => a + b, 0);
  return seen.reduce((sum, n, i) => {
    const expected = (total * shares[i]!) / weight;
    return sum + (n - expected) ** 2 / expected;
  }, 0);
}

/** `pm_0`, `pm_1` and so on; a group has them in another order. */
export function targetsOf(group: RouteGroup): RoutePm[] {
  return group.pms.toSorted((a, b) => Number(a.id.slice(3)) - Number(b.id.slice(3)));
}
