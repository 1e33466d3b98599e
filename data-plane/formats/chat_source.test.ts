/** What chat upstreams answer, OpenAI's and those that are nearly compatible, for clients of other formats. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseFrame, type SseEvent, SseSplitter } from "../sse.ts";
import { chatAnswer, chatSource } from "./chat_source.ts";
import { type ChatDelta, type ChatSource, type Json, SourceState } from "./hub.ts";

const USAGE = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };

const chunk = (delta: unknown, reason: unknown = null, more: Json = {}): Json => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1,
  model: "m",
  choices: [{ index: 0, delta, finish_reason: reason, logprobs: null }],
  ...more,
});
const textOf = (frames: readonly unknown[]): string =>
  frames.map((frame) => `data: ${typeof frame === "string" ? frame : JSON.stringify(frame)}\n\n`).join("");

interface Reading {
  readonly states: SourceState[];
  readonly deltas: ChatDelta[];
  readonly source: ChatSource;
}

/** Reads a stream that comes in these pieces, whose bytes are gone once they were read. */
function readPieces(pieces: readonly Buffer[]): Reading {
  const source = chatSource();
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const states: SourceState[] = [];
  const deltas: ChatDelta[] = [];
  for (const piece of pieces) {
    const bytes = Buffer.from(piece);
    splitter.push(bytes, (buffer, start, end) => {
      parseFrame(buffer, start, end, event);
      states.push(source.read(event));
      deltas.push(...source.deltas);
      buffer.fill(0x20, start, end);
    });
  }
  return { states, deltas, source };
}
const read = (...frames: readonly unknown[]): Reading => readPieces([Buffer.from(textOf(frames))]);
const { OPEN, DONE, ERROR, BROKEN } = SourceState;

describe("streams", () => {
  test("are deltas, usage and an end", () => {
    const frames = [
      chunk({ role: "assistant", content: "" }),
      chunk({ content: "Hello" }),
      chunk({}, "stop"),
      { ...chunk({}), choices: [], usage: USAGE },
      "[DONE]",
    ];
    const { states, deltas, source } = read(...frames);
    expect(states).toEqual([OPEN, OPEN, OPEN, OPEN, DONE]);
    expect(deltas).toEqual([
      { index: 0, delta: { role: "assistant", content: "" }, finishReason: null },
      { index: 0, delta: { content: "Hello" }, finishReason: null },
      { index: 0, delta: {}, finishReason: "stop" },
    ]);
    expect([source.usage, source.finished, source.error]).toEqual([USAGE, true, null]);
  });

  test("may lack their end, and are whole once a reason came", () => {
    expect(read(chunk({ content: "a" })).source.finished).toBe(false);
    expect(read(chunk({ content: "a" }, "")).source.finished).toBe(false);
    expect(read(chunk({ content: "a" }, "length")).source.finished).toBe(true);
    expect(read(chunk({ content: "a" }, "something new")).deltas[0]!.finishReason).toBe("something new");
    expect(read("[DONE]").source.finished).toBe(true);
  });

  test("keep the last usage, wherever it stands", () => {
    const more = { ...USAGE, completion_tokens: 7 };
    expect(
      read(chunk({ content: "a" }, null, { usage: USAGE }), chunk({}, "stop", { usage: more })).source.usage,
    ).toEqual(more);
    expect(read(chunk({}, "stop", { usage: USAGE }), chunk({}, null, { usage: null })).source.usage).toEqual(USAGE);
    expect(read(chunk({}, "stop", { x_groq: { usage: USAGE } })).source.usage).toEqual(USAGE);
    expect(read(chunk({}, "stop", { usage: [] })).source.usage).toBeNull();
    const deepseek = { ...USAGE, prompt_cache_hit_tokens: 4, prompt_cache_miss_tokens: 6 };
    const cached = { ...deepseek, prompt_tokens_details: { cached_tokens: 4 } };
    expect(read(chunk({}, "stop", { usage: deepseek })).source.usage).toEqual(cached);
  });

  test.each<[string, unknown, Json]>([
    ["content in parts", { content: ["a", { type: "text", text: "b" }] }, { content: "ab" }],
    [
      "thinking parts",
      {
        content: [
          { type: "thinking", thinking: [{ type: "text", text: "hm" }] },
          { type: "text", text: "b" },
        ],
      },
      { content: "b", reasoning_content: "hm" },
    ],
    ["reasoning", { content: null, reasoning: "hm" }, { content: null, reasoning_content: "hm" }],
    ["both names", { reasoning: "hm", reasoning_content: "hm" }, { reasoning_content: "hm" }],
    ["an empty one", { reasoning: "", reasoning_content: null, content: "a" }, { content: "a" }],
    ["a refusal", { refusal: "no" }, { refusal: "no" }],
    ["no delta", undefined, {}],
    ["null", null, {}],
  ])("with %s", (_, given, delta) => {
    expect(read(chunk(given)).deltas).toEqual([{ index: 0, delta, finishReason: null }]);
  });

  test("may have a message where the delta should be, other choices, or none", () => {
    expect(
      read({ choices: [{ index: 1, message: { content: "a" }, finish_reason: "stop", logprobs: { content: [] } }] })
        .deltas,
    ).toEqual([{ index: 1, delta: { content: "a" }, finishReason: "stop", logprobs: { content: [] } }]);
    for (const odd of [{}, { choices: [] }, { choices: null }, { choices: {} }])
      expect(read(odd)).toMatchObject({ states: [OPEN], deltas: [] });
    expect(read({ choices: [{}, null] }).deltas).toHaveLength(2);
  });

  test("are told apart from comments and from what is broken", () => {
    const states = readPieces([Buffer.from(": keep-alive\n\nevent: x\n\ndata:\n\ndata: [1]\n\ndata: nope\n\n")]).states;
    expect(states).toEqual([OPEN, OPEN, OPEN, BROKEN, BROKEN]);
  });

  test("are the same wherever they are cut", () => {
    const frames = [
      chunk({ content: "Grüße 🎉" }),
      chunk({ reasoning: "…" }),
      chunk({}, "stop", { usage: USAGE }),
      "[DONE]",
    ];
    const bytes = Buffer.from(textOf(frames).replaceAll("\n\n", "\r\n\r\n"));
    const whole = readPieces([bytes]);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 8 }), (cuts) => {
        const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const { deltas, states, source } = readPieces(at.slice(1).map((end, index) => bytes.subarray(at[index], end)));
        // A cut within a line break may leave a frame of nothing behind.
        expect(states.filter((state) => state !== OPEN)).toEqual([DONE]);
        expect([deltas, source.usage]).toEqual([whole.deltas, whole.source.usage]);
      }),
      { numRuns: 100 },
    );
  });
});

const call = (fields: Json): Json => chunk({ tool_calls: [fields] });
const callsOf = ({ deltas }: Reading) =>
  deltas.flatMap(({ delta }) => delta["tool_calls"] as any[]).map(({ index }) => index);

describe("calls of tools", () => {
  test.each<[string, Json[], number[]]>([
    [
      "numbered",
      [
        { index: 0, id: "a", function: { name: "x" } },
        { index: 0, function: {} },
        { index: 1, id: "b", function: { name: "y" } },
        { index: 0, function: {} },
      ],
      [0, 0, 1, 0],
    ],
    [
      "all numbered 0",
      [
        { index: 0, id: "a", function: { name: "x" } },
        { index: 0, id: "b", function: { name: "x" } },
        { index: 0, function: {} },
      ],
      [0, 1, 1],
    ],
    [
      "not numbered",
      [{ id: "a", function: { name: "x" } }, { function: { arguments: "{}" } }, { id: "b", function: { name: "x" } }],
      [0, 0, 1],
    ],
    [
      "with an id on each delta",
      [
        { index: 0, id: "a", function: { name: "x" } },
        { index: 0, id: "a", function: { name: "x" } },
        { index: 0, id: "other", function: {} },
      ],
      [0, 0, 0],
    ],
    [
      "with a late id",
      [
        { index: 0, function: { name: "x" } },
        { index: 0, id: "a", function: { name: "x" } },
        { index: 0, id: "b", function: { name: "x" } },
      ],
      [0, 0, 1],
    ],
    [
      "that begin with 1",
      [
        { index: 1, id: "a", function: { name: "x" } },
        { index: 2, id: "b", function: { name: "y" } },
      ],
      [0, 1],
    ],
  ])("%s", (_, calls, indexes) => {
    expect(callsOf(read(...calls.map(call)))).toEqual(indexes);
  });

  test("of each choice count by themselves", () => {
    const of = (index: number): Json => ({
      index,
      delta: { tool_calls: [{ index: 0, id: `c${index}`, function: { name: "x" } }] },
    });
    expect(callsOf(read({ choices: [of(0), of(1)] }))).toEqual([0, 0]);
  });
});

describe("errors inside of a stream", () => {
  test.each<[unknown, Json]>([
    [
      { message: "No.", type: "server_error", param: null, code: null },
      { message: "No.", type: "server_error", clientFault: false, health: "failure" },
    ],
    ["No.", { message: "No.", type: null, code: null, clientFault: false, health: "failure" }],
    [{}, { message: "The upstream reports an error.", health: "failure" }],
    [
      { message: "Slow.", code: 429 },
      { code: "429", clientFault: false, health: "rate_limit" },
    ],
    [
      { message: "Slow.", type: "tokens", code: "rate_limit_exceeded" },
      { clientFault: false, health: "rate_limit" },
    ],
    [
      { message: "Empty.", type: "insufficient_quota", code: "insufficient_quota" },
      { clientFault: false, health: "account" },
    ],
    [
      { message: "Who?", code: "model_not_found" },
      { clientFault: false, health: "model" },
    ],
    [
      { message: "Long.", type: "invalid_request_error", code: "context_length_exceeded", param: "messages" },
      { clientFault: true, health: "ignore", param: "messages" },
    ],
    [
      { message: "Busy.", code: "503" },
      { clientFault: false, health: "failure" },
    ],
  ])("%j", (error, expected) => {
    const { states, source } = read(chunk({ content: "a" }), { error, choices: [], usage: USAGE });
    expect(states).toEqual([OPEN, ERROR]);
    expect(source.error).toMatchObject(expected);
    // What was used until then is known all the same.
    expect(source.usage).toEqual(USAGE);
  });

  test("may be named by the frame, or flat", () => {
    const frame = (data: string): Reading => readPieces([Buffer.from(`event: error\n${data}\n`)]);
    expect(frame('data: {"error":{"message":"No."}}\n').source.error).toMatchObject({ message: "No." });
    expect(frame('data: {"message":"No."}\n').source.error).toMatchObject({ message: "No." });
    expect(frame("data: No.\n").source.error).toMatchObject({ message: "No." });
    expect(frame("").states).toEqual([ERROR]);
    expect(read({ object: "error", message: "No.", code: 400 })).toMatchObject({
      states: [ERROR],
      source: { error: { clientFault: true } },
    });
  });
});

describe("whole answers", () => {
  test("have the hub's names, and no id", () => {
    const message = { role: "assistant", content: [{ type: "text", text: "a" }], reasoning: "hm" };
    const body = {
      id: "x",
      object: "chat.completion",
      created: 1,
      model: "m",
      choices: [{ index: 0, message, finish_reason: "" }],
      usage: USAGE,
    };
    expect(chatAnswer(body)).toEqual({
      object: "chat.completion",
      choices: [
        { index: 0, message: { role: "assistant", content: "a", reasoning_content: "hm" }, finish_reason: null },
      ],
      usage: USAGE,
    });
  });

  test("may lack usage and numbers", () => {
    expect(chatAnswer({ choices: [{ message: null }, {}], usage: null })).toEqual({
      choices: [
        { index: 0, message: {}, finish_reason: null },
        { index: 1, message: {}, finish_reason: null },
      ],
    });
  });

  test.each<[Json]>([[{}], [{ choices: {} }], [{ choices: [], error: { message: "x" } }], [{ error: "x" }]])(
    "%j is none",
    (body) => {
      expect(chatAnswer(body)).toBeNull();
    },
  );
});
