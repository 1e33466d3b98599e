/** Webhook endpoints. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { notFound } from "../domain/errors.ts";

/** What a merchant can change. */
export interface WebhookEndpointFields {
  url: string;
  description: string;
  /** Empty: all. */
  event_types: string[];
  disabled: boolean;
}

/** `secret` and `old_secret` are encrypted envelopes of 32 bytes. */
export interface WebhookEndpointRow extends WebhookEndpointFields {
  id: string;
  n: bigint;
  merchant_id: string;
  secret: Uint8Array;
  old_secret: Uint8Array | null;
  /** Until then deliveries are signed with the old secret too. */
  old_secret_until: Date | null;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, url, description, event_types, secret, old_secret, old_secret_until, disabled, version, created_at, updated_at";

export interface NewWebhookEndpoint extends WebhookEndpointFields {
  id: string;
  merchant_id: string;
  secret: Uint8Array;
}

export async function insertWebhookEndpoint(tx: Tx, row: NewWebhookEndpoint, now: Date): Promise<WebhookEndpointRow> {
  const [stored] = await tx.query<WebhookEndpointRow>(
    `insert into webhook_endpoint (id, merchant_id, url, description, event_types, secret, disabled, created_at, updated_at)
     values ($1, $2, $3, $4, $5::text[], $6, $7, $8, $8) returning ${COLUMNS}`,
    [row.id, row.merchant_id, row.url, row.description, row.event_types, row.secret, row.disabled, now],
  );
  return stored!;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<WebhookEndpointRow> {
  const [row] = await tx.query<WebhookEndpointRow>(
    `select ${COLUMNS} from webhook_endpoint where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("webhook endpoint");
  return row;
}

/** @throws DomainError not_found */
export function readWebhookEndpoint(tx: Tx, merchantId: string, id: string): Promise<WebhookEndpointRow> {
  return readOne(tx, merchantId, id, "");
}

/** Locks the row against changes and new deliveries until the end of the transaction. @throws DomainError not_found */
export function lockWebhookEndpoint(tx: Tx, merchantId: string, id: string): Promise<WebhookEndpointRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** Keeps the row as it is until the end of the transaction. @throws DomainError not_found */
export function keepWebhookEndpoint(tx: Tx, merchantId: string, id: string): Promise<WebhookEndpointRow> {
  return readOne(tx, merchantId, id, "for share");
}

export async function countWebhookEndpoints(tx: Tx, merchantId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>(
    "select count(*) as count from webhook_endpoint where merchant_id = $1",
    [merchantId],
  );
  return Number(row!.count);
}

export async function listWebhookEndpoints(
  tx: Tx,
  merchantId: string,
  after: bigint,
  limit: number,
): Promise<WebhookEndpointRow[]> {
  return tx.query<WebhookEndpointRow>(
    `select ${COLUMNS} from webhook_endpoint where merchant_id = $1 and n > $2 order by n limit $3`,
    [merchantId, after, limit],
  );
}

export interface Subscription {
  id: string;
  merchant_id: string;
  event_types: string[];
}

/** The endpoints of these merchants that are not disabled, oldest first; kept so until the end of the transaction. */
export async function keepSubscriptions(tx: Tx, merchantIds: readonly string[]): Promise<Subscription[]> {
  return tx.query<Subscription>(
    `select id, merchant_id, event_types from webhook_endpoint
     where merchant_id = any($1::text[]) and not disabled order by n for share`,
    [merchantIds],
  );
}

/** Writes a locked row as a new version. */
export async function updateWebhookEndpoint(
  tx: Tx,
  id: string,
  fields: WebhookEndpointFields,
  now: Date,
): Promise<WebhookEndpointRow> {
  const [row] = await tx.query<WebhookEndpointRow>(
    `update webhook_endpoint set url = $2, description = $3, event_types = $4::text[], disabled = $5, updated_at = $6,
       version = version + 1 where id = $1 returning ${COLUMNS}`,
    [id, fields.url, fields.description, fields.event_types, fields.disabled, now],
  );
  return row!;
}

/** Gives a locked row a new secret; the present one becomes the old one. */
export async function rotateWebhookSecret(
  tx: Tx,
  id: string,
  secret: Uint8Array,
  now: Date,
  oldUntil: Date,
): Promise<WebhookEndpointRow> {
  const [row] = await tx.query<WebhookEndpointRow>(
    `update webhook_endpoint set old_secret = secret, old_secret_until = $4, secret = $2, updated_at = $3, version = version + 1
     where id = $1 returning ${COLUMNS}`,
    [id, secret, now, oldUntil],
  );
  return row!;
}

/** Disables an endpoint, whoever's it is, if that still is its URL; false if not, or it was disabled or deleted before. */
export async function disableWebhookEndpoint(tx: Tx, id: string, url: string, now: Date): Promise<boolean> {
  const rows = await tx.query(
    `update webhook_endpoint set disabled = true, updated_at = $2, version = version + 1
     where id = $1 and url = $3 and not disabled returning 1 as one`,
    [id, now, url],
  );
  return rows.length > 0;
}

/** Deletes a locked row with its deliveries. */
export async function deleteWebhookEndpoint(tx: Tx, id: string): Promise<void> {
  await tx.query("delete from webhook_endpoint where id = $1", [id]);
}

/** Forgets old secrets whose time is over. */
export async function forgetOldSecrets(tx: Tx, now: Date): Promise<void> {
  await tx.query(
    "update webhook_endpoint set old_secret = null, old_secret_until = null where old_secret_until <= $1",
    [now],
  );
}
