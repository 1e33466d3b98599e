/** Budgets of VEs that start again: which are due, and when they are due next. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import { Period, periodOf } from "../../core/periods.ts";
import type { Tx } from "../db/database.ts";

/** Whether any wallet is to be filled or any limit counts anew: one look for both, which takes no locks. */
export async function anythingDue(tx: Tx, now: number): Promise<boolean> {
  const [row] = await tx.query<{ due: boolean }>(
    `select exists (select from virtual_endpoint where next_budget_reset_at <= $1)
       or exists (select from limit_account where ends_at <= $1) as due`,
    [new Date(now)],
  );
  return row!.due;
}

export interface DueReset {
  readonly veId: string;
  readonly merchantId: string;
  /** What the wallet is filled up to. */
  readonly credits: Credits;
  readonly period: Period;
}

/**
 * Locks VEs whose budget starts again, but for those that are locked already: whoever holds one either resets it, or lets
 * it be found the next time.
 */
export async function lockDueResets(tx: Tx, now: number, limit: number): Promise<DueReset[]> {
  const rows = await tx.query<{ id: string; merchant_id: string; credits: string; period: number }>(
    `select id, merchant_id, budget_reset_credits as credits, budget_reset_period as period from virtual_endpoint
     where next_budget_reset_at <= $1 order by next_budget_reset_at, id limit $2 for no key update skip locked`,
    [new Date(now), limit],
  );
  return rows.map((row) => ({
    veId: row.id,
    merchantId: row.merchant_id,
    credits: parseCredits(row.credits),
    period: row.period as Period,
  }));
}

/** Notes when locked VEs are reset next. It is no change of theirs: their versions stay. */
export async function writeNextResets(tx: Tx, next: readonly { veId: string; atMs: number }[]): Promise<void> {
  if (next.length === 0) return;
  await tx.query(
    `update virtual_endpoint v set next_budget_reset_at = d.at
     from unnest($1::text[], $2::timestamptz[]) as d (id, at) where v.id = d.id`,
    [next.map(({ veId }) => veId), next.map(({ atMs }) => new Date(atMs))],
  );
}

/** Those of these references that the ledger has already. */
export async function postedReferences(tx: Tx, references: readonly string[]): Promise<Set<string>> {
  if (references.length === 0) return new Set();
  const rows = await tx.query<{ reference: string }>(
    "select reference from transfer where reference = any($1::text[])",
    [references],
  );
  return new Set(rows.map((row) => row.reference));
}

/** The periods of a merchant's VEs that run now end as this time zone says. Resets that are due already stay due. */
export async function moveBudgetResets(tx: Tx, merchantId: string, timeZone: string, now: number): Promise<void> {
  // In the order that everybody keeps; the updates below come in any.
  await tx.query(
    `select count(*) from (select id from virtual_endpoint where merchant_id = $1 and next_budget_reset_at is not null
       order by id for no key update) as locked`,
    [merchantId],
  );
  for (const period of Object.values(Period)) {
    await tx.query(
      `update virtual_endpoint set next_budget_reset_at = $3
       where merchant_id = $1 and budget_reset_period = $2 and next_budget_reset_at > $4`,
      [merchantId, period, new Date(periodOf(period, timeZone, now).endMs), new Date(now)],
    );
  }
}
