/**
 * The network between nodes and control plane, and between control plane and PostgreSQL, delays, swallows and cuts under
 * load. Where answers alone are swallowed and the connection is cut then, what was asked for was committed and nobody knows.
 */

import assert from "node:assert/strict";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import type { CutProxy } from "../support/cut_proxy.ts";
import { closeBooks } from "./books.ts";
import { countFates, Load, MIXED_MODELS, MIXED_OUTPUT_MAX } from "./load.ts";
import { defineScenario, type Figures, type Run, seeded } from "./scenario.ts";
import { World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly clients: number;
  readonly rounds: number;
  readonly badMs: number;
  readonly quietMs: number;
  readonly strictTokens: bigint;
}

type Trouble = "late" | "cut" | "answers lost" | "requests lost" | "half open";
type Where = "nodes" | "database";
const LATE_MS: Record<Where, number> = { nodes: 80, database: 15 };
const TROUBLES: readonly (readonly [Where, Trouble])[] = [
  ["nodes", "answers lost"],
  ["database", "answers lost"],
  ["nodes", "late"],
  ["database", "cut"],
  ["nodes", "half open"],
  ["database", "late"],
  ["nodes", "requests lost"],
  ["database", "half open"],
  ["nodes", "cut"],
];

function begin(proxy: CutProxy, where: Where, trouble: Trouble): void {
  if (trouble === "late") proxy.set({ latencyMs: LATE_MS[where] });
  else if (trouble === "answers lost") proxy.set({ blackhole: true }, "down");
  else if (trouble === "requests lost") proxy.set({ blackhole: true }, "up");
  else if (trouble === "half open") proxy.halfOpen();
  else proxy.cut();
}

function end(proxy: CutProxy, trouble: Trouble): void {
  // What hangs is lost: cut first, then let new connections be well.
  if (trouble !== "late") proxy.cut();
  proxy.heal();
}

async function runNetwork(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: params.nodes }, async (world) => {
    const models = { upstreamModels: MIXED_MODELS, maxOutputTokens: MIXED_OUTPUT_MAX };
    const ample = await world.openShop({ tokens: 1_000_000_000n, ...models });
    await world.openShop({ tokens: params.strictTokens, strict: true, budgetMode: BudgetMode.STRICT, ...models });
    const load = new Load({ world, shops: world.shops, clients: params.clients, random: seeded(8), everyMs: 40 });
    await world.pause(params.quietMs);
    const rows: Figures[] = [];
    for (let round = 0; round < params.rounds; round++) {
      const [where, trouble] = TROUBLES[round % TROUBLES.length]!;
      const proxies = where === "nodes" ? world.nodeProxies : [world.databaseProxy];
      const before = load.whole;
      for (const proxy of proxies) begin(proxy, where, trouble);
      await world.pause(params.badMs);
      for (const proxy of proxies) end(proxy, trouble);
      await world.pause(params.quietMs);
      rows.push({ network: where, trouble, whole: load.whole - before });
      run.progress(`round ${round + 1} of ${params.rounds}: ${where}: ${trouble}`);
    }
    const fates = await load.stop();
    run.figures("whole answers while the network was bad", rows.slice(0, TROUBLES.length));
    run.figures("all clients", [countFates(fates)]);
    const wrong = fates.filter(({ veId, code }) => veId === ample.veId && code === "insufficient_quota");
    assert.equal(wrong.length, 0, `an ample wallet was refused: ${JSON.stringify(wrong.slice(0, 3))}`);
    await closeBooks(world, fates, { clients: params.clients });
  });
}

export const network = defineScenario<Params>({
  name: "network",
  title: "answers lost after the commit, cuts, delays and half-open connections on both sides of the control plane",
  short: { nodes: 3, clients: 12, rounds: 9, badMs: 500, quietMs: 400, strictTokens: 30_000n },
  long: { nodes: 4, clients: 32, rounds: 90, badMs: 4_000, quietMs: 3_000, strictTokens: 3_000_000n },
  run: runNetwork,
});
