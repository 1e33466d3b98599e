/** Applies usage reports: one transaction each, the boot's row locked first, then wallets in id order. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import { invalidField } from "../domain/errors.ts";
import { applyGrant, decideGrant, type Grant, LEASE_TTL_MS, type Settled, settleSpend } from "../domain/leases.ts";
import { type IncomingRecord, lastUses, placeReport, rollUp, type Sorted, spendByVe } from "../domain/report.ts";
import { available, remaining, WalletState, walletState, type WalletRow } from "../domain/wallet.ts";
import { type NewAlarm, raiseAlarms } from "../store/alarm.ts";
import { advanceBoot, type BootRow, lockOrMakeBoot, readBoot, touchBoot } from "../store/boot.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { deleteLeases, type Lease, leasedVes, type LeaseWrite, readLeases, writeLeases } from "../store/lease.ts";
import { type NewTransfer, postTransfers } from "../store/ledger.ts";
import { addDaily, insertEvents, quarantine, readVeTerms, touchKeys, type VeTerms } from "../store/usage.ts";
import { type LockedWallet, lockWallets, readWallets, writeWallets } from "../store/wallet.ts";

/** What a node says about one VE. */
export interface LeaseAsk {
  readonly veId: string;
  readonly want: Credits;
  readonly need: Credits;
  readonly release: Credits;
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

/** Everything about the wallets of a report, read under their locks. */
interface Ground {
  readonly wallets: ReadonlyMap<string, LockedWallet>;
  readonly terms: ReadonlyMap<string, VeTerms>;
  readonly leases: ReadonlyMap<string, readonly Lease[]>;
}

const NOTHING_ASKED = { want: 0n, need: 0n, release: 0n };
/** How many records an alarm names. */
const ALARM_EXAMPLES_MAX = 10;

function byVe(leases: readonly Lease[]): Map<string, Lease[]> {
  const map = new Map<string, Lease[]>();
  for (const lease of leases) {
    const list = map.get(lease.veId);
    if (list === undefined) map.set(lease.veId, [lease]);
    else list.push(lease);
  }
  return map;
}

/**
 * Pipelined: the database runs these in order, so the leases are read under the locks; the terms, which the locks do not
 * guard, before them.
 */
async function lockGround(tx: Tx, veIds: readonly string[], now: number): Promise<Ground> {
  const [terms, wallets, leases] = await Promise.all([
    readVeTerms(tx, veIds),
    lockWallets(tx, veIds),
    readLeases(tx, veIds, now),
  ]);
  return { wallets, leases: byVe(leases), terms };
}

function answerFor(
  veId: string,
  wallet: WalletRow | undefined,
  lease: Credits,
  ttlMs: number,
  terms: VeTerms | undefined,
): LeaseAnswer {
  if (wallet === undefined)
    return { veId, granted: 0n, ttlMs: LEASE_TTL_MS, state: WalletState.EXHAUSTED, remaining: 0n };
  const low = parseCredits(terms?.lowBalance ?? "0");
  return { veId, granted: lease, ttlMs, state: walletState(wallet, low), remaining: remaining(wallet) };
}

/** The outcome for one VE. */
interface VePlan {
  readonly veId: string;
  readonly before: Lease | undefined;
  readonly walletBefore: LockedWallet;
  readonly wallet: WalletRow;
  readonly lease: Credits;
  readonly spent: Credits;
  readonly settled: Settled;
  readonly grant: Grant;
  readonly asking: boolean;
  readonly others: readonly Lease[];
}

interface VeTurn {
  readonly bootId: string;
  readonly ask: Omit<LeaseAsk, "veId">;
  readonly spent: Credits;
  /** False: the boot is closing or closed, nothing is granted. */
  readonly granting: boolean;
  /** True: others were asked already, what is there is all there is. */
  readonly recalled: boolean;
}

const NO_GRANT: Grant = { credits: 0n, ttlMs: LEASE_TTL_MS, recall: false };

function planVe(veId: string, ground: Ground, turn: VeTurn): VePlan | null {
  const walletBefore = ground.wallets.get(veId);
  if (walletBefore === undefined) return null;
  const all = ground.leases.get(veId) ?? [];
  const before = all.find((lease) => lease.bootId === turn.bootId);
  const others = all.filter((lease) => lease.bootId !== turn.bootId && lease.live);
  const held = before?.credits ?? 0n;
  const settled = settleSpend({ wallet: walletBefore, lease: held, spent: turn.spent, release: turn.ask.release });
  const open = turn.granting && ground.terms.get(veId)?.open === true;
  const grant = open
    ? decideGrant({
        available: available(settled.wallet),
        lease: settled.lease,
        want: turn.ask.want,
        need: turn.ask.need,
        nodes: others.length + 1,
        recallable: turn.recalled ? 0n : others.reduce((sum, lease) => sum + lease.credits, 0n),
      })
    : NO_GRANT;
  const asking = open && (turn.ask.want > 0n || turn.ask.need > 0n);
  const wallet = applyGrant(settled.wallet, grant.credits);
  return {
    veId,
    before,
    walletBefore,
    wallet,
    lease: settled.lease + grant.credits,
    spent: turn.spent,
    settled,
    grant,
    asking,
    others,
  };
}

function transfersOf(plan: VePlan, useId: string, report: Report, newId: Deps["newId"]): NewTransfer[] {
  const base = { merchantId: plan.walletBefore.merchantId, veId: plan.veId, reason: "" };
  const cause = `${report.bootId}:${report.seq}:${plan.veId}`;
  const list: NewTransfer[] = [];
  const { debt, repaid } = plan.settled;
  // Debt brings the Credits in before usage takes them out, so the wallet's account never goes below zero.
  if (debt > 0n)
    list.push({
      ...base,
      id: newId("tr_"),
      debit: "debt",
      credit: "wallet",
      credits: debt,
      reference: `debt:${cause}`,
    });
  if (plan.spent > 0n)
    list.push({ ...base, id: useId, debit: "wallet", credit: "usage", credits: plan.spent, reference: `use:${cause}` });
  if (repaid > 0n)
    list.push({
      ...base,
      id: newId("tr_"),
      debit: "wallet",
      credit: "debt",
      credits: repaid,
      reference: `repay:${cause}`,
    });
  return list;
}

async function writePlans(tx: Tx, bootId: string, now: number, plans: readonly VePlan[]): Promise<void> {
  const wallets = new Map<string, WalletRow>();
  const writes: LeaseWrite[] = [];
  const ends: string[] = [];
  for (const { veId, before, walletBefore, wallet, lease, grant, asking } of plans) {
    if (!sameWallet(walletBefore, wallet)) wallets.set(veId, wallet);
    // An empty lease stays while its node asks, so that it counts when the wallet is shared.
    if (lease === 0n && !asking) {
      if (before !== undefined) ends.push(veId);
    } else if (before === undefined || before.credits !== lease || before.ttlMs < grant.ttlMs) {
      writes.push({ veId, credits: lease, ttlMs: grant.ttlMs });
    }
  }
  await Promise.all([writeWallets(tx, now, wallets), writeLeases(tx, bootId, writes), deleteLeases(tx, bootId, ends)]);
}

function sameWallet(a: WalletRow, b: WalletRow): boolean {
  return a.purchased === b.purchased && a.settled === b.settled && a.escrowed === b.escrowed && a.debt === b.debt;
}

function alarmsOf(report: Report, { mismatches, quarantined }: Sorted): NewAlarm[] {
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
    alarms.push({
      kind: "quarantine",
      subject,
      detail: { nodeId: report.nodeId, records: quarantined.length, examples },
    });
  }
  return alarms;
}

/** The present state of the asked VEs, for an answer that changes nothing. */
async function presentState(tx: Tx, report: Report, now: number): Promise<LeaseAnswer[]> {
  const veIds = report.asks.map((ask) => ask.veId);
  for (const { usage } of report.records) {
    if (typeof usage !== "string" && !veIds.includes(usage.veId) && !usage.veId.includes("\0")) veIds.push(usage.veId);
  }
  if (veIds.length === 0) return [];
  const [wallets, leases, terms] = await Promise.all([
    readWallets(tx, veIds),
    readLeases(tx, veIds, now),
    readVeTerms(tx, veIds),
  ]);
  const own = new Map(leases.filter((lease) => lease.bootId === report.bootId).map((lease) => [lease.veId, lease]));
  return veIds.map((veId) => {
    const lease = own.get(veId);
    return answerFor(veId, wallets.get(veId), lease?.credits ?? 0n, lease?.ttlMs ?? LEASE_TTL_MS, terms.get(veId));
  });
}

interface Turn {
  readonly deps: Deps;
  readonly report: Report;
  readonly sorted: Sorted;
  readonly now: number;
}

/** Waits for all, also when one fails: no statement may be under way when the transaction ends. */
async function everyOne(statements: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(statements);
  await Promise.all(statements);
}

async function applyLocked(tx: Tx, boot: BootRow, { deps, report, sorted, now }: Turn): Promise<ReportAnswer> {
  const spend = spendByVe(sorted.priced);
  const asks = new Map(report.asks.map((ask) => [ask.veId, ask]));
  const answered = [...new Set([...asks.keys(), ...spend.keys()])];
  const held = report.final ? await leasedVes(tx, report.bootId) : [];
  const veIds = [...new Set([...answered, ...held])];
  const useIds = new Map([...spend].filter(([, spent]) => spent > 0n).map(([veId]) => [veId, deps.newId("tr_")]));
  const origin = { bootId: report.bootId, nodeId: report.nodeId, transfers: useIds };
  // All sent at once. Events first: a hot wallet is then locked for the shortest time. The sums come behind the locks that
  // they need, and the database adds them up while the outcome of each VE is worked out here.
  const events = insertEvents(tx, origin, sorted.priced);
  const locked = lockGround(tx, veIds, now);
  const sums = everyOne([
    addDaily(tx, rollUp(sorted.priced)),
    touchKeys(tx, lastUses(sorted.priced)),
    quarantine(tx, now, origin, sorted.quarantined),
    raiseAlarms(tx, now, alarmsOf(report, sorted)),
  ]);
  // Awaited at the end; if it fails before that, so does everything after it.
  sums.catch(() => {});
  const [, ground] = await Promise.all([events, locked]);

  const granting = !report.final && !boot.closed;
  const plans: VePlan[] = [];
  for (const veId of veIds) {
    const asked = asks.get(veId) ?? NOTHING_ASKED;
    const all = (ground.leases.get(veId) ?? []).find((lease) => lease.bootId === report.bootId)?.credits ?? 0n;
    const ask = report.final ? { ...asked, release: all } : asked;
    const plan = planVe(veId, ground, {
      bootId: report.bootId,
      ask,
      spent: spend.get(veId) ?? 0n,
      granting,
      recalled: false,
    });
    if (plan !== null) plans.push(plan);
  }
  const lastRecordNo = boot.lastRecordNo + BigInt(report.records.length);
  await everyOne([
    sums,
    writePlans(tx, report.bootId, now, plans),
    postTransfers(
      tx,
      now,
      plans.flatMap((plan) => transfersOf(plan, useIds.get(plan.veId) ?? "", report, deps.newId)),
    ),
    notifyWallets(
      tx,
      plans.filter((plan) => plan.settled.released > 0n).map((plan) => ({ veId: plan.veId, kind: "freed" as const })),
    ),
    advanceBoot(tx, report.bootId, now, { lastSeq: report.seq, lastRecordNo, closed: boot.closed || report.final }),
  ]);
  return { status: "applied", lastSeq: report.seq, lastRecordNo, ...answersOf(answered, plans, ground) };
}

function answersOf(
  veIds: readonly string[],
  plans: readonly VePlan[],
  ground: Ground,
): Pick<ReportAnswer, "leases" | "recalls"> {
  const byId = new Map(plans.map((plan) => [plan.veId, plan]));
  const leases = veIds.map((veId) => {
    const plan = byId.get(veId);
    return answerFor(veId, plan?.wallet, plan?.lease ?? 0n, plan?.grant.ttlMs ?? LEASE_TTL_MS, ground.terms.get(veId));
  });
  const recalls = plans
    .filter((plan) => plan.grant.recall)
    .map((plan) => ({
      veId: plan.veId,
      boots: plan.others.filter((lease) => lease.credits > 0n).map((lease) => lease.bootId),
    }));
  return { leases, recalls };
}

/**
 * Applies a report exactly once: a repeated one changes nothing, one that leaves a gap is refused with the cursor to go
 * on from. Every record of an applied report is durable when this resolves.
 * @throws DomainError invalid_field when the boot belongs to another node
 */
export async function applyReport(deps: Deps, report: Report, sorted: Sorted): Promise<ReportAnswer> {
  const now = deps.now();
  if (report.seq === 0n) {
    const boot = await readBoot(deps.db, report.bootId);
    const leases = await presentState(deps.db, report, now);
    return {
      status: "duplicate",
      lastSeq: boot?.lastSeq ?? 0n,
      lastRecordNo: boot?.lastRecordNo ?? 0n,
      leases,
      recalls: [],
    };
  }
  return deps.db.tx(async (tx) => {
    const boot = await lockOrMakeBoot(tx, report.bootId, report.nodeId, now);
    if (boot.nodeId !== report.nodeId) throw invalidField("node_id", "this boot belongs to another node");
    const { lastSeq, lastRecordNo } = boot;
    const place = placeReport(boot, report.seq, report.firstRecordNo, report.records.length);
    if (place === "gap") return { status: "gap", lastSeq, lastRecordNo, leases: [], recalls: [] };
    if (place === "apply") return applyLocked(tx, boot, { deps, report, sorted, now });
    await touchBoot(tx, report.bootId, now);
    return { status: "duplicate", lastSeq, lastRecordNo, leases: await presentState(tx, report, now), recalls: [] };
  });
}

/**
 * Grants once more under a report that was applied, after others were asked to give back. `last`: nothing more will come,
 * so what is there is granted. Null when the boot has gone on in the meantime. `met` tells whether the need was met.
 */
export async function grantAgain(
  deps: Deps,
  report: Report,
  ask: LeaseAsk,
  last: boolean,
): Promise<{ answer: LeaseAnswer; met: boolean } | null> {
  const now = deps.now();
  return deps.db.tx(async (tx) => {
    const boot = await lockOrMakeBoot(tx, report.bootId, report.nodeId, now);
    if (boot.lastSeq !== report.seq || boot.closed) return null;
    const ground = await lockGround(tx, [ask.veId], now);
    const turn = { bootId: report.bootId, ask: { ...ask, release: 0n }, spent: 0n, granting: true, recalled: last };
    const plan = planVe(ask.veId, ground, turn);
    if (plan === null) return null;
    await writePlans(tx, report.bootId, now, [plan]);
    const answer = answerFor(ask.veId, plan.wallet, plan.lease, plan.grant.ttlMs, ground.terms.get(ask.veId));
    return { answer, met: plan.grant.credits >= ask.need };
  });
}
