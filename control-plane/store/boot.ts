/** How far the reports of each boot have come. The row of a boot is locked first by everything that touches its leases. */

import type { Tx } from "../db/database.ts";

export interface BootRow {
  readonly nodeId: string;
  readonly lastSeq: bigint;
  readonly lastRecordNo: bigint;
  readonly closed: boolean;
}

interface BootColumns {
  node_id: string;
  last_seq: bigint;
  last_record_no: bigint;
  closed: boolean;
}

function toRow(row: BootColumns): BootRow {
  return { nodeId: row.node_id, lastSeq: row.last_seq, lastRecordNo: row.last_record_no, closed: row.closed };
}

const COLUMNS = "node_id, last_seq, last_record_no, closed";

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
    "insert into node_boot (boot_id, node_id, last_report_at) values ($1, $2, $3) on conflict (boot_id) do nothing",
    [bootId, nodeId, new Date(now)],
  );
  return (await lockBoot(tx, bootId))!;
}

export interface BootProgress {
  readonly lastSeq: bigint;
  readonly lastRecordNo: bigint;
  readonly closed: boolean;
}

/** Moves the cursor of a locked boot; the report also renews the boot's leases. */
export async function advanceBoot(tx: Tx, bootId: string, now: number, progress: BootProgress): Promise<void> {
  await tx.query(
    "update node_boot set last_seq = $2, last_record_no = $3, closed = $4, last_report_at = $5 where boot_id = $1",
    [bootId, progress.lastSeq, progress.lastRecordNo, progress.closed, new Date(now)],
  );
}

/** Notes that a boot is alive, which renews its leases. */
export async function touchBoot(tx: Tx, bootId: string, now: number): Promise<void> {
  await tx.query("update node_boot set last_report_at = $2 where boot_id = $1", [bootId, new Date(now)]);
}
