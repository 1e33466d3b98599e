/** Twenty clients burst a nearly empty wallet through two nodes: what is overspent stays within the stated bound. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { BudgetMode, type TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const PICO_PER_TOKEN = 50_000_000n;
const CLIENTS = 20;
const SLICE_TOKENS = 256n;
/** The whole wallet: 1200 tokens, less than four of these answers. */
const BUDGET = "0.06";
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

/** What happened to one client: tokens it was sent as content, and the code of the error it got, if any. */
interface Fate {
  readonly words: number;
  readonly code: string | undefined;
}

async function ask(shop: Shop, i: number, stream: boolean): Promise<Fate> {
  const client = system.nodes[i % 2]!.openai(shop.key, { maxRetries: 0 });
  let words = 0;
  try {
    if (!stream) {
      const answer = await client.chat.completions.create({ model: shop.model, messages });
      return { words: answer.usage!.completion_tokens, code: undefined };
    }
    for await (const chunk of await client.chat.completions.create({ model: shop.model, messages, stream: true })) {
      if (chunk.choices[0]?.delta.content) words++;
    }
    return { words, code: undefined };
  } catch (error) {
    return { words, code: (error as { code?: string }).code ?? String(error) };
  }
}

/** Bursts until everybody is refused, then returns the wallet when all is reported. */
async function burst(shop: Shop, stream: boolean) {
  const fates: Fate[] = [];
  await until("the wallet is empty for everybody", async () => {
    const round = await Promise.all(Array.from({ length: CLIENTS }, (_, i) => ask(shop, i, stream)));
    fates.push(...round);
    return round.every((fate) => fate.code === "insufficient_quota" && fate.words === 0);
  });
  const wallet = await until("every request is reported", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
    const sum = requests.reduce((total, request) => total + parseCredits(request.credits), 0n);
    const answer = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
    const served = fates.filter((fate) => fate.words > 0).length;
    return (
      requests.filter((request) => request.credits !== "0").length >= served &&
      answer.wallet!.settled === formatCredits(sum) &&
      answer.wallet
    );
  });
  return { fates, wallet };
}

test.each([
  ["streams", true],
  ["JSON", false],
])("BALANCED, %s: at most one slice for each live request", async (_, stream) => {
  const shop = await openShop(tb, {
    upstreamUrl: upstream.url,
    upstreamModels: ["long~words=400"],
    creditBudget: BUDGET,
  });
  for (const node of system.nodes) await untilServed(node, shop);
  const { fates, wallet } = await burst(shop, stream);
  expect(
    fates.some((fate) => fate.words > 0),
    "somebody was served",
  ).toBe(true);
  const overspent = parseCredits(wallet.settled) - parseCredits(BUDGET);
  expect(overspent).toBeLessThanOrEqual(BigInt(CLIENTS) * SLICE_TOKENS * PICO_PER_TOKEN);
});

test.each([
  ["streams", true],
  ["JSON", false],
])("STRICT, %s: nothing is overspent", async (_, stream) => {
  const shop = await openShop(tb, {
    upstreamUrl: upstream.url,
    upstreamModels: ["long~words=400"],
    creditBudget: BUDGET,
    budgetMode: BudgetMode.STRICT,
    maxOutputTokens: 1000,
  });
  for (const node of system.nodes) await untilServed(node, shop);
  const { fates, wallet } = await burst(shop, stream);
  expect(
    fates.some((fate) => fate.words > 0),
    "somebody was served",
  ).toBe(true);
  expect(parseCredits(wallet.settled)).toBeLessThanOrEqual(parseCredits(BUDGET));
  expect(wallet.debt).toBe("0");
});
