/** The simulated upstream must be a believable OpenAI server: the official SDK says whether it is. */

import OpenAI, { APIConnectionError, AuthenticationError, InternalServerError, NotFoundError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { closedPort, resettingPort, silentPort, strangePort } from "./bad_ports.ts";
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

  test("before any content of a stream", async () => {
    const text = async (model: string): Promise<string> => (await streamed(model)).text;
    await expect(text("m~errorFrame=content")).rejects.toThrow(/had an error/);
    expect((await streamed("m~done=content")).chunks).toEqual([]);
    expect((await streamed("m~end=content")).chunks).toEqual([]);
    await expect(text("m~brokenFrame=content~end=content")).rejects.toThrow();
    await expect(text("m~reset=content")).rejects.toThrow();
  });

  test("after some of it, and at its end", async () => {
    expect((await streamed("m~done=middle~afterChunks=2")).text).toBe("This is");
    expect((await streamed("m~end=middle~afterChunks=99~words=2")).chunks.at(-1)!.choices[0]!.finish_reason).toBe(
      "stop",
    );
    await expect(streamed("m~errorFrame=middle~afterChunks=1")).rejects.toThrow(/had an error/);
  });

  test.each(["comments", "roles", "deltas"])("%s for ever, until the caller hangs up", async (kind) => {
    const controller = new AbortController();
    const response = await fetch(`${upstream.url}/chat/completions`, {
      method: "POST",
      headers: { authorization: "Bearer any", "content-type": "application/json" },
      body: JSON.stringify({ model: `m~forever=${kind}`, messages, stream: true }),
      signal: controller.signal,
    });
    const call = upstream.calls.at(-1)!;
    let seen = "";
    const decoder = new TextDecoder();
    for await (const part of response.body!) {
      seen += decoder.decode(part as Uint8Array);
      if (seen.split("\n\n").length > 4) break;
    }
    controller.abort();
    expect(await call.done).toBe(false);
    const expected = { comments: /^(: keep-alive\n\n)+$/, roles: /"role":"assistant"/, deltas: /"content":""/ }[kind]!;
    expect(seen).toMatch(expected);
  });

  test("stalls before the head, after it, and in the middle", async () => {
    const within = { signal: AbortSignal.timeout(150) };
    const ask = (model: string) => client.chat.completions.create({ model, messages, stream: true }, within);
    await expect(ask("m~hang=head")).rejects.toThrow();
    for (const model of ["m~hang=content", "m~hang=middle"]) {
      const controller = new AbortController();
      const stream = await client.chat.completions.create(
        { model, messages, stream: true },
        { signal: controller.signal },
      );
      setTimeout(() => controller.abort(), 100);
      let text = "";
      // The SDK ends an aborted stream without an error.
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
      expect(text).toBe(model === "m~hang=content" ? "" : "This is a");
    }
  });

  test("a slow drip is whole", async () => {
    expect((await streamed("m~dripBytes=7~words=3")).text).toBe("This is a");
  });

  test("refusals, with how long to wait in each of the three ways", async () => {
    const refused = async (model: string) =>
      client.chat.completions.create({ model, messages }).then(
        () => expect.unreachable(),
        (error: InstanceType<typeof OpenAI.APIError>) => error,
      );
    expect((await refused("m~status=429~retryAfter=2")).headers!.get("retry-after")).toBe("2");
    const date = (await refused("m~status=503~retryAfterDate=60")).headers!.get("retry-after")!;
    expect(Date.parse(date) - Date.now()).toBeGreaterThan(50_000);
    expect((await refused("m~status=429~retryAfterMs=250")).headers!.get("retry-after-ms")).toBe("250");
    expect(await refused("m~status=404~code=model_not_found")).toMatchObject({ status: 404, code: "model_not_found" });
    for (const status of [401, 402, 403, 408, 500, 529])
      expect(await refused(`m~status=${status}`)).toMatchObject({ status });
  });

  test("JSON answers that are none", async () => {
    const create = (model: string) => client.chat.completions.create({ model, messages });
    expect(await create("m~errorBody")).toHaveProperty("error.type", "server_error");
    expect(await create("m~errorFrame=content")).toHaveProperty("error.type", "server_error");
    await expect(create("m~brokenFrame=content")).rejects.toThrow();
    await expect(create("m~reset=middle")).rejects.toThrow();
    await expect(create("m~end=middle")).rejects.toThrow();
  });

  test("some of the calls, the same ones with the same seed", async () => {
    const outcomes = async (seed: number): Promise<string> => {
      const seeded = await startUpstream({ address: "127.0.0.1:0", seed });
      const other = new OpenAI({ baseURL: seeded.url, apiKey: "any", maxRetries: 0 });
      seeded.behaveAtRandom("mixed", [
        { weight: 1, behaviour: { status: 500 } },
        { weight: 1, behaviour: { reset: "head" } },
        { weight: 2, behaviour: {} },
      ]);
      let all = "";
      for (const model of ["half~status=503~failPercent=50", "mixed"]) {
        for (let i = 0; i < 40; i++) {
          all += await other.chat.completions.create({ model, messages }).then(
            () => ".",
            (error: { status?: number }) => (error.status === undefined ? "r" : "s"),
          );
        }
      }
      await seeded.close();
      return all;
    };
    const first = await outcomes(7);
    expect(first.slice(0, 40)).toMatch(/s.*\./);
    expect(new Set(first.slice(40))).toEqual(new Set("sr."));
    expect(await outcomes(7)).toBe(first);
    expect(await outcomes(8)).not.toBe(first);
  });

  test("a name that means nothing is refused", async () => {
    for (const name of ["m~status=x", "m~hang=later", "m~forever=long", "m~nonsense", "m~hold=1"])
      await expect(client.chat.completions.create({ model: name, messages })).rejects.toThrow(/is no behaviour/);
  });

  test("it dies and comes back on its port", async () => {
    const mortal = await startUpstream({ address: "127.0.0.1:0" });
    const other = new OpenAI({ baseURL: mortal.url, apiKey: "any", maxRetries: 0 });
    await other.models.list();
    await mortal.die();
    await expect(other.models.list()).rejects.toThrow(APIConnectionError);
    await mortal.revive();
    await other.models.list();
    await mortal.close();
  });
});

test("ports that are worse than any upstream", async () => {
  const codeOf = async (url: string, timeoutMs = 2_000): Promise<string> =>
    fetch(url, { signal: AbortSignal.timeout(timeoutMs) }).then(
      () => "answered",
      (error: Error & { cause?: { code?: string } }) => error.cause?.code ?? error.name,
    );
  expect(await codeOf((await closedPort()).url)).toBe("ECONNREFUSED");
  const [silent, resetting, strange] = [await silentPort(), await resettingPort("data"), await strangePort()];
  expect(await codeOf(silent.url, 100)).toBe("TimeoutError");
  expect(silent.accepted).toBe(1);
  expect(await codeOf(resetting.url)).toBe("ECONNRESET");
  expect(await codeOf(strange.url)).not.toBe("answered");
  for (const port of [silent, resetting, strange]) await port.close();
});
