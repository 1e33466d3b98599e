/** The real parts around the pipeline, without network: route table, budget with leases that never end, journal on disk. */

import { pino } from "pino";
import { parseCredits } from "../../core/credits.ts";
import { WalletState } from "../../data-plane/budget/wallet.ts";
import type { LeaseAnswer } from "../../data-plane/budget/wallet_link.ts";
import { Wallets } from "../../data-plane/budget/wallets.ts";
import { FileJournal } from "../../data-plane/journal/file_journal.ts";
import { newId } from "../../data-plane/ids.ts";
import { createPipeline } from "../../data-plane/proxy.ts";
import { RouteTable } from "../../data-plane/route_table.ts";
import type { Pipeline, Upstream } from "../../data-plane/transport.ts";
import { type FeedWorld, snapshotOf, veIdOf } from "./feed_world.ts";
import { benchFolder } from "./processes.ts";

export const WORLD: FeedWorld = { ves: 10_000, lmsPerVe: 10, allDifferent: false };

const GRANTED = parseCredits("1000000000");
const TTL_MS = 3_600_000;

export interface MemoryPipeline {
  readonly pipeline: Pipeline;
  /** Acknowledges what was spent, as the control plane would. */
  settle(): Promise<void>;
  close(): Promise<void>;
}

function loadTable(): RouteTable {
  const table = new RouteTable();
  for (const event of snapshotOf(WORLD)) table.apply(event);
  return table;
}

/** A budget whose every VE has a large lease. */
async function leasedWallets(): Promise<Wallets> {
  const wallets = new Wallets(
    () => performance.now(),
    (ms, fn) => {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
  );
  for (let ve = 0; ve < WORLD.ves; ve++) {
    const reserved = new Promise<void>((resolve) => {
      wallets.reserveSlow(veIdOf(ve), 1n, 1n, (result) => {
        if (typeof result !== "string") wallets.settle(result, 0n);
        resolve();
      });
    });
    grant(wallets);
    await reserved;
  }
  return wallets;
}

function grant(wallets: Wallets): void {
  const lines = wallets.cut(new Map(), WORLD.ves);
  const answers = lines.map(({ account }): LeaseAnswer => ({
    account,
    granted: GRANTED,
    ttlMs: TTL_MS,
    state: WalletState.OK,
    creditRemaining: GRANTED,
    resetAt: 0,
  }));
  wallets.answer(lines, new Map(), answers, performance.now(), false);
}

export async function startMemoryPipeline(upstream: Upstream): Promise<MemoryPipeline> {
  const wallets = await leasedWallets();
  const log = pino({ level: "warn" });
  const journal = new FileJournal({ dir: benchFolder(), log, now: Date.now, newId });
  const pipeline = createPipeline({
    table: loadTable(),
    budget: wallets,
    journal,
    upstream,
    now: () => performance.timeOrigin + performance.now(),
    random: Math.random,
    newId,
    settings: { veDomain: "", corsOrigins: [] },
    log,
    metrics: { request() {}, firstContent() {}, attempt() {} },
  });
  return {
    pipeline,
    async settle() {
      grant(wallets);
      await journal.sync();
      journal.acknowledge(journal.lastNo);
    },
    close() {
      pipeline.close();
      return journal.close();
    },
  };
}
