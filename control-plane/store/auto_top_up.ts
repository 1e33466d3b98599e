/** Automatic top-ups: one row for each VE whose payer saved a payment method. Locked after everything else of the VE. */

import { type Credits, formatCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { AutomaticSession, AutoTopUpTerms } from "../domain/auto_top_up.ts";
import type { Money } from "../domain/money.ts";
import { offeredTerms, readCheckoutSettings } from "./checkout_settings.ts";

/** Credits are decimal strings; amounts are in the currency's smallest unit. */
export interface AutoTopUpRow {
  ve_id: string;
  merchant_id: string;
  enabled: boolean;
  threshold: string;
  pack_id: string;
  currency: string;
  daily_minor: bigint;
  account_id: string;
  /** An encrypted envelope of the processor's names for the payment method, sealed for `methodOwner(ve_id)`. */
  credentials: Uint8Array;
  label: string;
  saved_at: Date;
  failures: number;
  last_failure: string;
  charging: boolean;
  last_session_id: string | null;
  try_at: Date;
  /** Failures and charges do not count as changes. */
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const NAMES = [
  "ve_id",
  "merchant_id",
  "enabled",
  "threshold",
  "pack_id",
  "currency",
  "daily_minor",
  "account_id",
  "credentials",
  "label",
  "saved_at",
  "failures",
  "last_failure",
  "charging",
  "last_session_id",
  "try_at",
  "version",
  "created_at",
  "updated_at",
];
/** As columns of the alias `a`. */
export const AUTO_TOP_UP_COLUMNS = NAMES.map((name) => `a.${name}`).join(", ");

/** What the envelope of a saved payment method is sealed for. */
export function methodOwner(veId: string): string {
  return `auto_top_up:${veId}`;
}

/** Null: no payment method is saved for this VE. The caller has made sure whose VE it is. */
export async function findAutoTopUp(tx: Tx, veId: string): Promise<AutoTopUpRow | null> {
  const [row] = await tx.query<AutoTopUpRow>(`select ${AUTO_TOP_UP_COLUMNS} from auto_top_up a where a.ve_id = $1`, [
    veId,
  ]);
  return row ?? null;
}

/** Locks the row until the end of the transaction. Null: there is none. */
export async function lockAutoTopUp(tx: Tx, veId: string): Promise<AutoTopUpRow | null> {
  const [row] = await tx.query<AutoTopUpRow>(
    `select ${AUTO_TOP_UP_COLUMNS} from auto_top_up a where a.ve_id = $1 for update`,
    [veId],
  );
  return row ?? null;
}

/** The newest automatic session of a VE; null: there is none. */
export async function newestAutomaticSession(tx: Tx, veId: string): Promise<string | null> {
  const [row] = await tx.query<{ id: string }>(
    "select id from checkout_session where ve_id = $1 and automatic order by n desc limit 1",
    [veId],
  );
  return row?.id ?? null;
}

export interface PackToBuy {
  /** Null: the payer chooses the amount. */
  readonly price: Money | null;
  readonly disabled: boolean;
}

/** Keeps the pack from deletion until the end of the transaction. Null: this merchant has none with this id. */
export async function keepPackToBuy(tx: Tx, merchantId: string, packId: string): Promise<PackToBuy | null> {
  const [row] = await tx.query<{ currency: string; amount_minor: bigint; custom: boolean; disabled: boolean }>(
    `select currency, amount_minor, min_minor is not null as custom, disabled from credit_pack
     where id = $1 and merchant_id = $2 for key share`,
    [packId, merchantId],
  );
  if (row === undefined) return null;
  return {
    price: row.custom ? null : { currency: row.currency, minor: row.amount_minor },
    disabled: row.disabled,
  };
}

/** What the merchant offers payers now; null: no automatic top-ups. */
export async function readAutoTopUpTerms(tx: Tx, merchantId: string): Promise<AutoTopUpTerms | null> {
  return offeredTerms(await readCheckoutSettings(tx, merchantId));
}

export interface NewAutoTopUp {
  readonly veId: string;
  readonly merchantId: string;
  readonly packId: string;
  readonly terms: AutoTopUpTerms;
  readonly accountId: string;
  readonly credentials: Uint8Array;
  readonly label: string;
  readonly now: Date;
  readonly tryAt: Date;
}

/**
 * Makes the row, or replaces what a payer agreed to before, switched on and without failures. A charge under way stays
 * under way: a second one beside it would know nothing of it.
 */
export async function saveAutoTopUp(tx: Tx, row: NewAutoTopUp): Promise<void> {
  await tx.query(
    `insert into auto_top_up as a (ve_id, merchant_id, enabled, threshold, pack_id, currency, daily_minor, account_id,
       credentials, label, saved_at, try_at, created_at, updated_at)
     values ($1, $2, true, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10, $10)
     on conflict (ve_id) do update set enabled = true, threshold = excluded.threshold, pack_id = excluded.pack_id,
       currency = excluded.currency, daily_minor = excluded.daily_minor, account_id = excluded.account_id,
       credentials = excluded.credentials, label = excluded.label, saved_at = excluded.saved_at, failures = 0,
       last_failure = '', try_at = case when a.charging then a.try_at else excluded.try_at end,
       version = a.version + 1, updated_at = excluded.updated_at`,
    [
      row.veId,
      row.merchantId,
      formatCredits(row.terms.threshold),
      row.packId,
      row.terms.dailyMax.currency,
      row.terms.dailyMax.minor,
      row.accountId,
      row.credentials,
      row.label,
      row.now,
      row.tryAt,
    ],
  );
}

export interface AutoTopUpChange {
  readonly enabled: boolean;
  readonly threshold: Credits;
  readonly packId: string;
  readonly dailyMax: Money;
}

/** Writes a locked row as a new version, which is tried at once, but for a charge that is under way. */
export async function changeAutoTopUp(tx: Tx, veId: string, change: AutoTopUpChange, now: Date): Promise<AutoTopUpRow> {
  const [row] = await tx.query<AutoTopUpRow>(
    `update auto_top_up a set enabled = $2, threshold = $3, pack_id = $4, currency = $5, daily_minor = $6, failures = 0,
       last_failure = '', try_at = case when charging then try_at else $7 end, version = version + 1, updated_at = $7
     where ve_id = $1 returning ${AUTO_TOP_UP_COLUMNS}`,
    [
      veId,
      change.enabled,
      formatCredits(change.threshold),
      change.packId,
      change.dailyMax.currency,
      change.dailyMax.minor,
      now,
    ],
  );
  return row!;
}

/** The charge is over, or there is none, as far as this row is concerned. */
export interface AutoTopUpState {
  readonly charging: boolean;
  /** The newest automatic session that is accounted for. */
  readonly lastSessionId: string | null;
  readonly failures: number;
  readonly lastFailure: string;
  readonly tryAt: Date;
}

/** Writes what the job knows of a locked row; no change of the merchant's or the payer's, so the version stays. */
export async function writeAutoTopUpState(tx: Tx, veId: string, state: AutoTopUpState): Promise<void> {
  await tx.query(
    `update auto_top_up set charging = $2, last_session_id = $3, failures = $4, last_failure = $5, try_at = $6
     where ve_id = $1`,
    [veId, state.charging, state.lastSessionId, state.failures, state.lastFailure, state.tryAt],
  );
}

/** Switches a locked row off. */
export async function disableAutoTopUp(tx: Tx, veId: string, now: Date): Promise<void> {
  await tx.query("update auto_top_up set enabled = false, version = version + 1, updated_at = $2 where ve_id = $1", [
    veId,
    now,
  ]);
}

/** Ends an automatic top-up, and leaves the payment method to be forgotten at the processor. False: there was none. */
export async function deleteAutoTopUp(tx: Tx, veId: string, now: Date): Promise<boolean> {
  const rows = await tx.query(
    `with gone as (delete from auto_top_up where ve_id = $1 returning merchant_id, ve_id, account_id, credentials)
     insert into forgotten_method (merchant_id, ve_id, account_id, credentials, try_at)
     select merchant_id, ve_id, account_id, credentials, $2 from gone returning 1 as one`,
    [veId, now],
  );
  return rows.length > 0;
}

export interface DueLimits {
  readonly rows: number;
  /** Of one merchant, so that one whose processor is slow does not keep the others waiting. */
  readonly rowsOfMerchant: number;
}

/**
 * Locks automatic top-ups that may have something to do: those with a charge that is to be looked after, and those whose
 * VE has little left. What is locked elsewhere is passed over. Facts are read afterwards, by a statement of their own: it
 * sees all that was committed before the lock.
 */
export async function lockDueAutoTopUps(tx: Tx, now: Date, { rows, rowsOfMerchant }: DueLimits): Promise<string[]> {
  const due = await tx.query<{ ve_id: string }>(
    `with low as materialized (
       select a.ve_id, a.merchant_id, a.pack_id, a.account_id, a.charging, a.try_at
       from auto_top_up a join wallet w on w.ve_id = a.ve_id
       where a.enabled and a.try_at <= $1 and (a.charging or w.purchased + w.debt - w.settled < a.threshold)),
     due as (
       select a.ve_id, a.try_at, row_number() over (partition by a.merchant_id order by a.try_at, a.ve_id) as place
       from low a join virtual_endpoint v on v.id = a.ve_id join merchant m on m.id = v.merchant_id
         join credit_pack p on p.id = a.pack_id join payment_account c on c.id = a.account_id
       where a.charging or not (v.disabled or v.frozen or m.disabled or p.disabled or c.disabled))
     select a.ve_id from auto_top_up a
     where a.ve_id in (select ve_id from due where place <= $2 order by try_at, ve_id limit $3)
       and a.enabled and a.try_at <= $1
     for update skip locked`,
    [now, rowsOfMerchant, rows],
  );
  return due.map((row) => row.ve_id);
}

/** What decides about a locked row. */
export interface DueAutoTopUp extends AutoTopUpRow {
  remaining: string;
  open: boolean;
  time_zone: string;
  /** Who sells. */
  merchant_name: string;
  pack_label: string;
  pack_currency: string;
  pack_minor: bigint;
  pack_credits: string;
  pack_bonus: string;
  pack_custom: boolean;
  session_id: string | null;
  session_state: AutomaticSession["state"];
  session_failure: string;
  session_unsettled: boolean;
  session_created_at: Date;
}

export async function readDueAutoTopUps(tx: Tx, veIds: readonly string[]): Promise<DueAutoTopUp[]> {
  return tx.query<DueAutoTopUp>(
    `select ${AUTO_TOP_UP_COLUMNS}, w.purchased + w.debt - w.settled as remaining, m.time_zone,
       not (v.disabled or v.frozen or v.template or m.disabled or p.disabled or c.disabled) as open,
       coalesce(nullif(s.display_name, ''), m.name) as merchant_name, p.label as pack_label, p.currency as pack_currency,
       p.amount_minor as pack_minor, p.credits as pack_credits, p.bonus as pack_bonus, p.min_minor is not null as pack_custom,
       x.id as session_id, x.state as session_state, x.failure as session_failure, x.created_at as session_created_at,
       exists (select from payment y where y.session_id = x.id and y.state in (1, 2, 3)) as session_unsettled
     from auto_top_up a join wallet w on w.ve_id = a.ve_id join virtual_endpoint v on v.id = a.ve_id
       join merchant m on m.id = v.merchant_id join credit_pack p on p.id = a.pack_id join payment_account c on c.id = a.account_id
       left join checkout_settings s on s.merchant_id = m.id
       left join lateral (select id, state, failure, created_at from checkout_session
         where ve_id = a.ve_id and automatic order by n desc limit 1) x on true
     where a.ve_id = any($1::text[])`,
    [veIds],
  );
}

/** A VE, and since when what it was charged counts. */
export interface SpendQuestion {
  readonly veId: string;
  readonly currency: string;
  readonly sinceMs: number;
}

/**
 * What automatic sessions have charged since then, or may still charge, by VE; VEs without any are missing. Those that
 * ended without money do not count, unless a payment of theirs may yet bring it.
 */
export async function readAutomaticSpend(tx: Tx, questions: readonly SpendQuestion[]): Promise<Map<string, bigint>> {
  const rows = await tx.query<{ ve_id: string; minor: bigint }>(
    `select d.ve_id, sum(s.amount_minor)::bigint as minor
     from unnest($1::text[], $2::text[], $3::timestamptz[]) as d (ve_id, currency, since)
       join checkout_session s on s.ve_id = d.ve_id and s.automatic and s.currency = d.currency and s.created_at >= d.since
     where s.state not in (5, 6, 7) or exists (select from payment y where y.session_id = s.id and y.state in (1, 2, 3))
     group by d.ve_id`,
    [
      questions.map(({ veId }) => veId),
      questions.map(({ currency }) => currency),
      questions.map(({ sinceMs }) => new Date(sinceMs)),
    ],
  );
  return new Map(rows.map((row) => [row.ve_id, row.minor]));
}
