/** Limits of Physical Models and their leases. Leases are guarded by the lock of their limit. */

import type { UnitKind } from "../../core/meters.ts";
import type { Period } from "../../core/periods.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { LimitAccount, LimitKind } from "../domain/limits.ts";

interface LimitColumns {
  physical_model_id: string;
  kind: number;
  merchant_id: string;
  unit: number;
  period: number;
  time_zone: string;
  amount: string;
  used: string;
  leased: string;
  counts_from: Date;
  ends_at: Date | null;
}

const COLUMNS =
  "physical_model_id, kind, merchant_id, unit, period, time_zone, amount, used, leased, counts_from, ends_at";

function toAccount(row: LimitColumns): LimitAccount {
  return {
    physicalModelId: row.physical_model_id,
    kind: row.kind as LimitKind,
    merchantId: row.merchant_id,
    unit: row.unit as UnitKind | 0,
    period: row.period as Period | 0,
    timeZone: row.time_zone,
    amount: parseCredits(row.amount),
    used: parseCredits(row.used),
    leased: parseCredits(row.leased),
    countsFromMs: row.counts_from.getTime(),
    endsMs: row.ends_at === null ? null : row.ends_at.getTime(),
  };
}

/** The limits of these Physical Models. */
export async function readLimits(tx: Tx, physicalModelIds: readonly string[]): Promise<LimitAccount[]> {
  if (physicalModelIds.length === 0) return [];
  const rows = await tx.query<LimitColumns>(
    `select ${COLUMNS} from limit_account where physical_model_id = any($1::text[]) order by physical_model_id, kind`,
    [physicalModelIds],
  );
  return rows.map(toAccount);
}

/** Locks the limits of these Physical Models until the end of the transaction, in the order that everybody keeps. */
export async function lockLimits(tx: Tx, physicalModelIds: readonly string[]): Promise<LimitAccount[]> {
  if (physicalModelIds.length === 0) return [];
  const rows = await tx.query<LimitColumns>(
    `select ${COLUMNS} from limit_account where physical_model_id = any($1::text[])
     order by physical_model_id, kind for update`,
    [physicalModelIds],
  );
  return rows.map(toAccount);
}

/** Locks every limit of a merchant. */
export async function lockLimitsOfMerchant(tx: Tx, merchantId: string): Promise<LimitAccount[]> {
  const rows = await tx.query<LimitColumns>(
    `select ${COLUMNS} from limit_account where merchant_id = $1 order by physical_model_id, kind for update`,
    [merchantId],
  );
  return rows.map(toAccount);
}

/** Locks limits whose period is over, but for those that are locked: whoever holds one begins its new period as well. */
export async function lockEndedLimits(tx: Tx, now: number, limit: number): Promise<LimitAccount[]> {
  const rows = await tx.query<LimitColumns>(
    `select ${COLUMNS} from limit_account where ends_at <= $1 order by physical_model_id, kind limit $2
     for update skip locked`,
    [new Date(now), limit],
  );
  return rows.map(toAccount);
}

/** Makes limits, or writes locked ones back. */
export async function writeLimits(tx: Tx, accounts: readonly LimitAccount[]): Promise<void> {
  if (accounts.length === 0) return;
  const column = <Value>(pick: (account: LimitAccount) => Value): Value[] => accounts.map(pick);
  await tx.query(
    `insert into limit_account (${COLUMNS})
     select * from unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::int[], $6::text[], $7::numeric[], $8::numeric[],
       $9::numeric[], $10::timestamptz[], $11::timestamptz[])
     on conflict (physical_model_id, kind) do update set unit = excluded.unit, period = excluded.period,
       time_zone = excluded.time_zone, amount = excluded.amount, used = excluded.used, leased = excluded.leased,
       counts_from = excluded.counts_from, ends_at = excluded.ends_at`,
    [
      column((account) => account.physicalModelId),
      column((account) => account.kind),
      column((account) => account.merchantId),
      column((account) => account.unit),
      column((account) => account.period),
      column((account) => account.timeZone),
      column((account) => formatCredits(account.amount)),
      column((account) => formatCredits(account.used)),
      column((account) => formatCredits(account.leased)),
      column((account) => new Date(account.countsFromMs)),
      column((account) => (account.endsMs === null ? null : new Date(account.endsMs))),
    ],
  );
}

/** Ends a locked limit with its leases. */
export async function deleteLimit(tx: Tx, physicalModelId: string, kind: LimitKind): Promise<void> {
  const params = [physicalModelId, kind];
  await tx.query("delete from limit_lease where physical_model_id = $1 and kind = $2", params);
  await tx.query("delete from limit_account where physical_model_id = $1 and kind = $2", params);
}

/** Ends every limit of a Physical Model that is about to be deleted. */
export async function deleteLimitsOf(tx: Tx, physicalModelId: string): Promise<void> {
  for (const { kind } of await lockLimits(tx, [physicalModelId])) await deleteLimit(tx, physicalModelId, kind);
}

/** Ends every lease of a locked limit. */
export async function deleteLeasesOfLimit(tx: Tx, physicalModelId: string, kind: LimitKind): Promise<void> {
  await tx.query("delete from limit_lease where physical_model_id = $1 and kind = $2", [physicalModelId, kind]);
}
