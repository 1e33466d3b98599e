/** PURE. Random numbers for drawing among targets. */

/**
 * Numbers in [0, 1) with 32 random bits: fair, not secret. `Math.random` allocates each of its numbers, and the choice of a
 * target is to allocate nothing. Mulberry32.
 */
export function fastRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}
