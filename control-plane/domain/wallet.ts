/** PURE: what the figures of a wallet mean. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { DomainError } from "./errors.ts";
import type { NewTransfer } from "./transfer.ts";

/** The four figures fit numeric(38,12) with room to spare as long as no wallet ever held more than this. */
export const WALLET_CREDITS_MAX: Credits = parseCredits("1000000000000000000000000");

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

/** With the state that the merchant's webhooks last told. */
export interface ToldWallet extends WalletRow {
  readonly told: WalletState;
}

/** A wallet as it was read under its lock. */
export interface LockedWallet extends ToldWallet {
  readonly merchantId: string;
}

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

export interface WalletAdjustment {
  readonly veId: string;
  readonly merchantId: string;
  /** Not 0; negative takes Credits out. */
  readonly credits: Credits;
  readonly reason: string;
  readonly transferId: string;
}

/** @throws DomainError limit_reached, insufficient_credits */
function adjusted(row: WalletRow, credits: Credits): WalletRow {
  const after = { ...row, purchased: row.purchased + credits };
  if (after.purchased > WALLET_CREDITS_MAX) {
    throw new DomainError("limit_reached", `a wallet can hold at most ${formatCredits(WALLET_CREDITS_MAX)} Credits`, {
      metadata: { limit: "wallet_credits", max: formatCredits(WALLET_CREDITS_MAX) },
    });
  }
  if (available(after) < 0n || after.purchased < 0n) {
    throw new DomainError("insufficient_credits", "the wallet does not have this many Credits available", {
      metadata: { available: formatCredits(available(row)), escrowed: formatCredits(row.escrowed) },
    });
  }
  return after;
}

/**
 * Puts Credits in or takes them out; what comes in repays debt first.
 * @throws DomainError insufficient_credits, limit_reached
 */
export function planAdjustment(
  row: WalletRow,
  { veId, merchantId, credits, reason, transferId }: WalletAdjustment,
): { wallet: WalletRow; transfers: NewTransfer[] } {
  const after = adjusted(row, credits);
  const repaid = credits > 0n ? repayable(after) : 0n;
  const base = { merchantId, veId, reason };
  const reference = `adj:${transferId}`;
  const transfers: NewTransfer[] = [
    credits > 0n
      ? { ...base, id: transferId, debit: "adjustment", credit: "wallet", credits, reference }
      : { ...base, id: transferId, debit: "wallet", credit: "adjustment", credits: -credits, reference },
  ];
  if (repaid > 0n) {
    const id = `${transferId}_debt`;
    transfers.push({
      ...base,
      id,
      debit: "wallet",
      credit: "debt",
      credits: repaid,
      reference: `repay:${transferId}`,
    });
  }
  return { wallet: { ...after, debt: after.debt - repaid }, transfers };
}

/** The transfer that brings the Credits a wallet starts with. */
export function initialTransfer(veId: string, merchantId: string, credits: Credits, transferId: string): NewTransfer {
  const reference = `adj:${transferId}`;
  const reason = "initial credit budget";
  return { id: transferId, merchantId, veId, debit: "adjustment", credit: "wallet", credits, reference, reason };
}
