/** PURE. How a target's state weighs in the choice among its siblings; nodes choose by it, and the control plane explains it. */

/** Failures up to this percentage are the ordinary noise of upstreams. */
const PERCENT_WELL = 10;
/** From here on only the least share is left: enough to notice that it recovers. */
const PERCENT_SICK = 90;
const HEALTH_SHARE_MIN = 0.02;
/** Below this nobody waits long enough to send requests elsewhere. */
export const SLOW_MS_MIN = 500;
/** How many times as slow as the best sibling is still alike. */
const SLOW_TIMES = 2;
const LATENCY_SHARE_MIN = 0.1;

/** The part of its weight that counts for a target of whose calls so many of a hundred failed of late. */
export function healthShare(failurePercent: number): number {
  if (failurePercent <= PERCENT_WELL) return 1;
  if (failurePercent >= PERCENT_SICK) return HEALTH_SHARE_MIN;
  return 1 - ((1 - HEALTH_SHARE_MIN) * (failurePercent - PERCENT_WELL)) / (PERCENT_SICK - PERCENT_WELL);
}

/** The part of its weight that counts for a target that is slower than its best sibling. 0 ms: not known. */
export function latencyShare(ownMs: number, bestMs: number): number {
  if (ownMs < SLOW_MS_MIN || bestMs === 0 || ownMs <= SLOW_TIMES * bestMs) return 1;
  return Math.max(LATENCY_SHARE_MIN, (SLOW_TIMES * bestMs) / ownMs);
}

/** A 32-bit hash of a sticky key, never 0 (which means that a request does not stick). FNV-1a over UTF-16 units. */
export function stickyHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0 || 1;
}

/** The 32-bit finalizer of MurmurHash3. */
function mix(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Weighted rendezvous hashing: of several targets the one with the lowest score has the key, each as often as its weight
 * says, and when one leaves or comes only its own keys move. `seed` is the `stickyHash` of the target's id.
 */
export function stickyScore(keyHash: number, seed: number, weight: number): number {
  const u = (mix(keyHash ^ Math.imul(seed, 0x9e3779b1)) + 0.5) / 2 ** 32;
  return -Math.log(u) / weight;
}
