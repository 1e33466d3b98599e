/** PURE: what the figures of a wallet mean. */

import type { Credits } from "../../core/credits.ts";

/** The four figures of a wallet, all >= 0. `escrowed` is the sum of its open leases. */
export interface WalletRow {
  /** All Credits ever put in, less those taken out by adjustment. */
  readonly purchased: Credits;
  /** What finished requests have cost. */
  readonly settled: Credits;
  readonly escrowed: Credits;
  /** Spend that no Credits covered, not yet repaid. */
  readonly debt: Credits;
}

/** Numbers equal `tokenbill.v1.WalletState`. */
export const WalletState = { OK: 1, LOW: 2, EXHAUSTED: 3 } as const;
export type WalletState = (typeof WalletState)[keyof typeof WalletState];

/** What can be leased or taken out now; never negative in a stored row. */
export function available({ purchased, settled, escrowed, debt }: WalletRow): Credits {
  return purchased + debt - settled - escrowed;
}

/** What is left, leases included; never negative in a stored row. */
export function remaining({ purchased, settled, debt }: WalletRow): Credits {
  return purchased + debt - settled;
}

export function walletState(row: WalletRow, lowBalance: Credits): WalletState {
  const left = remaining(row);
  if (left <= 0n) return WalletState.EXHAUSTED;
  return left < lowBalance ? WalletState.LOW : WalletState.OK;
}

/** The debt that what is available pays back now. Called wherever Credits become available, so that the cap stays hard. */
export function repayable(row: WalletRow): Credits {
  const free = available(row);
  if (free <= 0n || row.debt === 0n) return 0n;
  return free < row.debt ? free : row.debt;
}
