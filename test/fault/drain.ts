/** Many clients drain one wallet through many nodes at once, to the last Credit; then it is filled up again. */

import assert from "node:assert/strict";
import { BudgetMode } from "../../clients/ts/src/index.ts";
import { type Credits, formatCredits } from "../../core/credits.ts";
import { closeBooks, readWallet, SLICE_TOKENS, untilReported } from "./books.ts";
import type { Fate } from "./client.ts";
import { askMixed, askSmall, countFates, leastNeed, MIXED_MODELS, MIXED_OUTPUT_MAX } from "./load.ts";
import { defineScenario, ms, type Run, seeded, spreadOf } from "./scenario.ts";
import { UNKNOWN } from "./taking.ts";
import { creditsOf, type FaultShop, PICO_PER_TOKEN, World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly clients: number;
  /** The whole wallet. */
  readonly tokens: bigint;
  readonly topUps: number;
}

const ROUNDS_MAX = 60;
const REST_MAX = 100;
/** From a top-up to the first answer; noisy machines are slow now and then, so the middle one is held to it. */
const TOP_UP_MEDIAN_MS = 1_000;
const TOP_UP_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
/** 429: the wallet is empty. 503: so many ask for the last Credits that a node did not get an answer within two seconds. */
const REFUSALS = new Set(["insufficient_quota", UNKNOWN]);

async function remainingOf(world: World, shop: FaultShop): Promise<Credits> {
  const { purchased, settled, debt } = await readWallet(world, shop);
  return purchased + debt - settled;
}

/** What was spent beyond what was put in, before anybody puts in more. @throws when it is more than is promised */
async function overspentOf(world: World, shop: FaultShop, clients: number): Promise<Credits> {
  const { purchased, settled } = await readWallet(world, shop);
  const overspent = settled > purchased ? settled - purchased : 0n;
  const allowed = shop.strict ? 0n : BigInt(clients) * SLICE_TOKENS * PICO_PER_TOKEN;
  assert.ok(overspent <= allowed, `overspent ${formatCredits(overspent)} of ${formatCredits(allowed)}`);
  return overspent;
}

/** Rounds of all clients at once until nobody is served. Returns what everybody was given. */
async function drainWallet(world: World, shop: FaultShop, params: Params, random: () => number): Promise<Fate[]> {
  const fates: Fate[] = [];
  for (let round = 1; round <= ROUNDS_MAX; round++) {
    world.run.signal.throwIfAborted();
    const asked = Array.from({ length: params.clients }, (_, i) =>
      askMixed(world.nodes[i % world.nodes.length]!, shop, random),
    );
    const now = await Promise.all(asked);
    fates.push(...now);
    const served = now.filter(({ status }) => status === 200).length;
    world.run.progress(`${shop.strict ? "STRICT" : "BALANCED"} round ${round}: ${served} of ${now.length} served`);
    // Some may not have got an answer from the control plane in time: then it is not known yet.
    if (now.every(({ code }) => code === "insufficient_quota")) return fates;
  }
  throw new Error(`the wallet was not empty after ${ROUNDS_MAX} rounds`);
}

/** One request after the other, from all nodes in turn, while the wallet covers one: each must be admitted. */
async function drainRest(world: World, shop: FaultShop, fates: Fate[]): Promise<void> {
  const need = leastNeed(shop);
  for (let n = 0; n < REST_MAX; n++) {
    await untilReported(world, fates);
    const left = await remainingOf(world, shop);
    const fate = await askSmall(world.nodes[n % world.nodes.length]!, shop);
    fates.push(fate);
    if (fate.code === UNKNOWN) continue;
    if (left < need) return;
    assert.equal(
      fate.status,
      200,
      `${formatCredits(left)} are left, ${formatCredits(need)} are enough, and a request got ${fate.code}`,
    );
  }
  throw new Error(`${REST_MAX} small requests did not empty the wallet`);
}

/** Fills the empty wallet up, and measures until each node serves again. */
async function topUp(world: World, shop: FaultShop, tokens: bigint, fates: Fate[]): Promise<number[]> {
  await world.tb.virtualEndpoints.adjustCredits({ veId: shop.veId, credits: creditsOf(tokens), reason: "top-up" });
  const beganMs = performance.now();
  return Promise.all(
    world.nodes.map(async (node) => {
      await world.until(
        "a node serves after the top-up",
        async () => {
          const fate = await askSmall(node, shop);
          fates.push(fate);
          if (fate.status !== 200) await world.pause(POLL_MS);
          return fate.status === 200;
        },
        TOP_UP_TIMEOUT_MS,
      );
      return performance.now() - beganMs;
    }),
  );
}

async function drainShop(world: World, shop: FaultShop, params: Params, seed: number) {
  const random = seeded(seed);
  const fates = await drainWallet(world, shop, params, random);
  const counts = countFates(fates);
  await untilReported(world, fates);
  const left = await remainingOf(world, shop);
  await drainRest(world, shop, fates);
  const overspent = await overspentOf(world, shop, params.clients);
  const waits: number[] = [];
  for (let i = 0; i < params.topUps; i++) {
    // Less than a round needs, so that the wallet is empty again and nodes know it.
    if (i > 0) fates.push(...(await drainWallet(world, shop, params, random)));
    waits.push(...(await topUp(world, shop, BigInt(world.nodes.length) * 2_000n, fates)));
  }
  const { median, worst } = spreadOf(waits);
  world.run.figures(`${shop.strict ? "STRICT" : "BALANCED"}: ${params.clients} at once, ${params.nodes} nodes`, [
    {
      ...counts,
      left_when_refused: formatCredits(left),
      overspent: formatCredits(overspent),
      topup_median: ms(median),
      topup_worst: ms(worst),
    },
  ]);
  const strangers = fates.filter(({ status, code }) => status !== 200 && !REFUSALS.has(code));
  assert.equal(strangers.length, 0, `refused for another reason: ${JSON.stringify(strangers.slice(0, 3))}`);
  assert.ok(median < TOP_UP_MEDIAN_MS, `a top-up was usable after ${ms(median)} in the middle, ${ms(worst)} at worst`);
  assert.ok(left < leastNeed(shop), `all were refused while ${formatCredits(left)} were there, held by no request`);
  return fates;
}

async function runDrain(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: params.nodes }, async (world) => {
    const fates: Fate[] = [];
    for (const budgetMode of [BudgetMode.STRICT, BudgetMode.BALANCED]) {
      const shop = await world.openShop({
        tokens: params.tokens,
        strict: budgetMode === BudgetMode.STRICT,
        budgetMode,
        upstreamModels: MIXED_MODELS,
        maxOutputTokens: MIXED_OUTPUT_MAX,
      });
      fates.push(...(await drainShop(world, shop, params, budgetMode)));
    }
    await closeBooks(world, fates, { clients: params.clients });
  });
}

export const drain = defineScenario<Params>({
  name: "drain",
  title: "500 clients drain one wallet through 8 nodes, STRICT and BALANCED; then it is topped up",
  short: { nodes: 8, clients: 500, tokens: 20_000n, topUps: 1 },
  long: { nodes: 8, clients: 500, tokens: 1_000_000n, topUps: 5 },
  run: runDrain,
});
