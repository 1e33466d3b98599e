/** Merchants. */

import { UTC } from "../../core/periods.ts";
import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { nameTaken, notFound } from "../domain/errors.ts";

export interface MerchantRow {
  id: string;
  n: bigint;
  name: string;
  disabled: boolean;
  /** An IANA name, spelled as usual. */
  time_zone: string;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, n, name, disabled, time_zone, version, created_at, updated_at";

function onConflict(error: unknown): never {
  throw isUniqueViolation(error, "merchant_name_key") ? nameTaken("merchant") : error;
}

/** @throws DomainError name_taken */
export async function insertMerchant(
  tx: Tx,
  row: { id: string; name: string; timeZone?: string; now: Date },
): Promise<MerchantRow> {
  const rows = await tx
    .query<MerchantRow>(
      `insert into merchant (id, name, time_zone, created_at, updated_at) values ($1, $2, $3, $4, $4) returning ${COLUMNS}`,
      [row.id, row.name, row.timeZone ?? UTC, row.now],
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

/**
 * A merchant's time zone, kept from changing until the end of the transaction: for what is about to be written with it.
 * Called before other rows are locked, as the change of a time zone locks its merchant first.
 */
export async function keepTimeZone(tx: Tx, id: string): Promise<string> {
  const [row] = await tx.query<{ time_zone: string }>("select time_zone from merchant where id = $1 for share", [id]);
  if (row === undefined) throw notFound("merchant");
  return row.time_zone;
}

/** The present time zones of these merchants. */
export async function readTimeZones(tx: Tx, ids: readonly string[]): Promise<Map<string, string>> {
  const rows = await tx.query<{ id: string; time_zone: string }>(
    "select id, time_zone from merchant where id = any($1::text[])",
    [ids],
  );
  return new Map(rows.map((row) => [row.id, row.time_zone]));
}

export async function listMerchants(tx: Tx, after: bigint, limit: number): Promise<MerchantRow[]> {
  return tx.query<MerchantRow>(`select ${COLUMNS} from merchant where n > $1 order by n limit $2`, [after, limit]);
}

export async function findMerchantByName(tx: Tx, name: string): Promise<MerchantRow | null> {
  const [row] = await tx.query<MerchantRow>(`select ${COLUMNS} from merchant where name = $1`, [name]);
  return row ?? null;
}

/** Writes a locked row's name, disabled state and time zone, as a new version. @throws DomainError name_taken */
export async function updateMerchant(
  tx: Tx,
  row: Pick<MerchantRow, "id" | "name" | "disabled" | "time_zone">,
  now: Date,
): Promise<MerchantRow> {
  const rows = await tx
    .query<MerchantRow>(
      `update merchant set name = $2, disabled = $3, time_zone = $4, updated_at = $5, version = version + 1
       where id = $1 returning ${COLUMNS}`,
      [row.id, row.name, row.disabled, row.time_zone, now],
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
