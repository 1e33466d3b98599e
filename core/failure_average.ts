/** PURE. How fast it is forgotten that a target failed; nodes and the control plane forget alike. */

/** A share that fell returns even if nothing more is heard of the target. */
export const FAILURE_HALF_LIFE_MS = 10_000;

/** What is left of a failure fraction or percentage after so many milliseconds. */
export function faded(failure: number, ms: number): number {
  return ms <= 0 ? failure : failure * Math.exp((-Math.LN2 / FAILURE_HALF_LIFE_MS) * ms);
}
