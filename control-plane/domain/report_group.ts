/**
 * PURE: several reports of different boots in one transaction, as if one were applied after the other. A wallet that all of
 * them spend from is then locked and written once.
 */

import { type Credits, maxCredits } from "../../core/credits.ts";
import { grantMax, isAmpleByNodes } from "./leases.ts";
import {
  type BootRow,
  type Ground,
  type Lease,
  type LeaseWrite,
  type NewId,
  NO_LEASES,
  planReport,
  type Recall,
  type Report,
  type ReportAnswer,
  type ReportPlan,
  type Scope,
  type VeLeases,
} from "./report_plan.ts";
import type { NewTransfer } from "./transfer.ts";
import { available, type LockedWallet, type WalletRow } from "./wallet.ts";
import type { WalletAlert } from "./wallet_alert.ts";

export interface GroupMember {
  readonly boot: BootRow;
  readonly report: Report;
  readonly scope: Scope;
}

export interface BootLeaseWrite extends LeaseWrite {
  readonly bootId: string;
}

/** What all of them together write. */
export interface GroupPlan {
  readonly wallets: ReadonlyMap<string, LockedWallet>;
  readonly leases: readonly BootLeaseWrite[];
  readonly ends: readonly { readonly veId: string; readonly bootId: string }[];
  readonly transfers: readonly NewTransfer[];
  readonly freed: readonly string[];
  readonly alerts: readonly WalletAlert[];
  /** Of each member. */
  readonly plans: readonly ReportPlan[];
}

/** What the members would have of one VE at most. */
interface Demand {
  /** Spent, and granted. */
  readonly all: Credits;
  /** The largest grant. */
  readonly most: Credits;
  readonly burns: readonly Credits[];
  readonly waiting: boolean;
}

const NO_DEMAND: Demand = { all: 0n, most: 0n, burns: [], waiting: false };

function isShared(wallet: WalletRow, { all, most, burns, waiting }: Demand, nodesMax: bigint): boolean {
  if (waiting) return true;
  if (most === 0n) return false;
  const free = available(wallet);
  if (free < all + 2n * nodesMax * most) return true;
  return burns.some((burn) => isAmpleByNodes({ burn, most: free + wallet.escrowed, least: free - all, nodesMax }));
}

/**
 * The VEs of which it matters how many boots share them and what these hold: a request waits, or the wallet is so small that
 * its fair share could bound a grant, or it not be ample, though no more than `live` boots can share it. With many nodes on
 * many VEs that saves reading the most.
 */
export function sharedVes(
  members: readonly GroupMember[],
  wallets: ReadonlyMap<string, LockedWallet>,
  live: number,
): string[] {
  const demands = new Map<string, Demand>();
  for (const { report, scope } of members) {
    for (const [veId, spent] of scope.spend) {
      const before = demands.get(veId) ?? NO_DEMAND;
      demands.set(veId, { ...before, all: before.all + spent });
    }
    for (const ask of report.asks) {
      const before = demands.get(ask.veId) ?? NO_DEMAND;
      const most = grantMax(ask);
      const { burn = 0n } = ask;
      demands.set(ask.veId, {
        all: before.all + most,
        most: maxCredits(before.most, most),
        burns: burn > 0n ? [...before.burns, burn] : before.burns,
        waiting: before.waiting || ask.need > 0n,
      });
    }
  }
  const nodes = BigInt(live + members.length);
  return [...demands]
    .filter(([veId, demand]) => {
      const wallet = wallets.get(veId);
      return wallet !== undefined && isShared(wallet, demand, nodes);
    })
    .map(([veId]) => veId);
}

/**
 * The leases of the members' VEs: `own` are the members' own, `sums` what live boots hold of the VEs of which that matters;
 * for the others the bound will do.
 */
export function leasesOf(
  veIds: readonly string[],
  own: readonly Lease[],
  sums: ReadonlyMap<string, VeLeases["others"]>,
  shared: readonly string[],
  live: number,
): Map<string, VeLeases> {
  const known = new Set(shared);
  const byVe = Map.groupBy(own, ({ veId }) => veId);
  const leases = new Map<string, VeLeases>();
  for (const veId of veIds) {
    const mine = byVe.get(veId) ?? [];
    let { boots, credits } = known.has(veId) ? (sums.get(veId) ?? NO_LEASES.others) : { boots: live, credits: 0n };
    for (const lease of mine) {
      if (!lease.live) continue;
      boots -= 1;
      if (known.has(veId)) credits -= lease.credits;
    }
    // Read by several statements: a boot may have fallen silent between them.
    const others = { boots: Math.max(boots, 0), credits: maxCredits(credits, 0n) };
    leases.set(veId, { own: new Map(mine.map((lease) => [lease.bootId, lease])), others });
  }
  return leases;
}

/** The leases of a VE after one boot's was set or ended. */
function withLease({ own, others }: VeLeases, bootId: string, lease: Lease | null): VeLeases {
  const next = new Map(own);
  if (lease === null) next.delete(bootId);
  else next.set(bootId, lease);
  return { own: next, others };
}

/** Members are of different boots, none of which was silent: what the ground says of who shares a wallet holds for all. */
export function planGroup(members: readonly GroupMember[], ground: Ground, newId: NewId): GroupPlan {
  const present = { ...ground, wallets: new Map(ground.wallets), leases: new Map(ground.leases) };
  const wallets = new Map<string, LockedWallet>();
  const leases: BootLeaseWrite[] = [];
  const ends: { veId: string; bootId: string }[] = [];
  const transfers: NewTransfer[] = [];
  const freed = new Set<string>();
  const plans: ReportPlan[] = [];
  for (const { boot, report, scope } of members) {
    const { bootId } = report;
    const plan = planReport(boot, report, scope, present, newId);
    plans.push(plan);
    for (const [veId, row] of plan.wallets) {
      const wallet = { ...row, merchantId: present.wallets.get(veId)!.merchantId };
      present.wallets.set(veId, wallet);
      wallets.set(veId, wallet);
    }
    for (const { veId, credits, ttlMs } of plan.leases) {
      leases.push({ veId, bootId, credits, ttlMs });
      const lease = { veId, bootId, credits, ttlMs, live: !plan.progress.closed };
      present.leases.set(veId, withLease(present.leases.get(veId) ?? NO_LEASES, bootId, lease));
    }
    for (const veId of plan.ends) {
      ends.push({ veId, bootId });
      present.leases.set(veId, withLease(present.leases.get(veId) ?? NO_LEASES, bootId, null));
    }
    transfers.push(...plan.transfers);
    for (const veId of plan.freed) freed.add(veId);
  }
  const alerts = plans.flatMap((plan) => plan.alerts);
  return { wallets, leases, ends, transfers, freed: [...freed], alerts, plans };
}

/** The answer with who is to be asked to give back: `holders` are the live boots that hold something, by VE. */
export function withRecalls(
  { answer, recalls }: Pick<ReportPlan, "answer" | "recalls">,
  bootId: string,
  holders: ReadonlyMap<string, readonly string[]>,
): ReportAnswer {
  if (recalls.length === 0) return answer;
  const asked = recalls.map((veId): Recall => ({
    veId,
    boots: (holders.get(veId) ?? []).filter((holder) => holder !== bootId),
  }));
  return { ...answer, recalls: asked };
}
