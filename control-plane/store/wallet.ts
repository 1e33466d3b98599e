/** Wallet rows and the transfers of adjustments. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { lines, numberLines, textLines } from "../db/columns.ts";
import type { Tx } from "../db/database.ts";
import { notFound } from "../domain/errors.ts";
import {
  initialTransfer,
  type LockedWallet,
  planAdjustment,
  type ToldWallet,
  type WalletAdjustment,
  type WalletRow,
  WalletState,
} from "../domain/wallet.ts";
import type { VeTerms } from "../domain/report_plan.ts";
import { postTransfers } from "./ledger.ts";

export { WALLET_CREDITS_MAX, type WalletRow } from "../domain/wallet.ts";

interface WalletColumns {
  ve_id: string;
  purchased: string;
  settled: string;
  escrowed: string;
  debt: string;
}

/** Of a wallet under its lock. */
interface LockedColumns extends WalletColumns {
  merchant_id: string;
  told: WalletState;
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

function toLocked(columns: LockedColumns): LockedWallet {
  return { ...toRow(columns), merchantId: columns.merchant_id, told: columns.told };
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
  await postTransfers(tx, now, [initialTransfer(veId, merchantId, initial, transferId)]);
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

/** Locks wallets until the end of the transaction, in id order as everybody does. */
export async function lockWallets(tx: Tx, veIds: readonly string[]): Promise<Map<string, LockedWallet>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<LockedColumns>(
    `select ${COLUMNS}, merchant_id, told from wallet where ve_id = any($1::text[]) order by ve_id for update`,
    [veIds],
  );
  return new Map(rows.map((row) => [row.ve_id, toLocked(row)]));
}

/** Locks wallets as `lockWallets`, and reads with them what grants depend on; deleted VEs have no terms. */
export async function lockWalletsAndTerms(
  tx: Tx,
  veIds: readonly string[],
): Promise<{ wallets: Map<string, LockedWallet>; terms: Map<string, VeTerms> }> {
  const wallets = new Map<string, LockedWallet>();
  const terms = new Map<string, VeTerms>();
  if (veIds.length === 0) return { wallets, terms };
  const rows = await tx.query<LockedColumns & { low_balance: string | null; open: boolean }>(
    `select w.ve_id, w.purchased, w.settled, w.escrowed, w.debt, w.merchant_id, w.told, v.low_balance,
       not (v.disabled or v.frozen or v.template or m.disabled) as open
     from wallet w left join virtual_endpoint v on v.id = w.ve_id left join merchant m on m.id = v.merchant_id
     where w.ve_id = any($1::text[]) order by w.ve_id for update of w`,
    [veIds],
  );
  for (const row of rows) {
    wallets.set(row.ve_id, toLocked(row));
    if (row.low_balance !== null) terms.set(row.ve_id, { lowBalance: row.low_balance, open: row.open });
  }
  return { wallets, terms };
}

/** What is told of a wallet into which Credits came: never more than before. A deleted VE has no `low_balance`. */
const TOLD_WITH_MORE = `least(w.told, case when d.purchased + d.debt <= d.settled then ${WalletState.EXHAUSTED}
    when d.purchased + d.debt - d.settled
      < (select v.low_balance from virtual_endpoint v where v.id = w.ve_id) then ${WalletState.LOW}
    else ${WalletState.OK} end)`;

/**
 * Writes locked wallets back. Without `told`, what is told stays; but if Credits came in, it goes back to what is true now,
 * so that the merchant hears again when they are used up.
 */
export async function writeWallets(
  tx: Tx,
  now: number,
  rows: ReadonlyMap<string, WalletRow & Partial<ToldWallet>>,
): Promise<void> {
  if (rows.size === 0) return;
  const entries = [...rows];
  const column = (pick: (row: WalletRow) => Credits) => numberLines(entries, ([, row]) => formatCredits(pick(row)));
  await tx.query(
    `update wallet w set purchased = d.purchased, settled = d.settled, escrowed = d.escrowed, debt = d.debt, updated_at = $6,
       told = case when d.purchased > w.purchased then ${TOLD_WITH_MORE} when d.told = 0 then w.told else d.told end
     from unnest(${lines(1)}, ${lines(2, "numeric")}, ${lines(3, "numeric")}, ${lines(4, "numeric")}, ${lines(5, "numeric")},
       ${lines(7, "int")}) as d (ve_id, purchased, settled, escrowed, debt, told)
     where w.ve_id = d.ve_id`,
    [
      textLines(entries, ([veId]) => veId),
      column((row) => row.purchased),
      column((row) => row.settled),
      column((row) => row.escrowed),
      column((row) => row.debt),
      new Date(now),
      numberLines(entries, ([, { told }]) => told ?? 0),
    ],
  );
}

export interface TimedAdjustment extends WalletAdjustment {
  /** Milliseconds since 1970. */
  readonly now: number;
}

/**
 * Puts Credits in or takes them out, with its transfers; what comes in repays debt first. The caller sends
 * `notifyWallet(…, "topped_up")` when Credits came in. Returns the wallet afterwards.
 * @throws DomainError not_found, insufficient_credits, limit_reached
 */
export async function adjustWallet(tx: Tx, adjustment: TimedAdjustment): Promise<WalletRow> {
  const { veId, now } = adjustment;
  const row = (await lockWallets(tx, [veId])).get(veId);
  if (row === undefined) throw notFound("VE");
  const { wallet, transfers } = planAdjustment(row, adjustment);
  await writeWallets(tx, now, new Map([[veId, wallet]]));
  await postTransfers(tx, now, transfers);
  return wallet;
}
