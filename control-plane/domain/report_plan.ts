/**
 * PURE: every decision of a usage report. The stores lock and read the ground, this says what to write and answer, they
 * write it. The simulator runs the same over maps.
 */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { NewAlarm } from "./alarm.ts";
import { invalidField } from "./errors.ts";
import {
  type AccountAsk,
  type AccountOutcome,
  LEASE_TTL_MS,
  NOTHING_ASKED,
  settleSpend,
  turnAccount,
} from "./leases.ts";
import type { LimitAsk } from "./limit_plan.ts";
import { type BootCursor, type IncomingRecord, placeReport, type Sorted, spendByVe } from "./report.ts";
import type { Account, NewTransfer } from "./transfer.ts";
import { type LockedWallet, remaining, type ToldWallet, WalletState, walletState, type WalletRow } from "./wallet.ts";
import { isRefused, toldAfterReport, type WalletAlert } from "./wallet_alert.ts";

/** How many records an alarm names. */
const ALARM_EXAMPLES_MAX = 10;

/** What a node says about one VE. */
export interface LeaseAsk extends AccountAsk {
  readonly veId: string;
}

export interface Report {
  readonly nodeId: string;
  readonly bootId: string;
  /** 0: only asks for the cursor. */
  readonly seq: bigint;
  readonly firstRecordNo: bigint;
  readonly records: readonly IncomingRecord[];
  /** Each VE at most once. */
  readonly asks: readonly LeaseAsk[];
  /** Each limit at most once; decided by limit_plan.ts. */
  readonly limitAsks?: readonly LimitAsk[];
  readonly final: boolean;
}

export interface LeaseAnswer {
  readonly veId: string;
  readonly granted: Credits;
  readonly ttlMs: number;
  readonly state: WalletState;
  readonly remaining: Credits;
}

/** A VE whose `need` was not met while other boots hold leases of it. */
export interface Recall {
  readonly veId: string;
  readonly boots: readonly string[];
}

export interface ReportAnswer {
  readonly status: "applied" | "duplicate" | "gap";
  readonly lastSeq: bigint;
  readonly lastRecordNo: bigint;
  readonly leases: readonly LeaseAnswer[];
  readonly recalls: readonly Recall[];
}

/** A boot as it was read under its lock. */
export interface BootRow extends BootCursor {
  readonly nodeId: string;
  /** It said that it ends: nothing is granted any more. */
  readonly closed: boolean;
  /** Leases of it were taken back, and no report that they would have covered has come since. */
  readonly leasesTaken: boolean;
}

export interface BootProgress extends BootCursor {
  readonly closed: boolean;
  readonly leasesTaken: boolean;
}

export interface Lease {
  readonly veId: string;
  readonly bootId: string;
  readonly credits: Credits;
  readonly ttlMs: number;
  /** Whether its boot reported lately, so that it shares the wallet and can be asked to give back. */
  readonly live: boolean;
}

export interface LeaseWrite {
  readonly veId: string;
  readonly credits: Credits;
  /** A lease's ttl only grows while it lives: the answer that shortens it may be lost, and the node must stop first. */
  readonly ttlMs: number;
}

export interface VeTerms {
  /** The wallet counts as low below this, as a decimal. */
  readonly lowBalance: string;
  /** False: disabled, frozen, or a template: nothing is granted. */
  readonly open: boolean;
}

export type NewId = (prefix: string) => string;

/** The leases of one VE. Those of boots that are not at hand count only together: there may be very many. */
export interface VeLeases {
  /** Of the boots whose reports are applied, by boot. */
  readonly own: ReadonlyMap<string, Lease>;
  /** The other boots that are live and hold leases, and what they hold together. */
  readonly others: { readonly boots: number; readonly credits: Credits };
}

/** What is known of the VEs of reports, read under their wallets' locks. VEs without a wallet are missing. */
export interface Ground {
  readonly wallets: ReadonlyMap<string, LockedWallet>;
  /** Deleted VEs are missing. */
  readonly terms: ReadonlyMap<string, VeTerms>;
  /** VEs without leases are missing. */
  readonly leases: ReadonlyMap<string, VeLeases>;
}

/** What is to be written about the wallets and leases of one boot. */
export interface Writes {
  /** Wallets that changed. */
  readonly wallets: ReadonlyMap<string, ToldWallet>;
  /** Leases of the boot that were made or changed. */
  readonly leases: readonly LeaseWrite[];
  /** VEs whose lease of the boot ends. */
  readonly ends: readonly string[];
  readonly transfers: readonly NewTransfer[];
  /** VEs of which Credits became available. */
  readonly freed: readonly string[];
  /** What their merchants are to hear. */
  readonly alerts: readonly WalletAlert[];
}

/**
 * What to do with a report, its boot's row locked.
 * @throws DomainError invalid_field when the boot belongs to another node
 */
export function openReport(boot: BootRow, report: Report): "apply" | "duplicate" | "gap" {
  if (boot.nodeId !== report.nodeId) throw invalidField("node_id", "this boot belongs to another node");
  return placeReport(boot, report.seq, report.firstRecordNo, report.records.length);
}

/** What a report that is applied is about. */
export interface Scope {
  /** What its records cost, by VE. */
  readonly spend: ReadonlyMap<string, Credits>;
  /** The id of the transfer of each VE's spend; VEs whose records cost nothing are missing. */
  readonly useIds: ReadonlyMap<string, string>;
  /** VEs that the answer speaks of. */
  readonly answered: readonly string[];
  /** VEs whose wallets are locked and settled: those, and the ones whose leases a last report ends. */
  readonly veIds: readonly string[];
}

/** `held`: the VEs of the boot's leases; only a final report needs them. */
export function scopeOf(report: Report, sorted: Sorted, held: readonly string[], newId: NewId): Scope {
  const spend = spendByVe(sorted.priced);
  const useIds = new Map<string, string>();
  for (const [veId, spent] of spend) if (spent > 0n) useIds.set(veId, newId("tr_"));
  const answered = [...new Set([...report.asks.map((ask) => ask.veId), ...spend.keys()])];
  return { spend, useIds, answered, veIds: [...new Set([...answered, ...held])] };
}

/** The outcome for one VE. */
interface VePlan extends AccountOutcome {
  readonly veId: string;
  readonly before: Lease | undefined;
  readonly walletBefore: LockedWallet;
  readonly spent: Credits;
  readonly lowBalance: Credits;
  readonly state: WalletState;
  readonly told: WalletState;
}

interface VeTurn {
  readonly bootId: string;
  readonly ask: AccountAsk;
  readonly spent: Credits;
  readonly granting: boolean;
  readonly recalled: boolean;
  /** True: whatever the boot holds is given back. */
  readonly ending: boolean;
  /** True: if it is not met, the node waits on, so nobody is refused yet. */
  readonly waiting: boolean;
}

export const NO_LEASES: VeLeases = { own: new Map(), others: { boots: 0, credits: 0n } };

/** The live boots beside this one. */
function othersOf({ own, others }: VeLeases, bootId: string): VeLeases["others"] {
  let { boots, credits } = others;
  for (const lease of own.values()) {
    if (lease.bootId === bootId || !lease.live) continue;
    boots += 1;
    credits += lease.credits;
  }
  return { boots, credits };
}

function planVe(veId: string, ground: Ground, turn: VeTurn): VePlan | null {
  const walletBefore = ground.wallets.get(veId);
  if (walletBefore === undefined) return null;
  const { bootId, ask, spent, recalled, ending, waiting } = turn;
  const leases = ground.leases.get(veId) ?? NO_LEASES;
  const terms = ground.terms.get(veId);
  const before = leases.own.get(bootId);
  const lease = before?.credits ?? 0n;
  const others = othersOf(leases, bootId);
  const granting = turn.granting && terms?.open === true;
  const outcome = turnAccount({
    wallet: walletBefore,
    lease,
    others,
    spent,
    ask: ending ? { ...ask, release: lease } : ask,
    granting,
    recalled,
  });
  const lowBalance = lowBalanceOf(terms);
  const state = walletState(outcome.wallet, lowBalance);
  const refused = granting && !waiting && isRefused(ask, outcome, others.credits);
  // Nobody is told of a VE that is deleted.
  const told = terms === undefined ? walletBefore.told : toldAfterReport(walletBefore.told, state, refused);
  return { ...outcome, veId, before, walletBefore, spent, lowBalance, state, told };
}

function lowBalanceOf(terms: VeTerms | undefined): Credits {
  return terms === undefined ? 0n : parseCredits(terms.lowBalance);
}

function moves(merchantId: string, veId: string) {
  return (id: string, debit: Account, credit: Account, credits: Credits, reference: string): NewTransfer => ({
    id,
    merchantId,
    veId,
    debit,
    credit,
    credits,
    reference,
    reason: "",
  });
}

function transfersOf(plan: VePlan, useIds: Scope["useIds"], report: Report, newId: NewId): NewTransfer[] {
  const move = moves(plan.walletBefore.merchantId, plan.veId);
  const cause = `${report.bootId}:${report.seq}:${plan.veId}`;
  const list: NewTransfer[] = [];
  const { debt, repaid } = plan.settled;
  // Debt brings the Credits in before usage takes them out, so the wallet's account never goes below zero.
  if (debt > 0n) list.push(move(newId("tr_"), "debt", "wallet", debt, `debt:${cause}`));
  if (plan.spent > 0n) list.push(move(useIds.get(plan.veId) ?? "", "wallet", "usage", plan.spent, `use:${cause}`));
  if (repaid > 0n) list.push(move(newId("tr_"), "wallet", "debt", repaid, `repay:${cause}`));
  return list;
}

function sameWallet(a: WalletRow, b: WalletRow): boolean {
  return a.purchased === b.purchased && a.settled === b.settled && a.escrowed === b.escrowed && a.debt === b.debt;
}

/** What the merchant hears of it, if it got worse than what was told. */
function alertOf({ veId, walletBefore, wallet, lowBalance, told }: VePlan): WalletAlert | null {
  if (told === WalletState.OK || told <= walletBefore.told) return null;
  return { veId, merchantId: walletBefore.merchantId, state: told, remaining: remaining(wallet), lowBalance };
}

function writesOf(plans: readonly VePlan[], transfers: readonly NewTransfer[]): Writes {
  const wallets = new Map<string, ToldWallet>();
  const leases: LeaseWrite[] = [];
  const ends: string[] = [];
  for (const { veId, before, walletBefore, wallet, lease, grant, asking, told } of plans) {
    if (told !== walletBefore.told || !sameWallet(walletBefore, wallet)) wallets.set(veId, { ...wallet, told });
    // An empty lease stays while its node asks, so that it counts when the wallet is shared.
    if (lease === 0n && !asking) {
      if (before !== undefined) ends.push(veId);
    } else if (before === undefined || before.credits !== lease || before.ttlMs < grant.ttlMs) {
      leases.push({ veId, credits: lease, ttlMs: grant.ttlMs });
    }
  }
  const freed = plans.filter((plan) => plan.settled.released > 0n).map((plan) => plan.veId);
  const alerts = plans.map(alertOf).filter((alert) => alert !== null);
  return { wallets, leases, ends, transfers, freed, alerts };
}

/** Of a VE without a wallet. */
function answerNothing(veId: string): LeaseAnswer {
  return { veId, granted: 0n, ttlMs: LEASE_TTL_MS, state: WalletState.EXHAUSTED, remaining: 0n };
}

function answerOf({ veId, wallet, lease, grant, state }: VePlan): LeaseAnswer {
  return { veId, granted: lease, ttlMs: grant.ttlMs, state, remaining: remaining(wallet) };
}

export interface ReportPlan extends Writes {
  readonly progress: BootProgress;
  readonly alarms: readonly NewAlarm[];
  /** VEs whose need others could meet: who holds them is looked up then. */
  readonly recalls: readonly string[];
  /** Without its recalls. */
  readonly answer: ReportAnswer;
}

/** What a report does that `openReport` says to apply. */
export function planReport(boot: BootRow, report: Report, scope: Scope, ground: Ground, newId: NewId): ReportPlan {
  const asks = new Map(report.asks.map((ask) => [ask.veId, ask]));
  const granting = !report.final && !boot.closed;
  const plans = new Map<string, VePlan>();
  for (const veId of scope.veIds) {
    const plan = planVe(veId, ground, {
      bootId: report.bootId,
      ask: asks.get(veId) ?? NOTHING_ASKED,
      spent: scope.spend.get(veId) ?? 0n,
      granting,
      recalled: false,
      ending: report.final,
      waiting: false,
    });
    if (plan !== null) plans.set(veId, plan);
  }
  const all = [...plans.values()];
  const transfers = all.flatMap((plan) => transfersOf(plan, scope.useIds, report, newId));
  const lastRecordNo = boot.lastRecordNo + BigInt(report.records.length);
  const overrun = boot.leasesTaken ? all.filter((plan) => plan.settled.debt > 0n) : [];
  // What the leases covered may come back in many reports: until it spends from a new lease, debt is of the old ones.
  const leasedAnew = all.some((plan) => plan.spent > 0n && (plan.before?.credits ?? 0n) > 0n);
  const leasesTaken = boot.leasesTaken && (overrun.length > 0 || !leasedAnew);
  const answers = scope.answered.map((veId) => {
    const plan = plans.get(veId);
    return plan === undefined ? answerNothing(veId) : answerOf(plan);
  });
  return {
    ...writesOf(all, transfers),
    progress: { lastSeq: report.seq, lastRecordNo, closed: boot.closed || report.final, leasesTaken },
    alarms: overrunAlarms(report, overrun),
    recalls: all.filter((plan) => plan.grant.recall).map((plan) => plan.veId),
    answer: { status: "applied", lastSeq: report.seq, lastRecordNo, leases: answers, recalls: [] },
  };
}

/** Spend that came back after its leases had been given to others: what the hold should have prevented. */
function overrunAlarms(report: Report, overrun: readonly VePlan[]): NewAlarm[] {
  if (overrun.length === 0) return [];
  const debt = overrun.reduce((sum, plan) => sum + plan.settled.debt, 0n);
  const examples = overrun
    .slice(0, ALARM_EXAMPLES_MAX)
    .map(({ veId, settled }) => ({ veId, credits: formatCredits(settled.debt) }));
  const detail = { nodeId: report.nodeId, credits: formatCredits(debt), ves: overrun.length, examples };
  return [{ kind: "lease_overrun", subject: `${report.bootId}:${report.seq}`, detail }];
}

/** What must be looked at of a report's records. */
export function alarmsOf(report: Report, { mismatches, quarantined }: Sorted): NewAlarm[] {
  const subject = `${report.bootId}:${report.seq}`;
  const alarms: NewAlarm[] = [];
  if (mismatches.length > 0) {
    const detail = {
      nodeId: report.nodeId,
      records: mismatches.length,
      examples: mismatches.slice(0, ALARM_EXAMPLES_MAX),
    };
    alarms.push({ kind: "price_mismatch", subject, detail });
  }
  if (quarantined.length > 0) {
    const examples = quarantined
      .slice(0, ALARM_EXAMPLES_MAX)
      .map(({ recordNo, reason }) => ({ recordNo: String(recordNo), reason }));
    const detail = { nodeId: report.nodeId, records: quarantined.length, examples };
    alarms.push({ kind: "quarantine", subject, detail });
  }
  return alarms;
}

/** The VEs that an answer which changes nothing speaks of. */
export function presentVes(report: Report): string[] {
  const veIds = new Set(report.asks.map((ask) => ask.veId));
  for (const { usage } of report.records) {
    // PostgreSQL's text has no NUL.
    if (typeof usage !== "string" && !usage.veId.includes("\0")) veIds.add(usage.veId);
  }
  return [...veIds];
}

/** The present state of VEs, for an answer that changes nothing. */
export function presentAnswers(
  bootId: string,
  veIds: readonly string[],
  wallets: ReadonlyMap<string, WalletRow>,
  { terms, leases }: Pick<Ground, "terms" | "leases">,
): LeaseAnswer[] {
  return veIds.map((veId) => {
    const wallet = wallets.get(veId);
    if (wallet === undefined) return answerNothing(veId);
    const { credits, ttlMs } = leases.get(veId)?.own.get(bootId) ?? { credits: 0n, ttlMs: LEASE_TTL_MS };
    const state = walletState(wallet, lowBalanceOf(terms.get(veId)));
    return { veId, granted: credits, ttlMs, state, remaining: remaining(wallet) };
  });
}

export interface AgainPlan extends Writes {
  readonly answer: LeaseAnswer;
  /** Whether the need was met. */
  readonly met: boolean;
}

/** A second grant under a report that was applied. Null when the boot has gone on, or there is no such wallet. */
export function planAgain(
  boot: BootRow,
  report: Report,
  ask: LeaseAsk,
  last: boolean,
  ground: Ground,
): AgainPlan | null {
  if (boot.lastSeq !== report.seq || boot.closed) return null;
  const plan = planVe(ask.veId, ground, {
    bootId: report.bootId,
    ask: { ...ask, release: 0n },
    spent: 0n,
    granting: true,
    recalled: last,
    ending: false,
    waiting: !last,
  });
  if (plan === null) return null;
  return { ...writesOf([plan], []), answer: answerOf(plan), met: plan.grant.credits >= ask.need };
}

/** Takes leases of one boot back. `held` are those leases. */
export function planTakeBack(held: readonly Lease[], wallets: Ground["wallets"], newId: NewId): Writes {
  const after = new Map<string, ToldWallet>();
  const transfers: NewTransfer[] = [];
  for (const { veId, credits } of held) {
    const before = wallets.get(veId)!;
    const { wallet, repaid } = settleSpend({ wallet: before, lease: credits, spent: 0n, release: credits });
    after.set(veId, { ...wallet, told: before.told });
    if (repaid === 0n) continue;
    const id = newId("tr_");
    transfers.push(moves(before.merchantId, veId)(id, "wallet", "debt", repaid, `repay:${id}`));
  }
  const freed = held.filter(({ credits }) => credits > 0n).map(({ veId }) => veId);
  return { wallets: after, leases: [], ends: held.map(({ veId }) => veId), transfers, freed, alerts: [] };
}
