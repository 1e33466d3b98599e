/**
 * PURE. How far this node's clock is off, as an upstream sees it. AWS refuses signatures whose date is more than five minutes
 * away from its own (reference/UPSTREAM-FORMATS.md D6), and says its own in `date`.
 */

/** Errors of 403 that a wrong clock leads to, among other causes. */
const CLOCK_ERRORS = new Set([
  "InvalidSignatureException",
  "RequestExpired",
  "RequestTimeTooSkewed",
  "SignatureDoesNotMatch",
]);
/** A clock that is less off than this is not the cause. AWS takes five minutes; some go by until its answer is here. */
const SKEW_MS_MIN = 4 * 60 * 1000;

/** One for each Provider, or host. */
export class ClockSkew {
  /** To be added to this node's time. */
  offsetMs = 0;

  /**
   * Learns from a refusal. True: the clock was the cause as far as one can tell, so sign again and retry, once.
   * @param errorType as `errorTypeOf` in `formats/bedrock/errors.ts` reads it
   * @param date the value of the `date` header, if there was one
   */
  learn(status: number, errorType: string, date: string | undefined, nowMs: number): boolean {
    if (status !== 403 || !CLOCK_ERRORS.has(errorType) || date === undefined) return false;
    const theirs = Date.parse(date);
    if (Number.isNaN(theirs) || Math.abs(theirs - (nowMs + this.offsetMs)) < SKEW_MS_MIN) return false;
    this.offsetMs = theirs - nowMs;
    return true;
  }
}
