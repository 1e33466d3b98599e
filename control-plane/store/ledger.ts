/** The append-only ledger: Credits that moved between the accounts of one VE. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { NewTransfer } from "../domain/transfer.ts";

export type { NewTransfer } from "../domain/transfer.ts";

export interface TransferRow {
  readonly n: bigint;
  readonly id: string;
  readonly veId: string;
  readonly debit: string;
  readonly credit: string;
  readonly credits: Credits;
  readonly reference: string;
  readonly reason: string;
  readonly postedAt: Date;
}

/** Posts transfers in one statement. A reference that exists already fails the transaction. */
export async function postTransfers(tx: Tx, now: number, transfers: readonly NewTransfer[]): Promise<void> {
  if (transfers.length === 0) return;
  await tx.query(
    `insert into transfer (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, reason, posted_at)
     select d.*, $9::timestamptz
     from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::text[], $8::text[]) as d`,
    [
      transfers.map((transfer) => transfer.id),
      transfers.map((transfer) => transfer.merchantId),
      transfers.map((transfer) => transfer.veId),
      transfers.map((transfer) => transfer.debit),
      transfers.map((transfer) => transfer.credit),
      transfers.map((transfer) => formatCredits(transfer.credits)),
      transfers.map((transfer) => transfer.reference),
      transfers.map((transfer) => transfer.reason),
      new Date(now),
    ],
  );
}

interface TransferColumns {
  n: bigint;
  id: string;
  ve_id: string;
  debit_account: string;
  credit_account: string;
  credits: string;
  reference: string;
  reason: string;
  posted_at: Date;
}

/** Transfers of a VE of this merchant, newest first, those before row `before` (null: from the newest). */
export async function listTransfers(
  tx: Tx,
  merchantId: string,
  veId: string,
  before: bigint | null,
  limit: number,
): Promise<TransferRow[]> {
  const rows = await tx.query<TransferColumns>(
    `select n, id, ve_id, debit_account, credit_account, credits, reference, reason, posted_at
     from transfer where ve_id = $1 and merchant_id = $2 and ($3::bigint is null or n < $3::bigint)
     order by n desc limit $4`,
    [veId, merchantId, before, limit],
  );
  return rows.map((row) => ({
    n: row.n,
    id: row.id,
    veId: row.ve_id,
    debit: row.debit_account,
    credit: row.credit_account,
    credits: parseCredits(row.credits),
    reference: row.reference,
    reason: row.reason,
    postedAt: row.posted_at,
  }));
}
