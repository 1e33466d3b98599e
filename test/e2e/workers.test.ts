/** Several worker processes on one port: one address, one wallet, nothing lost. */

import { afterAll, beforeAll, expect, test } from "vitest";
import type { TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const PICO_PER_TOKEN = 50_000_000n;
const REQUESTS = 60;
let system: System;
let upstream: Upstream;
let tb: TokenBill;
let shop: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ env: { DATA_PLANE_WORKERS: "2" } });
  tb = await system.api();
  shop = await openShop(tb, { upstreamUrl: upstream.url });
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

test("two workers serve one port and one wallet, exactly", async () => {
  // Each connection may meet the other worker: all of them must know the shop.
  for (let i = 0; i < 20; i++) await untilServed(system.node, shop);
  const messages = [{ role: "user" as const, content: "one two three" }];
  let tokens = 0;
  await Promise.all(
    Array.from({ length: REQUESTS }, async () => {
      const answer = await system.node.openai(shop.key).chat.completions.create({ model: shop.model, messages });
      tokens += answer.usage!.total_tokens;
    }),
  );
  const cost = BigInt(tokens) * PICO_PER_TOKEN;
  await until("all usage is reported", async () => {
    const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
    return parseCredits(wallet!.settled) >= cost;
  });
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  expect(wallet!.settled).toBe(formatCredits(cost));
  const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
  expect(requests).toHaveLength(REQUESTS);
  expect(new Set(requests.map((request) => request.nodeId)).size, "both workers served").toBe(2);
});

test("a clean stop reports what all workers served, and gives their leases back", async () => {
  const messages = [{ role: "user" as const, content: "one" }];
  const client = system.node.openai(shop.key);
  await client.chat.completions.create({ model: shop.model, messages });
  await system.node.part.stop();
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
  expect(wallet!.settled).toBe(
    formatCredits(requests.reduce((sum, request) => sum + parseCredits(request.credits), 0n)),
  );
  expect(requests).toHaveLength(REQUESTS + 1);
  expect(wallet!.escrowed).toBe("0");
});
