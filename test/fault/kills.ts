/** kill -9 of nodes, replicas and PostgreSQL under load, again and again: then everything is in the ledger once. */

import assert from "node:assert/strict";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import { closeBooks } from "./books.ts";
import { countFates, Load, MIXED_MODELS, MIXED_OUTPUT_MAX } from "./load.ts";
import { defineScenario, type Run, seeded } from "./scenario.ts";
import { World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly clients: number;
  readonly rounds: number;
  /** Load between two kills. */
  readonly quietMs: number;
  /** What was killed is away for up to this long. */
  readonly awayMs: number;
  /** The STRICT wallet, which is to run dry while things die. */
  readonly strictTokens: bigint;
}

type Victim = "node" | "replica" | "database" | "all";
const VICTIMS: readonly Victim[] = ["node", "replica", "node", "database", "node", "all"];
/** A replica that is started while the database is still away ends again: it is started until it stays. */
const START_TRIES_MAX = 30;
const START_RETRY_MS = 500;

async function startReplica(world: World, replica: number): Promise<void> {
  for (let tries = 1; ; tries++) {
    world.run.signal.throwIfAborted();
    try {
      await world.system.startControlPlane({}, replica);
      return;
    } catch (error) {
      if (tries >= START_TRIES_MAX) throw error;
      await world.pause(START_RETRY_MS);
    }
  }
}

async function killNode(world: World, number: number, awayMs: number): Promise<void> {
  const node = world.nodes[number]!;
  await node.part.kill();
  await world.pause(awayMs);
  await world.system.restartNode(node);
}

async function killReplica(world: World, replica: number, awayMs: number): Promise<void> {
  await world.system.replicas[replica]!.kill();
  await world.pause(awayMs);
  await startReplica(world, replica);
}

async function killDatabase(world: World, awayMs: number): Promise<void> {
  await world.postgres.kill();
  await world.pause(awayMs);
  await world.postgres.start();
}

async function strike(world: World, victim: Victim, random: () => number, awayMs: number): Promise<string> {
  const number = Math.floor(random() * world.nodes.length);
  const replica = Math.floor(random() * world.system.replicas.length);
  const away = (): number => Math.floor(random() * awayMs);
  if (victim === "node") await killNode(world, number, away());
  else if (victim === "replica") await killReplica(world, replica, away());
  else if (victim === "database") await killDatabase(world, away());
  else {
    // At once, and back in whatever order.
    const all = [killNode(world, number, away()), killReplica(world, replica, away()), killDatabase(world, away())];
    await Promise.allSettled(all);
    await Promise.all(all);
  }
  if (victim === "node") return `node ${number + 1}`;
  return victim === "replica" ? `replica ${replica + 1}` : victim;
}

async function runKills(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: params.nodes }, async (world) => {
    const random = seeded(2);
    const models = { upstreamModels: MIXED_MODELS, maxOutputTokens: MIXED_OUTPUT_MAX };
    const ample = await world.openShop({ tokens: 1_000_000_000n, ...models });
    const tight = await world.openShop({
      tokens: params.strictTokens,
      strict: true,
      budgetMode: BudgetMode.STRICT,
      ...models,
    });
    const load = new Load({ world, shops: [ample, tight], clients: params.clients, random });
    const struck: Record<string, number> = {};
    for (let round = 0; round < params.rounds; round++) {
      await world.pause(params.quietMs);
      const victim = VICTIMS[round % VICTIMS.length]!;
      struck[victim] = (struck[victim] ?? 0) + 1;
      const what = await strike(world, victim, random, params.awayMs);
      run.progress(`round ${round + 1} of ${params.rounds}: kill -9 of ${what}; ${load.whole} whole answers so far`);
    }
    await world.pause(params.quietMs);
    const fates = await load.stop();
    run.figures("under kill -9", [{ ...struck, ...countFates(fates) }]);
    const phantoms = fates.filter(({ veId, code }) => veId === ample.veId && code === "insufficient_quota");
    assert.equal(phantoms.length, 0, `an ample wallet was refused: ${JSON.stringify(phantoms.slice(0, 3))}`);
    await closeBooks(world, fates, { clients: params.clients });
  });
}

export const kills = defineScenario<Params>({
  name: "kills",
  title: "kill -9 of nodes, replicas and PostgreSQL under load; every whole answer is billed once, the books agree",
  short: { nodes: 3, clients: 16, rounds: 6, quietMs: 600, awayMs: 1_000, strictTokens: 25_000n },
  long: { nodes: 4, clients: 32, rounds: 60, quietMs: 3_000, awayMs: 4_000, strictTokens: 2_000_000n },
  run: runKills,
});
