/** Takes back the leases of boots that fell silent, after their time and a hold for their journal to come back. */

import type { Deps } from "../api/context.ts";
import { settleSpend } from "../domain/leases.ts";
import { lockBoot } from "../store/boot.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { deleteLeases, expiredBoots, expiredLeases, readLeases } from "../store/lease.ts";
import { type NewTransfer, postTransfers } from "../store/ledger.ts";
import { lockWallets, type WalletRow, writeWallets } from "../store/wallet.ts";
import { leasesExpiredTotal } from "./metrics.ts";

/** Boots of one sweep; the next sweep goes on. */
const SWEEP_BOOTS_MAX = 100;

function sweepBoot(deps: Deps, bootId: string): Promise<number> {
  const now = deps.now();
  return deps.db.tx(async (tx) => {
    // The same order of locks as a report: a report that comes at this moment either renews the lease first, or waits.
    if ((await lockBoot(tx, bootId)) === null) return 0;
    const veIds = await expiredLeases(tx, bootId, now);
    if (veIds.length === 0) return 0;
    const wallets = await lockWallets(tx, veIds);
    const held = (await readLeases(tx, veIds, now)).filter((lease) => lease.bootId === bootId);
    const after = new Map<string, WalletRow>();
    const transfers: NewTransfer[] = [];
    for (const { veId, credits } of held) {
      const before = wallets.get(veId)!;
      const { wallet, repaid } = settleSpend({ wallet: before, lease: credits, spent: 0n, release: credits });
      after.set(veId, wallet);
      if (repaid === 0n) continue;
      const id = deps.newId("tr_");
      transfers.push({
        id,
        merchantId: before.merchantId,
        veId,
        debit: "wallet",
        credit: "debt",
        credits: repaid,
        reference: `repay:${id}`,
        reason: "",
      });
    }
    await writeWallets(tx, now, after);
    await deleteLeases(tx, bootId, veIds);
    await postTransfers(tx, now, transfers);
    await notifyWallets(
      tx,
      held.filter(({ credits }) => credits > 0n).map(({ veId }) => ({ veId, kind: "freed" as const })),
    );
    return held.length;
  });
}

/** How many leases were taken back. */
export async function sweepLeases(deps: Deps): Promise<number> {
  let leases = 0;
  for (const bootId of await expiredBoots(deps.db, deps.now(), SWEEP_BOOTS_MAX)) {
    const ended = await sweepBoot(deps, bootId);
    if (ended === 0) continue;
    leases += ended;
    leasesExpiredTotal.inc(ended);
    deps.log.warn({ bootId, leases: ended }, "a node fell silent; its leases were taken back");
  }
  return leases;
}
