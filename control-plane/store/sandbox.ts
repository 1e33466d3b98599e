/** The sandbox's books: what its payers decided, what it gave back, and what it has still to tell. */

import type { Tx } from "../db/database.ts";

export type SandboxState = "pending" | "paid" | "declined" | "closed";
export type SandboxDisputeState = "open" | "won" | "lost";

/** Amounts are in the currency's smallest unit. */
export interface SandboxPaymentRow {
  /** Opens the payment's page; whoever has it can decide. */
  id: string;
  account_id: string;
  /** The id of the payment that it is for: `pmt_…`. */
  payment_id: string;
  /** Names the money. */
  charge_id: string;
  state: SandboxState;
  currency: string;
  amount_minor: bigint;
  refunded_minor: bigint;
  merchant_name: string;
  description: string;
  return_url: string;
  save_method: boolean;
  /** The saved method that it made. */
  method_id: string | null;
  dispute_id: string | null;
  dispute_state: SandboxDisputeState | null;
  pay_at: Date | null;
  paid_at: Date | null;
  created_at: Date;
  expires_at: Date;
}

const COLUMNS =
  "id, account_id, payment_id, charge_id, state, currency, amount_minor, refunded_minor, merchant_name, description, return_url, save_method, method_id, dispute_id, dispute_state, pay_at, paid_at, created_at, expires_at";

export type NewSandboxPayment = Pick<
  SandboxPaymentRow,
  | "id"
  | "account_id"
  | "payment_id"
  | "charge_id"
  | "state"
  | "currency"
  | "amount_minor"
  | "merchant_name"
  | "description"
  | "return_url"
  | "save_method"
  | "expires_at"
>;

/** False: there was one for this payment already. */
export async function insertSandboxPayment(tx: Tx, row: NewSandboxPayment, now: Date): Promise<boolean> {
  const made = await tx.query(
    `insert into sandbox_payment (id, account_id, payment_id, charge_id, state, currency, amount_minor, merchant_name,
       description, return_url, save_method, paid_at, created_at, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, case when $5 = 'paid' then $12::timestamptz end, $12, $13)
     on conflict (payment_id) do nothing returning 1 as one`,
    [
      row.id,
      row.account_id,
      row.payment_id,
      row.charge_id,
      row.state,
      row.currency,
      row.amount_minor,
      row.merchant_name,
      row.description,
      row.return_url,
      row.save_method,
      now,
      row.expires_at,
    ],
  );
  return made.length > 0;
}

async function lockBy(
  tx: Tx,
  condition: string,
  params: readonly string[],
  now: Date,
): Promise<SandboxPaymentRow | null> {
  const [row] = await tx.query<SandboxPaymentRow>(
    `select ${COLUMNS} from sandbox_payment where ${condition} for update`,
    params,
  );
  if (row === undefined) return null;
  if (row.state !== "pending" || row.pay_at === null || row.pay_at > now) return row;
  return updateSandboxPayment(tx, row, { state: "paid", paid_at: row.pay_at, pay_at: null });
}

/** As it stands at `now`: one that was approved with a delay is paid when that is over. */
export function lockSandboxPayment(tx: Tx, id: string, now: Date): Promise<SandboxPaymentRow | null> {
  return lockBy(tx, "id = $1", [id], now);
}

/** The same, by the id of the payment that it is for, in that account alone. */
export function lockSandboxPaymentOf(
  tx: Tx,
  accountId: string,
  paymentId: string,
  now: Date,
): Promise<SandboxPaymentRow | null> {
  return lockBy(tx, "account_id = $1 and payment_id = $2", [accountId, paymentId], now);
}

export type SandboxPaymentFields = Pick<
  SandboxPaymentRow,
  "state" | "refunded_minor" | "method_id" | "dispute_id" | "dispute_state" | "pay_at" | "paid_at"
>;

/** Writes a locked row. */
export async function updateSandboxPayment(
  tx: Tx,
  row: SandboxPaymentRow,
  changes: Partial<SandboxPaymentFields>,
): Promise<SandboxPaymentRow> {
  const next = { ...row, ...changes };
  const [stored] = await tx.query<SandboxPaymentRow>(
    `update sandbox_payment set state = $2, refunded_minor = $3, method_id = $4, dispute_id = $5, dispute_state = $6,
       pay_at = $7, paid_at = $8 where id = $1 returning ${COLUMNS}`,
    [
      row.id,
      next.state,
      next.refunded_minor,
      next.method_id,
      next.dispute_id,
      next.dispute_state,
      next.pay_at,
      next.paid_at,
    ],
  );
  return stored!;
}

export interface SandboxRefundRow {
  id: string;
  sandbox_payment_id: string;
  /** Ours (`rfd_…`); null: it was made at the sandbox. */
  refund_id: string | null;
  amount_minor: bigint;
}

export async function insertSandboxRefund(tx: Tx, row: SandboxRefundRow, now: Date): Promise<void> {
  await tx.query(
    "insert into sandbox_refund (id, sandbox_payment_id, refund_id, amount_minor, created_at) values ($1, $2, $3, $4, $5)",
    [row.id, row.sandbox_payment_id, row.refund_id, row.amount_minor, now],
  );
}

/** The refund that was asked for under this id of ours. */
export async function findSandboxRefund(
  tx: Tx,
  sandboxPaymentId: string,
  refundId: string,
): Promise<SandboxRefundRow | null> {
  const [row] = await tx.query<SandboxRefundRow>(
    `select id, sandbox_payment_id, refund_id, amount_minor from sandbox_refund
     where sandbox_payment_id = $1 and refund_id = $2`,
    [sandboxPaymentId, refundId],
  );
  return row ?? null;
}

export interface SandboxMethodRow {
  id: string;
  account_id: string;
  /** It was saved to fail when it is charged. */
  declines: boolean;
}

export async function insertSandboxMethod(tx: Tx, row: SandboxMethodRow, now: Date): Promise<void> {
  await tx.query("insert into sandbox_method (id, account_id, declines, created_at) values ($1, $2, $3, $4)", [
    row.id,
    row.account_id,
    row.declines,
    now,
  ]);
}

export async function findSandboxMethod(tx: Tx, accountId: string, id: string): Promise<SandboxMethodRow | null> {
  const [row] = await tx.query<SandboxMethodRow>(
    "select id, account_id, declines from sandbox_method where account_id = $1 and id = $2",
    [accountId, id],
  );
  return row ?? null;
}

export async function deleteSandboxMethod(tx: Tx, accountId: string, id: string): Promise<void> {
  await tx.query("delete from sandbox_method where account_id = $1 and id = $2", [accountId, id]);
}

export const SANDBOX_NOTIFICATIONS = [
  "payment.paid",
  "payment.declined",
  "refund.succeeded",
  "dispute.opened",
  "dispute.won",
  "dispute.lost",
] as const;
export type SandboxNotificationKind = (typeof SANDBOX_NOTIFICATIONS)[number];

export interface NewSandboxNotification {
  readonly id: string;
  readonly sandboxPaymentId: string;
  readonly kind: SandboxNotificationKind;
  readonly refundId: string | null;
  /** From 1 to 10. */
  readonly copies: number;
  readonly sendAt: Date;
}

export async function insertSandboxNotification(tx: Tx, row: NewSandboxNotification, now: Date): Promise<void> {
  await tx.query(
    `insert into sandbox_notification (id, sandbox_payment_id, kind, refund_id, copies, send_at, created_at)
     values ($1, $2, $3, $4, $5, $6, $7)`,
    [row.id, row.sandboxPaymentId, row.kind, row.refundId, row.copies, row.sendAt, now],
  );
}

/** What is told of a payment that is not to be paid any more must not be told. */
export async function deleteSandboxNotifications(tx: Tx, sandboxPaymentId: string): Promise<void> {
  await tx.query("delete from sandbox_notification where sandbox_payment_id = $1", [sandboxPaymentId]);
}

/** A notification with all that it says. */
export interface DueSandboxNotification {
  id: string;
  kind: SandboxNotificationKind;
  copies: number;
  /** This one is counted. */
  attempts: number;
  account_id: string;
  payment_id: string;
  sandbox_payment_id: string;
  charge_id: string;
  currency: string;
  amount_minor: bigint;
  refunded_minor: bigint;
  dispute_id: string | null;
  /** The sandbox's refund and ours. */
  refund_reference: string | null;
  refund_id: string | null;
  refund_minor: bigint | null;
}

/**
 * Takes up to `limit` notifications that are due, oldest first; nobody else gets them until `until`. Whoever sends them
 * deletes or postpones them afterwards; if it dies, another sends them again.
 */
export async function claimSandboxNotifications(
  tx: Tx,
  now: Date,
  until: Date,
  limit: number,
): Promise<DueSandboxNotification[]> {
  return tx.query<DueSandboxNotification>(
    `with due as (
       select id from sandbox_notification where send_at <= $1 order by send_at, id limit $3 for update skip locked),
     claimed as (
       update sandbox_notification n set send_at = $2, attempts = attempts + 1 from due where n.id = due.id
       returning n.id, n.kind, n.copies, n.attempts, n.sandbox_payment_id, n.refund_id, n.created_at)
     select c.id, c.kind, c.copies, c.attempts, p.account_id, p.payment_id, p.id as sandbox_payment_id, p.charge_id,
       p.currency, p.amount_minor, p.refunded_minor, p.dispute_id, r.id as refund_reference, r.refund_id,
       r.amount_minor as refund_minor
     from claimed c join sandbox_payment p on p.id = c.sandbox_payment_id left join sandbox_refund r on r.id = c.refund_id
     order by c.created_at, c.id`,
    [now, until, limit],
  );
}

export async function deleteSandboxNotification(tx: Tx, id: string): Promise<void> {
  await tx.query("delete from sandbox_notification where id = $1", [id]);
}

export async function postponeSandboxNotification(tx: Tx, id: string, sendAt: Date): Promise<void> {
  await tx.query("update sandbox_notification set send_at = $2 where id = $1", [id, sendAt]);
}
