/**
 * A node dies and its disk with it. What it had not reported is lost, and that is all: the rest of the wallet serves at
 * once, and the dead node's lease comes back when the operator writes it off, or when its time and the hold are over.
 */

import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import { formatCredits } from "../../core/credits.ts";
import { closeBooks, readIds } from "./books.ts";
import type { Fate } from "./client.ts";
import { askSmall, leastNeed } from "./load.ts";
import { defineScenario, type Figures, ms, type Run } from "./scenario.ts";
import { heldBy, nodeIdOf, takeAll, waitFigures } from "./taking.ts";
import { type FaultShop, World } from "./world.ts";

interface Params {
  readonly tokens: bigint;
  /** Requests that the node serves and cannot report any more. */
  readonly unreported: number;
  readonly rounds: number;
  /** How the lease comes back. */
  readonly ways: readonly Way[];
}

type Way = "written off" | "held to the end";

/** The shortest lease is a minute, and the node must have been silent for half of one to be written off. */
const BACK_TIMEOUT_MS = 300_000;
const ASK_EVERY_MS = 1_000;
const LOSER = 1;
const WRITTEN_OFF = "node_written_off";

interface Loss {
  readonly nodeId: string;
  readonly lost: Set<string>;
}

/** The last node serves from its lease without being able to report, dies, and comes back on an empty disk. */
async function loseDisk(world: World, shop: FaultShop, params: Params, fates: Fate[]): Promise<Loss> {
  const node = world.nodes[LOSER]!;
  const first = await askSmall(node, shop);
  fates.push(first);
  const nodeId = await nodeIdOf(world, first);
  world.nodeProxies[LOSER]!.refuse();
  const mine: Fate[] = [];
  for (let i = 0; i < params.unreported; i++) mine.push(await askSmall(node, shop));
  fates.push(...mine);
  await node.part.kill();
  await rm(node.home, { recursive: true });
  const known = await readIds(world, shop);
  const lost = new Set(mine.filter(({ whole, id }) => whole && !known.has(id)).map(({ id }) => id));
  world.nodeProxies[LOSER]!.heal();
  await world.system.restartNode(node, { home: await world.system.makeHome() });
  return { nodeId, lost };
}

async function writeOff(world: World, nodeId: string): Promise<void> {
  await world.until(
    "the silent node can be written off",
    async () => {
      await world.pause(ASK_EVERY_MS);
      const { bootIds } = await world.operator.audit.writeOffNode({
        target: { case: "nodeId", value: nodeId },
        reason: "its disk is gone",
      });
      return bootIds.length > 0;
    },
    BACK_TIMEOUT_MS,
  );
  const told = await world.database.query("select 1 from alarm where kind = $1", [WRITTEN_OFF]);
  assert.ok(told.length > 0, "the write-off is among the alarms");
}

async function loseAndReturn(
  world: World,
  params: Params,
  way: Way,
  fates: Fate[],
  lost: Set<string>,
): Promise<Figures[]> {
  const terms = { tokens: params.tokens, upstreamModels: ["short~words=8"], maxOutputTokens: 50 };
  const shop = await world.openShop({ ...terms, strict: true, budgetMode: BudgetMode.STRICT });
  const loss = await loseDisk(world, shop, params, fates);
  for (const id of loss.lost) lost.add(id);
  const dead = [loss.nodeId];
  const held = await heldBy(world, shop, dead);
  assert.ok(held >= leastNeed(shop), "the dead node held a lease");
  const node = world.nodes[0]!;
  const rest = waitFigures("the rest of the wallet", shop, await takeAll({ world, shop, node, dead, fates, lost }));
  const beganMs = performance.now();
  if (way === "written off") await writeOff(world, loss.nodeId);
  await world.until(
    "the dead node's lease is back",
    async () => {
      await world.pause(ASK_EVERY_MS / 10);
      return (await heldBy(world, shop, dead)) === 0n;
    },
    BACK_TIMEOUT_MS,
  );
  const backMs = performance.now() - beganMs;
  const waits = await takeAll({ world, shop, node, dead: [], fates, lost });
  assert.ok(waits.length > 0, "what came back is usable");
  world.run.progress(`${way}: ${formatCredits(held)} were back after ${ms(backMs)}`);
  return [rest, { ...waitFigures(`lease ${way}`, shop, waits), lease: formatCredits(held), back_after: ms(backMs) }];
}

async function runLostDisk(params: Params, run: Run): Promise<void> {
  for (const way of params.ways) {
    const env: Record<string, string> = way === "written off" ? {} : { LEASE_HOLD_S: "1" };
    await World.with(run, { nodes: 2, env }, async (world) => {
      const fates: Fate[] = [];
      const lost = new Set<string>();
      const rows: Figures[] = [];
      for (let round = 1; round <= params.rounds; round++) {
        rows.push(...(await loseAndReturn(world, params, way, fates, lost)));
      }
      run.figures(`a disk is gone, its lease is ${way}; ${lost.size} unreported requests went with it`, rows);
      await closeBooks(world, fates, { clients: 2, lost, alarms: [WRITTEN_OFF] });
    });
  }
}

export const lostDisk = defineScenario<Params>({
  name: "lost-disk",
  title: "a node dies with its disk: the rest of the wallet serves at once, its lease comes back",
  short: { tokens: 3_000n, unreported: 3, rounds: 1, ways: ["written off"] },
  long: { tokens: 30_000n, unreported: 5, rounds: 3, ways: ["written off", "held to the end"] },
  run: runLostDisk,
});
