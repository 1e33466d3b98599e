/** What happens when a day, week or month of a merchant begins: wallets are filled up, and limits count from 0 again. */

import { setImmediate as nextTurn } from "node:timers/promises";
import { periodOf, UTC } from "../core/periods.ts";
import type { Deps } from "./api/context.ts";
import type { Tx } from "./db/database.ts";
import { fillUp, resetReference } from "./domain/budget_reset.ts";
import { rollOver } from "./domain/limits.ts";
import { anythingDue, type DueReset, lockDueResets, postedReferences, writeNextResets } from "./store/budget_reset.ts";
import { notifyWallets } from "./store/feed_state.ts";
import { type NewTransfer, postTransfers } from "./store/ledger.ts";
import { lockEndedLimits, writeLimits } from "./store/limit.ts";
import { readTimeZones } from "./store/merchant.ts";
import { lockWallets, WALLET_CREDITS_MAX, type WalletRow, writeWallets } from "./store/wallet.ts";

/** Wallets or limits of one transaction; the next follows at once. */
export const PERIOD_ROWS_MAX = 200;

interface Reset extends DueReset {
  readonly startMs: number;
  readonly endMs: number;
  readonly reference: string;
}

/** The present period of each: one that was missed is not made up for. */
async function present(tx: Tx, due: readonly DueReset[], nowMs: number): Promise<Reset[]> {
  const zones = await readTimeZones(tx, [...new Set(due.map(({ merchantId }) => merchantId))]);
  return due.map((reset) => {
    const { startMs, endMs } = periodOf(reset.period, zones.get(reset.merchantId) ?? UTC, nowMs);
    return { ...reset, startMs, endMs, reference: resetReference(reset.veId, startMs) };
  });
}

function transfersOf(deps: Deps, reset: Reset, credits: bigint, repaid: bigint): NewTransfer[] {
  const { veId, merchantId, reference } = reset;
  const id = deps.newId("tr_");
  const base = { merchantId, veId, reason: "budget reset" };
  const fill: NewTransfer = { ...base, id, debit: "adjustment", credit: "wallet", credits, reference };
  if (repaid === 0n) return [fill];
  const repay = { ...base, id: deps.newId("tr_"), credits: repaid, reference: `repay:${id}` };
  return [fill, { ...repay, debit: "wallet", credit: "debt" }];
}

function resetSome(deps: Deps): Promise<number> {
  const nowMs = deps.now();
  return deps.db.tx(async (tx) => {
    const due = await lockDueResets(tx, nowMs, PERIOD_ROWS_MAX);
    if (due.length === 0) return 0;
    const resets = await present(tx, due, nowMs);
    // Whoever moved a clock back or a period forth: a period that was filled is never filled again.
    const posted = await postedReferences(
      tx,
      resets.map(({ reference }) => reference),
    );
    const wallets = await lockWallets(
      tx,
      due.map(({ veId }) => veId),
    );
    const filled = new Map<string, WalletRow>();
    const transfers: NewTransfer[] = [];
    for (const reset of resets) {
      const wallet = wallets.get(reset.veId);
      if (wallet === undefined || posted.has(reset.reference)) continue;
      const fill = fillUp(wallet, reset.credits, WALLET_CREDITS_MAX);
      if (fill.credits === 0n) continue;
      filled.set(reset.veId, fill.wallet);
      transfers.push(...transfersOf(deps, reset, fill.credits, fill.repaid));
    }
    await writeWallets(tx, nowMs, filled);
    await postTransfers(tx, nowMs, transfers);
    await writeNextResets(
      tx,
      resets.map(({ veId, endMs }) => ({ veId, atMs: endMs })),
    );
    await notifyWallets(
      tx,
      [...filled.keys()].map((veId) => ({ veId, kind: "topped_up" as const })),
    );
    return due.length;
  });
}

function beginSome(deps: Deps): Promise<number> {
  const nowMs = deps.now();
  return deps.db.tx(async (tx) => {
    const ended = await lockEndedLimits(tx, nowMs, PERIOD_ROWS_MAX);
    await writeLimits(
      tx,
      ended.map((account) => rollOver(account, nowMs)),
    );
    const hints = ended.map(({ physicalModelId, kind }) => ({ veId: "", limit: { physicalModelId, kind } }));
    await notifyWallets(
      tx,
      hints.map((hint) => ({ ...hint, kind: "topped_up" as const })),
    );
    return ended.length;
  });
}

async function untilDone(some: () => Promise<number>): Promise<number> {
  let all = 0;
  for (;;) {
    const done = await some();
    all += done;
    if (done < PERIOD_ROWS_MAX) return all;
    // The embedded database answers within a turn of the event loop: calls must get theirs in between.
    await nextTurn();
  }
}

/** Fills the wallets whose period has begun; how many VEs were due. */
export function resetBudgets(deps: Deps): Promise<number> {
  return untilDone(() => resetSome(deps));
}

/** Begins the new period of limits that no report has begun; how many there were. */
export function beginLimitPeriods(deps: Deps): Promise<number> {
  return untilDone(() => beginSome(deps));
}

/** Both, if anything is due. What fails is tried again by the next run. */
export async function beginPeriods(deps: Deps): Promise<void> {
  if (!(await anythingDue(deps.db, deps.now()))) return;
  const [budgets, limits] = await Promise.allSettled([resetBudgets(deps), beginLimitPeriods(deps)]);
  if (budgets.status === "rejected") throw budgets.reason;
  if (limits.status === "rejected") throw limits.reason;
}
