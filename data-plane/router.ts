/**
 * PURE. In which order the targets of a Logical Model are tried. Tiers in order; in a tier one target is drawn by weight,
 * its siblings follow in random order, and those of weight 0 after them. A target that fails or is slow lately has only a
 * share of its weight. With a sticky key, rendezvous hashing takes the place of the draw. Everything is decided only when
 * it is needed, and nothing is allocated.
 */

import { latencyShare, SLOW_MS_MIN, stickyScore } from "../core/routing.ts";
import type { RouteGroup, RoutePm, RouteTier } from "./route_types.ts";
import { routable } from "./route_types.ts";
import { available, coolUntil } from "./target_health.ts";

export type Random = () => number;

const NONE: readonly RoutePm[] = [];

/** The tier that a choice came from is needed for the record of the attempt. */
export function tierOf(group: RouteGroup, pm: RoutePm): number {
  for (const tier of group.tiers) {
    if (tier.pms.includes(pm)) return tier.tier;
  }
  return 0;
}

function usable(pm: RoutePm, now: number): boolean {
  return routable(pm) && available(pm, now);
}

function weightOf(cumulative: readonly number[], i: number): number {
  return i === 0 ? cumulative[0]! : cumulative[i]! - cumulative[i - 1]!;
}

/** False: every target of the tier surely has its whole weight. True: that must be looked at. */
function isUneven({ pms }: RouteTier, now: number, stream: boolean): boolean {
  for (let i = 0; i < pms.length; i++) {
    const { health, provider } = pms[i]!;
    if (health.dimUntil > now || provider.health.dimUntil > now) return true;
    if (health.latencyMs(stream, now) >= SLOW_MS_MIN) return true;
  }
  return false;
}

/** By place in a tier, kept so that no choice allocates: the share of its weight that counts, and the sums of a draw. */
let shares = new Float64Array(64);
let sums = new Float64Array(64);

/** The share of each target of a tier: what its failures leave of it, and its latency compared with the best sibling's. */
function fillShares({ pms }: RouteTier, now: number, stream: boolean): void {
  if (pms.length > shares.length) shares = new Float64Array(2 * pms.length);
  let bestMs = 0;
  for (let i = 0; i < pms.length; i++) {
    const pm = pms[i]!;
    const { health } = pm;
    const ofProvider = pm.provider.health;
    let share = 1;
    if (health.dimUntil > now) {
      health.refreshShare(now);
      share = health.share;
    }
    if (ofProvider.dimUntil > now) {
      ofProvider.refreshShare(now);
      // The lower of the two: a connection that could not be made counts in both.
      share = Math.min(share, ofProvider.share);
    }
    shares[i] = share;
    const ms = health.latencyMs(stream, now);
    if (ms > 0 && (bestMs === 0 || ms < bestMs) && usable(pm, now)) bestMs = ms;
  }
  for (let i = 0; i < pms.length; i++) shares[i]! *= latencyShare(pms[i]!.health.latencyMs(stream, now), bestMs);
}

/**
 * Draws among those of a tier that can be used and were not tried: of the `weighted` ones the first choice by weight, what
 * follows with equal chances, and in either case by the share that each has of it. Null: there is none.
 */
function draw(
  tier: RouteTier,
  weighted: boolean,
  tried: readonly RoutePm[],
  random: Random,
  now: number,
  stream: boolean,
  uneven: boolean,
): RoutePm | null {
  const { pms, cumulative } = tier;
  const from = weighted ? 0 : cumulative.length;
  const to = weighted ? cumulative.length : pms.length;
  if (to > sums.length) sums = new Float64Array(2 * to);
  if (uneven) fillShares(tier, now, stream);
  const byWeight = weighted && isFresh(tier, tried);
  let total = 0;
  let count = 0;
  let last = -1;
  for (let i = from; i < to; i++) {
    const pm = pms[i]!;
    if (!tried.includes(pm) && usable(pm, now)) {
      const weight = byWeight ? weightOf(cumulative, i) : 1;
      total += uneven ? weight * shares[i]! : weight;
      count++;
      last = i;
    }
    sums[i] = total;
  }
  if (count === 0) return null;
  if (count === 1 && !byWeight) return pms[last]!;
  const point = random() * total;
  for (let i = from; i < last; i++) if (sums[i]! > point) return pms[i]!;
  return pms[last]!;
}

/** The first choice of a tier whose targets all have their whole weight: mostly one look is enough. */
function drawFirst(tier: RouteTier, random: Random, now: number): RoutePm | null {
  const { pms, cumulative } = tier;
  const count = cumulative.length;
  if (count === 1) return usable(pms[0]!, now) ? pms[0]! : null;
  const point = random() * cumulative[count - 1]!;
  let at = 0;
  while (cumulative[at]! <= point) at++;
  if (usable(pms[at]!, now)) return pms[at]!;
  return draw(tier, true, NONE, random, now, false, false);
}

/** The target that has this key, among those with a weight that can be used and were not tried. */
function rendezvous(
  tier: RouteTier,
  tried: readonly RoutePm[],
  sticky: number,
  now: number,
  stream: boolean,
): RoutePm | null {
  const { pms, cumulative } = tier;
  const uneven = isUneven(tier, now, stream);
  if (uneven) fillShares(tier, now, stream);
  let chosen: RoutePm | null = null;
  let lowest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < cumulative.length; i++) {
    const pm = pms[i]!;
    if (tried.includes(pm) || !usable(pm, now)) continue;
    const weight = weightOf(cumulative, i);
    const score = stickyScore(sticky, pm.seed, uneven ? weight * shares[i]! : weight);
    if (score >= lowest) continue;
    lowest = score;
    chosen = pm;
  }
  return chosen;
}

function isFresh({ pms }: RouteTier, tried: readonly RoutePm[]): boolean {
  for (let i = 0; i < tried.length; i++) if (pms.includes(tried[i]!)) return false;
  return true;
}

function drawWeighted(
  tier: RouteTier,
  tried: readonly RoutePm[],
  random: Random,
  now: number,
  stream: boolean,
): RoutePm | null {
  const count = tier.cumulative.length;
  if (count === 0) return null;
  const uneven = count > 1 && isUneven(tier, now, stream);
  if (!uneven && isFresh(tier, tried)) return drawFirst(tier, random, now);
  return draw(tier, true, tried, random, now, stream, uneven);
}

/**
 * The next target to try after `tried`, null when there is none that is well. Targets that cool down are passed over.
 * `stream`: which latencies are compared. `sticky`: a `stickyHash`; 0: the request does not stick.
 */
export function choose(
  group: RouteGroup,
  tried: readonly RoutePm[] | null,
  random: Random,
  now: number,
  stream = false,
  sticky = 0,
): RoutePm | null {
  const done = tried ?? NONE;
  for (let i = 0; i < group.tiers.length; i++) {
    const tier = group.tiers[i]!;
    const chosen =
      (sticky === 0 ? drawWeighted(tier, done, random, now, stream) : rendezvous(tier, done, sticky, now, stream)) ??
      (tier.cumulative.length === tier.pms.length
        ? null
        : draw(tier, false, done, random, now, stream, isUneven(tier, now, stream)));
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
    if (!routable(pm) || done.includes(pm) || available(pm, now)) continue;
    if (best === null || coolUntil(pm) < coolUntil(best)) best = pm;
  }
  return best;
}
