/** Wallet rows and the transfers of adjustments. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { DomainError, notFound } from "../domain/errors.ts";
import { available, repayable, type WalletRow } from "../domain/wallet.ts";
import { type NewTransfer, postTransfers } from "./ledger.ts";

export type { WalletRow } from "../domain/wallet.ts";

/** The four figures fit numeric(38,12) with room to spare as long as no wallet ever held more than this. */
export const WALLET_CREDITS_MAX: Credits = parseCredits("1000000000000000000000000");

interface WalletColumns {
  ve_id: string;
  purchased: string;
  settled: string;
  escrowed: string;
  debt: string;
}

const COLUMNS = "ve_id, purchased, settled, escrowed, debt";

function toRow(columns: WalletColumns): WalletRow {
  return {
    purchased: parseCredits(columns.purchased),
    settled: parseCredits(columns.settled),
    escrowed: parseCredits(columns.escrowed),
    debt: parseCredits(columns.debt),
  };
}

export interface NewWallet {
  readonly veId: string;
  readonly merchantId: string;
  /** Credits to start with, >= 0. */
  readonly initial: Credits;
  /** Id of the transfer that brings them; not used when `initial` is 0. */
  readonly transferId: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** Makes the wallet of a new VE. */
export async function createWallet(tx: Tx, { veId, merchantId, initial, transferId, now }: NewWallet): Promise<void> {
  const at = new Date(now);
  await tx.query(
    "insert into wallet (ve_id, merchant_id, purchased, created_at, updated_at) values ($1, $2, $3, $4, $4)",
    [veId, merchantId, formatCredits(initial), at],
  );
  if (initial === 0n) return;
  await postTransfers(tx, now, [
    {
      id: transferId,
      merchantId,
      veId,
      debit: "adjustment",
      credit: "wallet",
      credits: initial,
      reference: `adj:${transferId}`,
      reason: "initial credit budget",
    },
  ]);
}

/** The wallet of a VE, also of a deleted one; null if there never was one. */
export async function readWallet(tx: Tx, veId: string): Promise<WalletRow | null> {
  return (await readWallets(tx, [veId])).get(veId) ?? null;
}

/** Several wallets in one statement; VEs without one are missing from the map. */
export async function readWallets(tx: Tx, veIds: readonly string[]): Promise<Map<string, WalletRow>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<WalletColumns>(`select ${COLUMNS} from wallet where ve_id = any($1::text[])`, [veIds]);
  return new Map(rows.map((row) => [row.ve_id, toRow(row)]));
}

/** A wallet whose row is locked. */
export interface LockedWallet extends WalletRow {
  readonly merchantId: string;
}

/** Locks wallets until the end of the transaction, in id order as everybody does. */
export async function lockWallets(tx: Tx, veIds: readonly string[]): Promise<Map<string, LockedWallet>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<WalletColumns & { merchant_id: string }>(
    `select ${COLUMNS}, merchant_id from wallet where ve_id = any($1::text[]) order by ve_id for update`,
    [veIds],
  );
  return new Map(rows.map((row) => [row.ve_id, { ...toRow(row), merchantId: row.merchant_id }]));
}

/** Writes locked wallets back. */
export async function writeWallets(tx: Tx, now: number, rows: ReadonlyMap<string, WalletRow>): Promise<void> {
  if (rows.size === 0) return;
  const entries = [...rows];
  const column = (pick: (row: WalletRow) => Credits) => entries.map(([, row]) => formatCredits(pick(row)));
  await tx.query(
    `update wallet w set purchased = d.purchased, settled = d.settled, escrowed = d.escrowed, debt = d.debt, updated_at = $6
     from unnest($1::text[], $2::numeric[], $3::numeric[], $4::numeric[], $5::numeric[])
       as d (ve_id, purchased, settled, escrowed, debt)
     where w.ve_id = d.ve_id`,
    [
      entries.map(([veId]) => veId),
      column((row) => row.purchased),
      column((row) => row.settled),
      column((row) => row.escrowed),
      column((row) => row.debt),
      new Date(now),
    ],
  );
}

export interface WalletAdjustment {
  readonly veId: string;
  readonly merchantId: string;
  /** Not 0; negative takes Credits out. */
  readonly credits: Credits;
  readonly reason: string;
  readonly transferId: string;
  /** Milliseconds since 1970. */
  readonly now: number;
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
 * Puts Credits in or takes them out, with its transfers; what comes in repays debt first. The caller sends
 * `notifyWallet(…, "topped_up")` when Credits came in. Returns the wallet afterwards.
 * @throws DomainError not_found, insufficient_credits, limit_reached
 */
export async function adjustWallet(tx: Tx, adjustment: WalletAdjustment): Promise<WalletRow> {
  const { veId, merchantId, credits, reason, transferId, now } = adjustment;
  const row = (await lockWallets(tx, [veId])).get(veId);
  if (row === undefined) throw notFound("VE");
  const after = adjusted(row, credits);
  const repaid = credits > 0n ? repayable(after) : 0n;
  const result = { ...after, debt: after.debt - repaid };
  const base = { merchantId, veId, reason };
  const transfers: NewTransfer[] = [
    credits > 0n
      ? { ...base, id: transferId, debit: "adjustment", credit: "wallet", credits, reference: `adj:${transferId}` }
      : {
          ...base,
          id: transferId,
          debit: "wallet",
          credit: "adjustment",
          credits: -credits,
          reference: `adj:${transferId}`,
        },
  ];
  if (repaid > 0n)
    transfers.push({
      ...base,
      id: `${transferId}_debt`,
      debit: "wallet",
      credit: "debt",
      credits: repaid,
      reference: `repay:${transferId}`,
    });
  await writeWallets(tx, now, new Map([[veId, result]]));
  await postTransfers(tx, now, transfers);
  return result;
}
