/** Merchants. */

import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { nameTaken, notFound } from "../domain/errors.ts";

export interface MerchantRow {
  id: string;
  n: bigint;
  name: string;
  disabled: boolean;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, n, name, disabled, version, created_at, updated_at";

function onConflict(error: unknown): never {
  throw isUniqueViolation(error, "merchant_name_key") ? nameTaken("merchant") : error;
}

/** @throws DomainError name_taken */
export async function insertMerchant(tx: Tx, row: { id: string; name: string; now: Date }): Promise<MerchantRow> {
  const rows = await tx
    .query<MerchantRow>(
      `insert into merchant (id, name, created_at, updated_at) values ($1, $2, $3, $3) returning ${COLUMNS}`,
      [row.id, row.name, row.now],
    )
    .catch(onConflict);
  return rows[0]!;
}

/** @throws DomainError not_found */
export async function readMerchant(tx: Tx, id: string): Promise<MerchantRow> {
  const [row] = await tx.query<MerchantRow>(`select ${COLUMNS} from merchant where id = $1`, [id]);
  if (row === undefined) throw notFound("merchant");
  return row;
}

/** Locks the row until the end of the transaction. @throws DomainError not_found */
export async function lockMerchant(tx: Tx, id: string): Promise<MerchantRow> {
  const [row] = await tx.query<MerchantRow>(`select ${COLUMNS} from merchant where id = $1 for no key update`, [id]);
  if (row === undefined) throw notFound("merchant");
  return row;
}

export async function listMerchants(tx: Tx, after: bigint, limit: number): Promise<MerchantRow[]> {
  return tx.query<MerchantRow>(`select ${COLUMNS} from merchant where n > $1 order by n limit $2`, [after, limit]);
}

export async function findMerchantByName(tx: Tx, name: string): Promise<MerchantRow | null> {
  const [row] = await tx.query<MerchantRow>(`select ${COLUMNS} from merchant where name = $1`, [name]);
  return row ?? null;
}

/** Writes a locked row's name and disabled state, as a new version. @throws DomainError name_taken */
export async function updateMerchant(
  tx: Tx,
  row: Pick<MerchantRow, "id" | "name" | "disabled">,
  now: Date,
): Promise<MerchantRow> {
  const rows = await tx
    .query<MerchantRow>(
      `update merchant set name = $2, disabled = $3, updated_at = $4, version = version + 1 where id = $1 returning ${COLUMNS}`,
      [row.id, row.name, row.disabled, now],
    )
    .catch(onConflict);
  return rows[0]!;
}

/**
 * Locks every VE of a merchant until the end of the transaction. Before `nextRevision`, or it could wait for one that
 * waits for the revision.
 */
export async function lockMerchantVes(tx: Tx, merchantId: string): Promise<void> {
  await tx.query(
    "select count(*) from (select id from virtual_endpoint where merchant_id = $1 order by id for no key update) as locked",
    [merchantId],
  );
}

/** Gives every VE of a merchant this revision, so that nodes hear of its new state. */
export async function touchMerchantVes(tx: Tx, merchantId: string, revision: bigint): Promise<void> {
  await tx.query("update virtual_endpoint set revision = $2 where merchant_id = $1", [merchantId, revision]);
}
