/** Events for merchants' webhooks. They are written in the transaction that makes them true, and sent afterwards. */

import type { Tx } from "../db/database.ts";

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
