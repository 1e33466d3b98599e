/** SIGTERM to a node: what ends within DRAIN_MS ends whole, what does not is told so, and both are billed. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Outcome, type TokenBill } from "../../clients/ts/src/index.ts";
import { auditDeep, sumOf, untilLogged } from "../support/books.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";
import { SENTENCE_WORDS } from "../support/upstream_answers.ts";

const DRAIN_MS = 4_000;
const messages = [{ role: "user" as const, content: "one two three" }];
let system: System;
let upstream: Upstream;
let tb: TokenBill;
let ending: Shop;
let endless: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ env: { DRAIN_MS: String(DRAIN_MS) } });
  tb = await system.api();
  ending = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: ["ending"] });
  endless = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: ["endless"] });
  for (const shop of [ending, endless]) await untilServed(system.node, shop);
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

/** A stream that has begun, with its id, and its whole text or the code of the error that it ended with. */
async function begin(shop: Shop, upstreamModel: string): Promise<{ id: string; end: Promise<string> }> {
  upstream.behave(upstreamModel, { hold: true });
  upstream.release(upstreamModel, 5);
  const { data, response } = await system.node
    .openai(shop.key, { maxRetries: 0 })
    .chat.completions.create({ model: shop.model, messages, stream: true })
    .withResponse();
  const read = async (): Promise<string> => {
    let text = "";
    for await (const chunk of data) text += chunk.choices[0]?.delta.content ?? "";
    return text;
  };
  return { id: response.headers.get("x-request-id")!, end: read().catch((error: { code: string }) => error.code) };
}

test("live streams have DRAIN_MS", async () => {
  const whole = await begin(ending, "ending");
  const cut = await begin(endless, "endless");
  const beganMs = performance.now();
  const stopped = system.node.part.stop();
  // Well after the signal, and well before the end of the time.
  setTimeout(() => upstream.release("ending"), DRAIN_MS / 4);
  expect(await whole.end).toBe(SENTENCE_WORDS.join(" "));
  expect(await cut.end).toBe("shutting_down");
  expect(performance.now() - beganMs).toBeGreaterThanOrEqual(DRAIN_MS);
  await stopped;

  for (const [shop, { id }, outcome] of [
    [ending, whole, Outcome.COMPLETED],
    [endless, cut, Outcome.UPSTREAM_CUT],
  ] as const) {
    const log = await untilLogged(tb, shop.veId, [id]);
    expect(log).toMatchObject([{ id, outcome }]);
    const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
    expect(wallet).toMatchObject({ settled: sumOf(log), escrowed: "0", debt: "0" });
    expect(sumOf(log)).not.toBe("0");
  }
  await auditDeep(await system.api("operator"));
});
