/** Physical Models and their prices. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { inUse, nameTaken, notFound } from "../domain/errors.ts";
import { deleteLimitsOf } from "./limit.ts";
import { jsonOrNull, type StoredRateLimits } from "./routing_columns.ts";

/** What a merchant can change. */
export interface PhysicalModelFields {
  name: string;
  upstream_name: string;
  price_id: string | null;
  max_output_tokens: bigint;
  disabled: boolean;
  /** Null: none. */
  rate_limits: StoredRateLimits | null;
  /** The model that it is; empty if its upstream name tells. */
  family: string;
  /** Numbers of `tokenbill.v1.ModelApi`. */
  apis: number[];
}

export interface PhysicalModelRow extends PhysicalModelFields {
  id: string;
  n: bigint;
  merchant_id: string;
  provider_id: string;
  version: bigint;
  created_at: Date;
  updated_at: Date;
  /** The present price, a serialized tokenbill.v1.Price; null if there is none. */
  price_body: Uint8Array | null;
}

const OWN_COLUMNS =
  "id, n, merchant_id, provider_id, name, upstream_name, price_id, max_output_tokens, disabled, rate_limits, family, apis, version, created_at, updated_at";
const COLUMNS = `${OWN_COLUMNS.split(", ")
  .map((column) => `m.${column}`)
  .join(", ")}, p.body as price_body`;
const FROM = "physical_model m left join price p on p.id = m.price_id";

function onConflict(error: unknown): never {
  throw isUniqueViolation(error, "physical_model_name_key") ? nameTaken("Physical Model") : error;
}

export interface NewPhysicalModel extends PhysicalModelFields {
  id: string;
  merchant_id: string;
  provider_id: string;
}

/** @throws DomainError name_taken */
export async function insertPhysicalModel(
  tx: Tx,
  row: NewPhysicalModel,
  revision: bigint,
  now: Date,
): Promise<PhysicalModelRow> {
  await tx
    .query(
      `insert into physical_model (id, merchant_id, provider_id, name, upstream_name, price_id, max_output_tokens, disabled,
         revision, created_at, updated_at, rate_limits, family, apis)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11::jsonb, $12, $13::int[])`,
      [
        row.id,
        row.merchant_id,
        row.provider_id,
        row.name,
        row.upstream_name,
        row.price_id,
        row.max_output_tokens,
        row.disabled,
        revision,
        now,
        jsonOrNull(row.rate_limits),
        row.family,
        row.apis,
      ],
    )
    .catch(onConflict);
  return readPhysicalModel(tx, row.merchant_id, row.id);
}

/** @throws DomainError not_found */
export async function readPhysicalModel(tx: Tx, merchantId: string, id: string): Promise<PhysicalModelRow> {
  const [row] = await tx.query<PhysicalModelRow>(
    `select ${COLUMNS} from ${FROM} where m.id = $1 and m.merchant_id = $2`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("Physical Model");
  return row;
}

/** Locks the row against changes and deletion until the end of the transaction. @throws DomainError not_found */
export async function lockPhysicalModel(tx: Tx, merchantId: string, id: string): Promise<PhysicalModelRow> {
  // A statement that had to wait for its lock sees the row as it is now, but a price that was set meanwhile not yet.
  await tx.query("select 1 from physical_model where id = $1 and merchant_id = $2 for update", [id, merchantId]);
  return readPhysicalModel(tx, merchantId, id);
}

/** `providerId` empty: those of every Provider. */
export async function listPhysicalModels(
  tx: Tx,
  merchantId: string,
  providerId: string,
  after: bigint,
  limit: number,
): Promise<PhysicalModelRow[]> {
  if (providerId === "") {
    return tx.query<PhysicalModelRow>(
      `select ${COLUMNS} from ${FROM} where m.merchant_id = $1 and m.n > $2 order by m.n limit $3`,
      [merchantId, after, limit],
    );
  }
  return tx.query<PhysicalModelRow>(
    `select ${COLUMNS} from ${FROM} where m.merchant_id = $1 and m.provider_id = $4 and m.n > $2 order by m.n limit $3`,
    [merchantId, after, limit, providerId],
  );
}

/** Writes a locked row as a new version. @throws DomainError name_taken */
export async function updatePhysicalModel(
  tx: Tx,
  merchantId: string,
  id: string,
  fields: PhysicalModelFields,
  revision: bigint,
  now: Date,
): Promise<PhysicalModelRow> {
  await tx
    .query(
      `update physical_model set name = $2, upstream_name = $3, price_id = $4, max_output_tokens = $5, disabled = $6,
         revision = $7, updated_at = $8, version = version + 1, rate_limits = $9::jsonb, family = $10, apis = $11::int[]
       where id = $1`,
      [
        id,
        fields.name,
        fields.upstream_name,
        fields.price_id,
        fields.max_output_tokens,
        fields.disabled,
        revision,
        now,
        jsonOrNull(fields.rate_limits),
        fields.family,
        fields.apis,
      ],
    )
    .catch(onConflict);
  return readPhysicalModel(tx, merchantId, id);
}

/** A Logical Model that leads to this Physical Model, or null. */
export async function findUser(tx: Tx, id: string): Promise<string | null> {
  const [row] = await tx.query<{ id: string }>("select id from logical_model where pm_ids @> array[$1::text] limit 1", [
    id,
  ]);
  return row?.id ?? null;
}

/** Deletes a locked row with its limits; its prices stay. @throws DomainError in_use */
export async function deletePhysicalModel(tx: Tx, id: string): Promise<void> {
  const user = await findUser(tx, id);
  if (user !== null) throw inUse("Physical Model", user, "a Logical Model: take it out of its targets first");
  await deleteLimitsOf(tx, id);
  await tx.query("delete from physical_model where id = $1", [id]);
}

/** What decides whether a Logical Model may lead to a Physical Model. */
export interface TargetModelRow {
  id: string;
  format: number;
  price_id: string | null;
  price_body: Uint8Array | null;
}

/** Those of `ids` that belong to the merchant, locked against deletion until the end of the transaction. */
export async function keepTargetModels(tx: Tx, merchantId: string, ids: readonly string[]): Promise<TargetModelRow[]> {
  // Locked first and read then, as above.
  await tx.query(
    "select 1 from physical_model where id = any($2::text[]) and merchant_id = $1 order by id for key share",
    [merchantId, ids],
  );
  return tx.query<TargetModelRow>(
    `select m.id, v.format, m.price_id, p.body as price_body
     from physical_model m join provider v on v.id = m.provider_id left join price p on p.id = m.price_id
     where m.id = any($2::text[]) and m.merchant_id = $1 order by m.id`,
    [merchantId, ids],
  );
}

/** What decides whether a request may go to a Physical Model now, as far as the database knows. */
export interface TargetStateRow extends TargetModelRow {
  provider_id: string;
  disabled: boolean;
  provider_disabled: boolean;
  rate_limits: StoredRateLimits | null;
}

/** Those of `ids` that there are; nothing is locked. */
export async function readTargetStates(tx: Tx, merchantId: string, ids: readonly string[]): Promise<TargetStateRow[]> {
  return tx.query<TargetStateRow>(
    `select m.id, m.provider_id, m.disabled, m.rate_limits, m.price_id, v.format, v.disabled as provider_disabled,
       p.body as price_body
     from physical_model m join provider v on v.id = m.provider_id left join price p on p.id = m.price_id
     where m.id = any($2::text[]) and m.merchant_id = $1`,
    [merchantId, ids],
  );
}

export interface PriceRow {
  id: string;
  n: bigint;
  /** A serialized tokenbill.v1.Price. */
  body: Uint8Array;
  created_at: Date;
}

export interface NewPrice {
  readonly id: string;
  readonly merchantId: string;
  readonly physicalModelId: string;
  readonly body: Uint8Array;
  readonly now: Date;
}

export async function insertPrice(tx: Tx, price: NewPrice): Promise<void> {
  await tx.query(
    "insert into price (id, merchant_id, physical_model_id, body, created_at) values ($1, $2, $3, $4, $5)",
    [price.id, price.merchantId, price.physicalModelId, price.body, price.now],
  );
}

/** Newest first; `before` null: from the newest on. */
export async function listPrices(
  tx: Tx,
  physicalModelId: string,
  before: bigint | null,
  limit: number,
): Promise<PriceRow[]> {
  return tx.query<PriceRow>(
    `select id, n, body, created_at from price
     where physical_model_id = $1 and n < coalesce($2::bigint, 9223372036854775807) order by n desc limit $3`,
    [physicalModelId, before, limit],
  );
}
