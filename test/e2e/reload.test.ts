/** Reloads under constant traffic of every kind of client: nobody is refused, reset or cut, and everything is billed once. */

import { Agent, request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import type OpenAI from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits } from "../../core/credits.ts";
import { auditDeep, sumOf, untilLogged } from "../support/books.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { type DataPlaneNode, System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const PICO_PER_TOKEN = 50_000_000n;
const RELOADS = 2;
/** Between an answer and the next request of a client, at most: kept connections are used again at all ages. */
const REST_MS_MAX = 100;
/** A stream of the slow model is longer than most reloads. */
const MODELS = ["quick~words=5", "slow~words=60~chunkDelayMs=40"];
let system: System;
let upstream: Upstream;
let tb: TokenBill;
let shop: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0", record: false });
  system = await System.start({ nodes: 0, env: { LOG_LEVEL: "info", DRAIN_MS: "20000" } });
  for (const workers of ["2", "1"]) await system.startNode({ env: { DATA_PLANE_WORKERS: workers } });
  tb = await system.api();
  shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: MODELS, creditBudget: "1000" });
  for (const node of system.nodes) for (let i = 0; i < 10; i++) await untilServed(node, shop);
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

const messages = [{ role: "user" as const, content: "one two three" }];

interface Answered {
  /** Tokens of each whole answer, by its request id. */
  readonly tokens: Map<string, number>;
  readonly problems: string[];
}

/** Over a connection of its own, or a kept one, without any second try. */
function askPlain(node: DataPlaneNode, agent: Agent, answered: Answered): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const headers = { authorization: `Bearer ${shop.key}`, "content-type": "application/json" };
  const call = request(`${node.url}/chat/completions`, { method: "POST", agent, headers });
  call.on("error", (error) => {
    answered.problems.push(String(error));
    resolve();
  });
  call.on("response", (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (part: string) => (text += part));
    response.on("error", () => undefined);
    response.on("close", () => {
      if (response.statusCode !== 200 || !response.complete) answered.problems.push(`${response.statusCode}: ${text}`);
      else answered.tokens.set(String(response.headers["x-request-id"]), JSON.parse(text).usage.total_tokens);
      resolve();
    });
  });
  call.end(JSON.stringify({ model: shop.model, messages }));
  return promise;
}

async function askStream(client: OpenAI, answered: Answered): Promise<void> {
  try {
    const { data, response } = await client.chat.completions
      .create({ model: shop.model, messages, stream: true, stream_options: { include_usage: true } })
      .withResponse();
    let tokens = 0;
    for await (const chunk of data) tokens += chunk.usage?.total_tokens ?? 0;
    if (tokens === 0) answered.problems.push("a stream ended without its usage");
    answered.tokens.set(response.headers.get("x-request-id")!, tokens);
  } catch (error) {
    answered.problems.push(`stream: ${error} ${(error as Error).cause}`);
  }
}

async function askJson(client: OpenAI, answered: Answered): Promise<void> {
  try {
    const { data, response } = await client.chat.completions.create({ model: shop.model, messages }).withResponse();
    answered.tokens.set(response.headers.get("x-request-id")!, data.usage!.total_tokens);
  } catch (error) {
    answered.problems.push(`json: ${error} ${(error as Error).cause}`);
  }
}

async function reload(node: DataPlaneNode): Promise<void> {
  const count = (): number => node.part.log.split("all workers were replaced").length;
  const before = count();
  node.part.process.kill("SIGHUP");
  await until("the workers were replaced", async () => count() > before, 60_000);
}

test("plain HTTP and the official SDK notice nothing of reloads", { timeout: 180_000 }, async () => {
  const answered: Answered = { tokens: new Map(), problems: [] };
  const agents = [new Agent(), new Agent({ keepAlive: true })];
  let stopped = false;
  const repeat = async (ask: () => Promise<void>): Promise<void> => {
    while (!stopped && answered.problems.length < 20) {
      await ask();
      await delay(Math.random() * REST_MS_MAX);
    }
  };
  const clients = system.nodes.flatMap((node) => {
    const client = node.openai(shop.key, { maxRetries: 0 });
    return [
      ...agents.flatMap((agent) => [0, 1].map(() => repeat(() => askPlain(node, agent, answered)))),
      ...[0, 1, 2].map(() => repeat(() => askStream(client, answered))),
      repeat(() => askJson(client, answered)),
    ];
  });
  for (let i = 0; i < RELOADS; i++) await Promise.all(system.nodes.map(reload));
  stopped = true;
  await Promise.all(clients);
  for (const agent of agents) agent.destroy();

  expect(answered.problems).toEqual([]);
  expect(answered.tokens.size).toBeGreaterThan(50);
  const log = await untilLogged(tb, shop.veId, answered.tokens.keys());
  expect(log).toHaveLength(answered.tokens.size);
  for (const { id, credits } of log)
    expect(credits, id).toBe(formatCredits(BigInt(answered.tokens.get(id)!) * PICO_PER_TOKEN));
  for (const node of system.nodes) await node.part.stop();
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  expect(wallet).toMatchObject({ settled: sumOf(log), escrowed: "0", debt: "0" });
  await auditDeep(await system.api("operator"));
});
