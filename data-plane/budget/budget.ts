/**
 * What the pipeline needs of the wallets and the limits. `account` is the id of a VE, or a limit (accounts.ts). Everything
 * but `reserveSlow` is in memory and synchronous.
 */

import type { Credits } from "../../core/credits.ts";

/** What is held for one live request. Owned by the budget; the pipeline only passes it back. */
export interface Reservation {
  readonly account: string;
  /** What is held now. */
  readonly held: Credits;
}

/**
 * `exhausted`: the account has not even `minimum`. `unavailable`: the control plane cannot be asked and the lease is used
 * up, or it did not answer in time.
 */
export type ReserveFailure = "exhausted" | "unavailable";

export interface Budget {
  /**
   * Holds `amount` if the lease covers it now, else null. Never waits.
   * Zero is a valid amount (a free price) and always succeeds.
   */
  reserve(account: string, amount: Credits): Reservation | null;
  /**
   * One synchronous report first, then holds `amount`, or whatever is there if at least `minimum` is. Calls of one account
   * share the report. `minimum <= amount`. The answer comes within RESERVE_WAIT_MS, and never before this returns.
   */
  reserveSlow(
    account: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void;
  /** Grows a reservation by `amount`: true if the lease covers it now. False also starts a report that asks for more. */
  grow(reservation: Reservation, amount: Credits): boolean;
  /** Ends a reservation with what was really spent (0 if nothing was). Exactly once; the spend is part of the next report. */
  settle(reservation: Reservation, spent: Credits): void;
  /**
   * After how many milliseconds a request that a limit refused may come again with hope; Infinity: the limit never starts
   * again by itself.
   */
  retryMs(account: string): number;
  /** The wallet as last heard of, less what this node spent since; null if nothing was heard. For `/tokenbill`. */
  readBalance(veId: string, done: (balance: WalletBalance | null) => void): void;
  /** All that is left in the wallet as last heard of, less what this node spent since; null if nothing was heard. */
  remaining(veId: string): Credits | null;
  /** True if the wallet is known to be low or empty, for hints. */
  isLow(veId: string): boolean;
}

export interface WalletBalance {
  readonly creditRemaining: Credits;
  readonly creditBudget: Credits;
}
