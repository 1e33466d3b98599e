/**
 * What the official SDK makes of a wallet that runs dry. A stream ends with `finish_reason: "length"`, then one frame
 * `data: {"error":{…}}` without an `event:` line: the SDK raises that as an APIError whose `code`, `type` and `error` are
 * the fields of the envelope, so the link is `error.error.checkout_url`. (A frame `event: error` is raised the same way;
 * without it, other clients see an ordinary frame as well. What only stands in a chunk nobody raises.)
 */

import OpenAI, { APIError, RateLimitError } from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { Outcome } from "./outcome.ts";
import { CHECKOUT, type Gateway, type GatewayOptions, KEY, startGateway } from "./testing.ts";
import { chatBody, chunk, frame, json, sse } from "./testing_upstream.ts";

let gateway: Gateway;
let client: OpenAI;
afterEach(() => gateway.close());
const start = async (options: GatewayOptions = {}): Promise<void> => {
  gateway = await startGateway(options);
  client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1` });
};
const price = (input: number, output: number): bigint =>
  BigInt(input) * parseCredits("0.001") + BigInt(output) * parseCredits("0.002");
const MESSAGES = [{ role: "user" as const, content: "Hi" }];
/** 100 tokens. */
const PIECE = "word".repeat(100);
const pieces = (one: string): string[] => Array.from({ length: 50 }, () => one);
const textChunk = frame({
  id: "cmpl-1",
  object: "text_completion",
  created: 1_700_000_000,
  model: "upstream-model",
  choices: [{ index: 0, text: PIECE, logprobs: null, finish_reason: null }],
});

function expectQuota(caught: unknown): void {
  expect(caught).toBeInstanceOf(APIError);
  expect(caught).toMatchObject({ code: "insufficient_quota", type: "insufficient_quota", status: undefined });
  expect((caught as APIError).error).toMatchObject({ checkout_url: CHECKOUT });
  expect((caught as APIError).message).toContain(CHECKOUT);
}

/** Reads a stream to its end: what came, why it ended, and what was raised. */
async function readAll<T>(stream: AsyncIterable<T>): Promise<{ chunks: T[]; caught: unknown }> {
  const chunks: T[] = [];
  try {
    for await (const each of stream) chunks.push(each);
  } catch (caught) {
    return { chunks, caught };
  }
  return { chunks, caught: null };
}

describe("a stream whose wallet runs dry", () => {
  test("chat: all content, a normal end, and then the error", async () => {
    await start();
    gateway.budget.free = price(300, 1024);
    gateway.upstreams[0]!.next(sse(pieces(chunk({ content: PIECE })), "hang"));
    const stream = await client.chat.completions.create({ model: "gpt", messages: MESSAGES, stream: true });
    const { chunks, caught } = await readAll(stream);
    expectQuota(caught);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("length");
    const text = chunks.map(({ choices }) => choices[0]!.delta.content ?? "").join("");
    // Everything that arrived, and no more than a slice beyond what was there.
    expect(text).toBe(PIECE.repeat(chunks.length - 1));
    expect(text.length / 4).toBeGreaterThanOrEqual(1024);
    expect(text.length / 4).toBeLessThanOrEqual(1024 + 256 + 300);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.BUDGET_CUT });
  });

  test("chat with the SDK's own stream helper: the content is there, and the error says why", async () => {
    await start();
    gateway.budget.free = price(300, 1024);
    gateway.upstreams[0]!.next(sse(pieces(chunk({ role: "assistant", content: PIECE })), "hang"));
    const stream = client.chat.completions.stream({ model: "gpt", messages: MESSAGES });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    const caught = await stream.done().catch((error: unknown) => error);
    expectQuota(caught);
    expect(text.length / 4).toBeGreaterThanOrEqual(1024);
    expect(stream.currentChatCompletionSnapshot?.choices[0]).toMatchObject({ finish_reason: "length" });
  });

  test("completions", async () => {
    await start();
    gateway.budget.free = price(300, 1024);
    gateway.upstreams[0]!.next(sse(pieces(textChunk), "hang"));
    const stream = await client.completions.create({ model: "gpt", prompt: "Hi", stream: true });
    const { chunks, caught } = await readAll(stream);
    expectQuota(caught);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("length");
    expect(chunks.map(({ choices }) => choices[0]!.text).join("")).toBe(PIECE.repeat(chunks.length - 1));
  });

  test("STRICT: an upstream that goes on beyond its limit is cut without overspending", async () => {
    await start({ ve: { budgetMode: 2 } });
    const bytes = JSON.stringify({ model: "gpt", messages: MESSAGES, stream: true }).length;
    gateway.budget.free = price(bytes, 500);
    const words = Array.from({ length: 900 }, () => chunk({ content: "word " }));
    gateway.upstreams[0]!.next(sse(words, "hang"));
    const stream = await client.chat.completions.create({ model: "gpt", messages: MESSAGES, stream: true });
    const { chunks, caught } = await readAll(stream);
    expectQuota(caught);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("length");
    expect(gateway.upstreams[0]!.seen[0]!.body["max_tokens"]).toBe(500);
    expect(gateway.budget.free).toBeGreaterThanOrEqual(0n);
  });

  test("STRICT: one that keeps to its limit is not cut, even with long words", async () => {
    await start({ ve: { budgetMode: 2 } });
    const bytes = JSON.stringify({ model: "gpt", messages: MESSAGES, stream: true }).length;
    gateway.budget.free = price(bytes, 500);
    const words = Array.from({ length: 500 }, () => chunk({ content: " words" }));
    const usage = { prompt_tokens: 9, completion_tokens: 500 };
    gateway.upstreams[0]!.next(sse([...words, chunk({}, "length"), chunk(null, null, usage), "data: [DONE]\n\n"]));
    const stream = await client.chat.completions.create({ model: "gpt", messages: MESSAGES, stream: true });
    const { chunks, caught } = await readAll(stream);
    expect(caught).toBeNull();
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("length");
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(9, 500) });
  });
});

describe("an answer that is not streamed", () => {
  test.each([
    ["max_tokens", "max_tokens"],
    ["max_completion_tokens", "max_completion_tokens"],
    ["max_output_tokens", "max_output_tokens"],
  ])("STRICT lowers %s to what the wallet covers, and says so", async (field) => {
    await start({ ve: { budgetMode: 2 } });
    const body = { model: "gpt", messages: MESSAGES, [field]: 4000 };
    gateway.budget.free = price(JSON.stringify(body).length, 123);
    const usage = { prompt_tokens: 9, completion_tokens: 123 };
    const cut = chatBody("cut", usage);
    (cut["choices"] as { finish_reason: string }[])[0]!.finish_reason = "length";
    gateway.upstreams[0]!.next(json(200, cut));
    const { data, response } = await client.chat.completions.create(body as never).withResponse();
    expect(gateway.upstreams[0]!.seen[0]!.body).toMatchObject({ [field]: 123 });
    expect(response.headers.get("x-tokenbill-clamped-max-tokens")).toBe("123");
    expect((data as OpenAI.ChatCompletion).choices[0]).toMatchObject({ finish_reason: "length" });
    expect(gateway.budget.free).toBeGreaterThanOrEqual(0n);
  });

  test("completions are clamped as well, and several answers share what is there", async () => {
    await start({ ve: { budgetMode: 2 } });
    const body = { model: "gpt", prompt: "Hi", n: 2, max_tokens: 4000 };
    gateway.budget.free = price(JSON.stringify(body).length, 100);
    const usage = { prompt_tokens: 1, completion_tokens: 100 };
    const choices = [0, 1].map((index) => ({ index, text: "cut", logprobs: null, finish_reason: "length" }));
    gateway.upstreams[0]!.next(
      json(200, { id: "cmpl-1", object: "text_completion", created: 1, model: "m", choices, usage }),
    );
    const { response } = await client.completions.create(body).withResponse();
    expect(gateway.upstreams[0]!.seen[0]!.body).toMatchObject({ max_tokens: 50 });
    expect(response.headers.get("x-tokenbill-clamped-max-tokens")).toBe("50");
  });

  test("with nothing left: the same error, as a RateLimitError with its link", async () => {
    await start();
    gateway.budget.free = 0n;
    const caught = await client.completions.create({ model: "gpt", prompt: "Hi" }).catch((error: unknown) => error);
    expect(caught).toBeInstanceOf(RateLimitError);
    expect(caught).toMatchObject({ status: 429, code: "insufficient_quota", error: { checkout_url: CHECKOUT } });
  });
});
