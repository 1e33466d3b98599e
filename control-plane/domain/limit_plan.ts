/**
 * PURE: what a usage report does to the limits of the Physical Models that it touches, beside what report_plan.ts says of
 * its wallets. The arithmetic is that of a wallet.
 */

import { type AccountAsk, type Grant, LEASE_TTL_MS, NOTHING_ASKED, settleSpend, turnAccount } from "./leases.ts";
import {
  asWallet,
  byModel,
  isExhausted,
  type LimitAccount,
  type LimitKind,
  limitKey,
  type LimitUse,
  rollOver,
  sumUse,
} from "./limits.ts";
import type { PricedUsage } from "./report.ts";
import { available, type WalletRow } from "./wallet.ts";

/** One limit of one Physical Model. */
export interface LimitId {
  readonly physicalModelId: string;
  readonly kind: LimitKind;
}

export interface LimitLease extends LimitId {
  readonly bootId: string;
  readonly amount: bigint;
  readonly ttlMs: number;
  /** Whether its boot reported lately, so that it shares the limit and can be asked to give back. */
  readonly live: boolean;
}

/** What a node says about one limit. */
export interface LimitAsk extends LimitId, AccountAsk {}

/** Everything about the limits that a report touches, read under their locks. */
export interface LimitGround {
  readonly accounts: readonly LimitAccount[];
  /** All leases of these accounts, of every boot. */
  readonly leases: readonly LimitLease[];
}

export interface LimitReport {
  readonly bootId: string;
  readonly records: readonly PricedUsage[];
  /** Each limit at most once. */
  readonly asks: readonly LimitAsk[];
  /** Everything is given back. */
  readonly final: boolean;
  /** False: the boot is closing or closed, nothing is granted. */
  readonly granting: boolean;
}

export interface LimitPlan {
  readonly bootId: string;
  /** As it was read. */
  readonly before: LimitAccount;
  readonly after: LimitAccount;
  /** The boot's lease as it was read. */
  readonly leaseBefore: LimitLease | undefined;
  readonly lease: bigint;
  readonly grant: Grant;
  /** The node wants something: its lease stays, also when it is empty, so that it counts when the limit is shared. */
  readonly asking: boolean;
  /** Something was given back that others may want. */
  readonly freed: boolean;
  /** Leases of other live boots. */
  readonly others: readonly LimitLease[];
}

interface LimitTurn {
  readonly bootId: string;
  readonly use: LimitUse;
  readonly ask: AccountAsk;
  readonly granting: boolean;
  /** True: others were asked already, what is there is all there is. */
  readonly recalled: boolean;
}

/** What could be granted if the others gave everything back: not what only makes up for use beyond the amount. */
function afterRecall(wallet: WalletRow, others: readonly LimitLease[]): bigint {
  const held = others.reduce((sum, lease) => sum + lease.amount, 0n);
  const then = wallet.purchased - wallet.settled - (wallet.escrowed - held);
  return then > 0n ? then : available(wallet);
}

/** `read` is the account as it was read, `present` the same in its present period, which the use was summed up for. */
function planLimit(
  read: LimitAccount,
  present: LimitAccount,
  leases: readonly LimitLease[],
  { bootId, use, ask, granting, recalled }: LimitTurn,
): LimitPlan {
  const leaseBefore = leases.find((lease) => lease.bootId === bootId);
  const others = leases.filter((lease) => lease.bootId !== bootId && lease.live);
  const lease = leaseBefore?.amount ?? 0n;
  const wallet = asWallet(present);
  // What was used before this period is only given back.
  const release = use.late + ask.release;
  const settled = settleSpend({ wallet, lease, spent: use.counted, release });
  const helpless = afterRecall(settled.wallet, others) < ask.need;
  const outcome = turnAccount({
    wallet,
    lease,
    others: { boots: others.length, credits: others.reduce((sum, { amount }) => sum + amount, 0n) },
    spent: use.counted,
    ask: { ...ask, release },
    granting,
    recalled: recalled || helpless,
  });
  return {
    bootId,
    before: read,
    after: { ...present, used: outcome.wallet.settled, leased: outcome.wallet.escrowed },
    leaseBefore,
    lease: outcome.lease,
    grant: outcome.grant,
    asking: outcome.asking,
    freed: outcome.settled.released > 0n,
    others,
  };
}

function keyOf({ physicalModelId, kind }: LimitId): string {
  return limitKey(physicalModelId, kind);
}

/** What a report does to the limits, one plan for each account. */
export function planLimits(ground: LimitGround, report: LimitReport, nowMs: number): LimitPlan[] {
  if (ground.accounts.length === 0) return [];
  const records = byModel(report.records);
  const asks = new Map(report.asks.map((ask) => [keyOf(ask), ask]));
  const leases = Map.groupBy(ground.leases, keyOf);
  return ground.accounts.map((read) => {
    const all = leases.get(keyOf(read)) ?? [];
    const held = all.find((lease) => lease.bootId === report.bootId)?.amount ?? 0n;
    const asked = asks.get(keyOf(read)) ?? NOTHING_ASKED;
    const present = rollOver(read, nowMs);
    return planLimit(read, present, all, {
      bootId: report.bootId,
      use: sumUse(present, records.get(read.physicalModelId) ?? [], nowMs),
      ask: report.final ? { ...asked, release: held } : asked,
      granting: report.granting,
      recalled: false,
    });
  });
}

/** The ground as these plans leave it, for the next report of the same transaction. */
export function afterPlans(ground: LimitGround, plans: readonly LimitPlan[]): LimitGround {
  const changed = new Map(plans.map((plan) => [keyOf(plan.after), plan]));
  const accounts = ground.accounts.map((account) => changed.get(keyOf(account))?.after ?? account);
  const others = ground.leases.filter((lease) => changed.get(keyOf(lease))?.bootId !== lease.bootId);
  const own = plans
    .filter((plan) => plan.lease > 0n || plan.asking)
    .map(({ bootId, after, lease, grant, leaseBefore }) => ({
      ...idOf(after),
      bootId,
      amount: lease,
      ttlMs: Math.max(grant.ttlMs, leaseBefore?.ttlMs ?? 0),
      live: true,
    }));
  return { accounts, leases: [...others, ...own] };
}

/** A second grant of one limit, after others were asked to give back. Null when the limit is gone. */
export function planLimitAgain(
  ground: LimitGround,
  bootId: string,
  ask: LimitAsk,
  last: boolean,
  nowMs: number,
): LimitPlan | null {
  const read = ground.accounts.find((account) => keyOf(account) === keyOf(ask));
  if (read === undefined) return null;
  const leases = ground.leases.filter((lease) => keyOf(lease) === keyOf(ask));
  const turn = { bootId, use: { counted: 0n, late: 0n }, ask: { ...ask, release: 0n }, granting: true, recalled: last };
  return planLimit(read, rollOver(read, nowMs), leases, turn);
}

/** Takes the leases of one boot back; `accounts` are those of the leases. */
export function planLimitsBack(ground: LimitGround, bootId: string, nowMs: number): LimitPlan[] {
  return planLimits(ground, { bootId, records: [], asks: [], final: true, granting: false }, nowMs);
}

export interface LimitLeaseWrite extends LimitId {
  readonly bootId: string;
  readonly amount: bigint;
  readonly ttlMs: number;
}

/** Names the lease of one boot. */
export interface LimitLeaseId extends LimitId {
  readonly bootId: string;
}

/** What is to be written about limits and their leases. */
export interface LimitWrites {
  readonly accounts: readonly LimitAccount[];
  readonly leases: readonly LimitLeaseWrite[];
  readonly ends: readonly LimitLeaseId[];
  /** Limits of which something became available to others. */
  readonly freed: readonly LimitId[];
  /** Limits whose new period began: every node may use them again. */
  readonly begun: readonly LimitId[];
}

function idOf({ physicalModelId, kind }: LimitId): LimitId {
  return { physicalModelId, kind };
}

/** Of one report, or of several boots' reports after each other: each boot's once. */
export function limitWrites(plans: readonly LimitPlan[]): LimitWrites {
  const accounts = new Map<string, LimitAccount>();
  const leases: LimitLeaseWrite[] = [];
  const ends: LimitLeaseId[] = [];
  for (const { bootId, before, after, leaseBefore, lease, grant, asking } of plans) {
    const id = { ...idOf(after), bootId };
    if (after.used !== before.used || after.leased !== before.leased || after.endsMs !== before.endsMs)
      accounts.set(keyOf(after), after);
    if (lease === 0n && !asking) {
      if (leaseBefore !== undefined) ends.push(id);
    } else if (leaseBefore === undefined || leaseBefore.amount !== lease || leaseBefore.ttlMs < grant.ttlMs) {
      leases.push({ ...id, amount: lease, ttlMs: grant.ttlMs });
    }
  }
  const begun = plans.filter(({ before, after }) => after.endsMs !== before.endsMs);
  const freed = plans.filter((plan) => plan.freed && !begun.includes(plan));
  return {
    accounts: [...accounts.values()],
    leases,
    ends,
    freed: freed.map(({ after }) => idOf(after)),
    begun: begun.map(({ after }) => idOf(after)),
  };
}

export interface LimitAnswer extends LimitId {
  readonly granted: bigint;
  readonly ttlMs: number;
  readonly exhausted: boolean;
  /** When the count starts again; null: never. */
  readonly endsMs: number | null;
}

/** A limit whose `need` was not met while other boots hold leases of it. */
export interface LimitRecall extends LimitId {
  readonly boots: readonly string[];
}

export function limitAnswer(account: LimitAccount, lease: bigint, ttlMs: number): LimitAnswer {
  const { endsMs } = account;
  return { ...idOf(account), granted: lease, ttlMs, exhausted: isExhausted(account), endsMs };
}

/** The answer for every account, and for limits that were asked for and are gone. */
export function limitAnswers(asks: readonly LimitAsk[], known: readonly LimitAnswer[]): LimitAnswer[] {
  const there = new Set(known.map(keyOf));
  const gone = asks.filter((ask) => !there.has(keyOf(ask)));
  const nothing = { granted: 0n, ttlMs: LEASE_TTL_MS, exhausted: false, endsMs: null };
  return [...known, ...gone.map((ask) => ({ ...idOf(ask), ...nothing }))];
}

export function limitRecalls(plans: readonly LimitPlan[]): LimitRecall[] {
  return plans
    .filter((plan) => plan.grant.recall)
    .map(({ after, others }) => ({
      ...idOf(after),
      boots: others.filter(({ amount }) => amount > 0n).map(({ bootId }) => bootId),
    }));
}
