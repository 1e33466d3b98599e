/** Logical Models. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { nameTaken, notFound } from "../domain/errors.ts";
import { jsonOrNull, type StoredDeadlines, type StoredRouting, type StoredTarget } from "./routing_columns.ts";

/** What a merchant can change. */
export interface LogicalModelFields {
  name: string;
  targets: StoredTarget[];
  deadlines: StoredDeadlines;
  /** Null: nothing beyond tiers and weights. */
  routing: StoredRouting | null;
}

export interface LogicalModelRow extends LogicalModelFields {
  id: string;
  n: bigint;
  ve_id: string;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, n, ve_id, name, targets, deadlines, routing, version, created_at, updated_at";

function onConflict(error: unknown): never {
  throw isUniqueViolation(error, "logical_model_name_key") ? nameTaken("Logical Model of this VE") : error;
}

function pmIds(fields: LogicalModelFields): string[] {
  return fields.targets.map((target) => target.pm);
}

export interface NewLogicalModel extends LogicalModelFields {
  id: string;
  merchant_id: string;
  ve_id: string;
}

/** @throws DomainError name_taken */
export async function insertLogicalModel(
  tx: Tx,
  row: NewLogicalModel,
  revision: bigint,
  now: Date,
): Promise<LogicalModelRow> {
  const rows = await tx
    .query<LogicalModelRow>(
      `insert into logical_model (id, merchant_id, ve_id, name, targets, pm_ids, deadlines, revision, created_at, updated_at,
         routing)
       values ($1, $2, $3, $4, $5::jsonb, $6, $7::jsonb, $8, $9, $9, $10::jsonb) returning ${COLUMNS}`,
      [
        row.id,
        row.merchant_id,
        row.ve_id,
        row.name,
        JSON.stringify(row.targets),
        pmIds(row),
        JSON.stringify(row.deadlines),
        revision,
        now,
        jsonOrNull(row.routing),
      ],
    )
    .catch(onConflict);
  return rows[0]!;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<LogicalModelRow> {
  const [row] = await tx.query<LogicalModelRow>(
    `select ${COLUMNS} from logical_model where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("Logical Model");
  return row;
}

/** @throws DomainError not_found */
export function readLogicalModel(tx: Tx, merchantId: string, id: string): Promise<LogicalModelRow> {
  return readOne(tx, merchantId, id, "");
}

/** Locks the row until the end of the transaction. @throws DomainError not_found */
export function lockLogicalModel(tx: Tx, merchantId: string, id: string): Promise<LogicalModelRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** The Logical Model of a VE that clients send this name for; null if it has none. */
export async function findLogicalModel(tx: Tx, veId: string, name: string): Promise<LogicalModelRow | null> {
  const [row] = await tx.query<LogicalModelRow>(`select ${COLUMNS} from logical_model where ve_id = $1 and name = $2`, [
    veId,
    name,
  ]);
  return row ?? null;
}

/** Oldest first. */
export async function listLogicalModels(
  tx: Tx,
  veId: string,
  after: bigint,
  limit: number,
): Promise<LogicalModelRow[]> {
  return tx.query<LogicalModelRow>(
    `select ${COLUMNS} from logical_model where ve_id = $1 and n > $2 order by n limit $3`,
    [veId, after, limit],
  );
}

export async function countLogicalModels(tx: Tx, veId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>("select count(*) from logical_model where ve_id = $1", [veId]);
  return Number(row!.count);
}

/** Writes a locked row as a new version. @throws DomainError name_taken */
export async function updateLogicalModel(
  tx: Tx,
  id: string,
  fields: LogicalModelFields,
  revision: bigint,
  now: Date,
): Promise<LogicalModelRow> {
  const rows = await tx
    .query<LogicalModelRow>(
      `update logical_model set name = $2, targets = $3::jsonb, pm_ids = $4, deadlines = $5::jsonb, revision = $6, updated_at = $7,
         version = version + 1, routing = $8::jsonb
       where id = $1 returning ${COLUMNS}`,
      [
        id,
        fields.name,
        JSON.stringify(fields.targets),
        pmIds(fields),
        JSON.stringify(fields.deadlines),
        revision,
        now,
        jsonOrNull(fields.routing),
      ],
    )
    .catch(onConflict);
  return rows[0]!;
}

export async function deleteLogicalModel(tx: Tx, id: string): Promise<void> {
  await tx.query("delete from logical_model where id = $1", [id]);
}

export interface CopyLogicalModels {
  readonly merchantId: string;
  readonly fromVeId: string;
  readonly toVeId: string;
  /** Random: the new ids are derived from it. */
  readonly seed: string;
}

/**
 * Copies every Logical Model of one VE to another in one statement. Physical Models cannot go away meanwhile: a model
 * that one of the originals leads to cannot be deleted, and the originals are locked.
 */
export async function copyLogicalModels(tx: Tx, copy: CopyLogicalModels, revision: bigint, now: Date): Promise<void> {
  await tx.query(
    `insert into logical_model (id, merchant_id, ve_id, name, targets, pm_ids, deadlines, routing, revision, created_at, updated_at)
     select derived_id('lm_', $4, source.n), source.merchant_id, $3, source.name, source.targets, source.pm_ids, source.deadlines,
       source.routing, $5, $6, $6
     from (select * from logical_model where ve_id = $2 and merchant_id = $1 for key share) as source
     order by source.n`,
    [copy.merchantId, copy.fromVeId, copy.toVeId, copy.seed, revision, now],
  );
}
