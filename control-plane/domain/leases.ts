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
/** A boot that was silent for longer, in service time, is not counted as sharing a wallet, nor asked to give a lease back. */
export const BOOT_LIVE_MS = 30_000;

/** A wallet is ample with this many times what the node wants. */
const AMPLE_WANTS = 1000n;
/** Up to this many times what the node wants is granted from an ample wallet: 90 x 10 s of burn = the long ttl. */
const AMPLE_GRANT_WANTS = 90n;
/** Below this many times its burn an ample lease is filled up, so that 800 s are left at the worst moment. */
const AMPLE_LEFT_BURNS = 80n;
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
  /** What it expects to spend in ten seconds; 0: not known, or its lease is not to be kept full. */
  readonly burn?: Credits;
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

/** Burn is of one node: each of those that share the wallet may burn as much. */
function isAmple({ available: free, lease, want, need, burn = 0n, nodes }: GrantInput): boolean {
  if (burn > 0n) return free + lease >= AMPLE_WANTS * burn * BigInt(nodes);
  const most = want > need ? want : need;
  if (most > 0n) return free >= AMPLE_WANTS * most;
  return lease > 0n && free >= AMPLE_LEASES * lease;
}

/** No grant is larger than this unless a request waits for more. */
export function grantMax({ want, burn = 0n }: Pick<GrantInput, "want" | "burn">): Credits {
  return AMPLE_GRANT_WANTS * (want > burn ? want : burn);
}

export interface AmpleBounds {
  readonly burn: Credits;
  /** Free and leased together at most. */
  readonly most: Credits;
  /** Free at least. */
  readonly least: Credits;
  /** No more share the wallet. */
  readonly nodesMax: bigint;
}

/** Whether it takes the exact number of nodes to tell if a wallet is ample. */
export function isAmpleByNodes({ burn, most, least, nodesMax }: AmpleBounds): boolean {
  return burn > 0n && most >= AMPLE_WANTS * burn && least < AMPLE_WANTS * burn * nodesMax;
}

/** What fills the lease of an ample wallet. */
function fillOf({ lease, want, burn = 0n }: GrantInput): Credits {
  if (burn === 0n) return AMPLE_GRANT_WANTS * want - lease;
  return lease < AMPLE_LEFT_BURNS * burn ? AMPLE_GRANT_WANTS * burn - lease : 0n;
}

/**
 * The grant of one boot. Never more than half of what is available, shared among the nodes, unless a request waits for
 * `need`: that is met while it is there. With less than `need` left and nothing more to come, everything is granted.
 */
export function decideGrant(input: GrantInput): Grant {
  const { available: free, want, need, nodes, recallable } = input;
  const ample = isAmple(input);
  const ttlMs = ample ? LEASE_TTL_AMPLE_MS : LEASE_TTL_MS;
  const topUp = ample ? fillOf(input) : 0n;
  if (want === 0n && need === 0n && topUp <= 0n) return { credits: 0n, ttlMs, recall: false };
  if (need > free) {
    // Asking the others helps only if what they hold could meet the need.
    const recall = recallable > 0n && free + recallable >= need;
    return { credits: recall ? 0n : free, ttlMs, recall };
  }
  const share = free / (2n * BigInt(nodes));
  const wish = topUp > want ? topUp : want;
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

/** What a node says about one account: the wallet of a VE, or a limit. */
export interface AccountAsk {
  /** What it would like in addition. */
  readonly want: Credits;
  /** The least that is of use, because a request waits for it. */
  readonly need: Credits;
  readonly release: Credits;
  /** What it expects to spend in ten seconds; 0: not known. */
  readonly burn?: Credits;
}

export const NOTHING_ASKED: AccountAsk = { want: 0n, need: 0n, release: 0n };

export interface AccountTurn {
  readonly wallet: WalletRow;
  /** What the boot holds. */
  readonly lease: Credits;
  /** The other live boots that hold leases of it, and what they hold together. */
  readonly others: { readonly boots: number; readonly credits: Credits };
  /** What its new records cost. */
  readonly spent: Credits;
  readonly ask: AccountAsk;
  /** False: nothing is granted. */
  readonly granting: boolean;
  /** True: others were asked already, what is there is all there is. */
  readonly recalled: boolean;
}

export interface AccountOutcome {
  readonly wallet: WalletRow;
  /** What the boot holds afterwards. */
  readonly lease: Credits;
  readonly settled: Settled;
  readonly grant: Grant;
  /** Its lease stays, also when it is empty, so that it counts when the account is shared. */
  readonly asking: boolean;
}

export const NO_GRANT: Grant = { credits: 0n, ttlMs: LEASE_TTL_MS, recall: false };

/** What a report does to one account: its spend is settled, then what it gives back, then it is granted what it may have. */
export function turnAccount({ wallet, lease, others, spent, ask, granting, recalled }: AccountTurn): AccountOutcome {
  const settled = settleSpend({ wallet, lease, spent, release: ask.release });
  if (!granting) return { wallet: settled.wallet, lease: settled.lease, settled, grant: NO_GRANT, asking: false };
  const grant = decideGrant({
    available: available(settled.wallet),
    lease: settled.lease,
    want: ask.want,
    need: ask.need,
    // Who gives back does not get it back at once.
    burn: ask.release > 0n ? 0n : ask.burn,
    nodes: others.boots + 1,
    recallable: recalled ? 0n : others.credits,
  });
  return {
    wallet: applyGrant(settled.wallet, grant.credits),
    lease: settled.lease + grant.credits,
    settled,
    grant,
    asking: ask.want > 0n || ask.need > 0n,
  };
}
