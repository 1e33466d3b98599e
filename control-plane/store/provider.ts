/** Providers. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isForeignKeyViolation, isUniqueViolation } from "../db/errors.ts";
import { inUse, nameTaken, notFound } from "../domain/errors.ts";

/** What a merchant can change. `credentials` is an encrypted envelope of ProviderCredentials. */
export interface ProviderFields {
  name: string;
  base_url: string;
  credentials: Uint8Array | null;
  on_disconnect: number;
  headers: Record<string, string>;
  region: string;
  api_version: string;
  disabled: boolean;
  /** A number of `tokenbill.v1.ProviderDialect`. */
  dialect: number;
  /** A number of `tokenbill.v1.BedrockApi`; 0 for other formats. */
  bedrock_api: number;
}

export interface ProviderRow extends ProviderFields {
  id: string;
  n: bigint;
  merchant_id: string;
  format: number;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, name, format, base_url, credentials, on_disconnect, headers, region, api_version, disabled, dialect, bedrock_api, version, created_at, updated_at";

function onConflict(error: unknown): never {
  throw isUniqueViolation(error, "provider_name_key") ? nameTaken("Provider") : error;
}

export interface NewProvider extends ProviderFields {
  id: string;
  merchant_id: string;
  format: number;
}

/** @throws DomainError name_taken */
export async function insertProvider(tx: Tx, row: NewProvider, revision: bigint, now: Date): Promise<ProviderRow> {
  const rows = await tx
    .query<ProviderRow>(
      `insert into provider (id, merchant_id, name, format, base_url, credentials, on_disconnect, headers, region, api_version,
         disabled, revision, created_at, updated_at, dialect, bedrock_api)
       values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $13, $14, $15) returning ${COLUMNS}`,
      [
        row.id,
        row.merchant_id,
        row.name,
        row.format,
        row.base_url,
        row.credentials,
        row.on_disconnect,
        JSON.stringify(row.headers),
        row.region,
        row.api_version,
        row.disabled,
        revision,
        now,
        row.dialect,
        row.bedrock_api,
      ],
    )
    .catch(onConflict);
  return rows[0]!;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<ProviderRow> {
  const [row] = await tx.query<ProviderRow>(
    `select ${COLUMNS} from provider where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("Provider");
  return row;
}

/** @throws DomainError not_found */
export function readProvider(tx: Tx, merchantId: string, id: string): Promise<ProviderRow> {
  return readOne(tx, merchantId, id, "");
}

/** Locks the row against changes and deletion until the end of the transaction. @throws DomainError not_found */
export function lockProvider(tx: Tx, merchantId: string, id: string): Promise<ProviderRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** Locks the row against deletion until the end of the transaction. @throws DomainError not_found */
export function keepProvider(tx: Tx, merchantId: string, id: string): Promise<ProviderRow> {
  return readOne(tx, merchantId, id, "for key share");
}

export async function listProviders(tx: Tx, merchantId: string, after: bigint, limit: number): Promise<ProviderRow[]> {
  return tx.query<ProviderRow>(
    `select ${COLUMNS} from provider where merchant_id = $1 and n > $2 order by n limit $3`,
    [merchantId, after, limit],
  );
}

/** Writes a locked row as a new version. @throws DomainError name_taken */
export async function updateProvider(
  tx: Tx,
  id: string,
  fields: ProviderFields,
  revision: bigint,
  now: Date,
): Promise<ProviderRow> {
  const rows = await tx
    .query<ProviderRow>(
      `update provider set name = $2, base_url = $3, credentials = $4, on_disconnect = $5, headers = $6::jsonb, region = $7,
         api_version = $8, disabled = $9, revision = $10, updated_at = $11, version = version + 1, dialect = $12, bedrock_api = $13
       where id = $1 returning ${COLUMNS}`,
      [
        id,
        fields.name,
        fields.base_url,
        fields.credentials,
        fields.on_disconnect,
        JSON.stringify(fields.headers),
        fields.region,
        fields.api_version,
        fields.disabled,
        revision,
        now,
        fields.dialect,
        fields.bedrock_api,
      ],
    )
    .catch(onConflict);
  return rows[0]!;
}

/** The VE whose files, uploads, batches and vector stores are passed through to this Provider, or null. */
export async function findPassthroughVe(tx: Tx, id: string): Promise<string | null> {
  const [row] = await tx.query<{ id: string }>("select id from virtual_endpoint where passthrough_provider_id = $1", [
    id,
  ]);
  return row?.id ?? null;
}

/** Deletes a locked row. @throws DomainError in_use */
export async function deleteProvider(tx: Tx, id: string): Promise<void> {
  const [user] = await tx.query<{ id: string }>(
    "select id from physical_model where provider_id = $1 order by n limit 1",
    [id],
  );
  if (user !== undefined) throw inUse("Provider", user.id, "a Physical Model: delete that first");
  const veId = await findPassthroughVe(tx, id);
  if (veId !== null)
    throw inUse("Provider", veId, `the VE ${veId} for files and the like: clear its passthrough_provider_id first`);
  await tx.query("delete from provider where id = $1", [id]).catch((error: unknown) => {
    if (!isForeignKeyViolation(error)) throw error;
    throw inUse("Provider", "", "a Physical Model or a VE that came just now: see which, and free it first");
  });
}
