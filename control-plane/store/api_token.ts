/** Bearer tokens of the control plane, as digests. */

import type { Tx } from "../db/database.ts";
import { notFound } from "../domain/errors.ts";

export type TokenScope = "operator" | "merchant" | "node";

export interface ApiTokenRow {
  id: string;
  n: bigint;
  scope: TokenScope;
  merchant_id: string | null;
  name: string;
  prefix: string;
  home_file: string | null;
  created_at: Date;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

export interface NewApiToken {
  readonly id: string;
  readonly scope: TokenScope;
  readonly merchantId: string | null;
  readonly name: string;
  readonly prefix: string;
  /** SHA-256 of the secret. */
  readonly digest: Uint8Array;
  /** The file in the home that holds it, for those of the first start. */
  readonly homeFile: string | null;
  readonly now: Date;
}

const COLUMNS = "id, n, scope, merchant_id, name, prefix, home_file, created_at, last_used_at, revoked_at";

export async function insertApiToken(tx: Tx, token: NewApiToken): Promise<ApiTokenRow> {
  const [row] = await tx.query<ApiTokenRow>(
    `insert into api_token (id, scope, merchant_id, name, prefix, digest, home_file, created_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8) returning ${COLUMNS}`,
    [token.id, token.scope, token.merchantId, token.name, token.prefix, token.digest, token.homeFile, token.now],
  );
  return row!;
}

export interface KnownToken {
  id: string;
  scope: TokenScope;
  merchant_id: string | null;
  last_used_at: Date | null;
}

/** The valid token with this digest, whose merchant is not disabled; null if there is none. */
export async function findApiToken(tx: Tx, digest: Uint8Array): Promise<KnownToken | null> {
  const [row] = await tx.query<KnownToken>(
    `select t.id, t.scope, t.merchant_id, t.last_used_at from api_token t left join merchant m on m.id = t.merchant_id
     where t.digest = $1 and t.revoked_at is null and m.disabled is not true`,
    [digest],
  );
  return row ?? null;
}

/** Notes the use of a token, unless one at or after `notBefore` is noted already. */
export async function noteApiTokenUse(tx: Tx, id: string, now: Date, notBefore: Date): Promise<void> {
  await tx.query(
    "update api_token set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $3)",
    [id, now, notBefore],
  );
}

/** Tokens of one merchant, oldest first. */
export async function listApiTokens(tx: Tx, merchantId: string, after: bigint, limit: number): Promise<ApiTokenRow[]> {
  return tx.query<ApiTokenRow>(
    `select ${COLUMNS} from api_token where merchant_id = $1 and scope = 'merchant' and n > $2 order by n limit $3`,
    [merchantId, after, limit],
  );
}

/** Ends a merchant's token; one that is ended stays as it is. `merchantId` null: of any merchant. @throws DomainError not_found */
export async function revokeApiToken(tx: Tx, id: string, merchantId: string | null, now: Date): Promise<ApiTokenRow> {
  const [row] = await tx.query<ApiTokenRow>(
    `update api_token set revoked_at = coalesce(revoked_at, $2)
     where id = $1 and scope = 'merchant' and ($3::text is null or merchant_id = $3) returning ${COLUMNS}`,
    [id, now, merchantId],
  );
  if (row === undefined) throw notFound("API token");
  return row;
}

/** The digest of the token that the first start wrote into a file of the home; null if there is none. */
export async function findHomeToken(tx: Tx, homeFile: string): Promise<{ id: string; digest: Uint8Array } | null> {
  const [row] = await tx.query<{ id: string; digest: Uint8Array }>(
    "select id, digest from api_token where home_file = $1",
    [homeFile],
  );
  return row ?? null;
}

/** True if a token with this digest is stored, whatever its state. */
export async function hasApiToken(tx: Tx, digest: Uint8Array): Promise<boolean> {
  return (await tx.query("select 1 from api_token where digest = $1", [digest])).length > 0;
}

/** The token with this digest, whatever its state; null if there is none. */
export async function findTokenState(tx: Tx, digest: Uint8Array): Promise<{ revoked_at: Date | null } | null> {
  const [row] = await tx.query<{ revoked_at: Date | null }>("select revoked_at from api_token where digest = $1", [
    digest,
  ]);
  return row ?? null;
}

/** Ends the node tokens of this name that have another digest; returns how many. */
export async function revokeOtherNodeTokens(tx: Tx, name: string, digest: Uint8Array, now: Date): Promise<number> {
  const ended = await tx.query(
    `update api_token set revoked_at = $3
     where scope = 'node' and name = $1 and home_file is null and digest <> $2 and revoked_at is null returning id`,
    [name, digest, now],
  );
  return ended.length;
}

/** Tokens of a merchant that are not revoked. */
export async function countApiTokens(tx: Tx, merchantId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>(
    "select count(*) from api_token where merchant_id = $1 and revoked_at is null",
    [merchantId],
  );
  return Number(row!.count);
}
