/** PURE: what the figures of a wallet mean. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { DomainError } from "./errors.ts";
import type { NewTransfer } from "./transfer.ts";

/** The four figures fit numeric(38,12) with room to spare as long as no wallet ever held more than this. */
export const WALLET_CREDITS_MAX: Credits = parseCredits("1000000000000000000000000");

/** The four figures of a wallet, all >= 0. `escrowed` is the sum of its open leases. */
export interface WalletRow {
  /** All Credits ever put in, less those taken out by adjustment or because their money went back. */
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

/** A wallet after something happened, and what the ledger records of it. */
export interface WalletPlan {
  readonly wallet: WalletRow;
  readonly transfers: NewTransfer[];
}

/** What came in repays debt first. `brought` is the transfer that brought it. */
function repaid(after: WalletRow, brought: NewTransfer): WalletPlan {
  const credits = repayable(after);
  if (credits === 0n) return { wallet: after, transfers: [brought] };
  const repayment: NewTransfer = {
    ...brought,
    id: `${brought.id}_debt`,
    debit: "wallet",
    credit: "debt",
    credits,
    reference: `repay:${brought.id}`,
  };
  return { wallet: { ...after, debt: after.debt - credits }, transfers: [brought, repayment] };
}

/**
 * Puts Credits in or takes them out; what comes in repays debt first.
 * @throws DomainError insufficient_credits, limit_reached
 */
export function planAdjustment(
  row: WalletRow,
  { veId, merchantId, credits, reason, transferId }: WalletAdjustment,
): WalletPlan {
  const after = adjusted(row, credits);
  const base = { id: transferId, merchantId, veId, reason, reference: `adj:${transferId}` };
  if (credits > 0n) return repaid(after, { ...base, debit: "adjustment", credit: "wallet", credits });
  return { wallet: after, transfers: [{ ...base, debit: "wallet", credit: "adjustment", credits: -credits }] };
}

/** What a movement between money and a wallet is called in the ledger. */
export interface MoneyTransfer {
  readonly veId: string;
  readonly merchantId: string;
  readonly reference: string;
  readonly reason: string;
  readonly transferId: string;
}

function paymentTransfer(
  { veId, merchantId, reference, reason, transferId }: MoneyTransfer,
  way: "in" | "out",
  credits: Credits,
): NewTransfer {
  const base = { id: transferId, merchantId, veId, reference, reason, credits };
  return way === "in"
    ? { ...base, debit: "payment", credit: "wallet" }
    : { ...base, debit: "wallet", credit: "payment" };
}

/** Credits (above 0) that were paid for; they repay debt first. @throws DomainError limit_reached */
export function planTopUp(row: WalletRow, credits: Credits, transfer: MoneyTransfer): WalletPlan {
  return repaid(adjusted(row, credits), paymentTransfer(transfer, "in", credits));
}

/** Credits (above 0) that were taken although the money stayed come back, also into a wallet that is full by now. */
export function planGiveBack(row: WalletRow, credits: Credits, transfer: MoneyTransfer): WalletPlan {
  return repaid({ ...row, purchased: row.purchased + credits }, paymentTransfer(transfer, "in", credits));
}

/** What was taken of a wallet, and which part of it was not there any more. */
export interface Taking extends WalletPlan {
  readonly taken: Credits;
  readonly becameDebt: Credits;
}

/**
 * Takes back what was paid for, because the money goes back: never more than was ever put in. What is not available,
 * since it was spent or is leased, becomes debt, so that nothing is available afterwards and the next top-up repays it.
 */
export function planTaking(row: WalletRow, entitled: Credits, transfer: MoneyTransfer): Taking {
  const taken = entitled < row.purchased ? entitled : row.purchased;
  if (taken <= 0n) return { wallet: row, transfers: [], taken: 0n, becameDebt: 0n };
  const free = available(row);
  const becameDebt = free >= taken ? 0n : taken - (free > 0n ? free : 0n);
  const out = paymentTransfer(transfer, "out", taken);
  const wallet = { ...row, purchased: row.purchased - taken, debt: row.debt + becameDebt };
  if (becameDebt === 0n) return { wallet, transfers: [out], taken, becameDebt };
  const owed: NewTransfer = {
    ...out,
    id: `${out.id}_debt`,
    debit: "debt",
    credit: "wallet",
    credits: becameDebt,
    reference: `${out.reference}:debt`,
  };
  return { wallet, transfers: [owed, out], taken, becameDebt };
}

/** The transfer that brings the Credits a wallet starts with. */
export function initialTransfer(veId: string, merchantId: string, credits: Credits, transferId: string): NewTransfer {
  const reference = `adj:${transferId}`;
  const reason = "initial credit budget";
  return { id: transferId, merchantId, veId, debit: "adjustment", credit: "wallet", credits, reference, reason };
}
