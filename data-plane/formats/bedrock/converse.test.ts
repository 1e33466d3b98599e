import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SseEvent } from "../../sse.ts";
import { type HubTarget, type Json, RefusedFieldError, SourceState } from "../hub.ts";
import { converseChat } from "./converse.ts";
import { EventStreamSplitter, parseEventFrame } from "./event_stream.ts";
import { familyOf } from "./family.ts";
import { OPEN_BLOCKS_MAX, THINKING_CHARS_MAX } from "./source.ts";
import { type Event, foldDeltas, Folded, frameOf, sseEventOf } from "./testing.ts";

const FIXTURES = new URL("../../../test/fixtures/bedrock/", import.meta.url);

function fixtures<T>(kind: string): [string, T][] {
  const folder = new URL(`${kind}/`, FIXTURES);
  return readdirSync(folder).map((file) => [
    file.replace(".json", ""),
    JSON.parse(readFileSync(new URL(file, folder), "utf8")) as T,
  ]);
}

const TARGET: HubTarget = {
  model: "amazon.nova-pro-v1:0",
  family: "",
  maxOutputTokens: 0,
  apiVersion: "",
  stream: false,
};

interface RequestPair {
  readonly target: Pick<HubTarget, "model" | "family" | "stream">;
  readonly chat: Json;
  readonly path: string;
  readonly body: Json;
}
interface StreamPair {
  readonly events: readonly Event[];
  readonly chat: Json;
}

const STREAMS = fixtures<StreamPair>("streams");

function refusal(chat: Json, target: Partial<HubTarget> = {}): RefusedFieldError {
  try {
    converseChat.request(chat, { ...TARGET, ...target });
  } catch (error) {
    if (error instanceof RefusedFieldError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("requests", () => {
  test.each(fixtures<RequestPair>("requests"))("%s", (_, { target, chat, path, body }) => {
    const before = JSON.stringify(chat);
    const call = converseChat.request(chat, { ...TARGET, ...target });
    expect(call.path).toBe(path);
    expect(call.body).toEqual(body);
    expect(call.headers).toEqual(["accept", target.stream ? "application/vnd.amazon.eventstream" : "application/json"]);
    expect(JSON.stringify(chat)).toBe(before);
  });

  test("are limited by what the target gives at most", () => {
    const { body } = converseChat.request({ messages: [], max_tokens: 500 }, { ...TARGET, maxOutputTokens: 100 });
    expect(body["inferenceConfig"]).toEqual({ maxTokens: 100 });
    const thinking = { messages: [], reasoning_effort: "high" };
    const target = { ...TARGET, model: "anthropic.claude-sonnet-4-5", maxOutputTokens: 8000 };
    expect(converseChat.request(thinking, target).body).toMatchObject({
      inferenceConfig: { maxTokens: 8000 },
      additionalModelRequestFields: { thinking: { budget_tokens: 6400 } },
    });
  });

  const user = (part: Json) => ({ messages: [{ role: "user", content: [part] }] });
  const base = { messages: [] };
  test.each<[string, Json, string, string | null, Partial<HubTarget>?]>([
    ["no messages", {}, "invalid_type", "messages"],
    ["an unknown role", { messages: [{ role: "robot" }] }, "invalid_value", "messages[0].role"],
    ["several choices", { ...base, n: 2 }, "unsupported_value", "n"],
    ["audio", { ...base, audio: { voice: "x" } }, "unsupported_parameter", "audio"],
    ["a modality", { ...base, modalities: ["text", "audio"] }, "unsupported_value", "modalities"],
    ["web search", { ...base, web_search_options: {} }, "unsupported_parameter", "web_search_options"],
    ["audio input", user({ type: "input_audio" }), "unsupported_value", "messages[0].content[0].type"],
    ["an unknown part", user({ type: "smell" }), "unsupported_value", "messages[0].content[0].type"],
    [
      "an image's address",
      user({ type: "image_url", image_url: { url: "https://x.example/a.png" } }),
      "unsupported_value",
      "messages[0].content[0].image_url.url",
    ],
    [
      "a format of images",
      user({ type: "image_url", image_url: { url: "data:image/tiff;base64,AA==" } }),
      "unsupported_value",
      "messages[0].content[0].image_url.url",
    ],
    [
      "an image that is not in base64",
      user({ type: "image_url", image_url: "data:image/png,x" }),
      "unsupported_value",
      "messages[0].content[0].image_url",
    ],
    [
      "a file's id",
      user({ type: "file", file: { file_id: "f" } }),
      "unsupported_value",
      "messages[0].content[0].file.file_id",
    ],
    ["no file", user({ type: "file", file: {} }), "invalid_value", "messages[0].content[0].file.file_data"],
    [
      "a kind of files",
      user({ type: "file", file: { filename: "a.zip", file_data: "data:application/zip;base64,AA==" } }),
      "unsupported_value",
      "messages[0].content[0].file",
    ],
    ["functions", { ...base, functions: [] }, "unsupported_parameter", "functions"],
    ["a function", { ...base, function_call: "auto" }, "unsupported_parameter", "function_call"],
    [
      "an answer to go on with",
      {
        messages: [
          { role: "user", content: "a" },
          { role: "assistant", content: "b" },
        ],
      },
      "unsupported_value",
      "messages[1]",
      { model: "anthropic.claude-opus-4-6-v1" },
    ],
    ["custom tools", { ...base, tools: [{ type: "custom" }] }, "unsupported_value", "tools[0].type"],
    [
      "names of tools",
      { ...base, tools: [{ type: "function", function: { name: "a b" } }] },
      "invalid_value",
      "tools[0].function.name",
    ],
    [
      "a tool that is not there",
      { ...base, tools: [{ function: { name: "a" } }], tool_choice: { type: "function", function: { name: "b" } } },
      "invalid_value",
      "tool_choice",
    ],
    [
      "stop sequences where there are none",
      { ...base, stop: ["x"] },
      "unsupported_parameter",
      "stop",
      { model: "us.openai.gpt-5.6-sol" },
    ],
  ])("with %s are refused", (_, chat, code, param, target) => {
    expect(refusal(chat, target)).toMatchObject({ code, param });
  });
});

describe("families", () => {
  test.each([
    ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "", "claude"],
    ["arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "claude-opus-4-6", "claude"],
    ["arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "", "other"],
    ["amazon.nova-lite-v1:0", "", "nova"],
    ["global.amazon.nova-2-lite-v1:0", "", "nova2"],
    ["openai.gpt-oss-20b-1:0", "", "gpt_oss"],
    ["us.openai.gpt-5.6-sol", "", "gpt"],
    ["us.deepseek.r1-v1:0", "", "deepseek"],
    ["mistral.ministral-3-8b", "", "mistral"],
    ["meta.llama3-1-70b-instruct-v1:0", "", "other"],
  ])("%s %s", (model, family, kind) => {
    expect(familyOf({ model, family }).kind).toBe(kind);
  });

  test("newer Claude takes no native JSON and no strict tools on Bedrock", () => {
    const native = (model: string) => familyOf({ model, family: "" }).nativeJson;
    expect(native("anthropic.claude-haiku-4-5-20251001-v1:0")).toBe(true);
    expect(native("anthropic.claude-opus-4-7")).toBe(false);
    expect(native("anthropic.claude-sonnet-4-20250514-v1:0")).toBe(false);
  });
});

describe("answers", () => {
  test.each(fixtures<{ body: Json; chat: Json }>("answers"))("%s", (_, { body, chat }) => {
    expect(converseChat.answer(body, TARGET)).toEqual(chat);
  });

  test.each([{}, { message: "no" }, { output: {} }, { output: { message: { content: "x" } } }])("not %j", (body) => {
    expect(converseChat.answer(body, TARGET)).toBeNull();
  });
});

function readFrames(bytes: Buffer, edges: readonly number[]): Json {
  const splitter = new EventStreamSplitter();
  const source = converseChat.source(TARGET);
  const event: SseEvent = { event: "", data: null };
  const folded = new Folded();
  let state: SourceState = SourceState.OPEN;
  let from = 0;
  for (const edge of [...edges, bytes.length]) {
    // A copy that is wiped afterwards: nothing may be kept of the socket's bytes.
    const chunk = Buffer.from(bytes.subarray(from, edge));
    splitter.push(chunk, (buffer, start, end) => {
      parseEventFrame(buffer, start, end, event);
      state = source.read(event);
      for (const { delta, finishReason } of source.deltas) folded.add(delta, finishReason);
    });
    chunk.fill(0);
    from = edge;
  }
  return { ...folded, state, usage: source.usage };
}

describe("streams", () => {
  test.each(STREAMS)("%s", (_, { events, chat }) => {
    const source = converseChat.source(TARGET);
    expect(foldDeltas(source, events)).toEqual(chat);
    expect(source.finished).toBe(true);
  });

  test("cut anywhere say the same", () => {
    const whole = STREAMS.map(([, { events, chat }]) => ({ bytes: Buffer.concat(events.map(frameOf)), chat }));
    fc.assert(
      fc.property(fc.constantFrom(...whole), fc.array(fc.nat(5000), { maxLength: 6 }), ({ bytes, chat }, cuts) => {
        const edges = cuts.map((cut) => cut % bytes.length).toSorted((a, b) => a - b);
        expect(readFrames(bytes, edges)).toEqual(chat);
      }),
      { numRuns: 150 },
    );
  });

  test("that end early are not finished, and empty ones say nothing", () => {
    const { events } = STREAMS.find(([name]) => name === "tools")![1];
    const source = converseChat.source(TARGET);
    expect(foldDeltas(source, events.slice(0, -2))).toMatchObject({ state: SourceState.OPEN, usage: null });
    expect(source.finished).toBe(false);
    expect(foldDeltas(converseChat.source(TARGET), [])).toMatchObject({ state: SourceState.OPEN, content: "" });
  });

  test("without usage at their end are finished nevertheless", () => {
    const { events } = STREAMS.find(([name]) => name === "text")![1];
    const source = converseChat.source(TARGET);
    foldDeltas(source, events.slice(0, -1));
    expect([source.finished, source.usage]).toEqual([true, null]);
  });

  const delta = (index: unknown, delta: Json): Event => ["contentBlockDelta", { contentBlockIndex: index, delta }];
  test.each<[string, Event]>([
    ["no object", ["messageStart", 1]],
    ["no index", delta("0", { text: "a" })],
    ["input of a call that did not begin", delta(0, { toolUse: { input: "{}" } })],
  ])("with %s are broken", (_, event) => {
    expect(converseChat.source(TARGET).read(sseEventOf(event))).toBe(SourceState.BROKEN);
  });

  test("that cannot be parsed are broken", () => {
    expect(converseChat.source(TARGET).read({ event: "metadata", data: Buffer.from("{") })).toBe(SourceState.BROKEN);
    expect(converseChat.source(TARGET).read({ event: "metadata", data: null })).toBe(SourceState.BROKEN);
  });

  test("keep no more than they must", () => {
    const source = converseChat.source(TARGET);
    const states = Array.from({ length: OPEN_BLOCKS_MAX + 1 }, (_, i) => source.read(sseEventOf(delta(i, {}))));
    expect(states.at(-2)).toBe(SourceState.OPEN);
    expect(states.at(-1)).toBe(SourceState.BROKEN);
    const thinking = "x".repeat(THINKING_CHARS_MAX / 2 + 1);
    const piece = delta(0, { reasoningContent: { text: thinking } });
    const end: Event = ["contentBlockStop", { contentBlockIndex: 0 }];
    const signature = delta(0, { reasoningContent: { signature: "s" } });
    const long = foldDeltas(converseChat.source(TARGET), [piece, piece, signature, end]);
    expect(long.thinking_blocks).toEqual([]);
    expect(long.reasoning_content).toHaveLength(2 * thinking.length);
    expect(foldDeltas(converseChat.source(TARGET), [piece, signature, end]).thinking_blocks).toHaveLength(1);
  });

  test.each([
    ["exception:throttlingException", 429, "rate_limit"],
    ["exception:modelStreamErrorException", 502, "failure"],
    ["exception:internalServerException", 502, "failure"],
    ["exception:serviceUnavailableException", 503, "failure"],
    ["exception:validationException", 400, "ignore"],
    ["exception:newException", 502, "failure"],
    ["error:InternalError", 502, "failure"],
  ])("may end with %s", (type, status, health) => {
    const source = converseChat.source(TARGET);
    expect(source.read(sseEventOf([type, { message: "words" }]))).toBe(SourceState.ERROR);
    expect(source.error).toMatchObject({ message: "words", status, health });
  });
});

describe("whatever comes", () => {
  const names = [
    ...[
      "messages",
      "role",
      "content",
      "type",
      "text",
      "image_url",
      "url",
      "file",
      "file_data",
      "tool_calls",
      "function",
    ],
    ...[
      "arguments",
      "name",
      "tools",
      "tool_choice",
      "response_format",
      "json_schema",
      "schema",
      "thinking",
      "metadata",
    ],
    ...["output", "message", "toolUse", "reasoningContent", "contentBlockIndex", "delta", "start", "usage", "stop"],
    ...["thinking_blocks", "citationsContent", "cacheDetails", "reasoning_effort", "allowed_tools", "cache_control"],
  ];
  const words = [
    "user",
    "assistant",
    "tool",
    "system",
    "text",
    "function",
    "required",
    "json_schema",
    "high",
    "enabled",
  ];
  const { json } = fc.letrec<{ json: unknown }>((tie) => ({
    json: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom<unknown>(...words, null, true, 0, 1, -1, 0.5, "", "{}", "data:image/png;base64,AA=="),
      fc.array(tie("json"), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...names), tie("json"), { maxKeys: 5 }),
    ),
  }));
  const object = fc.dictionary(fc.constantFrom(...names), json, { maxKeys: 6 });
  const models = [
    "anthropic.claude-sonnet-4-5",
    "anthropic.claude-opus-5-5",
    "amazon.nova-2-lite",
    "mistral.mistral-large",
  ];

  test("requests are made or refused", () => {
    const chat = fc
      .record({ messages: fc.array(object, { maxLength: 4 }) })
      .chain((base) => object.map((rest) => ({ ...rest, ...base })));
    fc.assert(
      fc.property(chat, fc.constantFrom(...models), (body, model) => {
        try {
          const { messages } = converseChat.request(body, { ...TARGET, model }).body as { messages: Json[] };
          // Turns alternate, begin with the user and are never empty.
          messages.forEach(({ role, content }, index) => {
            expect(role).toBe(index % 2 === 0 ? "user" : "assistant");
            expect((content as unknown[]).length).toBeGreaterThan(0);
          });
        } catch (error) {
          if (!(error instanceof RefusedFieldError)) throw error;
        }
      }),
      { numRuns: 500 },
    );
  });

  test("answers and events are read or not", () => {
    const types = [
      "messageStart",
      "contentBlockStart",
      "contentBlockDelta",
      "contentBlockStop",
      "messageStop",
      "metadata",
    ];
    const events = fc.array(fc.tuple(fc.constantFrom(...types), fc.oneof(object, json)), { maxLength: 8 });
    fc.assert(
      fc.property(object, events, (body, each) => {
        converseChat.answer(body, TARGET);
        foldDeltas(converseChat.source(TARGET), each);
      }),
      { numRuns: 300 },
    );
  });
});
