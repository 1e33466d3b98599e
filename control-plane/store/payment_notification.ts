/** What processors sent, and what became of it. No bodies. */

import type { Tx } from "../db/database.ts";

export const ACCEPTED = "accepted";

/** Rows of one account in a minute at most: anybody can send forgeries. */
export const NOTIFICATIONS_PER_MINUTE_MAX = 120;

const MINUTE_MS = 60_000;

export interface NewPaymentNotification {
  readonly accountId: string;
  readonly eventId: string;
  /** In the processor's words. */
  readonly kind: string;
  /** What it is about. */
  readonly subject: string;
  /** `accepted`, `duplicate`, `ignored`, or why it was rejected. */
  readonly verdict: string;
}

/** Notes a notification; of those that were not accepted, no more than NOTIFICATIONS_PER_MINUTE_MAX. */
export async function addNotification(tx: Tx, row: NewPaymentNotification, now: number): Promise<void> {
  await tx.query(
    `insert into payment_notification (account_id, event_id, kind, subject, verdict, received_at)
     select $1, $2, $3, $4, $5, $6
     where $5 = '${ACCEPTED}' or (select count(*) from (select from payment_notification
       where account_id = $1 and received_at > $7 and received_at <= $6 limit ${NOTIFICATIONS_PER_MINUTE_MAX}) as seen) < ${NOTIFICATIONS_PER_MINUTE_MAX}
     on conflict (account_id, event_id) where verdict = '${ACCEPTED}' do nothing`,
    [row.accountId, row.eventId, row.kind, row.subject, row.verdict, new Date(now), new Date(now - MINUTE_MS)],
  );
}

/** Whether its work was done already. */
export async function wasAccepted(tx: Tx, accountId: string, eventId: string): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from payment_notification where account_id = $1 and event_id = $2 and verdict = '${ACCEPTED}'`,
    [accountId, eventId],
  );
  return rows.length > 0;
}

/** How many went. */
export async function deleteOldNotifications(tx: Tx, before: Date, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from payment_notification where n in (select n from payment_notification where received_at < $1
       order by received_at limit $2) returning n`,
    [before, limit],
  );
  return rows.length;
}
