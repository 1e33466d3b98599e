/** Refunds of payments. The session and the payment are locked before a refund is written. */

import type { Tx } from "../db/database.ts";
import { RefundState } from "../domain/checkout.ts";

export interface RefundRow {
  id: string;
  n: bigint;
  session_id: string;
  payment_id: string;
  merchant_id: string;
  account_id: string;
  state: RefundState;
  external: boolean;
  reference: string | null;
  amount_minor: bigint;
  /** Credits taken back, and the part of them that became debt. */
  taken: string;
  became_debt: string;
  reason: string;
  check_at: Date | null;
  checks: number;
  created_at: Date;
  updated_at: Date;
}

export const REFUND_COLUMNS =
  "id, n, session_id, payment_id, merchant_id, account_id, state, external, reference, amount_minor, taken, became_debt, reason, check_at, checks, created_at, updated_at";

/** Oldest first. */
export async function listRefunds(tx: Tx, sessionIds: readonly string[]): Promise<RefundRow[]> {
  return tx.query<RefundRow>(`select ${REFUND_COLUMNS} from refund where session_id = any($1::text[]) order by n`, [
    sessionIds,
  ]);
}

export type NewRefund = Pick<
  RefundRow,
  | "id"
  | "session_id"
  | "payment_id"
  | "merchant_id"
  | "account_id"
  | "state"
  | "external"
  | "reference"
  | "amount_minor"
  | "taken"
  | "became_debt"
  | "reason"
  | "check_at"
>;

export async function insertRefund(tx: Tx, row: NewRefund, now: Date): Promise<RefundRow> {
  const [stored] = await tx.query<RefundRow>(
    `insert into refund (id, session_id, payment_id, merchant_id, account_id, state, external, reference, amount_minor, taken,
       became_debt, reason, check_at, created_at, updated_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14) returning ${REFUND_COLUMNS}`,
    [
      row.id,
      row.session_id,
      row.payment_id,
      row.merchant_id,
      row.account_id,
      row.state,
      row.external,
      row.reference,
      row.amount_minor,
      row.taken,
      row.became_debt,
      row.reason,
      row.check_at,
      now,
    ],
  );
  return stored!;
}

/** Null: there is none. */
export async function findRefund(tx: Tx, id: string): Promise<RefundRow | null> {
  const [row] = await tx.query<RefundRow>(`select ${REFUND_COLUMNS} from refund where id = $1`, [id]);
  return row ?? null;
}

/** By the processor's name for it, in one account alone. */
export async function findRefundByReference(tx: Tx, accountId: string, reference: string): Promise<RefundRow | null> {
  const [row] = await tx.query<RefundRow>(
    `select ${REFUND_COLUMNS} from refund where account_id = $1 and reference = $2`,
    [accountId, reference],
  );
  return row ?? null;
}

/** Ours that the processor has not answered for in the end: PENDING, oldest first. */
export async function listUnsettledRefunds(tx: Tx, paymentId: string): Promise<RefundRow[]> {
  return tx.query<RefundRow>(
    `select ${REFUND_COLUMNS} from refund where payment_id = $1 and state = ${RefundState.PENDING} and not external order by n`,
    [paymentId],
  );
}

export type RefundFields = Pick<RefundRow, "state" | "reference" | "check_at">;

export async function updateRefund(
  tx: Tx,
  row: RefundRow,
  changes: Partial<RefundFields>,
  now: Date,
): Promise<RefundRow> {
  const next = { ...row, ...changes };
  const [stored] = await tx.query<RefundRow>(
    `update refund set state = $2, reference = $3, check_at = $4, updated_at = $5 where id = $1 returning ${REFUND_COLUMNS}`,
    [row.id, next.state, next.reference, next.check_at, now],
  );
  return stored!;
}
