/** What one node learns of an upstream the hard way, the others need not. */

import { afterAll, beforeAll, expect, test } from "vitest";
import type { TokenBill } from "../../clients/ts/src/index.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { type DataPlaneNode, System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const SHARED_MS_MAX = 1_000;
const DEAD = "dead-model";
const messages = [{ role: "user" as const, content: "one two three" }];

let system: System;
let upstream: Upstream;
let tb: TokenBill;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ nodes: 2 });
  tb = await system.api();
});
afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

/** Half of the requests would go to the dead model first. */
async function openHalfDead(status: number): Promise<Shop> {
  upstream.behave(DEAD, { status });
  const shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: [DEAD, "well-model"] });
  for (const node of system.nodes) await untilServed(node, shop);
  return shop;
}

function deadCalls(): number {
  return upstream.calls.filter(({ model }) => model === DEAD).length;
}

/** Every request is served, whatever its first target does. */
async function ask(node: DataPlaneNode, shop: Shop): Promise<void> {
  const client = node.openai(shop.key, { maxRetries: 0 });
  const answer = await client.chat.completions.create({ model: shop.model, messages });
  expect(answer.model).not.toBe("");
}

async function cooling(node: DataPlaneNode): Promise<number> {
  const response = await fetch(`http://${node.address}/metrics`);
  const text = await response.text();
  return Number(/^tokenbill_node_cooling_physical_models (\d+)$/m.exec(text)?.[1]);
}

test("a model that is dead for one node is passed over by the other within a second, and tried again later", async () => {
  const shop = await openHalfDead(500);
  const [first, second] = system.nodes;
  // Until it cools down there: three failures in a row.
  await until("the first node passes the dead model over", async () => {
    await ask(first!, shop);
    return (await cooling(first!)) === 1;
  });
  await until("the second node knows", async () => (await cooling(second!)) === 1, SHARED_MS_MAX);
  const before = deadCalls();
  expect(before).toBe(3);
  for (let i = 0; i < 20; i++) await ask(second!, shop);
  expect(deadCalls()).toBe(before);

  // Well again, it is found out by the trial of one node, and both use it.
  upstream.behave(DEAD);
  for (const [i, node] of system.nodes.entries()) {
    await until(`node ${i + 1} uses it again`, async () => {
      await ask(node, shop);
      return (await cooling(node)) === 0;
    });
  }
  expect(deadCalls()).toBeGreaterThan(before);
});
