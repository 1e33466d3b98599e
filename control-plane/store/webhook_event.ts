/** Events for merchants' webhooks. They are written in the transaction that makes them true, and sent afterwards. */

import type { Tx } from "../db/database.ts";
import { notFound } from "../domain/errors.ts";

/** Payload: nothing. Whoever sends webhooks looks at once. */
export const WEBHOOK_CHANNEL = "tokenbill_webhook";

/** Everything that merchants can hear of. A new type is added here and in docs/webhooks.md. */
export const WEBHOOK_EVENT_TYPES = [
  "checkout.fulfilled",
  "checkout.failed",
  "checkout.expired",
  "checkout.canceled",
  "checkout.problem",
  "refund.created",
  "refund.succeeded",
  "refund.failed",
  "dispute.opened",
  "dispute.won",
  "dispute.lost",
  "wallet.low",
  "wallet.exhausted",
  "auto_top_up.failed",
  "auto_top_up.disabled",
] as const;
export type WebhookEventType = (typeof WEBHOOK_EVENT_TYPES)[number];

export interface NewWebhookEvent {
  /** `evt_…` */
  readonly id: string;
  readonly merchantId: string;
  readonly type: WebhookEventType;
  readonly veId: string;
  /** Empty: it is about no session. */
  readonly sessionId: string;
  /** The `data` of the body: JSON values, snake_case, money and Credits as strings; never secrets. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** Remembers events; they are sent soon after the commit. */
export async function emitWebhookEvents(tx: Tx, now: number, events: readonly NewWebhookEvent[]): Promise<void> {
  if (events.length === 0) return;
  const at = new Date(now);
  const bodies = events.map(({ type, data }) => JSON.stringify({ type, timestamp: at.toISOString(), data }));
  await tx.query(
    `with made as (
       insert into webhook_event (id, merchant_id, type, ve_id, session_id, body, created_at)
       select i, m, t, v, s, b, $7 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
         as d (i, m, t, v, s, b) returning 1)
     select pg_notify('${WEBHOOK_CHANNEL}', '') from (select count(*) from made) counted`,
    [
      events.map(({ id }) => id),
      events.map(({ merchantId }) => merchantId),
      events.map(({ type }) => type),
      events.map(({ veId }) => veId),
      events.map(({ sessionId }) => sessionId),
      bodies,
      at,
    ],
  );
}

export interface WebhookEventRow {
  id: string;
  n: bigint;
  merchant_id: string;
  type: string;
  ve_id: string;
  /** Empty: it is about no session. */
  session_id: string;
  body: string;
  created_at: Date;
}

const COLUMNS = "id, n, merchant_id, type, ve_id, session_id, body, created_at";

export interface WebhookEventFilter {
  readonly merchantId: string;
  /** Empty: any. */
  readonly type: string;
  readonly veId: string;
}

/** Newest first, those before `before`; that merchant's alone. */
export async function listWebhookEvents(
  tx: Tx,
  { merchantId, type, veId }: WebhookEventFilter,
  before: bigint | null,
  limit: number,
): Promise<WebhookEventRow[]> {
  return tx.query<WebhookEventRow>(
    `select ${COLUMNS} from webhook_event
     where merchant_id = $1 and ($2::bigint is null or n < $2) and ($3 = '' or type = $3) and ($4 = '' or ve_id = $4)
     order by n desc limit $5`,
    [merchantId, before, type, veId, limit],
  );
}

/** Kept from deletion until the end of the transaction. @throws DomainError not_found */
export async function keepWebhookEvent(tx: Tx, merchantId: string, id: string): Promise<WebhookEventRow> {
  const [row] = await tx.query<WebhookEventRow>(
    `select ${COLUMNS} from webhook_event where id = $1 and merchant_id = $2 for key share`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("webhook event");
  return row;
}

/** Locks events of which no deliveries were made, oldest first, but for those that another has locked. */
export async function lockFreshEvents(
  tx: Tx,
  limit: number,
): Promise<Pick<WebhookEventRow, "id" | "merchant_id" | "type">[]> {
  return tx.query(
    "select id, merchant_id, type from webhook_event where not fanned_out order by n limit $1 for update skip locked",
    [limit],
  );
}

export async function markFannedOut(tx: Tx, ids: readonly string[]): Promise<void> {
  await tx.query("update webhook_event set fanned_out = true where id = any($1::text[])", [ids]);
}

/** Has whoever sends webhooks look at once, when the transaction commits. */
export async function notifyWebhooks(tx: Tx): Promise<void> {
  await tx.query(`select pg_notify('${WEBHOOK_CHANNEL}', '')`);
}

/** Deletes up to `limit` events from before `before`, with their deliveries; how many went. */
export async function deleteOldWebhookEvents(tx: Tx, before: Date, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from webhook_event where id in
       (select id from webhook_event where created_at < $1 order by created_at limit $2 for update skip locked)
     returning 1 as one`,
    [before, limit],
  );
  return rows.length;
}
