/** The append-only ledger: Credits that moved between the accounts of one VE. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { dictionary, lines, numberLines, textLines } from "../db/columns.ts";
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
  const reasons = dictionary(transfers, (transfer) => transfer.reason);
  await tx.query(
    `insert into transfer (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, reason, posted_at)
     select i, m, v, f, t, c, r, ($9::text[])[w], $1::timestamptz
     from unnest(${lines(2)}, ${lines(3)}, ${lines(4)}, ${lines(5)}, ${lines(6)}, ${lines(7, "numeric")}, $8::text[],
       ${lines(10, "int")}) as d (i, m, v, f, t, c, r, w) where c is not null`,
    [
      new Date(now),
      textLines(transfers, (transfer) => transfer.id),
      textLines(transfers, (transfer) => transfer.merchantId),
      textLines(transfers, (transfer) => transfer.veId),
      textLines(transfers, (transfer) => transfer.debit),
      textLines(transfers, (transfer) => transfer.credit),
      numberLines(transfers, (transfer) => formatCredits(transfer.credits)),
      // Nodes name their boots, and might do so with line breaks.
      transfers.map((transfer) => transfer.reference),
      reasons.texts,
      numberLines(transfers, reasons.placeOf),
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
