/** The simulated upstream must be a believable OpenAI server: the official SDK says whether it is. */

import OpenAI, { APIConnectionError, AuthenticationError, InternalServerError, NotFoundError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startUpstream, type Upstream } from "./upstream.ts";
import { SENTENCE_WORDS } from "./upstream_answers.ts";

let upstream: Upstream;
let client: OpenAI;
const messages = [{ role: "user" as const, content: "one two three" }];

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  client = new OpenAI({ baseURL: upstream.url, apiKey: "any", maxRetries: 0 });
});
afterAll(() => upstream.close());

async function streamed(model: string, more: Partial<OpenAI.ChatCompletionCreateParamsStreaming> = {}) {
  const stream = await client.chat.completions.create({ ...more, model, messages, stream: true });
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { chunks, text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("") };
}

describe("healthy", () => {
  test("a JSON answer with countable usage", async () => {
    const answer = await client.chat.completions.create({ model: "m", messages });
    expect(answer.choices[0]!.message.content).toBe(SENTENCE_WORDS.join(" "));
    expect(answer.choices[0]!.finish_reason).toBe("stop");
    expect(answer.usage).toMatchObject({
      prompt_tokens: 3,
      completion_tokens: SENTENCE_WORDS.length,
      total_tokens: 3 + SENTENCE_WORDS.length,
    });
  });

  test("max_tokens, max_completion_tokens and n", async () => {
    const answer = await client.chat.completions.create({ model: "m", messages, max_completion_tokens: 5, n: 3 });
    expect(answer.choices.map((choice) => choice.finish_reason)).toEqual(["length", "length", "length"]);
    expect(answer.usage!.completion_tokens).toBe(15);
    const old = await client.completions.create({ model: "m", prompt: "one", max_tokens: 2 });
    expect(old.choices[0]!.text).toBe("This is");
    expect(old.usage!.total_tokens).toBe(3);
  });

  test("a stream says usage only if asked", async () => {
    const silent = await streamed("m", { max_tokens: 4 });
    expect(silent.text).toBe("This is a simulated");
    expect(silent.chunks.every((chunk) => !("usage" in chunk))).toBe(true);
    const { chunks } = await streamed("m", { max_tokens: 4, stream_options: { include_usage: true } });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe("length");
  });

  test("embeddings are deterministic, as floats and as base64", async () => {
    const input = ["one two", "three"];
    const floats = await client.embeddings.create({ model: "e", input, encoding_format: "float" });
    const decoded = await client.embeddings.create({ model: "e", input });
    expect(decoded.data.map((item) => item.embedding)).toEqual(floats.data.map((item) => item.embedding));
    expect(floats.usage.total_tokens).toBe(3);
  });

  test("models, keys and unknown models", async () => {
    expect((await client.models.list()).data.length).toBeGreaterThan(0);
    expect((await client.models.retrieve("whatever")).id).toBe("whatever");
    await expect(client.models.retrieve("a-missing-one")).rejects.toThrow(NotFoundError);
    const stranger = new OpenAI({ baseURL: upstream.url, apiKey: "bad-key", maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toThrow(AuthenticationError);
  });
});

describe("told to misbehave", () => {
  test("by model name and by script", async () => {
    await expect(client.chat.completions.create({ model: "m~status=503", messages })).rejects.toThrow(
      InternalServerError,
    );
    await expect(client.chat.completions.create({ model: "m~reset=head", messages })).rejects.toThrow(
      APIConnectionError,
    );
    upstream.behave("flaky", { status: 500 }, {});
    await expect(client.chat.completions.create({ model: "flaky", messages })).rejects.toThrow(InternalServerError);
    expect((await client.chat.completions.create({ model: "flaky", messages })).choices).toHaveLength(1);
  });

  test("cuts, error frames and broken frames in streams", async () => {
    await expect(streamed("m~reset=middle")).rejects.toThrow();
    await expect(streamed("m~errorFrame=content")).rejects.toThrow(/had an error/);
    await expect(streamed("m~brokenFrame=middle")).rejects.toThrow();
    expect((await streamed("m~end=content")).chunks).toHaveLength(0);
    expect((await streamed("m~end=middle~afterChunks=2")).text).toBe("This is");
    expect((await streamed("m~comments~crlf~words=3")).text).toBe("This is a");
  });

  test("held chunks go when told, and a caller who hangs up is noticed", async () => {
    upstream.behave("held", { hold: true });
    const seen = upstream.calls.length;
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      { model: "held", messages, stream: true },
      { signal: controller.signal },
    );
    const call = await upstream.waitForCalls(seen + 1);
    const chunks = stream[Symbol.asyncIterator]();
    await chunks.next();
    upstream.release("held", 2);
    expect((await chunks.next()).value!.choices[0]!.delta.content).toBe("This");
    expect((await chunks.next()).value!.choices[0]!.delta.content).toBe(" is");
    expect(call.chunkMs).toHaveLength(2);
    controller.abort();
    expect(await call.done).toBe(false);
  });
});
