/** Leases. Rows are guarded by the lock of their wallet. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { BOOT_LIVE_MS, LEASE_HOLD_MS } from "../domain/leases.ts";

export interface Lease {
  readonly veId: string;
  readonly bootId: string;
  readonly credits: Credits;
  readonly ttlMs: number;
  /** Whether its boot reported lately, so that it shares the wallet and can be asked to give back. */
  readonly live: boolean;
}

interface LeaseColumns {
  ve_id: string;
  boot_id: string;
  credits: string;
  ttl_ms: bigint;
  live: boolean;
}

function toLease(row: LeaseColumns): Lease {
  return {
    veId: row.ve_id,
    bootId: row.boot_id,
    credits: parseCredits(row.credits),
    ttlMs: Number(row.ttl_ms),
    live: row.live,
  };
}

/** All leases of these VEs, of every boot. */
export async function readLeases(tx: Tx, veIds: readonly string[], now: number): Promise<Lease[]> {
  if (veIds.length === 0) return [];
  const rows = await tx.query<LeaseColumns>(
    `select l.ve_id, l.boot_id, l.credits, l.ttl_ms, b.last_report_at >= $2 and not b.closed as live
     from lease l join node_boot b on b.boot_id = l.boot_id where l.ve_id = any($1::text[])`,
    [veIds, new Date(now - BOOT_LIVE_MS)],
  );
  return rows.map(toLease);
}

/** The VEs that a boot holds leases of. */
export async function leasedVes(tx: Tx, bootId: string): Promise<string[]> {
  const rows = await tx.query<{ ve_id: string }>("select ve_id from lease where boot_id = $1", [bootId]);
  return rows.map((row) => row.ve_id);
}

export interface LeaseWrite {
  readonly veId: string;
  readonly credits: Credits;
  readonly ttlMs: number;
}

/**
 * Sets leases of one boot. The ttl of a lease only grows while the lease lives: the answer that shortens it may be lost,
 * and the node must always stop before the server does.
 */
export async function writeLeases(tx: Tx, bootId: string, leases: readonly LeaseWrite[]): Promise<void> {
  if (leases.length === 0) return;
  await tx.query(
    `insert into lease (ve_id, boot_id, credits, ttl_ms)
     select d.ve_id, $1, d.credits, d.ttl_ms from unnest($2::text[], $3::numeric[], $4::bigint[]) as d (ve_id, credits, ttl_ms)
     on conflict (ve_id, boot_id) do update
       set credits = excluded.credits, ttl_ms = greatest(lease.ttl_ms, excluded.ttl_ms)`,
    [
      bootId,
      leases.map((lease) => lease.veId),
      leases.map((lease) => formatCredits(lease.credits)),
      leases.map((lease) => lease.ttlMs),
    ],
  );
}

/** Ends leases of one boot. */
export async function deleteLeases(tx: Tx, bootId: string, veIds: readonly string[]): Promise<void> {
  if (veIds.length === 0) return;
  await tx.query("delete from lease where boot_id = $1 and ve_id = any($2::text[])", [bootId, veIds]);
}

const EXPIRED = "b.last_report_at < $1::timestamptz - l.ttl_ms * interval '1 millisecond'";

/** Boots with at least one lease whose time is over. */
export async function expiredBoots(tx: Tx, now: number, limit: number): Promise<string[]> {
  const rows = await tx.query<{ boot_id: string }>(
    `select distinct b.boot_id from node_boot b join lease l on l.boot_id = b.boot_id where ${EXPIRED} limit $2`,
    [new Date(now - LEASE_HOLD_MS), limit],
  );
  return rows.map((row) => row.boot_id);
}

/** The VEs of a locked boot whose leases are over. */
export async function expiredLeases(tx: Tx, bootId: string, now: number): Promise<string[]> {
  const rows = await tx.query<{ ve_id: string }>(
    `select l.ve_id from node_boot b join lease l on l.boot_id = b.boot_id where b.boot_id = $2 and ${EXPIRED}`,
    [new Date(now - LEASE_HOLD_MS), bootId],
  );
  return rows.map((row) => row.ve_id);
}
