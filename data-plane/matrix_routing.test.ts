/** Requests that pass from one upstream format to another, and what no upstream is asked at all. */

import { generateText } from "ai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import OpenAI from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { CHECKOUT, type Gateway, type GatewayOptions, KEY } from "./testing.ts";
import { anthropic, CLIENTS, openAi } from "./testing_clients.ts";
import { type FormatName, imitate, type Imitation, refuses, says } from "./testing_formats.ts";
import { checkScenario, creditsOf, gatewayTo, SCENARIOS } from "./testing_matrix.ts";
import type { Turn } from "./testing_turns.ts";

let gateway: Gateway;
let imitations: Imitation[] = [];

async function start(formats: readonly FormatName[], options: GatewayOptions = {}): Promise<void> {
  imitations = await Promise.all(formats.map((format) => imitate(format)));
  gateway = await gatewayTo(imitations, options);
}

afterEach(async () => {
  await gateway.close();
  await Promise.all(imitations.map((imitation) => imitation.close()));
  expect(imitations.flatMap(({ wrong }) => wrong)).toEqual([]);
});

const HELLO: Turn = {
  text: "Hello",
  finish: "stop",
  tokens: { input: 20, cached: 5, written: 0, output: 7, reasoning: 0 },
};
const HELLO_UNITS = [
  [1, 15],
  [2, 5],
  [4, 7],
  [11, 1],
] as const;
const ASK = { model: "gpt", messages: [{ role: "user" as const, content: "Hi" }] };

async function failure(promise: Promise<unknown>): Promise<Record<string, unknown> & Error> {
  try {
    await promise;
  } catch (error) {
    return error as Record<string, unknown> & Error;
  }
  throw new Error("it did not fail");
}

const PAIRS: readonly (readonly [FormatName, FormatName])[] = [
  ["anthropic", "openai"],
  ["converse", "responses"],
  ["responses", "converse"],
  ["azure", "anthropic"],
];

describe.each(PAIRS)("%s fails, and %s serves the same request", (first, second) => {
  test.each(CLIENTS)("$name", async (client) => {
    await start([first, second]);
    imitations[0]!.next(refuses(500, null, "down"));
    imitations[1]!.next(says(HELLO));
    const heard = await client.ask(gateway.url, KEY, { prompt: "Hi" });
    expect(heard).toMatchObject({ text: "Hello", usage: { input: 20, cached: 5, output: 7 } });
    expect(imitations.map(({ calls }) => calls.length)).toEqual([1, 1]);
    const record = gateway.journal.settlements[0]!;
    expect(record).toMatchObject({ physicalModelId: "pm_1", outcome: 1, credits: creditsOf(HELLO_UNITS) });
    expect(record.attempts.map(({ result, credits }) => [result, credits])).toEqual([
      [4, 0n],
      [1, creditsOf(HELLO_UNITS)],
    ]);
  });
});

describe("a slow upstream is hedged by one of another format", () => {
  test.each(CLIENTS.filter(({ stream, name }) => stream && !name.startsWith("ai ")))("$name", async (client) => {
    await start(["converse", "anthropic"], { routing: { hedgeAfterMs: 20 } });
    imitations[0]!.next(() => undefined);
    imitations[1]!.next(says(HELLO));
    expect(await client.ask(gateway.url, KEY, { prompt: "Hi" })).toMatchObject({ text: "Hello" });
    const record = gateway.journal.settlements[0]!;
    expect(record).toMatchObject({ physicalModelId: "pm_1", credits: creditsOf(HELLO_UNITS) });
    expect(record.attempts.map(({ kind, result }) => [kind, result])).toEqual([
      [1, 15],
      [4, 1],
    ]);
  });

  test("an upstream that had accepted the request and lost is billed for its input", async () => {
    await start(["converse", "openai"], { routing: { hedgeAfterMs: 20 } });
    imitations[0]!.next((response, _, { streamType }) => {
      // After the hedge began, which waits for a tick of the clock.
      setTimeout(() => response.writeHead(200, { "content-type": streamType }).flushHeaders(), 150);
    });
    imitations[1]!.next((response, call, wire) => setTimeout(() => says(HELLO)(response, call, wire), 300));
    const client = CLIENTS.find(({ name }) => name === "openai chat stream")!;
    expect(await client.ask(gateway.url, KEY, { prompt: "Hi" })).toMatchObject({ text: "Hello" });
    await gateway.journal.settled(2);
    const lost = gateway.journal.settlements.find(({ hedgeOf }) => hedgeOf !== undefined)!;
    expect(lost).toMatchObject({ physicalModelId: "pm_0", outcome: 9 });
    expect(lost.units.find(({ meter }) => meter === 1)!.quantity).toBeGreaterThan(0);
  });
});

describe("what a target cannot do", () => {
  test("passes over it where another can", async () => {
    await start(["anthropic", "openai"]);
    imitations[1]!.always(says(HELLO));
    await openAi(gateway.url, KEY).chat.completions.create({ ...ASK, n: 2 });
    expect(imitations.map(({ calls }) => calls.length)).toEqual([0, 1]);
    expect(imitations[1]!.calls[0]!.body["n"]).toBe(2);
    expect(gateway.journal.settlements[0]!.attempts.map(({ result, detail }) => [result, detail])).toEqual([
      [18, "n"],
      [1, ""],
    ]);
  });

  test.each(["anthropic", "converse", "responses"] as const)("is refused where %s is alone", async (format) => {
    await start([format]);
    const error = await failure(openAi(gateway.url, KEY).chat.completions.create({ ...ASK, n: 2 }));
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ status: 400, param: "n", type: "invalid_request_error" });
    expect(imitations[0]!.calls).toHaveLength(0);
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual([0n]);
  });

  test("and what the others could is tried, though they fail", async () => {
    await start(["anthropic", "openai"]);
    imitations[1]!.always(refuses(500, null, "down"));
    const error = await failure(openAi(gateway.url, KEY).chat.completions.create({ ...ASK, n: 2 }));
    expect(error["status"]).toBe(503);
  });

  test("a model with a price for images alone is none for chat", async () => {
    const price = {
      id: "price_images",
      kind: { case: "detailed", value: { meters: [{ meter: 8, creditPerUnit: "1", perUnits: 1n }] } },
    };
    await start(["openai"], { pms: [{ upstreamName: "gpt-4.1", price }] });
    const error = await failure(openAi(gateway.url, KEY).chat.completions.create(ASK));
    expect(error).toMatchObject({ status: 400, code: "unsupported_endpoint", param: "model" });
    const other = await failure(anthropic(gateway.url, KEY).messages.create({ ...ASK, max_tokens: 5 }));
    expect(other["status"]).toBe(400);
    expect(gateway.journal.settlements).toHaveLength(0);
  });
});

describe("an empty wallet", () => {
  test("is told with its link by every SDK, at every format", async () => {
    await start(["converse"]);
    gateway.budget.free = 0n;
    const chat = await failure(openAi(gateway.url, KEY).chat.completions.create({ ...ASK, stream: true }));
    expect(chat).toMatchObject({ status: 429, code: "insufficient_quota", error: { checkout_url: CHECKOUT } });
    const response = await failure(openAi(gateway.url, KEY).responses.create({ model: "gpt", input: "Hi" }));
    expect(response).toMatchObject({ status: 429, code: "insufficient_quota", error: { checkout_url: CHECKOUT } });
    const message = await failure(anthropic(gateway.url, KEY).messages.create({ ...ASK, max_tokens: 9 }));
    expect(message["error"]).toMatchObject({ error: { type: "billing_error", checkout_url: CHECKOUT } });
    const baseURL = `${gateway.url}/v1`;
    const models = [
      createOpenAI({ apiKey: KEY, baseURL }).chat("gpt"),
      createOpenAI({ apiKey: KEY, baseURL }).responses("gpt"),
      createAnthropic({ apiKey: KEY, baseURL })("gpt"),
    ];
    for (const model of models) {
      // It retries every 429, whatever the headers say.
      const error = await failure(generateText({ model, prompt: "Hi", maxRetries: 0 }));
      expect(error.message).toContain(CHECKOUT);
    }
    expect(imitations[0]!.calls).toHaveLength(0);
    expect(gateway.journal.settlements).toHaveLength(0);
  });

  test.each(["anthropic", "converse", "responses"] as const)("cuts a stream of %s with its link", async (format) => {
    await start([format]);
    const long: Turn = { ...HELLO, text: "word ".repeat(4000) };
    // Covers what is held at first, and not what comes.
    gateway.budget.free = 1_000_000_000_000n;
    imitations[0]!.always(says(long));
    for (const client of CLIENTS.filter(({ stream, name }) => stream && !name.startsWith("ai "))) {
      const before = gateway.journal.settlements.length;
      gateway.budget.free = 4_100_000_000_000n;
      const error = await failure(client.ask(gateway.url, KEY, { prompt: "Go on" }));
      expect(error.message).toContain(CHECKOUT);
      expect(await gateway.journal.settled(before + 1)).toMatchObject({ outcome: 5, errorCode: "insufficient_quota" });
    }
  });
});

test("targets of several formats serve a model side by side", async () => {
  const formats = ["openai", "anthropic", "converse"] as const;
  await start(formats, { random: () => 0 });
  const scenario = SCENARIOS.find(({ name }) => name === "parallel tools")!;
  for (const client of CLIENTS) await checkScenario(gateway, imitations[0]!, client, scenario);
});
