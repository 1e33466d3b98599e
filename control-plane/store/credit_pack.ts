/** Credit packs. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isForeignKeyViolation } from "../db/errors.ts";
import { inUse, notFound } from "../domain/errors.ts";

/** What a merchant can change. Credits are decimal strings; amounts are in the currency's smallest unit. */
export interface CreditPackFields {
  label: string;
  currency: string;
  amount_minor: bigint;
  credits: string;
  bonus: string;
  /** Both or neither: the payer chooses the amount. */
  min_minor: bigint | null;
  max_minor: bigint | null;
  disabled: boolean;
  position: number;
}

export interface CreditPackRow extends CreditPackFields {
  id: string;
  n: bigint;
  merchant_id: string;
  /** Null: for all VEs that have none of their template. */
  ve_template_id: string | null;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, ve_template_id, label, currency, amount_minor, credits, bonus, min_minor, max_minor, disabled, position, version, created_at, updated_at";

export type NewCreditPack = CreditPackFields & Pick<CreditPackRow, "id" | "merchant_id" | "ve_template_id">;

export async function insertCreditPack(tx: Tx, row: NewCreditPack, now: Date): Promise<CreditPackRow> {
  const [stored] = await tx.query<CreditPackRow>(
    `insert into credit_pack (id, merchant_id, ve_template_id, label, currency, amount_minor, credits, bonus, min_minor, max_minor,
       disabled, position, created_at, updated_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) returning ${COLUMNS}`,
    [
      row.id,
      row.merchant_id,
      row.ve_template_id,
      row.label,
      row.currency,
      row.amount_minor,
      row.credits,
      row.bonus,
      row.min_minor,
      row.max_minor,
      row.disabled,
      row.position,
      now,
    ],
  );
  return stored!;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<CreditPackRow> {
  const [row] = await tx.query<CreditPackRow>(
    `select ${COLUMNS} from credit_pack where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("CreditPack");
  return row;
}

/** @throws DomainError not_found */
export function readCreditPack(tx: Tx, merchantId: string, id: string): Promise<CreditPackRow> {
  return readOne(tx, merchantId, id, "");
}

/** @throws DomainError not_found */
export function lockCreditPack(tx: Tx, merchantId: string, id: string): Promise<CreditPackRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** Oldest first, after row `after` (0n: from the first). `templateId` empty: whatever they are for. */
export async function listCreditPacks(
  tx: Tx,
  merchantId: string,
  templateId: string,
  after: bigint,
  limit: number,
): Promise<CreditPackRow[]> {
  return tx.query<CreditPackRow>(
    `select ${COLUMNS} from credit_pack where merchant_id = $1 and n > $2 and ($4 = '' or ve_template_id = $4) order by n limit $3`,
    [merchantId, after, limit, templateId],
  );
}

export async function countCreditPacks(tx: Tx, merchantId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>("select count(*) from credit_pack where merchant_id = $1", [
    merchantId,
  ]);
  return Number(row!.count);
}

/** Writes a locked row as a new version. */
export async function updateCreditPack(
  tx: Tx,
  id: string,
  fields: CreditPackFields,
  now: Date,
): Promise<CreditPackRow> {
  const [row] = await tx.query<CreditPackRow>(
    `update credit_pack set label = $2, currency = $3, amount_minor = $4, credits = $5, bonus = $6, min_minor = $7, max_minor = $8,
       disabled = $9, position = $10, updated_at = $11, version = version + 1
     where id = $1 returning ${COLUMNS}`,
    [
      id,
      fields.label,
      fields.currency,
      fields.amount_minor,
      fields.credits,
      fields.bonus,
      fields.min_minor,
      fields.max_minor,
      fields.disabled,
      fields.position,
      now,
    ],
  );
  return row!;
}

/** A VE whose automatic top-up buys the pack; null: there is none. */
export async function findPackBuyer(tx: Tx, packId: string): Promise<string | null> {
  const [row] = await tx.query<{ ve_id: string }>("select ve_id from auto_top_up where pack_id = $1 limit 1", [packId]);
  return row?.ve_id ?? null;
}

/** What a pack is in use by. */
export const PACK_BUYER = "an automatic top-up: let that buy another pack first";

/** @throws DomainError in_use when an automatic top-up buys it */
export async function deleteCreditPack(tx: Tx, id: string): Promise<void> {
  await tx.query("delete from credit_pack where id = $1", [id]).catch((error: unknown) => {
    throw isForeignKeyViolation(error) ? inUse("CreditPack", "", PACK_BUYER) : error;
  });
}
