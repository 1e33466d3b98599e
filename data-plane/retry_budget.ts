/**
 * PURE. How many calls of a Provider may be repeated at the same target: a tenth of its calls, and a few in reserve. So an
 * outage of it is not made worse by those who try again.
 */

/** What one call adds: one retry in ten calls. */
export const RETRY_SHARE = 0.1;
/** What may be saved up, and what a Provider begins with. */
export const RETRIES_SAVED_MAX = 10;

export class RetryBudget {
  private saved = RETRIES_SAVED_MAX;

  /** A call that is no retry was begun. */
  deposit(): void {
    if (this.saved < RETRIES_SAVED_MAX) this.saved += RETRY_SHARE;
  }

  /** True: one retry may be made. */
  take(): boolean {
    if (this.saved < 1) return false;
    this.saved--;
    return true;
  }
}
