import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { type ChatSource, type HubTarget, type Json, SourceState } from "../hub.ts";
import { listOf, objectOf } from "../json.ts";
import { responsesChat } from "./upstream.ts";

function bytesOf(name: string): Buffer {
  return readFileSync(new URL(`../../../test/fixtures/responses/${name}`, import.meta.url));
}
function fixture<T>(name: string): T {
  return JSON.parse(bytesOf(name).toString("utf8")) as T;
}

const REQUESTS = fixture<{ name: string; chat: Json; responses: Json }[]>("upstream_requests.json");
const ANSWERS = fixture<{ name: string; response: Json; chat: Json }[]>("upstream_answers.json");
const TARGET: HubTarget = { model: "up", family: "", maxOutputTokens: 0, apiVersion: "", stream: false };

describe("requests", () => {
  test.each(REQUESTS)("$name", ({ chat, responses }) => {
    expect(responsesChat.request(chat, TARGET)).toEqual({ path: "/responses", headers: [], body: responses });
  });

  test("are streamed where the client wants it", () => {
    const { body } = responsesChat.request(REQUESTS[0]!.chat, { ...TARGET, stream: true });
    expect(body["stream"]).toBe(true);
  });

  test.each<[Json, string]>([
    [{ n: 2 }, "n"],
    [{ stop: ["x"] }, "stop"],
    [{ stop: "x" }, "stop"],
    [{ audio: { voice: "v" }, modalities: ["text", "audio"] }, "audio"],
    [{ modalities: ["audio"] }, "modalities"],
    [{ web_search_options: {} }, "web_search_options"],
    [{ functions: [{ name: "f" }] }, "functions"],
    [{ tools: [{ type: "other" }] }, "tools[0].type"],
    [{ messages: [{ role: "function", name: "f", content: "x" }] }, "messages[0].role"],
    [{ messages: [{ role: "user", content: [{ type: "input_audio" }] }] }, "messages[0].content[0].type"],
    [{ messages: [{ role: "assistant", content: [{ type: "image_url" }] }] }, "messages[0].content[0].type"],
  ])("%j is refused by its name", (fields, param) => {
    expect(() => responsesChat.request({ messages: [], ...fields }, TARGET)).toThrow(
      expect.objectContaining({ param }),
    );
  });

  test("replay the reasoning items that came as thinking blocks", () => {
    const tools = ANSWERS.find(({ name }) => name === "tools")!;
    const message = objectOf(listOf(tools.chat["choices"])[0])["message"];
    const { body } = responsesChat.request({ messages: [message] }, TARGET);
    expect(listOf(body["input"]).slice(0, 2)).toEqual([
      {
        type: "reasoning",
        id: "rs_1",
        summary: [{ type: "summary_text", text: "Look it up.\n\nTwice." }],
        encrypted_content: "gAAAAAB",
      },
      { type: "function_call", call_id: "call_a", name: "look", arguments: '{"q":"a"}' },
    ]);
  });
});

describe("whole answers", () => {
  test.each(ANSWERS)("$name", ({ response, chat }) => {
    expect(responsesChat.answer(response, TARGET)).toEqual(chat);
  });

  test.each<[Json]>([
    [{}],
    [{ status: "failed", output: [], error: { code: "server_error", message: "x" } }],
    [{ status: "failed", output: [] }],
    [{ status: "cancelled", output: [] }],
    [{ status: "queued", output: [] }],
    [{ status: "completed", output: null }],
  ])("%j is none", (body) => {
    expect(responsesChat.answer(body, TARGET)).toBeNull();
  });

  test("without usage say so", () => {
    expect(responsesChat.answer({ status: "completed", output: [] }, TARGET)).toMatchObject({ usage: null });
  });
});

interface Gathered {
  readonly message: Record<string, unknown>;
  readonly states: SourceState[];
  readonly source: ChatSource;
  finish: string | null;
  logprobs: unknown[];
}

function append(message: Record<string, unknown>, delta: Json): void {
  for (const [key, value] of Object.entries(delta)) {
    if (key === "tool_calls") for (const call of listOf(value)) appendCall(message, objectOf(call));
    else if (Array.isArray(value)) message[key] = [...listOf(message[key]), ...(value as unknown[])];
    else if (key === "role") message[key] = value;
    else message[key] = `${(message[key] as string | undefined) ?? ""}${value as string}`;
  }
}

function appendCall(message: Record<string, unknown>, delta: Json): void {
  const { index, ...fields } = delta;
  const calls = (message["tool_calls"] ??= []) as Record<string, Record<string, string> | string>[];
  const call = (calls[index as number] ??= {});
  for (const [key, value] of Object.entries(fields)) {
    if (typeof value === "string") call[key] = value;
    else {
      const into = (call[key] ??= {}) as Record<string, string>;
      for (const [name, text] of Object.entries(value as Record<string, string>))
        into[name] = (into[name] ?? "") + text;
    }
  }
}

/** What a stream says when it comes in chunks that end there. */
function gather(bytes: Buffer, ends: readonly number[] = []): Gathered {
  const source = responsesChat.source(TARGET);
  const into: Gathered = { message: {}, states: [], source, finish: null, logprobs: [] };
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  let from = 0;
  for (const end of [...ends, bytes.length].sort((a, b) => a - b)) {
    const chunk = bytes.subarray(from, end);
    from = end;
    splitter.push(chunk, (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      into.states.push(source.read(event));
      for (const { delta, finishReason, logprobs } of source.deltas) {
        append(into.message, delta);
        into.finish ??= finishReason;
        into.logprobs.push(...listOf(objectOf(logprobs)["content"]));
      }
    });
  }
  return into;
}

function expectAnswer(gathered: Gathered, chat: Json): void {
  const choice = objectOf(listOf(chat["choices"])[0]);
  const message = Object.fromEntries(Object.entries(objectOf(choice["message"])).filter(([, value]) => value !== null));
  expect(gathered.message).toEqual(message);
  expect(gathered.finish).toBe(choice["finish_reason"]);
  expect(gathered.logprobs).toEqual(listOf(objectOf(choice["logprobs"])["content"]));
  expect(gathered.source.usage).toEqual(chat["usage"]);
  expect(gathered.source.finished).toBe(true);
  expect(gathered.states.every((state) => state === SourceState.OPEN)).toBe(true);
}

/** Frames of a recorded stream that this is true for. */
function framesWhere(name: string, keep: (frame: string) => boolean): Buffer {
  const frames = bytesOf(name)
    .toString("utf8")
    .split("\n\n")
    .filter((frame) => frame !== "");
  return Buffer.from(
    frames
      .filter(keep)
      .map((frame) => `${frame}\n\n`)
      .join(""),
  );
}

describe("streams", () => {
  test.each(ANSWERS)("$name", ({ name, chat }) => {
    expectAnswer(gather(bytesOf(`upstream_${name}.sse`)), chat);
  });

  test.each(ANSWERS)("$name, cut anywhere", ({ name, chat }) => {
    const bytes = bytesOf(`upstream_${name}.sse`);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 20 }), (ends) => expectAnswer(gather(bytes, ends), chat)),
      { numRuns: 20 },
    );
  });

  test.each(ANSWERS)("$name, without deltas, or with nothing but the end", ({ name, chat }) => {
    const whole = gather(framesWhere(`upstream_${name}.sse`, (frame) => !/^event: .*(delta|annotation)/.test(frame)));
    const end = gather(
      framesWhere(`upstream_${name}.sse`, (frame) => /^event: response\.(completed|incomplete)/.test(frame)),
    );
    for (const gathered of [whole, end]) {
      delete gathered.message["annotations"];
      const { annotations: _, ...message } = objectOf(objectOf(listOf(chat["choices"])[0])["message"]);
      const choice = { ...objectOf(listOf(chat["choices"])[0]), message };
      expectAnswer(gathered, { ...chat, choices: [choice] });
    }
  });

  test("of reasoning as text, once more as a summary, say it once", () => {
    const event = (type: string, fields: Json) => `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
    const text =
      event("response.reasoning_text.delta", { output_index: 0, content_index: 0, delta: "Hm." }) +
      event("response.reasoning_summary_text.delta", { output_index: 0, summary_index: 0, delta: "Thinks." });
    expect(gather(Buffer.from(text)).message).toEqual({ role: "assistant", reasoning_content: "Hm." });
  });

  test("that fail report what they used", () => {
    const { states, source } = gather(bytesOf("upstream_failed.sse"));
    expect(states.at(-1)).toBe(SourceState.ERROR);
    expect(source.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 });
    expect(source.error).toEqual({
      message: "The model had trouble.",
      type: null,
      param: null,
      code: "server_error",
      clientFault: false,
      health: "failure",
    });
  });

  test.each<[string, SourceState]>([
    [": ping\n\n", SourceState.OPEN],
    ["event: keepalive\ndata:\n\n", SourceState.OPEN],
    ["data: [DONE]\n\n", SourceState.DONE],
    ["data: {broken\n\n", SourceState.BROKEN],
    ["data: []\n\n", SourceState.BROKEN],
    ['event: error\ndata: {"message":"x"}\n\n', SourceState.ERROR],
    ['data: {"error":{"message":"x"}}\n\n', SourceState.ERROR],
    ['data: {"error":"x"}\n\n', SourceState.ERROR],
    ['data: {"type":"response.new"}\n\n', SourceState.OPEN],
    ["data: {}\n\n", SourceState.OPEN],
  ])("%j", (text, state) => {
    const { states, message } = gather(Buffer.from(text));
    expect(states).toEqual([state]);
    expect(message).toEqual({});
  });

  test.each<[Json, Json]>([
    [{ code: "rate_limit_exceeded" }, { clientFault: false, health: "rate_limit" }],
    [{ code: "insufficient_quota" }, { clientFault: false, health: "account" }],
    [
      { error: { type: "insufficient_quota", code: "new_code", message: "m" } },
      { health: "account", code: "new_code" },
    ],
    [{ code: "model_not_found" }, { clientFault: false, health: "model" }],
    [{ code: "server_error" }, { clientFault: false, health: "failure" }],
    [{ code: null }, { clientFault: false, health: "failure", code: null, type: null }],
    [
      { code: "invalid_prompt", param: "input" },
      { clientFault: true, health: "ignore", status: 400, param: "input" },
    ],
    [{ code: "image_too_large" }, { clientFault: true, health: "ignore", status: 400 }],
  ])("an error event %j", (fields, expected) => {
    const data = JSON.stringify({ type: "error", sequence_number: 3, message: "m", ...fields });
    const { source } = gather(Buffer.from(`event: error\ndata: ${data}\n\n`));
    expect(source.error).toMatchObject({ message: "m", ...expected });
  });
});

describe("statuses", () => {
  test.each<[number, string, Json]>([
    [
      400,
      '{"error":{"message":"bad","type":"invalid_request_error","param":"input","code":null}}',
      {
        message: "bad",
        type: "invalid_request_error",
        param: "input",
        code: null,
        clientFault: true,
        health: "ignore",
      },
    ],
    [
      429,
      '{"error":{"message":"slow","type":"tokens","code":"rate_limit_exceeded"}}',
      { code: "rate_limit_exceeded", clientFault: false, health: "rate_limit" },
    ],
    [401, "{}", { message: "", clientFault: false, health: "account" }],
    [500, "<html>", { message: "", type: null, clientFault: false, health: "failure" }],
  ])("%i %s", (status, body, expected) => {
    expect(responsesChat.error(status, {}, Buffer.from(body))).toMatchObject(expected);
  });
});
