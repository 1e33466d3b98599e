/** The clock that leases are held by: it stands still while no replica is at work (domain/service_clock.ts). */

import type { Tx } from "../db/database.ts";
import { SERVICE_TICK_MAX_MS } from "../domain/service_clock.ts";

/** The clock now, in SQL. */
export const SERVICE_MS = "(select ms from service_clock)";

/** Advances the clock to `atMs`, in milliseconds since 1970; null: to the present time of the database. */
export async function tickServiceClock(tx: Tx, atMs: number | null): Promise<void> {
  await tx.query(
    `update service_clock set ticked_at = d.at,
       ms = ms + least(greatest(extract(epoch from d.at - ticked_at) * 1000, 0), ${SERVICE_TICK_MAX_MS})::bigint
     from (select coalesce($1::timestamptz, clock_timestamp()) as at) as d`,
    [atMs === null ? null : new Date(atMs)],
  );
}
