/** Deliveries of webhook events, and the attempts at them. Who takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { DeliveryState } from "../domain/webhook.ts";

/** The newest attempts of a delivery that are kept. */
export const ATTEMPTS_KEPT_MAX = 20;

export interface NewDelivery {
  /** `whd_…` */
  readonly id: string;
  readonly merchantId: string;
  readonly eventId: string;
  readonly endpointId: string;
}

/** Due at once. */
export async function insertDeliveries(tx: Tx, now: Date, deliveries: readonly NewDelivery[]): Promise<void> {
  if (deliveries.length === 0) return;
  await tx.query(
    `insert into webhook_delivery (id, merchant_id, event_id, endpoint_id, state, try_at, created_at)
     select i, m, e, p, ${DeliveryState.PENDING}, $5, $5
     from unnest($1::text[], $2::text[], $3::text[], $4::text[]) with ordinality as d (i, m, e, p, place) order by place`,
    [
      deliveries.map(({ id }) => id),
      deliveries.map(({ merchantId }) => merchantId),
      deliveries.map(({ eventId }) => eventId),
      deliveries.map(({ endpointId }) => endpointId),
      now,
    ],
  );
}

/** A delivery that is to be sent now, by whoever claimed it. */
export interface ClaimedDelivery {
  id: string;
  n: bigint;
  merchant_id: string;
  /** Counts the attempt that is to be made. */
  attempts: number;
  event_id: string;
  body: string;
  endpoint_id: string;
  url: string;
  secret: Uint8Array;
  old_secret: Uint8Array | null;
  old_secret_until: Date | null;
}

export interface Claim {
  readonly now: Date;
  /** When another may take over what is claimed, if nothing was heard of it. */
  readonly leaseUntil: Date;
  /** Deliveries at most. */
  readonly limit: number;
  /** Deliveries of one endpoint at most, unless `rooms` says otherwise. */
  readonly room: number;
  /** Deliveries at most of endpoints that have less room. */
  readonly rooms: ReadonlyMap<string, number>;
}

/**
 * Claims what is due, oldest first, a few of each endpoint: however much waits for one of them, the others' are found at
 * once, since the index of what waits is entered once for each endpoint (hence its whole order everywhere). What another
 * claims at the same moment is left to it.
 */
export async function claimDeliveries(
  tx: Tx,
  { now, leaseUntil, limit, room, rooms }: Claim,
): Promise<ClaimedDelivery[]> {
  const rows = await tx.query<ClaimedDelivery>(
    `with recursive waiting as (
       (select endpoint_id from webhook_delivery where try_at is not null order by endpoint_id, try_at, n limit 1)
       union all
       select (select d.endpoint_id from webhook_delivery d where d.try_at is not null and d.endpoint_id > w.endpoint_id
               order by d.endpoint_id, d.try_at, d.n limit 1)
       from waiting w where w.endpoint_id is not null),
     due as (
       select d.id from waiting w left join unnest($4::text[], $5::int[]) as less (id, room) on less.id = w.endpoint_id
         cross join lateral (
           select id, try_at, n from webhook_delivery where endpoint_id = w.endpoint_id and try_at <= $1
           order by try_at, n limit coalesce(less.room, $3)) d
       order by d.try_at, d.n limit $2),
     mine as (
       select id from webhook_delivery where id = any(array(select id from due)) and try_at <= $1 order by n for update skip locked)
     update webhook_delivery d set try_at = $6, attempts = d.attempts + 1
     from mine, webhook_event e, webhook_endpoint p
     where d.id = mine.id and e.id = d.event_id and p.id = d.endpoint_id
     returning d.id, d.n, d.merchant_id, d.attempts, d.event_id, e.body, d.endpoint_id, p.url, p.secret, p.old_secret,
       p.old_secret_until`,
    [now, limit, room, [...rooms.keys()], [...rooms.values()], leaseUntil],
  );
  return rows.toSorted((a, b) => (a.n < b.n ? -1 : 1));
}

/**
 * Ends a delivery or sets when it is tried again (`tryAt`, while it is pending). It must still be the attempt that was
 * claimed; one that was given up meanwhile can still have been delivered. False if it is not, or is gone.
 */
export async function settleDelivery(
  tx: Tx,
  { id, attempts }: Pick<ClaimedDelivery, "id" | "attempts">,
  state: DeliveryState,
  tryAt: Date | null,
): Promise<boolean> {
  const rows = await tx.query(
    `update webhook_delivery set state = $3, try_at = $4
     where id = $1 and attempts = $2 and (state = ${DeliveryState.PENDING} or $3 = ${DeliveryState.DELIVERED})
     returning 1 as one`,
    [id, attempts, state, tryAt],
  );
  return rows.length > 0;
}

export interface WebhookAttemptRow {
  delivery_id: string;
  at: Date;
  /** 0: there was no answer. */
  status: number;
  error: string;
  duration_ms: number;
}

/** Adds to the log of a delivery, if that still is there, and forgets its oldest. */
export async function addAttempt(tx: Tx, attempt: WebhookAttemptRow): Promise<void> {
  await tx.query(
    `insert into webhook_attempt (delivery_id, at, status, error, duration_ms)
     select d.id, $2, $3, $4, $5 from webhook_delivery d where d.id = $1 for key share`,
    [attempt.delivery_id, attempt.at, attempt.status, attempt.error, attempt.duration_ms],
  );
  await tx.query(
    `delete from webhook_attempt where delivery_id = $1 and n <=
       (select n from webhook_attempt where delivery_id = $1 order by n desc offset $2 limit 1)`,
    [attempt.delivery_id, ATTEMPTS_KEPT_MAX],
  );
}

/** Gives up everything that waits for an endpoint. */
export async function failPending(tx: Tx, endpointId: string): Promise<void> {
  await tx.query(
    `update webhook_delivery set state = ${DeliveryState.FAILED}, try_at = null
     where endpoint_id = $1 and try_at is not null`,
    [endpointId],
  );
}

export interface WebhookDeliveryRow {
  id: string;
  n: bigint;
  event_id: string;
  event_type: string;
  endpoint_id: string;
  state: DeliveryState;
  attempts: number;
  try_at: Date | null;
  created_at: Date;
}

const ROW = "d.id, d.n, d.event_id, e.type as event_type, d.endpoint_id, d.state, d.attempts, d.try_at, d.created_at";

export interface DeliveryFilter {
  readonly merchantId: string;
  /** Empty, or 0: any. */
  readonly endpointId: string;
  readonly eventId: string;
  readonly state: number;
}

/** Newest first, those before `before`. */
export async function listDeliveries(
  tx: Tx,
  { merchantId, endpointId, eventId, state }: DeliveryFilter,
  before: bigint | null,
  limit: number,
): Promise<WebhookDeliveryRow[]> {
  return tx.query<WebhookDeliveryRow>(
    `select ${ROW} from webhook_delivery d join webhook_event e on e.id = d.event_id
     where d.merchant_id = $1 and ($2::bigint is null or d.n < $2) and ($3 = '' or d.endpoint_id = $3)
       and ($4 = '' or d.event_id = $4) and ($5::int = 0 or d.state = $5)
     order by d.n desc limit $6`,
    [merchantId, before, endpointId, eventId, state, limit],
  );
}

/** Oldest first. */
export async function readDeliveries(
  tx: Tx,
  merchantId: string,
  ids: readonly string[],
): Promise<WebhookDeliveryRow[]> {
  if (ids.length === 0) return [];
  return tx.query<WebhookDeliveryRow>(
    `select ${ROW} from webhook_delivery d join webhook_event e on e.id = d.event_id
     where d.merchant_id = $1 and d.id = any($2::text[]) order by d.n`,
    [merchantId, ids],
  );
}

/** The attempts of deliveries, oldest first. */
export async function readAttempts(tx: Tx, deliveryIds: readonly string[]): Promise<WebhookAttemptRow[]> {
  if (deliveryIds.length === 0) return [];
  return tx.query<WebhookAttemptRow>(
    `select delivery_id, at, status, error, duration_ms from webhook_attempt where delivery_id = any($1::text[])
     order by delivery_id, n`,
    [deliveryIds],
  );
}

export async function countDeliveries(tx: Tx, eventId: string): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>(
    "select count(*) as count from webhook_delivery where event_id = $1",
    [eventId],
  );
  return Number(row!.count);
}

/** When the oldest of what waits was made; null: nothing waits. */
export async function oldestUndelivered(tx: Tx): Promise<Date | null> {
  const [row] = await tx.query<{ at: Date | null }>(
    `select least(
       (select created_at from webhook_delivery where try_at is not null order by n limit 1),
       (select created_at from webhook_event where not fanned_out order by n limit 1)) as at`,
  );
  return row!.at;
}
