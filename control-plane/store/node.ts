/** Nodes, as their reports show them. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";

/** Boots of one node that are shown. */
export const BOOTS_SHOWN_MAX = 20;

export interface NodeBootRow {
  readonly bootId: string;
  readonly closed: boolean;
  readonly reportedAt: Date;
  readonly lastRecordNo: bigint;
  readonly leases: bigint;
  /** As SQL shows it. */
  readonly credits: string;
}

export interface NodeRow {
  readonly nodeId: string;
  readonly reportedAt: Date;
  readonly leases: bigint;
  readonly credits: string;
  readonly boots: readonly NodeBootRow[];
}

interface Columns {
  node_id: string;
  node_reported_at: Date;
  node_leases: bigint;
  node_credits: string;
  boot_id: string | null;
  closed: boolean;
  last_report_at: Date;
  last_record_no: bigint;
  leases: bigint;
  credits: string;
}

/** Up to `limit` nodes after the id `after`, each with its boots that hold leases or are not closed, the latest first. */
export async function listNodes(tx: Tx, after: string, limit: number): Promise<NodeRow[]> {
  const rows = await tx.query<Columns>(
    `with node as (select node_id collate "C" as node_id from node_boot where node_id collate "C" > $1
         group by 1 order by 1 limit $2),
       boot as (select n.node_id as node_of, b.*, coalesce(l.leases, 0) as leases, coalesce(l.credits, 0) as credits,
           row_number() over (partition by n.node_id order by b.closed and l.leases is null, b.last_report_at desc, b.boot_id) as place
         from node n join node_boot b on b.node_id = n.node_id
           left join (select boot_id, count(*) as leases, sum(credits) as credits from lease group by boot_id) l
             on l.boot_id = b.boot_id),
       total as (select node_of, max(last_report_at) as node_reported_at, sum(leases)::bigint as node_leases,
           sum(credits) as node_credits from boot group by node_of)
     select t.node_of as node_id, t.node_reported_at, t.node_leases, t.node_credits, b.boot_id, b.closed, b.last_report_at,
       b.last_record_no, b.leases, b.credits
     from total t left join boot b on b.node_of = t.node_of and b.place <= $3 and (b.leases > 0 or not b.closed)
     order by t.node_of, b.place`,
    [after, limit, BOOTS_SHOWN_MAX],
  );
  return [...Map.groupBy(rows, (row) => row.node_id)].map(([nodeId, boots]) => ({
    nodeId,
    reportedAt: boots[0]!.node_reported_at,
    leases: boots[0]!.node_leases,
    credits: boots[0]!.node_credits,
    boots: boots.flatMap((row) =>
      row.boot_id === null
        ? []
        : [
            {
              bootId: row.boot_id,
              closed: row.closed,
              reportedAt: row.last_report_at,
              lastRecordNo: row.last_record_no,
              leases: row.leases,
              credits: row.credits,
            },
          ],
    ),
  }));
}

/** What a boot holds of each wallet, as long as its row is locked; empty leases are left out. */
export async function heldBy(tx: Tx, bootId: string): Promise<Map<string, Credits>> {
  const rows = await tx.query<{ ve_id: string; credits: string }>(
    "select ve_id, credits from lease where boot_id = $1 and credits > 0",
    [bootId],
  );
  return new Map(rows.map((row) => [row.ve_id, parseCredits(row.credits)]));
}
