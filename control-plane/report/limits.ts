/** The limits of the Physical Models that a report touches: locked after the wallets, in the order of their ids. */

import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import { LEASE_TTL_MS } from "../domain/leases.ts";
import {
  afterPlans,
  type LimitAnswer,
  limitAnswer,
  limitAnswers,
  type LimitAsk,
  type LimitGround,
  type LimitId,
  type LimitPlan,
  type LimitRecall,
  limitRecalls,
  limitWrites,
  planLimitAgain,
  planLimits,
  planLimitsBack,
} from "../domain/limit_plan.ts";
import { limitKey, rollOver } from "../domain/limits.ts";
import type { PricedUsage, Sorted } from "../domain/report.ts";
import type { BootRow, Report } from "../domain/report_plan.ts";
import { lockOrMakeBoot } from "../store/boot.ts";
import { notifyWallets, type WalletHint } from "../store/feed_state.ts";
import { lockLimits, readLimits, writeLimits } from "../store/limit.ts";
import {
  deleteLimitLeases,
  expiredLimitLeases,
  leasedModels,
  readLimitLeases,
  writeLimitLeases,
} from "../store/limit_lease.ts";

/** What is said about limits in answer to a report. */
export interface LimitOutcome {
  readonly limits: readonly LimitAnswer[];
  readonly limitRecalls: readonly LimitRecall[];
}

export const NO_LIMITS: LimitOutcome = { limits: [], limitRecalls: [] };

function modelsOf(records: readonly Pick<PricedUsage, "physicalModelId">[], asks: readonly LimitAsk[]): string[] {
  const ids = new Set(asks.map((ask) => ask.physicalModelId));
  for (const { physicalModelId } of records) if (physicalModelId !== "") ids.add(physicalModelId);
  return [...ids];
}

/** One of the reports of a transaction, all of different boots. */
export interface LimitTurn {
  readonly report: Report;
  readonly sorted: Sorted;
}

/**
 * One indexed look for Physical Models that have no limit. With limits, the leases are read behind the locks that guard
 * them.
 */
export async function lockLimitsOfAll(tx: Tx, turns: readonly LimitTurn[]): Promise<LimitGround> {
  const ids = turns.flatMap(({ report, sorted }) => modelsOf(sorted.priced, report.limitAsks ?? []));
  const ending = turns.filter(({ report }) => report.final).map(({ report }) => report.bootId);
  return lockModels(tx, [...new Set([...ids, ...(await leasedModels(tx, ending))])]);
}

/** What of the ground a report is about: what it names, and with the last report what the boot holds. */
function scopeOf({ accounts, leases }: LimitGround, { report, sorted }: LimitTurn): LimitGround {
  const ids = new Set(modelsOf(sorted.priced, report.limitAsks ?? []));
  if (report.final) for (const lease of leases) if (lease.bootId === report.bootId) ids.add(lease.physicalModelId);
  return { accounts: accounts.filter(({ physicalModelId }) => ids.has(physicalModelId)), leases };
}

async function lockModels(tx: Tx, ids: readonly string[]): Promise<LimitGround> {
  const accounts = await lockLimits(tx, ids);
  const limited = [...new Set(accounts.map(({ physicalModelId }) => physicalModelId))];
  return { accounts, leases: await readLimitLeases(tx, limited) };
}

function hintsOf({ freed, begun }: ReturnType<typeof limitWrites>): WalletHint[] {
  return [
    ...freed.map((limit) => ({ veId: "", limit, kind: "freed" as const })),
    ...begun.map((limit) => ({ veId: "", limit, kind: "topped_up" as const })),
  ];
}

async function writePlans(tx: Tx, plans: readonly LimitPlan[]): Promise<void> {
  if (plans.length === 0) return;
  const writes = limitWrites(plans);
  const statements = [
    writeLimits(tx, writes.accounts),
    writeLimitLeases(tx, writes.leases),
    deleteLimitLeases(tx, writes.ends),
    notifyWallets(tx, hintsOf(writes)),
  ];
  // No statement may be under way when the transaction ends, also when one of them fails.
  await Promise.allSettled(statements);
  await Promise.all(statements);
}

function answerOf({ after, lease, grant }: LimitPlan): LimitAnswer {
  return limitAnswer(after, lease, grant.ttlMs);
}

/** Applies reports to the limits that they touch, as if one after the other; what each is answered. */
export async function applyAllToLimits(
  tx: Tx,
  turns: readonly (LimitTurn & { readonly boot: BootRow })[],
  now: number,
  ground: LimitGround,
): Promise<LimitOutcome[]> {
  let present = ground;
  const all: LimitPlan[] = [];
  const outcomes = turns.map((turn) => {
    const { bootId, final, limitAsks: asks = [] } = turn.report;
    const granting = !final && !turn.boot.closed;
    const report = { bootId, records: turn.sorted.priced, asks, final, granting };
    const plans = planLimits(scopeOf(present, turn), report, now);
    all.push(...plans);
    if (turns.length > 1) present = afterPlans(present, plans);
    return { limits: limitAnswers(asks, plans.map(answerOf)), limitRecalls: limitRecalls(plans) };
  });
  await writePlans(tx, all);
  return outcomes;
}

/** The present state of the limits of a report, for an answer that changes nothing. */
export async function presentLimits(tx: Tx, report: Report, sorted: Sorted, now: number): Promise<LimitOutcome> {
  const asks = report.limitAsks ?? [];
  const accounts = await readLimits(tx, modelsOf(sorted.priced, asks));
  if (accounts.length === 0) return { limits: limitAnswers(asks, []), limitRecalls: [] };
  const ids = accounts.map(({ physicalModelId }) => physicalModelId);
  const own = (await readLimitLeases(tx, ids)).filter(({ bootId }) => bootId === report.bootId);
  const known = accounts.map((account) => {
    const lease = own.find(
      ({ physicalModelId, kind }) => physicalModelId === account.physicalModelId && kind === account.kind,
    );
    return limitAnswer(rollOver(account, now), lease?.amount ?? 0n, lease?.ttlMs ?? LEASE_TTL_MS);
  });
  return { limits: limitAnswers(asks, known), limitRecalls: [] };
}

/** As `grantAgain`, of a limit. Null when the boot has gone on in the meantime, or the limit is gone. */
export async function grantLimitAgain(
  deps: Deps,
  report: Report,
  ask: LimitAsk,
  last: boolean,
): Promise<{ answer: LimitAnswer; met: boolean } | null> {
  const now = deps.now();
  return deps.db.tx(async (tx) => {
    const boot = await lockOrMakeBoot(tx, report.bootId, report.nodeId, now);
    if (boot.lastSeq !== report.seq || boot.closed) return null;
    const ground = await lockModels(tx, [ask.physicalModelId]);
    const plan = planLimitAgain(ground, report.bootId, ask, last, now);
    if (plan === null) return null;
    await writePlans(tx, [plan]);
    return { answer: answerOf(plan), met: plan.grant.credits >= ask.need };
  });
}

function keyOf({ physicalModelId, kind }: LimitId): string {
  return limitKey(physicalModelId, kind);
}

/** Takes leases of limits of a locked boot back: those whose time and hold are over, or all. How many. */
export async function takeLimitsBack(tx: Tx, bootId: string, now: number, holdMs: number | "all"): Promise<number> {
  const over = holdMs === "all" ? null : new Set((await expiredLimitLeases(tx, bootId, holdMs)).map(keyOf));
  if (over !== null && over.size === 0) return 0;
  const { accounts, leases } = await lockModels(tx, await leasedModels(tx, [bootId]));
  const held = new Set(leases.filter((lease) => lease.bootId === bootId).map(keyOf));
  const ending = accounts.filter((account) => held.has(keyOf(account)) && (over === null || over.has(keyOf(account))));
  await writePlans(tx, planLimitsBack({ accounts: ending, leases }, bootId, now));
  return ending.length;
}
