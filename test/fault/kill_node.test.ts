/** kill -9 of a node under load: every answer that a client got whole is in the ledger once after the restart. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Outcome, paginate, type RequestRecord, type TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { postgresUrl } from "../support/postgres.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { type DataPlaneNode, System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const PICO_PER_TOKEN = 50_000_000n;
const CLIENTS = 16;
const ANSWERS_BEFORE_KILL = 120;
const messages = [{ role: "user" as const, content: "one two three" }];
let system: System;
let upstream: Upstream;
let tb: TokenBill;
let shop: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ databaseUrl: await postgresUrl() });
  tb = await system.api();
  shop = await openShop(tb, { upstreamUrl: upstream.url, creditBudget: "1000" });
  await untilServed(system.node, shop);
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

/** Request ids (the client's `x-request-id`) of whole answers, with their tokens. */
type Answered = Map<string, number>;

/** Asks until the node is gone, streams and JSON in turn; notes only answers that came whole. */
async function hammer(node: DataPlaneNode, answered: Answered): Promise<void> {
  const client = node.openai(shop.key, { maxRetries: 0 });
  for (let i = 0; ; i++) {
    try {
      if (i % 2 === 0) {
        const { data, response } = await client.chat.completions.create({ model: shop.model, messages }).withResponse();
        answered.set(response.headers.get("x-request-id")!, data.usage!.total_tokens);
      } else {
        const { data, response } = await client.chat.completions
          .create({ model: shop.model, messages, stream: true, stream_options: { include_usage: true } })
          .withResponse();
        let tokens = 0;
        for await (const chunk of data) tokens += chunk.usage?.total_tokens ?? 0;
        // The loop ends well only after `[DONE]`: the answer came whole.
        if (tokens > 0) answered.set(response.headers.get("x-request-id")!, tokens);
      }
    } catch {
      if (!node.part.running) return;
    }
  }
}

async function allRequests(): Promise<RequestRecord[]> {
  const filter = { veId: shop.veId };
  const all: RequestRecord[] = [];
  for await (const request of paginate(
    (pageToken) => tb.usage.listRequests({ filter, pageToken, pageSize: 1000 }),
    (page) => page.requests,
  )) {
    all.push(request);
  }
  return all;
}

test("every completed answer is billed once, and the books agree", async () => {
  const { node } = system;
  const answered: Answered = new Map();
  const clients = Array.from({ length: CLIENTS }, () => hammer(node, answered));
  await until("there is load", async () => answered.size >= ANSWERS_BEFORE_KILL);
  await node.part.kill();
  await Promise.all(clients);

  const again = await system.startNode({ home: node.home });
  const requests = await until("the journal of the dead run is in the ledger", async () => {
    const all = await allRequests();
    const ids = new Set(all.map((request) => request.id));
    return [...answered.keys()].every((id) => ids.has(id)) && all;
  });

  expect(new Set(requests.map((request) => request.id)).size, "nothing twice").toBe(requests.length);
  const byId = new Map(requests.map((request) => [request.id, request]));
  for (const [id, tokens] of answered) {
    const request = byId.get(id)!;
    expect(request.outcome, id).toBe(Outcome.COMPLETED);
    expect(request.credits, id).toBe(formatCredits(BigInt(tokens) * PICO_PER_TOKEN));
  }
  const sum = requests.reduce((total, request) => total + parseCredits(request.credits), 0n);
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  expect(wallet!.settled).toBe(formatCredits(sum));
  let transferred = 0n;
  for await (const transfer of paginate(
    (pageToken) => tb.usage.listTransfers({ veId: shop.veId, pageToken, pageSize: 1000 }),
    (page) => page.transfers,
  )) {
    if (transfer.creditAccount === "usage") transferred += parseCredits(transfer.credits);
  }
  expect(formatCredits(transferred)).toBe(formatCredits(sum));

  const answer = await again.openai(shop.key).chat.completions.create({ model: shop.model, messages });
  expect(answer.choices).toHaveLength(1);
});

test("a stream that the crash cut is billed from its last progress note, as an estimate", async () => {
  const node = system.nodes.at(-1)!;
  const held = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: ["held"] });
  upstream.behave("held", { hold: true, words: 40 });
  await untilServed(node, held);
  upstream.release("held", 10);
  const stream = await node.openai(held.key).chat.completions.create({ model: held.model, messages, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  for (let i = 0; i < 10; i++) expect((await chunks.next()).value!.choices[0]!.delta.content).toBeTruthy();
  // The progress note is written within a second; one more chunk after it shows that the second has passed.
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  upstream.release("held", 1);
  await chunks.next();
  await node.part.kill();
  await chunks.next().catch(() => {});
  await system.startNode({ home: node.home });
  const record = await until("the cut stream is in the ledger", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: held.veId } });
    return requests[0];
  });
  expect(record.outcome).toBe(Outcome.NODE_CRASHED);
  expect(parseCredits(record.credits)).toBeGreaterThan(0n);
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: held.veId });
  expect(wallet!.settled).toBe(record.credits);
});
