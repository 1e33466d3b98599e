/**
 * PURE. In which order the targets of a Logical Model are tried. Tiers in order; in a tier one target is drawn by weight,
 * its siblings follow in random order, and those of weight 0 after them. Everything is drawn only when it is needed.
 */

import type { RouteGroup, RoutePm, RouteTier } from "./route_types.ts";
import { routable } from "./route_types.ts";

export type Random = () => number;

/** A 32-bit hash of a sticky key, never 0 (which means that a request does not stick). FNV-1a over UTF-16 units. */
export function stickyHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0 || 1;
}

/** The tier that a choice came from is needed for the record of the attempt. */
export function tierOf(group: RouteGroup, pm: RoutePm): number {
  for (const tier of group.tiers) {
    if (tier.pms.includes(pm)) return tier.tier;
  }
  return 0;
}

function usable(pm: RoutePm, now: number): boolean {
  return routable(pm) && pm.health.available(now);
}

/** Draws among the weighted targets; when the one drawn cannot be used, once more among those that can. */
function drawByWeight(tier: RouteTier, random: Random, now: number): RoutePm | null {
  const { pms, cumulative } = tier;
  const count = cumulative.length;
  if (count === 0) return null;
  if (count === 1) return usable(pms[0]!, now) ? pms[0]! : null;
  const point = random() * cumulative[count - 1]!;
  let at = 0;
  while (cumulative[at]! <= point) at++;
  if (usable(pms[at]!, now)) return pms[at]!;
  return redraw(tier, random, now);
}

function redraw(tier: RouteTier, random: Random, now: number): RoutePm | null {
  const { pms, cumulative } = tier;
  let total = 0;
  for (let i = 0; i < cumulative.length; i++) if (usable(pms[i]!, now)) total += weightOf(cumulative, i);
  if (total === 0) return null;
  let point = random() * total;
  let last: RoutePm | null = null;
  for (let i = 0; i < cumulative.length; i++) {
    if (!usable(pms[i]!, now)) continue;
    last = pms[i]!;
    point -= weightOf(cumulative, i);
    if (point < 0) return last;
  }
  return last;
}

function weightOf(cumulative: readonly number[], i: number): number {
  return i === 0 ? cumulative[0]! : cumulative[i]! - cumulative[i - 1]!;
}

/** One of `pms[from..to)` that can be used and was not tried, all equally likely. */
function pick(
  pms: readonly RoutePm[],
  from: number,
  to: number,
  tried: readonly RoutePm[],
  random: Random,
  now: number,
): RoutePm | null {
  let seen = 0;
  // First count, then take: one random number whatever the count.
  for (let i = from; i < to; i++) if (!tried.includes(pms[i]!) && usable(pms[i]!, now)) seen++;
  if (seen === 0) return null;
  let point = seen === 1 ? 0 : Math.floor(random() * seen);
  for (let i = from; i < to; i++) {
    if (tried.includes(pms[i]!) || !usable(pms[i]!, now)) continue;
    if (point-- === 0) return pms[i]!;
  }
  return null;
}

const NONE: readonly RoutePm[] = [];

/**
 * The next target to try after `tried`, null when there is none that is well. Targets that cool down are passed over.
 * Allocates nothing on the first choice.
 */
export function choose(
  group: RouteGroup,
  tried: readonly RoutePm[] | null,
  random: Random,
  now: number,
  _stream = false,
  _sticky = 0,
): RoutePm | null {
  const done = tried ?? NONE;
  for (const tier of group.tiers) {
    const { pms, cumulative } = tier;
    const fresh = done.length === 0 || !pms.some((pm) => done.includes(pm));
    const chosen =
      (fresh ? drawByWeight(tier, random, now) : pick(pms, 0, cumulative.length, done, random, now)) ??
      pick(pms, cumulative.length, pms.length, done, random, now);
    if (chosen !== null) return chosen;
  }
  return null;
}

/**
 * For when `choose` has nothing (more): among the targets that cool down, the one that will be well first. Trying it is
 * better than failing outright; a request does so once.
 */
export function lastResort(group: RouteGroup, tried: readonly RoutePm[] | null, now: number): RoutePm | null {
  const done = tried ?? NONE;
  let best: RoutePm | null = null;
  for (const pm of group.pms) {
    if (!routable(pm) || done.includes(pm) || pm.health.available(now)) continue;
    if (best === null || pm.health.coolUntil < best.health.coolUntil) best = pm;
  }
  return best;
}
