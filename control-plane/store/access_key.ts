/** Access keys, as digests. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { notFound } from "../domain/errors.ts";
import { jsonOrNull, type StoredRateLimits } from "./routing_columns.ts";

/** What a merchant can change. */
export interface AccessKeyFields {
  name: string;
  /** Null: none. */
  rate_limits: StoredRateLimits | null;
}

export interface AccessKeyRow extends AccessKeyFields {
  id: string;
  n: bigint;
  ve_id: string;
  prefix: string;
  version: bigint;
  created_at: Date;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

const COLUMNS = "id, n, ve_id, name, prefix, rate_limits, version, created_at, last_used_at, revoked_at";

export interface NewAccessKey {
  readonly id: string;
  readonly merchantId: string;
  readonly veId: string;
  readonly name: string;
  readonly prefix: string;
  /** SHA-256 of the secret. */
  readonly digest: Uint8Array;
  /** Null: none. */
  readonly rateLimits: StoredRateLimits | null;
}

export async function insertAccessKey(tx: Tx, key: NewAccessKey, revision: bigint, now: Date): Promise<AccessKeyRow> {
  const [row] = await tx.query<AccessKeyRow>(
    `insert into access_key (id, merchant_id, ve_id, name, prefix, digest, revision, created_at, updated_at, rate_limits)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9::jsonb) returning ${COLUMNS}`,
    [key.id, key.merchantId, key.veId, key.name, key.prefix, key.digest, revision, now, jsonOrNull(key.rateLimits)],
  );
  return row!;
}

/** Keys of a VE that are not revoked. */
export async function countAccessKeys(tx: Tx, veId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>(
    "select count(*) from access_key where ve_id = $1 and revoked_at is null",
    [veId],
  );
  return Number(row!.count);
}

/** Oldest first, revoked ones included. */
export async function listAccessKeys(tx: Tx, veId: string, after: bigint, limit: number): Promise<AccessKeyRow[]> {
  return tx.query<AccessKeyRow>(`select ${COLUMNS} from access_key where ve_id = $1 and n > $2 order by n limit $3`, [
    veId,
    after,
    limit,
  ]);
}

/** Locks the row until the end of the transaction. @throws DomainError not_found */
export async function lockAccessKey(tx: Tx, merchantId: string, id: string): Promise<AccessKeyRow> {
  const [row] = await tx.query<AccessKeyRow>(
    `select ${COLUMNS} from access_key where id = $1 and merchant_id = $2 for update`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("access key");
  return row;
}

/** Writes a locked row as a new version. */
export async function updateAccessKey(
  tx: Tx,
  id: string,
  fields: AccessKeyFields,
  revision: bigint,
  now: Date,
): Promise<AccessKeyRow> {
  const [row] = await tx.query<AccessKeyRow>(
    `update access_key set name = $2, rate_limits = $3::jsonb, revision = $4, updated_at = $5, version = version + 1
     where id = $1 returning ${COLUMNS}`,
    [id, fields.name, jsonOrNull(fields.rate_limits), revision, now],
  );
  return row!;
}

/** Marks a locked key as revoked. */
export async function revokeAccessKey(tx: Tx, id: string, revision: bigint, now: Date): Promise<AccessKeyRow> {
  const [row] = await tx.query<AccessKeyRow>(
    `update access_key set revoked_at = $3, revision = $2, updated_at = $3, version = version + 1 where id = $1 returning ${COLUMNS}`,
    [id, revision, now],
  );
  return row!;
}
