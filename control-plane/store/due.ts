/** Payments and refunds whose processor is to be asked: both say so by `check_at`, and count by `checks`. */

import type { Tx } from "../db/database.ts";
import { PAYMENT_COLUMNS, type PaymentRow } from "./payment.ts";
import { REFUND_COLUMNS, type RefundRow } from "./refund.ts";

/**
 * Those that are due now, longest due first. They are due again at `again`, in case that whoever claimed them does not come
 * that far.
 */
async function claimDue<Row>(
  tx: Tx,
  table: "payment" | "refund",
  columns: string,
  { now, again, limit }: DueClaim,
): Promise<Row[]> {
  return tx.query<Row>(
    `update ${table} set check_at = $2 where id in (select id from ${table} where check_at <= $1 order by check_at
       limit $3 for update skip locked) returning ${columns}`,
    [now, again, limit],
  );
}

export interface DueClaim {
  readonly now: Date;
  readonly again: Date;
  readonly limit: number;
}

export function claimDuePayments(tx: Tx, claim: DueClaim): Promise<PaymentRow[]> {
  return claimDue(tx, "payment", PAYMENT_COLUMNS, claim);
}

export function claimDueRefunds(tx: Tx, claim: DueClaim): Promise<RefundRow[]> {
  return claimDue(tx, "refund", REFUND_COLUMNS, claim);
}

/** When it is asked about next (null: never), unless it has ended meanwhile or somebody else asked. */
export async function scheduleCheck(
  tx: Tx,
  table: "payment" | "refund",
  { id, checks }: { readonly id: string; readonly checks: number },
  at: Date | null,
): Promise<void> {
  await tx.query(
    `update ${table} set check_at = $2, checks = checks + 1 where id = $1 and checks = $3 and check_at is not null`,
    [id, at, checks],
  );
}
