/**
 * Wall clocks of nodes and replicas jump by an hour, and a node is frozen while others drain the wallet it holds a lease
 * of. The jumps are made in the processes (test/support/clock_jump.mjs); the database keeps its own clock.
 */

import assert from "node:assert/strict";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import { closeBooks, untilReported } from "./books.ts";
import { ask, type Fate } from "./client.ts";
import { askMixed, askSmall, countFates, Load, MIXED_MODELS, MIXED_OUTPUT_MAX } from "./load.ts";
import { defineScenario, type Figures, ms, type Run, seeded } from "./scenario.ts";
import { takeAll } from "./taking.ts";
import { type FaultShop, World } from "./world.ts";

interface Params {
  readonly clients: number;
  /** Load after each jump, before it is looked whether all is well. */
  readonly afterJumpMs: number;
  readonly frozenMs: number;
  /** Requests that wait at the frozen node. */
  readonly waiting: number;
  readonly strictTokens: bigint;
  readonly rounds: number;
}

const HOUR_MS = 3_600_000;
const CLOCK = "test/support/clock_jump.mjs";
/** A small request after a jump must be served, and be in the ledger, within this. */
const WELL_TIMEOUT_MS = 20_000;
const FROZEN = 2;

interface Jump {
  readonly part: "node" | "replica";
  readonly number: number;
  readonly offsetMs: number;
}

const JUMPS: readonly Jump[] = [
  { part: "node", number: 0, offsetMs: HOUR_MS },
  { part: "node", number: 1, offsetMs: -HOUR_MS },
  { part: "replica", number: 0, offsetMs: HOUR_MS },
  { part: "node", number: 0, offsetMs: 0 },
  { part: "replica", number: 1, offsetMs: -HOUR_MS },
  { part: "replica", number: 0, offsetMs: 0 },
  { part: "node", number: 1, offsetMs: 0 },
  { part: "replica", number: 1, offsetMs: 0 },
];

function describe({ part, number, offsetMs }: Jump): string {
  const to = offsetMs === 0 ? "back to the right time" : `${offsetMs > 0 ? "+" : "-"}1 h`;
  return `${part} ${number + 1}: ${to}`;
}

/** Every node serves, and what it served reaches the ledger. */
async function checkWell(world: World, shop: FaultShop): Promise<Figures> {
  const beganMs = performance.now();
  const fates = await Promise.all(
    world.nodes.map((node) =>
      world.until(
        "a node serves after the jump",
        async () => {
          const fate = await askSmall(node, shop);
          assert.notEqual(fate.code, "insufficient_quota", "an ample wallet is refused");
          return fate.whole && fate;
        },
        WELL_TIMEOUT_MS,
      ),
    ),
  );
  const servedMs = performance.now() - beganMs;
  const reportedMs = await untilReported(world, fates, WELL_TIMEOUT_MS);
  return { served_within: ms(servedMs), reported_within: ms(reportedMs) };
}

async function jumpClocks(world: World, shop: FaultShop, params: Params, fates: Fate[]): Promise<void> {
  const rows: Figures[] = [];
  const load = new Load({ world, shops: [shop], clients: params.clients, random: seeded(4), everyMs: 50 });
  for (const jump of JUMPS) {
    const { part, number, offsetMs } = jump;
    const which = part === "node" ? world.nodes[number]!.part : world.system.replicas[number]!;
    await which.setClock(offsetMs);
    await world.pause(params.afterJumpMs);
    const well = await checkWell(world, shop);
    rows.push({ jump: describe(jump), ...well });
    world.run.progress(`${describe(jump)}: served within ${well["served_within"]}`);
  }
  fates.push(...(await load.stop()));
  world.run.figures("clock jumps under load", rows);
}

/** Asks as fast as it goes until nobody is served, on all nodes but the frozen one. */
async function exhaust(world: World, shop: FaultShop, params: Params, fates: Fate[]): Promise<void> {
  const random = seeded(7);
  const nodes = world.nodes.filter((_, i) => i !== FROZEN);
  for (;;) {
    world.run.signal.throwIfAborted();
    const round = await Promise.all(
      Array.from({ length: params.clients }, (_, i) => askMixed(nodes[i % nodes.length]!, shop, random)),
    );
    fates.push(...round);
    if (round.every(({ code }) => code === "insufficient_quota")) return;
  }
}

/**
 * One node holds a lease and freezes. The others drain the rest, while the clock of one replica is an hour ahead, which
 * must not make it think that the lease is over. Then the node wakes up and goes on spending.
 */
async function freeze(world: World, shop: FaultShop, params: Params, fates: Fate[]): Promise<void> {
  const node = world.nodes[FROZEN]!;
  for (let i = 0; i < 3; i++) fates.push(await askSmall(node, shop));
  node.part.pause();
  const beganMs = performance.now();
  await world.system.replicas[0]!.setClock(HOUR_MS);
  const { url } = node;
  const { key, veId, model } = shop;
  const timeoutMs = params.frozenMs + 60_000;
  const waiting = Array.from({ length: params.waiting }, (_, i) =>
    ask({ url, key, veId, model, stream: i % 2 === 0, words: 5, maxTokens: 20, timeoutMs }),
  );
  await exhaust(world, shop, params, fates);
  const exhaustedMs = performance.now() - beganMs;
  await world.pause(Math.max(0, params.frozenMs - exhaustedMs));
  // Whatever came free meanwhile is asked for too.
  await exhaust(world, shop, params, fates);
  node.part.resume();
  const awake = await Promise.all(waiting);
  fates.push(...awake);
  await world.system.replicas[0]!.setClock(0);
  // Awake again, it is asked for what it holds like any other.
  const rest = await takeAll({ world, shop, node: world.nodes[0]!, dead: [], fates });
  const counts = countFates(awake);
  world.run.figures("a frozen node", [
    { frozen: ms(params.frozenMs), rest_drained_after: ms(exhaustedMs), served_after_that: rest.length, ...counts },
  ]);
}

async function runClocks(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: 3, preloads: [CLOCK] }, async (world) => {
    const fates: Fate[] = [];
    const models = { upstreamModels: MIXED_MODELS, maxOutputTokens: MIXED_OUTPUT_MAX };
    const ample = await world.openShop({ tokens: 1_000_000_000n, ...models });
    for (let round = 1; round <= params.rounds; round++) {
      await jumpClocks(world, ample, params, fates);
      const strict = { strict: true, budgetMode: BudgetMode.STRICT };
      const shop = await world.openShop({ tokens: params.strictTokens, ...strict, ...models });
      await freeze(world, shop, params, fates);
    }
    const phantoms = fates.filter(({ veId, code }) => veId === ample.veId && code === "insufficient_quota");
    assert.equal(phantoms.length, 0, `an ample wallet was refused: ${JSON.stringify(phantoms.slice(0, 3))}`);
    await closeBooks(world, fates, { clients: params.clients + params.waiting });
  });
}

export const clocks = defineScenario<Params>({
  name: "clocks",
  title: "clocks of nodes and replicas jump by an hour; a node freezes while others drain its wallet",
  short: { clients: 12, afterJumpMs: 300, frozenMs: 15_000, waiting: 10, strictTokens: 10_000n, rounds: 1 },
  long: { clients: 24, afterJumpMs: 20_000, frozenMs: 60_000, waiting: 20, strictTokens: 100_000n, rounds: 3 },
  run: runClocks,
});
