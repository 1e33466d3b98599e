/** How far the reports of each boot have come. The row of a boot is locked first by everything that touches its leases. */

import type { Tx } from "../db/database.ts";
import { BOOT_LIVE_MS } from "../domain/leases.ts";
import type { BootProgress, BootRow } from "../domain/report_plan.ts";
import { SERVICE_MS } from "./service_clock.ts";

export type { BootRow } from "../domain/report_plan.ts";

interface BootColumns {
  node_id: string;
  last_seq: bigint;
  last_record_no: bigint;
  closed: boolean;
  leases_taken: boolean;
}

function toRow(row: BootColumns): BootRow {
  const { node_id: nodeId, last_seq: lastSeq, last_record_no: lastRecordNo, closed, leases_taken: leasesTaken } = row;
  return { nodeId, lastSeq, lastRecordNo, closed, leasesTaken };
}

const COLUMNS = "node_id, last_seq, last_record_no, closed, leases_taken";

/** Reads a boot without locking it; null if it never reported. */
export async function readBoot(tx: Tx, bootId: string): Promise<BootRow | null> {
  const [row] = await tx.query<BootColumns>(`select ${COLUMNS} from node_boot where boot_id = $1`, [bootId]);
  return row === undefined ? null : toRow(row);
}

/** Locks a boot until the end of the transaction; null if it never reported. */
export async function lockBoot(tx: Tx, bootId: string): Promise<BootRow | null> {
  const [row] = await tx.query<BootColumns>(`select ${COLUMNS} from node_boot where boot_id = $1 for update`, [bootId]);
  return row === undefined ? null : toRow(row);
}

/** Locks a boot, making its row when it reports for the first time. */
export async function lockOrMakeBoot(tx: Tx, bootId: string, nodeId: string, now: number): Promise<BootRow> {
  const known = await lockBoot(tx, bootId);
  if (known !== null) return known;
  await tx.query(
    `insert into node_boot (boot_id, node_id, last_report_at, last_report_ms) values ($1, $2, $3, ${SERVICE_MS})
     on conflict (boot_id) do nothing`,
    [bootId, nodeId, new Date(now)],
  );
  return (await lockBoot(tx, bootId))!;
}

/** Locks the boots that reported lately until the end of the transaction, in id order; the others are missing. */
export async function lockBoots(tx: Tx, bootIds: readonly string[]): Promise<Map<string, BootRow>> {
  const rows = await tx.query<BootColumns & { boot_id: string }>(
    `select boot_id, ${COLUMNS} from node_boot
     where boot_id = any($1::text[]) and ${SERVICE_MS} - last_report_ms <= ${BOOT_LIVE_MS} order by boot_id for update`,
    [bootIds],
  );
  return new Map(rows.map((row) => [row.boot_id, toRow(row)]));
}

/** Moves the cursors of locked boots; a report also renews the boot's leases. */
export async function advanceBoots(
  tx: Tx,
  now: number,
  boots: readonly { readonly bootId: string; readonly progress: BootProgress }[],
): Promise<void> {
  await tx.query(
    `update node_boot b set last_seq = d.seq, last_record_no = d.record_no, closed = d.closed, leases_taken = d.taken,
       last_report_at = $6, last_report_ms = ${SERVICE_MS}
     from unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[]) as d (id, seq, record_no, closed, taken)
     where b.boot_id = d.id`,
    [
      boots.map(({ bootId }) => bootId),
      boots.map(({ progress }) => progress.lastSeq),
      boots.map(({ progress }) => progress.lastRecordNo),
      boots.map(({ progress }) => progress.closed),
      boots.map(({ progress }) => progress.leasesTaken),
      new Date(now),
    ],
  );
}

/** Notes that a boot is alive, which renews its leases. */
export async function touchBoot(tx: Tx, bootId: string, now: number): Promise<void> {
  await tx.query(`update node_boot set last_report_at = $2, last_report_ms = ${SERVICE_MS} where boot_id = $1`, [
    bootId,
    new Date(now),
  ]);
}

/** Notes that leases of a locked boot were taken back. */
export async function markTaken(tx: Tx, bootId: string): Promise<void> {
  await tx.query("update node_boot set leases_taken = true where boot_id = $1", [bootId]);
}

export interface BootLife {
  readonly bootId: string;
  readonly nodeId: string;
  /** Whether it reported lately. */
  readonly live: boolean;
}

/** The boots of a node, or the one boot of this id, that hold leases of wallets or limits. */
export async function leasingBoots(tx: Tx, nodeOrBootId: string): Promise<BootLife[]> {
  const rows = await tx.query<{ boot_id: string; node_id: string; live: boolean }>(
    `select b.boot_id, b.node_id, ${SERVICE_MS} - b.last_report_ms <= ${BOOT_LIVE_MS} as live
     from node_boot b where (b.boot_id = $1 or b.node_id = $1)
       and (exists (select from lease l where l.boot_id = b.boot_id)
         or exists (select from limit_lease l where l.boot_id = b.boot_id))
     order by b.boot_id`,
    [nodeOrBootId],
  );
  return rows.map((row) => ({ bootId: row.boot_id, nodeId: row.node_id, live: row.live }));
}

/** Whether a node or boot of this id ever reported. */
export async function isKnownNode(tx: Tx, nodeOrBootId: string): Promise<boolean> {
  const rows = await tx.query("select from node_boot where boot_id = $1 or node_id = $1 limit 1", [nodeOrBootId]);
  return rows.length > 0;
}

/** Whether a locked boot is still silent. */
export async function isSilent(tx: Tx, bootId: string): Promise<boolean> {
  const rows = await tx.query(
    `select from node_boot where boot_id = $1 and ${SERVICE_MS} - last_report_ms > ${BOOT_LIVE_MS}`,
    [bootId],
  );
  return rows.length > 0;
}
