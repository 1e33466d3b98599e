/**
 * Applies usage reports, one or several in a transaction: the boots' rows locked first, then wallets, then limits of
 * Physical Models, each in id order. What a report does is decided by domain/report_plan.ts and domain/limit_plan.ts.
 */

import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import { lastUses, rollUp, type Sorted } from "../domain/report.ts";
import {
  type GroupMember,
  type GroupPlan,
  leasesOf,
  planGroup,
  sharedVes,
  withRecalls,
} from "../domain/report_group.ts";
import {
  alarmsOf,
  type BootRow,
  type Ground,
  type LeaseAnswer,
  type LeaseAsk,
  openReport,
  planAgain,
  presentAnswers,
  presentVes,
  type Report,
  type ReportAnswer,
  scopeOf,
  type Writes,
} from "../domain/report_plan.ts";
import { raiseAlarms } from "../store/alarm.ts";
import { advanceBoots, lockBoots, lockOrMakeBoot, readBoot, touchBoot } from "../store/boot.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { countLive, deleteLeases, leasedVes, readHolders, readLeases, sumLive, writeLeases } from "../store/lease.ts";
import { postTransfers } from "../store/ledger.ts";
import { addDaily, insertEvents, quarantine, readVeTerms, touchKeys } from "../store/usage.ts";
import { lockWalletsAndTerms, readWallets, writeWallets } from "../store/wallet.ts";
import { emitWebhookEvents } from "../store/webhook_event.ts";
import { type KeyUse, KeyUses } from "./key_uses.ts";
import { applyAllToLimits, type LimitOutcome, lockLimitsOfAll, NO_LIMITS, presentLimits } from "./limits.ts";
import { walletEvents } from "./wallet_events.ts";

export type { LeaseAnswer, LeaseAsk, Recall, Report, ReportAnswer } from "../domain/report_plan.ts";

/** Pipelined: the database runs these in order, so the leases are read under the locks. */
async function lockGround(tx: Tx, members: readonly GroupMember[]): Promise<Ground> {
  const keys = members.flatMap(({ report: { bootId }, scope }) => scope.veIds.map((veId) => ({ veId, bootId })));
  const veIds = [...new Set(keys.map(({ veId }) => veId))];
  const [locked, own, live] = await Promise.all([lockWalletsAndTerms(tx, veIds), readLeases(tx, keys), countLive(tx)]);
  const shared = sharedVes(members, locked.wallets, live);
  return { ...locked, leases: leasesOf(veIds, own, await sumLive(tx, shared), shared, live) };
}

/** Waits for all, also when one fails: no statement may be under way when the transaction ends. */
async function everyOne(statements: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(statements);
  await Promise.all(statements);
}

/** Sends everything at once. */
function writeAll(
  tx: Tx,
  deps: Deps,
  now: number,
  writes: Pick<GroupPlan, "leases" | "ends" | "transfers" | "freed" | "alerts"> & Pick<Writes, "wallets">,
): Promise<void> {
  return everyOne([
    writeWallets(tx, now, writes.wallets),
    writeLeases(tx, writes.leases),
    deleteLeases(tx, writes.ends),
    postTransfers(tx, now, writes.transfers),
    notifyWallets(
      tx,
      writes.freed.map((veId) => ({ veId, kind: "freed" as const })),
    ),
    emitWebhookEvents(tx, now, walletEvents(deps, writes.alerts)),
  ]);
}

/** Writes what is decided about the leases of one boot. */
export function write(tx: Tx, deps: Deps, bootId: string, now: number, writes: Writes): Promise<void> {
  const leases = writes.leases.map((lease) => ({ ...lease, bootId }));
  return writeAll(tx, deps, now, { ...writes, leases, ends: writes.ends.map((veId) => ({ veId, bootId })) });
}

/** The present state of the VEs of a report, for an answer that changes nothing. */
async function presentState(tx: Tx, report: Report): Promise<LeaseAnswer[]> {
  const veIds = presentVes(report);
  if (veIds.length === 0) return [];
  const { bootId } = report;
  const [wallets, own, terms] = await Promise.all([
    readWallets(tx, veIds),
    readLeases(
      tx,
      veIds.map((veId) => ({ veId, bootId })),
    ),
    readVeTerms(tx, veIds),
  ]);
  return presentAnswers(bootId, veIds, wallets, { leases: leasesOf(veIds, own, new Map(), [], 0), terms });
}

/** A report with its records sorted. */
export interface Given {
  readonly report: Report;
  readonly sorted: Sorted;
}

/** A report that is to be applied, its boot's row locked. */
export interface Opened extends Given {
  readonly boot: BootRow;
}

/** What a report is answered. */
export type Applied = ReportAnswer & LimitOutcome;

async function scopesOf(tx: Tx, deps: Deps, opened: readonly Opened[]): Promise<GroupMember[]> {
  const members: GroupMember[] = [];
  for (const { boot, report, sorted } of opened) {
    const held = report.final ? await leasedVes(tx, report.bootId) : [];
    members.push({ boot, report, scope: scopeOf(report, sorted, held, deps.newId) });
  }
  return members;
}

/** `uses`: the uses of keys that may have to be written. */
async function applyAll(
  tx: Tx,
  deps: Deps,
  opened: readonly Opened[],
  uses: readonly KeyUse[],
  now: number,
): Promise<Applied[]> {
  const members = await scopesOf(tx, deps, opened);
  const bootIds = members.map(({ report }) => report.bootId);
  const priced = opened.flatMap(({ sorted }) => sorted.priced);
  // All sent at once. Events first: a hot wallet is then locked for the shortest time. The sums come behind the locks that
  // they need, and the database adds them up while the outcome of each VE is worked out here.
  const events = insertEvents(
    tx,
    opened.map(({ report: { bootId, nodeId }, sorted }, i) => ({
      bootId,
      nodeId,
      transfers: members[i]!.scope.useIds,
      priced: sorted.priced,
    })),
  );
  const locked = lockGround(tx, members);
  const limitsLocked = lockLimitsOfAll(tx, opened);
  const sums = everyOne([
    addDaily(tx, rollUp(priced)),
    touchKeys(tx, uses),
    ...opened.map(({ report, sorted }) => quarantine(tx, now, report, sorted.quarantined)),
    raiseAlarms(
      tx,
      now,
      opened.flatMap(({ report, sorted }) => alarmsOf(report, sorted)),
    ),
  ]);
  // Awaited at the end; if it fails before that, so does everything after it.
  sums.catch(() => {});
  const [, ground, limitGround] = await Promise.all([events, locked, limitsLocked]);
  const plan = planGroup(members, ground, deps.newId);
  const limits = applyAllToLimits(tx, opened, now, limitGround);
  const written = writeAll(tx, deps, now, plan);
  const holders = readHolders(tx, [...new Set(plan.plans.flatMap(({ recalls }) => recalls))]);
  await everyOne([
    sums,
    written,
    holders,
    limits,
    raiseAlarms(
      tx,
      now,
      plan.plans.flatMap(({ alarms }) => alarms),
    ),
    advanceBoots(
      tx,
      now,
      plan.plans.map(({ progress }, i) => ({ bootId: bootIds[i]!, progress })),
    ),
  ]);
  const [outcomes, holding] = await Promise.all([limits, holders]);
  return plan.plans.map((one, i) => ({ ...withRecalls(one, bootIds[i]!, holding), ...outcomes[i]! }));
}

/**
 * Applies reports of different boots in one transaction, as if one after the other: a wallet that all of them spend from is
 * locked once. Null for those that must go alone: a boot's first report, and those that are not to be applied.
 */
export async function applyGroup(
  deps: Deps,
  given: readonly Given[],
  keyUses: KeyUses = new KeyUses(),
): Promise<(Applied | null)[]> {
  const now = deps.now();
  let uses: readonly KeyUse[] = [];
  const answers = await deps.db.tx(async (tx) => {
    const boots = await lockBoots(
      tx,
      given.map(({ report }) => report.bootId),
    );
    const opened: Opened[] = [];
    for (const { report, sorted } of given) {
      const boot = boots.get(report.bootId);
      if (boot === undefined || boot.nodeId !== report.nodeId || openReport(boot, report) !== "apply") continue;
      opened.push({ boot, report, sorted });
    }
    uses = keyUses.due(lastUses(opened.flatMap(({ sorted }) => sorted.priced)));
    const applied = opened.length === 0 ? [] : await applyAll(tx, deps, opened, uses, now);
    const byBoot = new Map(opened.map(({ report }, i) => [report.bootId, applied[i]!]));
    return given.map(({ report }) => byBoot.get(report.bootId) ?? null);
  });
  keyUses.note(uses);
  return answers;
}

/**
 * Applies a report exactly once: a repeated one changes nothing, one that leaves a gap is refused with the cursor to go
 * on from. Every record of an applied report is durable when this resolves.
 * @throws DomainError invalid_field when the boot belongs to another node
 */
export async function applyReport(
  deps: Deps,
  report: Report,
  sorted: Sorted,
  keyUses: KeyUses = new KeyUses(),
): Promise<Applied> {
  const now = deps.now();
  if (report.seq === 0n) {
    const boot = await readBoot(deps.db, report.bootId);
    const leases = await presentState(deps.db, report);
    const { lastSeq, lastRecordNo } = boot ?? { lastSeq: 0n, lastRecordNo: 0n };
    const limits = await presentLimits(deps.db, report, sorted, now);
    return { status: "duplicate", lastSeq, lastRecordNo, leases, recalls: [], ...limits };
  }
  let uses: readonly KeyUse[] = [];
  const answer = await deps.db.tx(async (tx): Promise<Applied> => {
    uses = [];
    const boot = await lockOrMakeBoot(tx, report.bootId, report.nodeId, now);
    const { lastSeq, lastRecordNo } = boot;
    const place = openReport(boot, report);
    if (place === "gap") return { status: "gap", lastSeq, lastRecordNo, leases: [], recalls: [], ...NO_LIMITS };
    if (place === "apply") {
      uses = keyUses.due(lastUses(sorted.priced));
      const [applied] = await applyAll(tx, deps, [{ boot, report, sorted }], uses, now);
      return applied!;
    }
    await touchBoot(tx, report.bootId, now);
    const leases = await presentState(tx, report);
    const limits = await presentLimits(tx, report, sorted, now);
    return { status: "duplicate", lastSeq, lastRecordNo, leases, recalls: [], ...limits };
  });
  keyUses.note(uses);
  return answer;
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
    const { veId } = ask;
    const scope = { spend: new Map(), useIds: new Map(), answered: [veId], veIds: [veId] };
    const ground = await lockGround(tx, [{ boot, report: { ...report, asks: [ask] }, scope }]);
    const plan = planAgain(boot, report, ask, last, ground);
    if (plan === null) return null;
    await write(tx, deps, report.bootId, now, plan);
    return { answer: plan.answer, met: plan.met };
  });
}
