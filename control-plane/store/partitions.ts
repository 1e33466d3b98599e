/** Daily partitions of usage_event. */

import type { Database } from "../db/database.ts";

export const DAY_US = 86_400_000_000n;
/** A partition is attached only if it gets its lock this fast: reports wait behind it meanwhile. */
const LOCK_TIMEOUT = "2s";
/** Any number, as long as nobody else on the server uses it for another thing. */
const PARTITION_LOCK = 7_306_085_145n;

/** `usage_event_20261123` */
export function partitionName(day: number): string {
  return `usage_event_${new Date(day * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "")}`;
}

/**
 * Makes the partition of a day (days since 1970, UTC) unless it is there. Returns false, and leaves things as they are,
 * when events of that day are in the default partition already: they are found there just as well.
 */
export async function makePartition(db: Database, day: number): Promise<boolean> {
  const name = partitionName(day);
  const from = BigInt(day) * DAY_US;
  return db.tx(async (tx) => {
    // Replicas take turns, or one of them would fail on a name that is taken.
    await tx.query("select pg_advisory_xact_lock($1::bigint)", [PARTITION_LOCK]);
    const [known] = await tx.query<{ there: boolean }>("select to_regclass($1) is not null as there", [name]);
    if (known!.there) return true;
    const taken = await tx.query("select 1 from usage_event_default where arrive_us >= $1 and arrive_us < $2 limit 1", [
      from,
      from + DAY_US,
    ]);
    if (taken.length > 0) return false;
    await tx.query(`set local lock_timeout = '${LOCK_TIMEOUT}'`);
    await tx.query(
      `create table if not exists ${name} partition of usage_event for values from (${from}) to (${from + DAY_US})`,
    );
    return true;
  });
}
