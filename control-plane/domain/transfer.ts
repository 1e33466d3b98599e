/** PURE: what the ledger records. */

import type { Credits } from "../../core/credits.ts";

export type Account = "wallet" | "usage" | "debt" | "adjustment" | "payment";

export interface NewTransfer {
  readonly id: string;
  readonly merchantId: string;
  readonly veId: string;
  /** The account that the Credits leave. */
  readonly debit: Account;
  /** The account that they reach. */
  readonly credit: Account;
  /** Above 0. */
  readonly credits: Credits;
  /** Unique for ever: the cause. */
  readonly reference: string;
  readonly reason: string;
}
