/** Takes back the leases of boots that fell silent, after their time and a hold for their journal to come back. */

import type { Deps } from "../api/context.ts";
import { planTakeBack } from "../domain/report_plan.ts";
import type { Tx } from "../db/database.ts";
import { lockBoot, markTaken } from "../store/boot.ts";
import { expiredBoots, expiredLeases, leasedVes, readLeases } from "../store/lease.ts";
import { tickServiceClock } from "../store/service_clock.ts";
import { lockWallets } from "../store/wallet.ts";
import { write } from "./ingest.ts";
import { takeLimitsBack } from "./limits.ts";
import { leasesExpiredTotal } from "./metrics.ts";

/** Boots of one sweep; the next sweep goes on. */
const SWEEP_BOOTS_MAX = 100;

/** Takes leases of a locked boot back: those whose time and hold are over, or all. How many. */
export async function takeBack(tx: Tx, deps: Deps, bootId: string, holdMs: number | "all"): Promise<number> {
  const now = deps.now();
  const veIds = holdMs === "all" ? await leasedVes(tx, bootId) : await expiredLeases(tx, bootId, holdMs);
  const wallets = await lockWallets(tx, veIds);
  const held = await readLeases(
    tx,
    veIds.map((veId) => ({ veId, bootId })),
  );
  if (held.length > 0) {
    await write(tx, deps, bootId, now, planTakeBack(held, wallets, deps.newId));
    await markTaken(tx, bootId);
  }
  return held.length + (await takeLimitsBack(tx, bootId, now, holdMs));
}

function sweepBoot(deps: Deps, bootId: string): Promise<number> {
  return deps.db.tx(async (tx) => {
    // The same order of locks as a report: a report that comes at this moment either renews the lease first, or waits.
    if ((await lockBoot(tx, bootId)) === null) return 0;
    return takeBack(tx, deps, bootId, deps.settings.leaseHoldMs);
  });
}

/** Advances the clock of leases, to `atMs` or the database's own time; how many leases were taken back. */
export async function sweepLeases(deps: Deps, atMs: number | null = null): Promise<number> {
  await tickServiceClock(deps.db, atMs);
  let leases = 0;
  for (const bootId of await expiredBoots(deps.db, deps.settings.leaseHoldMs, SWEEP_BOOTS_MAX)) {
    const ended = await sweepBoot(deps, bootId);
    if (ended === 0) continue;
    leases += ended;
    leasesExpiredTotal.inc(ended);
    deps.log.warn({ bootId, leases: ended }, "a node fell silent; its leases were taken back");
  }
  return leases;
}
