/** Every report arrives three times, late and out of order, and some answers never: the ledger is that of a clean run. */

import assert from "node:assert/strict";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import { formatCredits } from "../../core/credits.ts";
import { ReportRelay } from "../support/report_relay.ts";
import { checkAudit, checkShop, closeBooks, readWallet, untilReported } from "./books.ts";
import { countFates, Load, MIXED_MODELS, MIXED_OUTPUT_MAX } from "./load.ts";
import { defineScenario, type Run, seeded } from "./scenario.ts";
import { PICO_PER_TOKEN, World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly clients: number;
  readonly loadMs: number;
  readonly copies: number;
  readonly delayMsMax: number;
  /** Share of the answers that never come although the report was applied. */
  readonly lostAnswers: number;
  readonly strictTokens: bigint;
}

async function runReports(params: Params, run: Run): Promise<void> {
  const random = seeded(3);
  let relay: ReportRelay | undefined;
  const { copies, delayMsMax, lostAnswers } = params;
  const controlPlaneUrl = async (replicas: readonly string[]): Promise<string> => {
    relay = await ReportRelay.start({ replicas, copies, delayMsMax, lostAnswers, random });
    return relay.url;
  };
  try {
    await World.with(run, { nodes: params.nodes, controlPlaneUrl }, (world) => shuffle(world, relay!, params, random));
  } finally {
    await relay?.close();
  }
}

async function shuffle(world: World, relay: ReportRelay, params: Params, random: () => number): Promise<void> {
  const models = { upstreamModels: MIXED_MODELS, maxOutputTokens: MIXED_OUTPUT_MAX };
  const ample = await world.openShop({ tokens: 1_000_000_000n, ...models });
  await world.openShop({ tokens: params.strictTokens, strict: true, budgetMode: BudgetMode.STRICT, ...models });
  const load = new Load({ world, shops: world.shops, clients: params.clients, random });
  await world.pause(params.loadMs);
  const fates = await load.stop();
  await untilReported(world, fates);
  await relay.settle();
  const { reports, copies, late, answersLost } = relay.stats;
  world.run.figures("reports on their way", [
    { reports, copies, late, answers_lost: answersLost, ...countFates(fates) },
  ]);
  assert.ok(copies > 2 * reports, "reports were repeated");
  assert.ok(late > 0, "copies came behind newer reports");
  assert.ok(answersLost > 0, "answers were lost");

  // Nothing was cut or killed, so the ledger must be what adding up gives.
  const served = fates.filter(({ veId, status }) => veId === ample.veId && status === 200);
  assert.ok(
    served.every(({ whole }) => whole),
    "every answer of the ample wallet came whole",
  );
  const sum = served.reduce((total, { tokens }) => total + BigInt(tokens), 0n) * PICO_PER_TOKEN;
  const { settled } = await readWallet(world, ample);
  assert.equal(formatCredits(settled), formatCredits(sum), "the ledger is that of a clean run");
  // While the nodes still run: nobody may count on the end of a run to put things right.
  for (const shop of world.shops) await checkShop(world, shop, fates, { clients: params.clients, allReturned: false });
  await checkAudit(world);

  relay.change({ lostAnswers: 0, delayMsMax: 50 });
  await closeBooks(world, fates, { clients: params.clients });
}

export const reports = defineScenario<Params>({
  name: "reports",
  title: "every report three times and shuffled, answers lost after the commit; the ledger is that of a clean run",
  short: {
    nodes: 3,
    clients: 24,
    loadMs: 6_000,
    copies: 3,
    delayMsMax: 2_000,
    lostAnswers: 0.25,
    strictTokens: 20_000n,
  },
  long: {
    nodes: 6,
    clients: 64,
    loadMs: 300_000,
    copies: 3,
    delayMsMax: 8_000,
    lostAnswers: 0.25,
    strictTokens: 3_000_000n,
  },
  run: runReports,
});
