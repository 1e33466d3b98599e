/** Limits of Physical Models over two nodes and one control plane. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RateLimitError } from "openai";
import { AttemptResult, type TokenBill, UnitKind } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const PICO_PER_TOKEN = 50_000_000n;
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

/** A shop whose first model has a limit, known to both nodes. */
async function openLimited(limit: { requests?: bigint; credits?: string }, models = 2): Promise<Shop> {
  const upstreamModels = Array.from({ length: models }, () => "simulated-model");
  const shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels });
  const [limited, ...others] = shop.physicalModelIds;
  const { logicalModels } = await tb.logicalModels.listLogicalModels({ veId: shop.veId });
  // The limited one first; the others behind it.
  await tb.logicalModels.updateLogicalModel({
    id: logicalModels[0]!.id,
    targets: {
      targets: [
        { physicalModelId: limited!, tier: 0, weight: 1 },
        ...others.map((physicalModelId) => ({ physicalModelId, tier: 1, weight: 1 })),
      ],
    },
  });
  await setLimit(shop, limit);
  for (const node of system.nodes) await untilServed(node, shop);
  return shop;
}

async function setLimit(shop: Shop, { requests, credits }: { requests?: bigint; credits?: string }): Promise<void> {
  const id = shop.physicalModelIds[0]!;
  if (requests !== undefined)
    await tb.providers.updatePhysicalModel({ id, unitLimit: { unit: UnitKind.REQUESTS, quantity: requests } });
  if (credits !== undefined) await tb.providers.updatePhysicalModel({ id, creditLimit: { credits } });
}

async function used(shop: Shop): Promise<string> {
  const { physicalModel } = await tb.providers.getPhysicalModel({ id: shop.physicalModelIds[0]! });
  return physicalModel!.limitStates[0]!.used;
}

function ask(shop: Shop, n: number, stream = false): Promise<unknown> {
  const client = system.nodes[n % 2]!.openai(shop.key, { maxRetries: 0 });
  if (!stream) return client.chat.completions.create({ model: shop.model, messages });
  return client.chat.completions.create({ model: shop.model, messages, stream: true }).then(async (chunks) => {
    for await (const _ of chunks);
  });
}

/** Asks until every request of `count` is in the request log. */
async function requestsOf(shop: Shop, count: number) {
  return until("every request is reported", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
    return requests.length === count && requests;
  });
}

/** Nodes hear of a limit with the feed, a moment after it is set: requests before that would not count for them. */
async function untilLimited(shop: Shop): Promise<void> {
  for (const node of system.nodes) {
    await until("the node knows the limit", async () => {
      const error = await node
        .openai(shop.key, { maxRetries: 0 })
        .chat.completions.create({ model: shop.model, messages })
        .catch((refused: unknown) => refused);
      return error instanceof RateLimitError;
    });
  }
}

describe("a Unit Limit", () => {
  test("of requests is kept to the last one over all nodes, and the cascade goes on", async () => {
    const shop = await openLimited({ requests: 1n });
    let asked = 0;
    const burst = async (count: number) => {
      await Promise.all(Array.from({ length: count }, (_, n) => ask(shop, n, n % 3 === 0)));
      asked += count;
      return (await requestsOf(shop, asked)).slice(0, count);
    };
    const isLimited = ({ physicalModelId }: { physicalModelId: string }): boolean =>
      physicalModelId === shop.physicalModelIds[0];
    // Until both nodes have heard of the limit, it is not kept.
    await until("both nodes pass it over", async () => !(await burst(2)).some(isLimited));
    const before = BigInt(await used(shop));
    await setLimit(shop, { requests: before + 20n });
    const requests: Awaited<ReturnType<typeof burst>> = [];
    // One burst may leave the last one over, while parts of it are with either node.
    await until("all of it is used", async () => {
      requests.push(...(await burst(30)));
      return requests.filter(isLimited).length >= 20;
    });
    requests.push(...(await burst(10)));
    expect(requests.filter(isLimited)).toHaveLength(20);
    expect(await used(shop)).toBe(String(before + 20n));
    for (const { attempts } of requests.filter((request) => !isLimited(request))) {
      expect(attempts.map(({ result }) => result)).toEqual([AttemptResult.LIMIT_REACHED, AttemptResult.SERVED]);
    }
  });

  test("with nothing behind it is told as a rate limit, and raised it serves at once on every node", async () => {
    const shop = await openLimited({ requests: 1n }, 1);
    await untilLimited(shop);
    const refused = await ask(shop, 0).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(RateLimitError);
    expect(refused).toMatchObject({ status: 429, type: "rate_limit_error", code: "model_limit_reached" });
    expect((refused as RateLimitError).headers.get("x-should-retry")).toBe("false");
    await setLimit(shop, { requests: 1_000n });
    await Promise.all(system.nodes.map((_, n) => until("it serves again", () => ask(shop, n).catch(() => undefined))));
  });
});

test("a Credit Limit is used to its end, and no more beyond it than live requests use", async () => {
  const shop = await openLimited({ credits: "0.1" }, 1);
  const clients = 12;
  const limit = parseCredits("0.1");
  // What is left in the end is too little for the input of one more request, at one token for each byte. Refusals before
  // that are told to come again in a second: part of it was held by others, or was with the other node.
  await until("it is reached for everybody, to its end", async () => {
    const fates = await Promise.allSettled(Array.from({ length: clients }, (_, n) => ask(shop, n)));
    const refused = fates.filter(({ status }) => status === "rejected").length;
    return refused === clients && parseCredits(await used(shop)) > limit - 100n * PICO_PER_TOKEN;
  });
  const { sum, most } = await until("all of it is counted", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
    const costs = requests.map(({ credits }) => parseCredits(credits));
    const total = costs.reduce((a, b) => a + b, 0n);
    const largest = costs.reduce((a, b) => (a > b ? a : b), 0n);
    return (await used(shop)) === formatCredits(total) && { sum: total, most: largest };
  });
  expect(sum).toBeLessThanOrEqual(limit + BigInt(clients) * most);
});
