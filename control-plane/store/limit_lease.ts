/** Leases of limits. Rows are guarded by the lock of their limit. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { LimitId, LimitLease, LimitLeaseId, LimitLeaseWrite } from "../domain/limit_plan.ts";
import type { LimitKind } from "../domain/limits.ts";
import { EXPIRED, LIVE } from "./lease.ts";

interface LimitLeaseColumns {
  physical_model_id: string;
  kind: number;
  boot_id: string;
  amount: string;
  ttl_ms: bigint;
  live: boolean;
}

/** All leases of the limits of these Physical Models, of every boot. */
export async function readLimitLeases(tx: Tx, physicalModelIds: readonly string[]): Promise<LimitLease[]> {
  if (physicalModelIds.length === 0) return [];
  const rows = await tx.query<LimitLeaseColumns>(
    `select l.physical_model_id, l.kind, l.boot_id, l.amount, l.ttl_ms, ${LIVE} as live
     from limit_lease l join node_boot b on b.boot_id = l.boot_id where l.physical_model_id = any($1::text[])`,
    [physicalModelIds],
  );
  return rows.map((row) => ({
    physicalModelId: row.physical_model_id,
    kind: row.kind as LimitKind,
    bootId: row.boot_id,
    amount: parseCredits(row.amount),
    ttlMs: Number(row.ttl_ms),
    live: row.live,
  }));
}

/** The Physical Models that these boots hold leases of. */
export async function leasedModels(tx: Tx, bootIds: readonly string[]): Promise<string[]> {
  if (bootIds.length === 0) return [];
  const rows = await tx.query<{ id: string }>(
    "select distinct physical_model_id as id from limit_lease where boot_id = any($1::text[])",
    [bootIds],
  );
  return rows.map(({ id }) => id);
}

/** Sets leases. As with wallets, the ttl only grows while the lease lives. */
export async function writeLimitLeases(tx: Tx, leases: readonly LimitLeaseWrite[]): Promise<void> {
  if (leases.length === 0) return;
  await tx.query(
    `insert into limit_lease (physical_model_id, kind, boot_id, amount, ttl_ms)
     select * from unnest($1::text[], $2::int[], $3::text[], $4::numeric[], $5::bigint[])
     on conflict (physical_model_id, kind, boot_id) do update
       set amount = excluded.amount, ttl_ms = greatest(limit_lease.ttl_ms, excluded.ttl_ms)`,
    [
      leases.map((lease) => lease.physicalModelId),
      leases.map((lease) => lease.kind),
      leases.map((lease) => lease.bootId),
      leases.map((lease) => formatCredits(lease.amount)),
      leases.map((lease) => lease.ttlMs),
    ],
  );
}

/** Ends leases. */
export async function deleteLimitLeases(tx: Tx, leases: readonly LimitLeaseId[]): Promise<void> {
  if (leases.length === 0) return;
  await tx.query(
    `delete from limit_lease l using unnest($1::text[], $2::int[], $3::text[]) as d (id, kind, boot)
     where l.physical_model_id = d.id and l.kind = d.kind and l.boot_id = d.boot`,
    [
      leases.map(({ physicalModelId }) => physicalModelId),
      leases.map(({ kind }) => kind),
      leases.map(({ bootId }) => bootId),
    ],
  );
}

/** The limits of a locked boot whose leases are over. */
export async function expiredLimitLeases(tx: Tx, bootId: string, holdMs: number): Promise<LimitId[]> {
  const rows = await tx.query<{ physical_model_id: string; kind: number }>(
    `select l.physical_model_id, l.kind from node_boot b join limit_lease l on l.boot_id = b.boot_id
     where b.boot_id = $2 and ${EXPIRED}`,
    [holdMs, bootId],
  );
  return rows.map((row) => ({ physicalModelId: row.physical_model_id, kind: row.kind as LimitKind }));
}
