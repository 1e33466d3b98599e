/** Checkout Sessions and their story. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { CheckoutState } from "../domain/checkout.ts";
import { notFound } from "../domain/errors.ts";

/** Credits are decimal strings; amounts are in the currency's smallest unit. */
export interface CheckoutSessionRow {
  id: string;
  n: bigint;
  merchant_id: string;
  ve_id: string;
  state: CheckoutState;
  secret_digest: Uint8Array;
  /** The payer may see the wallet. */
  linked: boolean;
  automatic: boolean;
  /** What was chosen last; null until something is. */
  pack_id: string | null;
  label: string;
  currency: string | null;
  amount_minor: bigint | null;
  credits: string | null;
  bonus: string | null;
  metadata: Record<string, string>;
  return_url: string;
  failure: string;
  problem: string;
  granted: string;
  refunded_minor: bigint;
  undisputed_state: CheckoutState | null;
  version: bigint;
  created_at: Date;
  expires_at: Date;
  paid_at: Date | null;
  fulfilled_at: Date | null;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, ve_id, state, secret_digest, linked, automatic, pack_id, label, currency, amount_minor, credits, bonus, metadata, return_url, failure, problem, granted, refunded_minor, undisputed_state, version, created_at, expires_at, paid_at, fulfilled_at, updated_at";

export interface NewCheckoutSession {
  readonly id: string;
  readonly merchantId: string;
  readonly veId: string;
  readonly secretDigest: Uint8Array;
  readonly linked: boolean;
  readonly automatic: boolean;
  readonly metadata: Readonly<Record<string, string>>;
  readonly returnUrl: string;
  readonly now: Date;
  readonly expiresAt: Date;
}

export async function insertCheckoutSession(tx: Tx, session: NewCheckoutSession): Promise<CheckoutSessionRow> {
  const [row] = await tx.query<CheckoutSessionRow>(
    `insert into checkout_session (id, merchant_id, ve_id, state, secret_digest, linked, automatic, metadata, return_url,
       created_at, expires_at, updated_at)
     values ($1, $2, $3, 1, $4, $5, $6, $7::jsonb, $8, $9, $10, $9) returning ${COLUMNS}`,
    [
      session.id,
      session.merchantId,
      session.veId,
      session.secretDigest,
      session.linked,
      session.automatic,
      JSON.stringify(session.metadata),
      session.returnUrl,
      session.now,
      session.expiresAt,
    ],
  );
  return row!;
}

export interface KnownPayer {
  id: string;
  merchant_id: string;
}

/** The session whose secret has this digest, if it expires after `expiresAfter` and its merchant is not disabled; or null. */
export async function findPayer(tx: Tx, secretDigest: Uint8Array, expiresAfter: Date): Promise<KnownPayer | null> {
  const [row] = await tx.query<KnownPayer>(
    `select s.id, s.merchant_id from checkout_session s join merchant m on m.id = s.merchant_id
     where s.secret_digest = $1 and s.expires_at > $2 and not m.disabled`,
    [secretDigest, expiresAfter],
  );
  return row ?? null;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<CheckoutSessionRow> {
  const [row] = await tx.query<CheckoutSessionRow>(
    `select ${COLUMNS} from checkout_session where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("Checkout Session");
  return row;
}

/** @throws DomainError not_found */
export function readCheckoutSession(tx: Tx, merchantId: string, id: string): Promise<CheckoutSessionRow> {
  return readOne(tx, merchantId, id, "");
}

/** Locks it until the end of the transaction. Lock order: session, payment, VE, wallet. @throws DomainError not_found */
export function lockCheckoutSession(tx: Tx, merchantId: string, id: string): Promise<CheckoutSessionRow> {
  return readOne(tx, merchantId, id, "for update");
}

export interface CheckoutSessionFilter {
  /** Empty: of all VEs. */
  readonly veId: string;
  /** 0: in whatever state. */
  readonly state: number;
}

/** Newest first, those before row `before` (null: from the newest). */
export async function listCheckoutSessions(
  tx: Tx,
  merchantId: string,
  { veId, state }: CheckoutSessionFilter,
  before: bigint | null,
  limit: number,
): Promise<CheckoutSessionRow[]> {
  return tx.query<CheckoutSessionRow>(
    `select ${COLUMNS} from checkout_session
     where merchant_id = $1 and ($2 = '' or ve_id = $2) and ($3 = 0 or state = $3) and ($4::bigint is null or n < $4::bigint)
     order by n desc limit $5`,
    [merchantId, veId, state, before, limit],
  );
}

/** What may change of a session. */
export type CheckoutSessionFields = Pick<
  CheckoutSessionRow,
  | "state"
  | "pack_id"
  | "label"
  | "currency"
  | "amount_minor"
  | "credits"
  | "bonus"
  | "failure"
  | "problem"
  | "granted"
  | "refunded_minor"
  | "undisputed_state"
  | "paid_at"
  | "fulfilled_at"
>;

/** Writes a locked row. */
export async function updateCheckoutSession(
  tx: Tx,
  row: CheckoutSessionRow,
  changes: Partial<CheckoutSessionFields>,
  now: Date,
): Promise<CheckoutSessionRow> {
  const next = { ...row, ...changes };
  const [stored] = await tx.query<CheckoutSessionRow>(
    `update checkout_session set state = $2, pack_id = $3, label = $4, currency = $5, amount_minor = $6, credits = $7, bonus = $8,
       failure = $9, problem = $10, granted = $11, refunded_minor = $12, undisputed_state = $13, paid_at = $14,
       fulfilled_at = $15, updated_at = $16, version = version + 1
     where id = $1 returning ${COLUMNS}`,
    [
      row.id,
      next.state,
      next.pack_id,
      next.label,
      next.currency,
      next.amount_minor,
      next.credits,
      next.bonus,
      next.failure,
      next.problem,
      next.granted,
      next.refunded_minor,
      next.undisputed_state,
      next.paid_at,
      next.fulfilled_at,
      now,
    ],
  );
  return stored!;
}

export type CheckoutCause = "page" | "api" | "webhook" | "poll" | "job";

export interface CheckoutEventRow {
  at: Date;
  from_state: CheckoutState;
  to_state: CheckoutState;
  cause: CheckoutCause;
  detail: string;
}

/** Adds a line to the story. */
export async function addCheckoutEvent(tx: Tx, sessionId: string, event: CheckoutEventRow): Promise<void> {
  await tx.query(
    "insert into checkout_event (session_id, at, from_state, to_state, cause, detail) values ($1, $2, $3, $4, $5, $6)",
    [sessionId, event.at, event.from_state, event.to_state, event.cause, event.detail],
  );
}

/** Oldest first; the newest `limit`. */
export async function listCheckoutEvents(tx: Tx, sessionId: string, limit: number): Promise<CheckoutEventRow[]> {
  const rows = await tx.query<CheckoutEventRow>(
    `select at, from_state, to_state, cause, detail from checkout_event where session_id = $1 order by n desc limit $2`,
    [sessionId, limit],
  );
  return rows.toReversed();
}

const { OPEN, PENDING, EXPIRED, FAILED, CANCELED } = CheckoutState;

/** OPEN ones whose time is over are EXPIRED, without a word: nobody chose anything in them. How many. */
export async function expireOpenSessions(tx: Tx, now: Date, limit: number): Promise<number> {
  const rows = await tx.query(
    `update checkout_session set state = ${EXPIRED}, updated_at = $1, version = version + 1 where id in (
       select id from checkout_session where state = ${OPEN} and expires_at <= $1 order by expires_at limit $2
       for update skip locked) returning 1`,
    [now, limit],
  );
  return rows.length;
}

/** PENDING and FAILED ones whose time is over, longest first. */
export async function listExpiredSessions(tx: Tx, now: Date, limit: number): Promise<CheckoutSessionRow[]> {
  return tx.query<CheckoutSessionRow>(
    `select ${COLUMNS} from checkout_session where state in (${PENDING}, ${FAILED}) and expires_at <= $1 order by expires_at limit $2`,
    [now, limit],
  );
}

/** Deletes sessions made before `before` in which nothing was ever chosen: OPEN, EXPIRED, CANCELED. How many. */
export async function deleteIdleSessions(tx: Tx, before: Date, limit: number): Promise<number> {
  const ids = await tx.query<{ id: string }>(
    `select id from checkout_session s where pack_id is null and created_at < $1 and state in (${OPEN}, ${EXPIRED}, ${CANCELED})
       and not exists (select from payment p where p.session_id = s.id)
     order by created_at limit $2 for update skip locked`,
    [before, limit],
  );
  const gone = ids.map(({ id }) => id);
  if (gone.length === 0) return 0;
  await tx.query("delete from checkout_event where session_id = any($1::text[])", [gone]);
  await tx.query("delete from checkout_session where id = any($1::text[])", [gone]);
  return gone.length;
}
