/**
 * PURE: when a merchant is told that a wallet is low or exhausted. Once when it gets there, and again only after Credits
 * came in: then `told` goes back, where wallets are written (store/wallet.ts).
 */

import type { Credits } from "../../core/credits.ts";
import type { AccountAsk, AccountOutcome } from "./leases.ts";
import { WalletState } from "./wallet.ts";

export interface WalletAlert {
  readonly veId: string;
  readonly merchantId: string;
  readonly state: typeof WalletState.LOW | typeof WalletState.EXHAUSTED;
  /** What is left, leases included. */
  readonly remaining: Credits;
  readonly lowBalance: Credits;
}

/**
 * Whether a node asked for Credits that are not there, nor with other nodes (`others` hold that much): its callers are told
 * that the wallet is exhausted. While others are asked to give back, it is not known yet.
 */
export function isRefused(
  { want, need }: AccountAsk,
  { grant, lease }: Pick<AccountOutcome, "grant" | "lease">,
  others: Credits,
): boolean {
  if (grant.recall) return false;
  if (need > 0n) return grant.credits < need;
  return want > 0n && lease === 0n && others === 0n;
}

/**
 * What is told after a report. Credits that other nodes give back do not make an exhausted wallet better: it would be
 * exhausted again and again. A lower `low_balance` makes a low one better.
 */
export function toldAfterReport(told: WalletState, state: WalletState, refused: boolean): WalletState {
  return refused || told === WalletState.EXHAUSTED ? WalletState.EXHAUSTED : state;
}
