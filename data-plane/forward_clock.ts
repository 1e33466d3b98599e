/** PURE. One clock for leases. */

/**
 * The wall clock may be this far ahead of the monotonic one, or behind it, before that counts as a step: the two are not
 * read at the same moment. Well below the margin at which a node stops counting on a lease.
 */
export const STEP_MS = 100;

/**
 * Milliseconds since 1970 that never go back. They advance by the monotonic clock, which does not count sleep of the
 * machine; and by what the wall clock goes forward beyond it, which may be such sleep. A wall clock that is set back is
 * not followed, and from there on its steps forward count anew: so leases end early at worst.
 */
export function forwardClock(
  wall: () => number = Date.now,
  monotonic: () => number = () => performance.now(),
): () => number {
  const start = monotonic();
  /** How far the wall clock is ahead of the monotonic one, as last followed. */
  let lead = wall() - start;
  /** How far this clock is. */
  let offset = lead;
  let last = start + offset;
  return () => {
    const ticks = monotonic();
    const present = wall() - ticks;
    if (present > lead + STEP_MS) {
      offset += present - lead;
      lead = present;
    } else if (present < lead - STEP_MS) {
      lead = present;
    }
    last = Math.max(last, ticks + offset);
    return last;
  };
}
