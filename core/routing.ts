/** PURE. How what is known of a target becomes its share of the requests: one plane routes by it, the other explains it. */

/** Up to here failures are weather, in percent. */
const FAILURE_PERCENT_FINE = 10;
/** From here on a target keeps only its trickle. */
const FAILURE_PERCENT_SICK = 90;
/** A share never falls lower: without requests nobody would see that a target is well again. */
const HEALTH_SHARE_MIN = 0.02;

/** The part of its weight that counts while so many of a hundred of its calls fail: 1 down to HEALTH_SHARE_MIN. */
export function healthShare(failurePercent: number): number {
  if (failurePercent <= FAILURE_PERCENT_FINE) return 1;
  if (failurePercent >= FAILURE_PERCENT_SICK) return HEALTH_SHARE_MIN;
  const sick = (failurePercent - FAILURE_PERCENT_FINE) / (FAILURE_PERCENT_SICK - FAILURE_PERCENT_FINE);
  return 1 - sick * (1 - HEALTH_SHARE_MIN);
}

/** Below this nobody waits, whatever the siblings do. */
export const SLOW_MS_MIN = 500;
/** Slower than the best sibling by no more than this factor is not slow. */
const SLOW_FACTOR = 2;
const LATENCY_SHARE_MIN = 0.1;

/** The part of its weight that counts while first content takes it `ownMs`, and its best sibling `bestMs`; 0: not known. */
export function latencyShare(ownMs: number, bestMs: number): number {
  if (ownMs === 0 || bestMs === 0 || ownMs < SLOW_MS_MIN || ownMs <= SLOW_FACTOR * bestMs) return 1;
  return Math.max(LATENCY_SHARE_MIN, (SLOW_FACTOR * bestMs) / ownMs);
}

/** A 32-bit hash of a sticky key, never 0 (which means that a request does not stick). FNV-1a over UTF-16 units. */
export function stickyHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0 || 1;
}

/** Spreads every bit of a number over all 32 (the finalizer of MurmurHash3). */
function mix(number: number): number {
  let bits = number;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

/**
 * Rendezvous hashing with weights: of several targets, a key belongs to the one with the lowest score. `seed` is the
 * `stickyHash` of the target's id, `weight` is above 0. Key and seed make a number u that is as good as random between 0 and
 * 1; -ln(u) / weight is then the time of the first event of a process with that rate, and the first of several processes is
 * each one's in proportion to its rate. So over many keys targets get what their weights say, and when a target comes, goes
 * or changes its weight, only keys move that it wins or loses.
 */
export function stickyScore(keyHash: number, seed: number, weight: number): number {
  const u = (mix(keyHash ^ Math.imul(seed, 0x9e3779b1)) + 0.5) / 2 ** 32;
  return -Math.log(u) / weight;
}
