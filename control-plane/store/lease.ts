/** Leases. Rows are guarded by the lock of their wallet. Nodes name their boots, and might do so with line breaks. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import { dictionary, lines, numberLines, textLines } from "../db/columns.ts";
import type { Tx } from "../db/database.ts";
import { BOOT_LIVE_MS } from "../domain/leases.ts";
import type { BootLeaseWrite } from "../domain/report_group.ts";
import type { Lease, VeLeases } from "../domain/report_plan.ts";
import { SERVICE_TICK_MAX_MS } from "../domain/service_clock.ts";
import { SERVICE_MS } from "./service_clock.ts";

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

/** Of a lease `l` and its boot `b`: whether the boot reported lately. Limits' leases use it too. */
export const LIVE = `${SERVICE_MS} - b.last_report_ms <= ${BOOT_LIVE_MS} and not b.closed`;

/** A lease by its key. */
export interface LeaseKey {
  readonly veId: string;
  readonly bootId: string;
}

/** Those of these leases that there are. */
export async function readLeases(tx: Tx, keys: readonly LeaseKey[]): Promise<Lease[]> {
  if (keys.length === 0) return [];
  const boots = dictionary(keys, ({ bootId }) => bootId);
  const rows = await tx.query<LeaseColumns>(
    `select l.ve_id, l.boot_id, l.credits, l.ttl_ms, ${LIVE} as live
     from (select ve_id, ($1::text[])[place] as boot_id
         from unnest(${lines(2)}, ${lines(3, "int")}) as u (ve_id, place) where place is not null) as d
       join lease l on l.ve_id = d.ve_id and l.boot_id = d.boot_id join node_boot b on b.boot_id = l.boot_id`,
    [boots.texts, textLines(keys, ({ veId }) => veId), numberLines(keys, boots.placeOf)],
  );
  return rows.map(toLease);
}

/** How many boots are live. */
export async function countLive(tx: Tx): Promise<number> {
  const [row] = await tx.query<{ live: number }>(`select count(*)::int as live from node_boot b where ${LIVE}`);
  return row!.live;
}

/** The live boots that hold leases of each of these VEs, and what they hold together. */
export async function sumLive(tx: Tx, veIds: readonly string[]): Promise<Map<string, VeLeases["others"]>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<{ ve_id: string; boots: number; credits: string }>(
    `select l.ve_id, count(*)::int as boots, sum(l.credits) as credits
     from lease l join node_boot b on b.boot_id = l.boot_id where l.ve_id = any($1::text[]) and ${LIVE} group by l.ve_id`,
    [veIds],
  );
  return new Map(rows.map((row) => [row.ve_id, { boots: row.boots, credits: parseCredits(row.credits) }]));
}

/** The live boots that hold Credits of these VEs. */
export async function readHolders(tx: Tx, veIds: readonly string[]): Promise<Map<string, string[]>> {
  const holders = new Map<string, string[]>();
  if (veIds.length === 0) return holders;
  const rows = await tx.query<{ ve_id: string; boot_id: string }>(
    `select l.ve_id, l.boot_id from lease l join node_boot b on b.boot_id = l.boot_id
     where l.ve_id = any($1::text[]) and l.credits > 0 and ${LIVE}`,
    [veIds],
  );
  for (const { ve_id: veId, boot_id: bootId } of rows) {
    const list = holders.get(veId);
    if (list === undefined) holders.set(veId, [bootId]);
    else list.push(bootId);
  }
  return holders;
}

/** The VEs that a boot holds leases of. */
export async function leasedVes(tx: Tx, bootId: string): Promise<string[]> {
  const rows = await tx.query<{ ve_id: string }>("select ve_id from lease where boot_id = $1", [bootId]);
  return rows.map((row) => row.ve_id);
}

/**
 * Sets leases. The ttl of a lease only grows while the lease lives: the answer that shortens it may be lost,
 * and the node must always stop before the server does.
 */
export async function writeLeases(tx: Tx, leases: readonly BootLeaseWrite[]): Promise<void> {
  if (leases.length === 0) return;
  const boots = dictionary(leases, (lease) => lease.bootId);
  await tx.query(
    `insert into lease (ve_id, boot_id, credits, ttl_ms)
     select d.ve_id, ($1::text[])[d.place], d.credits, d.ttl_ms
     from unnest(${lines(2, "int")}, ${lines(3)}, ${lines(4, "numeric")}, ${lines(5, "bigint")}) as d (place, ve_id, credits, ttl_ms)
     where d.ttl_ms is not null
     on conflict (ve_id, boot_id) do update
       set credits = excluded.credits, ttl_ms = greatest(lease.ttl_ms, excluded.ttl_ms)`,
    [
      boots.texts,
      numberLines(leases, boots.placeOf),
      textLines(leases, (lease) => lease.veId),
      numberLines(leases, (lease) => formatCredits(lease.credits)),
      numberLines(leases, (lease) => lease.ttlMs),
    ],
  );
}

/** Ends leases. */
export async function deleteLeases(
  tx: Tx,
  ends: readonly { readonly veId: string; readonly bootId: string }[],
): Promise<void> {
  if (ends.length === 0) return;
  await tx.query(
    `delete from lease l using unnest($1::text[], $2::text[]) as d (ve_id, boot_id)
     where l.ve_id = d.ve_id and l.boot_id = d.boot_id`,
    [ends.map(({ veId }) => veId), ends.map(({ bootId }) => bootId)],
  );
}

/** Of a lease `l` and its boot `b`: whether its time and the hold, $1, are over. Limits' leases use it too. */
export const EXPIRED = `${SERVICE_MS} - b.last_report_ms > l.ttl_ms + $1::bigint + ${SERVICE_TICK_MAX_MS}`;

/** Boots with at least one lease, of a wallet or of a limit, whose time is over. */
export async function expiredBoots(tx: Tx, holdMs: number, limit: number): Promise<string[]> {
  const rows = await tx.query<{ boot_id: string }>(
    `select boot_id from (
       select b.boot_id from node_boot b join lease l on l.boot_id = b.boot_id where ${EXPIRED}
       union select b.boot_id from node_boot b join limit_lease l on l.boot_id = b.boot_id where ${EXPIRED}) as over limit $2`,
    [holdMs, limit],
  );
  return rows.map((row) => row.boot_id);
}

/** The VEs of a locked boot whose leases are over. */
export async function expiredLeases(tx: Tx, bootId: string, holdMs: number): Promise<string[]> {
  const rows = await tx.query<{ ve_id: string }>(
    `select l.ve_id from node_boot b join lease l on l.boot_id = b.boot_id where b.boot_id = $2 and ${EXPIRED}`,
    [holdMs, bootId],
  );
  return rows.map((row) => row.ve_id);
}
