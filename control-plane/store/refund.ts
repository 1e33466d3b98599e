/** Refunds of payments. The session and the payment are locked before a refund is written. */

import type { Tx } from "../db/database.ts";
import { RefundState } from "../domain/checkout.ts";
import { REFUND_COLUMNS, type RefundRow } from "./payment.ts";

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

/** As `claimDuePayments`. */
export async function claimDueRefunds(tx: Tx, now: Date, again: Date, limit: number): Promise<RefundRow[]> {
  return tx.query<RefundRow>(
    `update refund set check_at = $2 where id in (select id from refund where check_at <= $1 order by check_at
       limit $3 for update skip locked) returning ${REFUND_COLUMNS}`,
    [now, again, limit],
  );
}

/** As `schedulePayment`. */
export async function scheduleRefund(tx: Tx, { id, checks }: RefundRow, at: Date | null): Promise<void> {
  await tx.query(
    "update refund set check_at = $2, checks = checks + 1 where id = $1 and checks = $3 and check_at is not null",
    [id, at, checks],
  );
}
