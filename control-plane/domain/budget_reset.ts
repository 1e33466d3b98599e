/** PURE: filling a wallet up at the start of a period. */

import { type Credits, minCredits } from "../../core/credits.ts";
import { remaining, repayable, type WalletRow } from "./wallet.ts";

export interface Fill {
  /** What comes in; 0 when the wallet holds as much already. */
  readonly credits: Credits;
  /** The debt that is paid of it. */
  readonly repaid: Credits;
  readonly wallet: WalletRow;
}

/**
 * Fills a wallet up to `target` Credits that remain; one that holds more keeps it. Debt is paid out of what comes in, as
 * with every top-up, so that overspending is never free. No wallet ever holds more than `purchasedMax`.
 */
export function fillUp(wallet: WalletRow, target: Credits, purchasedMax: Credits): Fill {
  const room = purchasedMax - wallet.purchased;
  const credits = minCredits(target - remaining(wallet), room);
  if (credits <= 0n) return { credits: 0n, repaid: 0n, wallet };
  const filled = { ...wallet, purchased: wallet.purchased + credits };
  const repaid = repayable(filled);
  return { credits, repaid, wallet: { ...filled, debt: filled.debt - repaid } };
}

/** Unique for ever: one fill of one VE in one period. */
export function resetReference(veId: string, periodStartMs: number): string {
  return `reset:${veId}:${new Date(periodStartMs).toISOString()}`;
}
