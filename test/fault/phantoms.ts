/** Credits that are there and held by no request admit one at once: idle nodes hold leases, or a node has died. */

import { BudgetMode } from "../../clients/ts/src/index.ts";
import { closeBooks } from "./books.ts";
import type { Fate } from "./client.ts";
import { askSmall } from "./load.ts";
import { defineScenario, type Figures, ms, type Run } from "./scenario.ts";
import { heldBy, nodeIdOf, takeAll, waitFigures } from "./taking.ts";
import { type FaultShop, World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly tokens: bigint;
  readonly rounds: number;
}

async function idleLeases(world: World, shop: FaultShop, fates: Fate[]): Promise<Figures> {
  // Each takes a lease, and then does nothing with it.
  for (const node of world.nodes) fates.push(await askSmall(node, shop));
  const waits = await takeAll({ world, shop, node: world.nodes[0]!, dead: [], fates });
  return waitFigures("idle nodes hold leases", shop, waits);
}

/** A node dies with a lease; the rest serves at once, and its share too as soon as its journal is back. */
async function deadNode(world: World, shop: FaultShop, fates: Fate[]): Promise<Figures[]> {
  const number = world.nodes.length - 1;
  const before = await Promise.all(world.nodes.map((node) => askSmall(node, shop)));
  fates.push(...before);
  const dead = [await nodeIdOf(world, before[number]!)];
  await world.nodes[number]!.part.kill();
  const node = world.nodes[0]!;
  const row = waitFigures("a node has died", shop, await takeAll({ world, shop, node, dead, fates }));
  await world.system.restartNode(world.nodes[number]!);
  const beganMs = performance.now();
  await world.until("the dead boot's lease is back", async () => (await heldBy(world, shop, dead)) === 0n);
  const backMs = performance.now() - beganMs;
  const rest = await takeAll({ world, shop, node, dead: [], fates });
  return [row, { ...waitFigures("its journal is back", shop, rest), lease_back_after: ms(backMs) }];
}

async function runPhantoms(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: params.nodes }, async (world) => {
    const { tokens } = params;
    const fates: Fate[] = [];
    const rows: Figures[] = [];
    for (let round = 1; round <= params.rounds; round++) {
      for (const budgetMode of [BudgetMode.STRICT, BudgetMode.BALANCED]) {
        const strict = budgetMode === BudgetMode.STRICT;
        const terms = { tokens, strict, budgetMode, upstreamModels: ["short~words=8"], maxOutputTokens: 50 };
        rows.push(await idleLeases(world, await world.openShop(terms), fates));
        rows.push(...(await deadNode(world, await world.openShop(terms), fates)));
        run.progress(`round ${round} of ${params.rounds}: ${strict ? "STRICT" : "BALANCED"} is done`);
      }
    }
    run.figures("from the request to its admission", rows);
    await closeBooks(world, fates, { clients: params.nodes });
  });
}

export const phantoms = defineScenario<Params>({
  name: "phantoms",
  title: "no 429 while there are Credits that no request holds: idle leases, a node that died",
  short: { nodes: 4, tokens: 2_000n, rounds: 1 },
  long: { nodes: 8, tokens: 20_000n, rounds: 10 },
  run: runPhantoms,
});
