/**
 * PURE: how Credits of a wallet move into leases and out again. A lease is Credits of one VE that one boot of a node may
 * spend without asking. All amounts are picocredits >= 0.
 */

import type { Credits } from "../../core/credits.ts";
import { available, repayable, type WalletRow } from "./wallet.ts";

/** How long a node may spend a lease without an answer, counted from sending the report. */
export const LEASE_TTL_MS = 60_000;
/** The same for a wallet so ample that its nodes should outlive an outage of the control plane. */
export const LEASE_TTL_AMPLE_MS = 900_000;
/** What a silent boot's lease is held beyond its ttl, so that its journal can still come back. */
export const LEASE_HOLD_MS = 120_000;
/** A boot that was silent for longer is not counted as sharing a wallet, nor asked to give a lease back. */
export const BOOT_LIVE_MS = 30_000;

/** A wallet is ample with this many times what the node wants. */
const AMPLE_WANTS = 1000n;
/** Up to this many times what the node wants is granted from an ample wallet: 90 x 10 s of burn = the long ttl. */
const AMPLE_GRANT_WANTS = 90n;
/** With nothing wanted, a wallet is still ample with this many times the lease. */
const AMPLE_LEASES = 10n;

export interface GrantInput {
  /** Of the wallet, after this report was settled. */
  readonly available: Credits;
  /** What the boot holds already, after this report was settled. */
  readonly lease: Credits;
  /** What the node would like in addition. */
  readonly want: Credits;
  /** The least that is of use, because a request waits for it; 0: nothing waits. */
  readonly need: Credits;
  /** Live boots that use this VE, this one included; at least 1. */
  readonly nodes: number;
  /** What other live boots hold and could give back if they were asked; 0 once they were asked. */
  readonly recallable: Credits;
}

export interface Grant {
  readonly credits: Credits;
  readonly ttlMs: number;
  /** True: `need` is not met, and the others should be asked to give back what they do not use. */
  readonly recall: boolean;
}

function isAmple({ available: free, lease, want, need }: GrantInput): boolean {
  const most = want > need ? want : need;
  if (most > 0n) return free >= AMPLE_WANTS * most;
  return lease > 0n && free >= AMPLE_LEASES * lease;
}

/**
 * The grant of one boot. Never more than half of what is available, shared among the nodes, unless a request waits for
 * `need`: that is met while it is there. With less than `need` left and nothing more to come, everything is granted.
 */
export function decideGrant(input: GrantInput): Grant {
  const { available: free, lease, want, need, nodes, recallable } = input;
  const ample = isAmple(input);
  const ttlMs = ample ? LEASE_TTL_AMPLE_MS : LEASE_TTL_MS;
  if (want === 0n && need === 0n) return { credits: 0n, ttlMs, recall: false };
  if (need > free) {
    // Asking the others helps only if what they hold could meet the need.
    const recall = recallable > 0n && free + recallable >= need;
    return { credits: recall ? 0n : free, ttlMs, recall };
  }
  const share = free / (2n * BigInt(nodes));
  const topUp = AMPLE_GRANT_WANTS * want - lease;
  const wish = ample && topUp > want ? topUp : want;
  const fair = wish < share ? wish : share;
  return { credits: fair > need ? fair : need, ttlMs, recall: false };
}

export interface SettleInput {
  readonly wallet: WalletRow;
  /** What the boot holds. */
  readonly lease: Credits;
  /** What its new records cost. */
  readonly spent: Credits;
  /** What it gives back; more than it holds counts as all of it. */
  readonly release: Credits;
}

export interface Settled {
  readonly wallet: WalletRow;
  readonly lease: Credits;
  /** Spend that neither the lease nor the wallet covered: new debt. */
  readonly debt: Credits;
  /** Old debt that released Credits paid back. */
  readonly repaid: Credits;
  readonly released: Credits;
}

/** Moves spend out of a lease and the wallet, then gives back what is released. `available` is >= 0 afterwards. */
export function settleSpend({ wallet, lease, spent, release }: SettleInput): Settled {
  const covered = spent < lease ? spent : lease;
  const charged = { ...wallet, settled: wallet.settled + spent, escrowed: wallet.escrowed - covered };
  const short = -available(charged);
  const debt = short > 0n ? short : 0n;
  const left = lease - covered;
  const released = release < left ? release : left;
  const freed = { ...charged, debt: charged.debt + debt, escrowed: charged.escrowed - released };
  const repaid = repayable(freed);
  return { wallet: { ...freed, debt: freed.debt - repaid }, lease: left - released, debt, repaid, released };
}

/** Moves a grant into the boot's lease. */
export function applyGrant(wallet: WalletRow, credits: Credits): WalletRow {
  return { ...wallet, escrowed: wallet.escrowed + credits };
}
