/** Payments of Checkout Sessions. */

import type { Tx } from "../db/database.ts";
import { type PaymentMethod, type PaymentProcessor, PaymentState } from "../domain/checkout.ts";

/** Credits are decimal strings; amounts are in the currency's smallest unit. */
export interface PaymentRow {
  id: string;
  n: bigint;
  session_id: string;
  merchant_id: string;
  ve_id: string;
  account_id: string;
  processor: PaymentProcessor;
  method: PaymentMethod;
  state: PaymentState;
  /** Tells one choice of the payer from another: pack, amount, account, method, saving. */
  choice: string;
  /** What else the processor was told: it is told the same when it is asked again. */
  terms: Record<string, string>;
  /** The processor's name while it is under way. */
  reference: string | null;
  /** The processor's name of the money. */
  settled_reference: string | null;
  details: Record<string, string>;
  /** What the payer has to do (`PaymentAction`). */
  action: unknown;
  currency: string;
  amount_minor: bigint;
  credits: string;
  bonus: string;
  failure: string;
  auto_top_up: boolean;
  transfer_id: string | null;
  granted: string;
  refunded_minor: bigint;
  taken: string;
  check_at: Date | null;
  checks: number;
  created_at: Date;
  updated_at: Date;
}

export const PAYMENT_COLUMNS =
  "id, n, session_id, merchant_id, ve_id, account_id, processor, method, state, choice, terms, reference, settled_reference, details, action, currency, amount_minor, credits, bonus, failure, auto_top_up, transfer_id, granted, refunded_minor, taken, check_at, checks, created_at, updated_at";

export type NewPayment = Pick<
  PaymentRow,
  | "id"
  | "session_id"
  | "merchant_id"
  | "ve_id"
  | "account_id"
  | "processor"
  | "method"
  | "choice"
  | "terms"
  | "currency"
  | "amount_minor"
  | "credits"
  | "bonus"
  | "auto_top_up"
  | "check_at"
>;

/** In state STARTING. */
export async function insertPayment(tx: Tx, row: NewPayment, now: Date): Promise<PaymentRow> {
  const [stored] = await tx.query<PaymentRow>(
    `insert into payment (id, session_id, merchant_id, ve_id, account_id, processor, method, state, choice, currency, amount_minor,
       credits, bonus, auto_top_up, check_at, created_at, updated_at, terms)
     values ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16::jsonb) returning ${PAYMENT_COLUMNS}`,
    [
      row.id,
      row.session_id,
      row.merchant_id,
      row.ve_id,
      row.account_id,
      row.processor,
      row.method,
      row.choice,
      row.currency,
      row.amount_minor,
      row.credits,
      row.bonus,
      row.auto_top_up,
      row.check_at,
      now,
      JSON.stringify(row.terms),
    ],
  );
  return stored!;
}

export async function findPayment(tx: Tx, id: string): Promise<PaymentRow | null> {
  const [row] = await tx.query<PaymentRow>(`select ${PAYMENT_COLUMNS} from payment where id = $1`, [id]);
  return row ?? null;
}

/** Of one account alone: what another merchant's processor says is about nothing of ours. */
export async function findPaymentByReference(
  tx: Tx,
  accountId: string,
  references: readonly string[],
): Promise<PaymentRow | null> {
  const [row] = await tx.query<PaymentRow>(
    `select ${PAYMENT_COLUMNS} from payment
     where account_id = $1 and (reference = any($2::text[]) or settled_reference = any($2::text[])) limit 1`,
    [accountId, references],
  );
  return row ?? null;
}

/** The newest payments of an account that may have been paid without our knowing. */
export async function listLivePayments(tx: Tx, accountId: string, limit: number): Promise<PaymentRow[]> {
  return tx.query<PaymentRow>(
    `select ${PAYMENT_COLUMNS} from payment where check_at is not null and account_id = $1
       and state in (${PaymentState.STARTING}, ${PaymentState.PENDING}) order by n desc limit $2`,
    [accountId, limit],
  );
}

/** The session must be locked first. */
export async function lockPayment(tx: Tx, id: string): Promise<PaymentRow> {
  const [row] = await tx.query<PaymentRow>(`select ${PAYMENT_COLUMNS} from payment where id = $1 for update`, [id]);
  return row!;
}

/** Oldest first. */
export async function listPayments(tx: Tx, sessionIds: readonly string[]): Promise<PaymentRow[]> {
  return tx.query<PaymentRow>(`select ${PAYMENT_COLUMNS} from payment where session_id = any($1::text[]) order by n`, [
    sessionIds,
  ]);
}

/**
 * When payments of a VE were declined, newest first: those of linked sessions, or those of the others. What was never
 * started at the processor was not declined there, nor are saved methods cards that somebody tries.
 */
export async function listDeclines(tx: Tx, veId: string, linked: boolean, since: Date, limit: number): Promise<Date[]> {
  const rows = await tx.query<{ updated_at: Date }>(
    `select p.updated_at from payment p join checkout_session s on s.id = p.session_id
     where p.ve_id = $1 and p.state = 5 and p.reference is not null and p.method <> 2 and p.updated_at > $3
       and s.linked = $2
     order by p.updated_at desc limit $4`,
    [veId, linked, since, limit],
  );
  return rows.map((row) => row.updated_at);
}

export type PaymentFields = Pick<
  PaymentRow,
  | "state"
  | "reference"
  | "settled_reference"
  | "details"
  | "action"
  | "failure"
  | "transfer_id"
  | "granted"
  | "refunded_minor"
  | "taken"
  | "check_at"
  | "checks"
>;

/** Writes a locked row. */
export async function updatePayment(
  tx: Tx,
  row: PaymentRow,
  changes: Partial<PaymentFields>,
  now: Date,
): Promise<PaymentRow> {
  const next = { ...row, ...changes };
  const [stored] = await tx.query<PaymentRow>(
    `update payment set state = $2, reference = $3, settled_reference = $4, details = $5::jsonb, action = $6::jsonb, failure = $7,
       transfer_id = $8, granted = $9, refunded_minor = $10, taken = $11, check_at = $12, checks = $13, updated_at = $14
     where id = $1 returning ${PAYMENT_COLUMNS}`,
    [
      row.id,
      next.state,
      next.reference,
      next.settled_reference,
      JSON.stringify(next.details),
      next.action === null ? null : JSON.stringify(next.action),
      next.failure,
      next.transfer_id,
      next.granted,
      next.refunded_minor,
      next.taken,
      next.check_at,
      next.checks,
      now,
    ],
  );
  return stored!;
}

/** Whether another payment of the account claims this money already. */
export async function isSettledElsewhere(tx: Tx, { account_id, id }: PaymentRow, settled: string): Promise<boolean> {
  const rows = await tx.query("select 1 from payment where account_id = $1 and settled_reference = $2 and id <> $3", [
    account_id,
    settled,
    id,
  ]);
  return rows.length > 0;
}
