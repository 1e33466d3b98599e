/** Merchants' accounts at payment processors. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isForeignKeyViolation } from "../db/errors.ts";
import type { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { inUse, notFound } from "../domain/errors.ts";

export interface PaymentAccountRow {
  id: string;
  n: bigint;
  merchant_id: string;
  processor: PaymentProcessor;
  name: string;
  /** An encrypted envelope of `tokenbill.v1.PaymentCredentials`, sealed for the account's id; null for the sandbox. */
  credentials: Uint8Array | null;
  methods: PaymentMethod[];
  test: boolean;
  hint: string;
  disabled: boolean;
  last_notified_at: Date | null;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, processor, name, credentials, methods, test, hint, disabled, last_notified_at, version, created_at, updated_at";

const SANDBOX = 3;

export type NewPaymentAccount = Pick<
  PaymentAccountRow,
  "id" | "merchant_id" | "processor" | "name" | "credentials" | "methods" | "test" | "hint" | "disabled"
>;

export async function insertPaymentAccount(tx: Tx, row: NewPaymentAccount, now: Date): Promise<PaymentAccountRow> {
  const [stored] = await tx.query<PaymentAccountRow>(
    `insert into payment_account (id, merchant_id, processor, name, credentials, methods, test, hint, disabled, created_at, updated_at)
     values ($1, $2, $3, $4, $5, $6::int[], $7, $8, $9, $10, $10) returning ${COLUMNS}`,
    [
      row.id,
      row.merchant_id,
      row.processor,
      row.name,
      row.credentials,
      row.methods,
      row.test,
      row.hint,
      row.disabled,
      now,
    ],
  );
  return stored!;
}

/** The merchant's account at the sandbox, made when there is none; safe against others that make it. */
export async function sandboxAccount(tx: Tx, merchantId: string, newId: string, now: Date): Promise<PaymentAccountRow> {
  await tx.query(
    `insert into payment_account (id, merchant_id, processor, name, methods, test, hint, created_at, updated_at)
     values ($1, $2, ${SANDBOX}, 'Sandbox', '{7}', true, 'sandbox', $3, $3)
     on conflict (merchant_id) where processor = ${SANDBOX} do nothing`,
    [newId, merchantId, now],
  );
  const [row] = await tx.query<PaymentAccountRow>(
    `select ${COLUMNS} from payment_account where merchant_id = $1 and processor = ${SANDBOX}`,
    [merchantId],
  );
  return row!;
}

/** Whether any merchant of this deployment has an account at a real processor. */
export async function anyRealAccount(tx: Tx): Promise<boolean> {
  const rows = await tx.query(`select 1 from payment_account where processor <> ${SANDBOX} limit 1`);
  return rows.length > 0;
}

/** Whoever the merchant is: for notifications and jobs. Null: there is none. */
export async function findPaymentAccount(tx: Tx, id: string): Promise<PaymentAccountRow | null> {
  const [row] = await tx.query<PaymentAccountRow>(`select ${COLUMNS} from payment_account where id = $1`, [id]);
  return row ?? null;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<PaymentAccountRow> {
  const [row] = await tx.query<PaymentAccountRow>(
    `select ${COLUMNS} from payment_account where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("PaymentAccount");
  return row;
}

/** @throws DomainError not_found */
export function readPaymentAccount(tx: Tx, merchantId: string, id: string): Promise<PaymentAccountRow> {
  return readOne(tx, merchantId, id, "");
}

/** @throws DomainError not_found */
export function lockPaymentAccount(tx: Tx, merchantId: string, id: string): Promise<PaymentAccountRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** Oldest first, after row `after` (0n: from the first). The sandbox is among them once it was used. */
export async function listPaymentAccounts(
  tx: Tx,
  merchantId: string,
  after: bigint,
  limit: number,
): Promise<PaymentAccountRow[]> {
  return tx.query<PaymentAccountRow>(
    `select ${COLUMNS} from payment_account where merchant_id = $1 and n > $2 order by n limit $3`,
    [merchantId, after, limit],
  );
}

export type PaymentAccountFields = Pick<
  PaymentAccountRow,
  "name" | "credentials" | "methods" | "test" | "hint" | "disabled"
>;

/** Writes a locked row as a new version. */
export async function updatePaymentAccount(
  tx: Tx,
  id: string,
  fields: PaymentAccountFields,
  now: Date,
): Promise<PaymentAccountRow> {
  const [row] = await tx.query<PaymentAccountRow>(
    `update payment_account set name = $2, credentials = $3, methods = $4::int[], test = $5, hint = $6, disabled = $7,
       version = version + 1, updated_at = $8 where id = $1 returning ${COLUMNS}`,
    [id, fields.name, fields.credentials, fields.methods, fields.test, fields.hint, fields.disabled, now],
  );
  return row!;
}

export async function noteNotification(tx: Tx, id: string, now: Date): Promise<void> {
  await tx.query("update payment_account set last_notified_at = $2 where id = $1", [id, now]);
}

/** @throws DomainError in_use when payments were made with it */
export async function deletePaymentAccount(tx: Tx, id: string): Promise<void> {
  await tx.query("delete from payment_account where id = $1", [id]).catch((error: unknown) => {
    throw isForeignKeyViolation(error) ? inUse("PaymentAccount", "", "payments: disable it instead") : error;
  });
}
