import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { unitsFromUsage } from "../../meter.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { Meter } from "../../../core/meters.ts";
import { type ChatDelta, type HubTarget, type Json, RefusedFieldError, SourceState } from "../hub.ts";
import { BLOCK_CHARS_MAX } from "./source.ts";
import { anthropicChat, messagesPath } from "./upstream.ts";

const FIXTURES = new URL("../../../test/fixtures/anthropic/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, FIXTURES), "utf8");
const parse = <T>(name: string): T => JSON.parse(read(name)) as T;
const namesIn = (folder: string, end: string): string[] =>
  readdirSync(new URL(folder, FIXTURES)).filter((name) => name.endsWith(end));

const TARGET: HubTarget = { model: "claude-opus-4-6", family: "", maxOutputTokens: 0, apiVersion: "", stream: false };

interface RequestPair {
  readonly name: string;
  readonly target: HubTarget;
  readonly chat: Json;
  readonly body: Json;
}

describe.each(namesIn("requests/", ".json"))("requests: %s", (file) => {
  test.each(parse<RequestPair[]>(`requests/${file}`))("$name", ({ target, chat, body }) => {
    const before = structuredClone(chat);
    const call = anthropicChat.request(chat, target);
    expect(call.body).toEqual(body);
    expect(call.path).toBe("/v1/messages");
    expect(call.headers).toEqual(["anthropic-version", target.apiVersion || "2023-06-01"]);
    // Another target may be asked with it next.
    expect(chat).toEqual(before);
  });
});

test("the path goes after bases with and without a version", () => {
  expect(["", "/", "/v1", "/proxy/v1/", "/anthropic"].map(messagesPath)).toEqual([
    "/v1/messages",
    "/v1/messages",
    "/messages",
    "/messages",
    "/v1/messages",
  ]);
});

describe("what Claude cannot be asked is refused by name", () => {
  const user = (...content: unknown[]): Json => ({ messages: [{ role: "user", content }] });
  const hi = { messages: [{ role: "user", content: "Hi" }] };
  const tool = { type: "function", function: { name: "f" } };
  const called = (...calls: unknown[]): Json => ({ role: "assistant", content: null, tool_calls: calls });
  const call = (id: string): Json => ({ id, type: "function", function: { name: "f", arguments: "{}" } });
  const file = (fields: Json): Json => user({ type: "file", file: fields });
  const image = (url: unknown): Json => user({ type: "image_url", image_url: { url } });
  test.each<[string, RefusedFieldError["code"], string, Json]>([
    ["no messages", "missing_required_parameter", "messages", {}],
    ["messages that are no list", "invalid_type", "messages", { messages: "Hi" }],
    ["an empty list", "invalid_value", "messages", { messages: [] }],
    ["a role", "invalid_value", "messages[0].role", { messages: [{ role: "critic", content: "Hi" }] }],
    ["content that is no text", "invalid_type", "messages[0].content", { messages: [{ role: "user", content: 5 }] }],
    ["several answers", "unsupported_value", "n", { ...hi, n: 2 }],
    ["audio output", "unsupported_parameter", "audio", { ...hi, audio: { voice: "a", format: "mp3" } }],
    ["audio as a modality", "unsupported_value", "modalities", { ...hi, modalities: ["text", "audio"] }],
    ["a search of the web", "unsupported_parameter", "web_search_options", { ...hi, web_search_options: {} }],
    ["functions of old", "unsupported_parameter", "functions", { ...hi, functions: [{ name: "f" }] }],
    ["audio input", "unsupported_parameter", "messages[0].content[0]", user({ type: "input_audio", input_audio: {} })],
    ["a part of no kind", "unsupported_value", "messages[0].content[1].type", user("Hi", { type: "video" })],
    ["a file by its id", "unsupported_parameter", "messages[0].content[0].file.file_id", file({ file_id: "file-1" })],
    ["no file at all", "missing_required_parameter", "messages[0].content[0].file.file_data", file({})],
    [
      "a file of no known kind",
      "unsupported_value",
      "messages[0].content[0].file.file_data",
      file({ file_data: "data:application/zip;base64,UEs=" }),
    ],
    [
      "a file that is no data URL",
      "invalid_value",
      "messages[0].content[0].file.file_data",
      file({ file_data: "JVBERi0=" }),
    ],
    [
      "an image of another kind",
      "unsupported_value",
      "messages[0].content[0].image_url.url",
      image("data:image/svg+xml;base64,PHN2"),
    ],
    ["an image that is no data", "invalid_value", "messages[0].content[0].image_url.url", image("file:///etc/passwd")],
    ["an image without address", "invalid_type", "messages[0].content[0].image_url.url", image(7)],
    [
      "images of the system",
      "unsupported_value",
      "messages[0].content[0].type",
      { messages: [{ role: "system", content: [{ type: "image_url" }] }] },
    ],
    [
      "an answer to go on with",
      "unsupported_value",
      "messages[1]",
      { messages: [...(hi.messages as Json[]), { role: "assistant", content: "So" }] },
    ],
    [
      "a call without result",
      "invalid_value",
      "messages[1].tool_calls[1]",
      { messages: [...hi.messages, called(call("a"), call("b")), { role: "tool", tool_call_id: "a", content: "x" }] },
    ],
    [
      "a result without call",
      "invalid_value",
      "messages[1]",
      { messages: [...hi.messages, { role: "tool", tool_call_id: "a", content: "x" }] },
    ],
    [
      "a result too many",
      "invalid_value",
      "messages[3]",
      {
        messages: [
          ...hi.messages,
          called(call("a")),
          { role: "tool", tool_call_id: "a", content: "x" },
          { role: "tool", tool_call_id: "a", content: "x" },
        ],
      },
    ],
    [
      "two calls in one",
      "invalid_value",
      "messages[1].tool_calls[1].id",
      { messages: [...hi.messages, called(call("a"), call("a"))] },
    ],
    [
      "a call without id",
      "missing_required_parameter",
      "messages[1].tool_calls[0].id",
      { messages: [...hi.messages, called({ type: "function", function: { name: "f" } })] },
    ],
    ["tools that are no list", "invalid_type", "tools", { ...hi, tools: {} }],
    ["a tool of another kind", "unsupported_value", "tools[1].type", { ...hi, tools: [tool, { type: "web_search" }] }],
    [
      "the name of a tool",
      "invalid_value",
      "tools[0].function.name",
      { ...hi, tools: [{ type: "function", function: { name: "a b" } }] },
    ],
    [
      "parameters that are no object",
      "invalid_value",
      "tools[0].function.parameters.type",
      { ...hi, tools: [{ type: "function", function: { name: "f", parameters: { type: "string" } } }] },
    ],
    [
      "the choice of no tool",
      "invalid_value",
      "tool_choice.function.name",
      { ...hi, tools: [tool], tool_choice: { type: "function", function: { name: "g" } } },
    ],
    ["a choice without tools", "invalid_value", "tool_choice", { ...hi, tool_choice: "required" }],
    ["an unknown choice", "invalid_value", "tool_choice", { ...hi, tools: [tool], tool_choice: "sometimes" }],
    [
      "an unknown tool among those allowed",
      "invalid_value",
      "tool_choice.allowed_tools.tools[0].function.name",
      {
        ...hi,
        tools: [tool],
        tool_choice: {
          type: "allowed_tools",
          allowed_tools: { mode: "auto", tools: [{ type: "function", function: { name: "g" } }] },
        },
      },
    ],
    ["a form of answer", "invalid_value", "response_format.type", { ...hi, response_format: { type: "xml" } }],
    [
      "a form without schema",
      "missing_required_parameter",
      "response_format.json_schema.schema",
      { ...hi, response_format: { type: "json_schema" } },
    ],
    ["an effort", "invalid_value", "reasoning_effort", { ...hi, reasoning_effort: "ultra" }],
    ["a kind of thinking", "invalid_value", "thinking.type", { ...hi, thinking: { type: "deep" } }],
    ["a budget", "invalid_value", "thinking.budget_tokens", { ...hi, thinking: { type: "enabled" } }],
    ["no tokens", "invalid_value", "max_tokens", { ...hi, max_tokens: 0 }],
    ["a limit in words", "invalid_type", "max_completion_tokens", { ...hi, max_completion_tokens: "9" }],
    ["a temperature in words", "invalid_type", "temperature", { ...hi, temperature: "hot" }],
    ["stops", "invalid_type", "stop", { ...hi, stop: ["a", 1] }],
    ["the user", "invalid_type", "user", { ...hi, user: 5 }],
  ])("%s", (_, code, param, chat) => {
    let thrown: unknown;
    try {
      anthropicChat.request(chat, TARGET);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(RefusedFieldError);
    expect(thrown).toMatchObject({ code, param });
  });

  test("nulls are as good as absent", () => {
    const names = [
      "n",
      "audio",
      "tools",
      "tool_choice",
      "stop",
      "max_tokens",
      "temperature",
      "user",
      "thinking",
      "response_format",
    ];
    const nulls = Object.fromEntries(names.map((name) => [name, null]));
    expect(anthropicChat.request({ ...hi, ...nulls }, TARGET)).toEqual(anthropicChat.request(hi, TARGET));
  });
});

describe("whole answers", () => {
  interface Pair {
    readonly name: string;
    readonly answer: Json;
    readonly chat: Json | null;
  }
  test.each(parse<Pair[]>("answers/answers.json"))("$name", ({ answer, chat }) => {
    expect(anthropicChat.answer(answer, TARGET)).toEqual(chat);
  });

  test.each<Json>([{}, { content: "text" }, { content: [], type: "error" }])("%j is none", (body) => {
    expect(anthropicChat.answer(body, TARGET)).toBeNull();
  });

  test("usage comes to the meters it belongs to, each token once", () => {
    const usage = {
      input_tokens: 5,
      cache_creation_input_tokens: 300,
      cache_read_input_tokens: 1000,
      output_tokens: 60,
      output_tokens_details: { thinking_tokens: 50 },
    };
    const chat = anthropicChat.answer({ type: "message", content: [], stop_reason: "end_turn", usage }, TARGET)!;
    const units = unitsFromUsage(chat["usage"], true, true)!.map(({ meter, quantity }) => [meter, quantity]);
    expect(Object.fromEntries(units)).toMatchObject({
      [Meter.INPUT_TOKENS]: 5,
      [Meter.CACHED_INPUT_TOKENS]: 1000,
      [Meter.CACHE_WRITE_TOKENS]: 300,
      [Meter.OUTPUT_TOKENS]: 10,
      [Meter.REASONING_TOKENS]: 50,
    });
  });
});

interface StreamResult {
  readonly state: string;
  readonly finished: boolean;
  readonly usage: unknown;
  readonly error: unknown;
  readonly deltas: readonly Json[];
}

const STATE_NAMES = Object.fromEntries(Object.entries(SourceState).map(([name, value]) => [value, name]));

function flat({ delta, finishReason, index }: ChatDelta): Json {
  expect(index).toBe(0);
  return finishReason === null ? delta : { ...delta, finish_reason: finishReason };
}

/** Reads the stream in pieces that end at `cuts`. */
function readStream(bytes: Buffer, cuts: readonly number[]): StreamResult {
  const source = anthropicChat.source(TARGET);
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const deltas: Json[] = [];
  let state: SourceState = SourceState.OPEN;
  const ends = [...cuts, bytes.length].toSorted((a, b) => a - b);
  let from = 0;
  for (const end of ends) {
    // The bytes are the socket's, and others stand there later.
    const chunk = Buffer.from(bytes.subarray(from, end));
    splitter.push(chunk, (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      if (state !== SourceState.OPEN) return;
      state = source.read(event);
      deltas.push(...source.deltas.map(flat));
    });
    from = end;
  }
  return { state: STATE_NAMES[state]!, finished: source.finished, usage: source.usage, error: source.error, deltas };
}

describe.each(namesIn("streams/", ".txt"))("streams: %s", (file) => {
  const bytes = Buffer.from(read(`streams/${file}`));
  const { native: _, ...expected } = parse<StreamResult & { native: unknown }>(
    `streams/${file.replace(".txt", ".json")}`,
  );

  test("read at once", () => expect(readStream(bytes, [])).toEqual(expected));

  test("cut anywhere", () => {
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 12 });
    fc.assert(
      fc.property(cuts, (at) => {
        expect(readStream(bytes, at)).toEqual(expected);
      }),
      { numRuns: 40 },
    );
    expect(readStream(bytes, [...bytes.keys()])).toEqual(expected);
  });
});

describe("streams", () => {
  const event = (data: Json): SseEvent => ({ event: String(data["type"]), data: Buffer.from(JSON.stringify(data)) });

  test("what a block keeps is bounded", () => {
    const source = anthropicChat.source(TARGET);
    source.read(event({ type: "content_block_start", index: 0, content_block: { type: "thinking" } }));
    const delta = { type: "thinking_delta", thinking: "x".repeat(BLOCK_CHARS_MAX / 2) };
    const states = [1, 2, 3].map(() => source.read(event({ type: "content_block_delta", index: 0, delta })));
    expect(states).toEqual([SourceState.OPEN, SourceState.OPEN, SourceState.BROKEN]);
  });

  test("the end without a reason still ends the choice", () => {
    const source = anthropicChat.source(TARGET);
    expect(source.read(event({ type: "message_stop" }))).toBe(SourceState.DONE);
    expect([source.deltas[0]!.finishReason, source.usage]).toEqual(["stop", null]);
  });

  test("errors of other servers are errors too", () => {
    for (const frame of [
      { event: "", data: Buffer.from('{"error":{"message":"x"}}') },
      { event: "error", data: Buffer.from("oops") },
      { event: "error", data: null },
    ]) {
      const source = anthropicChat.source(TARGET);
      expect(source.read(frame)).toBe(SourceState.ERROR);
      expect(source.error).toMatchObject({ health: "failure", clientFault: false });
    }
  });
});

describe("errors", () => {
  const account = { health: "account", clientFault: false, status: 502, type: "server_error" };
  const fault = { health: "ignore", clientFault: true, type: "invalid_request_error" };
  const failure = { health: "failure", clientFault: false };
  const limit = { health: "rate_limit", clientFault: false, code: "rate_limit_exceeded", type: "rate_limit_error" };
  const model = { health: "model", clientFault: false, code: "model_not_found" };
  const invalid = "invalid_request_error";
  test.each<[number, string, string, Json, string?]>([
    [400, invalid, "max_tokens: Field required", { ...fault, code: null }],
    [400, invalid, "prompt is too long: 210000 tokens > 200000 maximum", { ...fault, code: "context_length_exceeded" }],
    [
      400,
      invalid,
      "input length and `max_tokens` exceed context limit: 1 + 2 > 3",
      { ...fault, code: "context_length_exceeded" },
    ],
    [400, invalid, "You have reached your specified API usage limits.", account],
    [400, invalid, "Your credit balance is too low to access the API.", account],
    [400, invalid, "This organization has been disabled.", account],
    [400, invalid, "messages.0: unexpected text: your credit balance is too low", { ...fault, code: null }],
    [400, invalid, "no", account, "monthly_spend_limit_reached"],
    [401, "authentication_error", "invalid x-api-key", account],
    [402, "billing_error", "no", account, "linked_organization_spend_limit_reached"],
    [403, "permission_error", "no", account],
    [404, "not_found_error", "model: claude-none", model],
    [408, "", "", failure],
    [409, "conflict_error", "no", failure],
    [413, "request_too_large", "no", { ...fault, code: "request_too_large" }],
    [422, invalid, "no", { ...fault, code: null }],
    [429, "rate_limit_error", "slow down", limit],
    [429, "rate_limit_error", "no", account, "enforced_spend_limit_reached"],
    [429, "rate_limit_error", "no", account, "contract_spend_limit_reached"],
    [429, "rate_limit_error", "no", account, "ramp_limit_exceeded"],
    [500, "api_error", "no", { ...failure, type: "server_error" }],
    [503, "api_error", "no", failure, "cmek_key_unreachable"],
    [504, "timeout_error", "no", { ...failure, code: "timeout" }],
    [529, "overloaded_error", "no", { ...failure, status: 503, code: "overloaded" }],
    [418, "teapot_error", "no", failure],
  ])("%i %s: %s", (status, type, message, expected, errorCode) => {
    const details = errorCode === undefined ? {} : { details: { error_code: errorCode } };
    const body = { type: "error", error: { type, message, ...details }, request_id: "req_1" };
    const error = anthropicChat.error(status, {}, Buffer.from(JSON.stringify(body)));
    expect(error).toMatchObject({ ...expected, param: null });
    if (message !== "") expect(error.message).toBe(message);
  });

  test.each<[number, Json]>([
    [401, account],
    [403, account],
    [404, model],
    [413, { ...fault, code: "request_too_large" }],
    [429, limit],
    [502, failure],
    [529, { ...failure, status: 503 }],
  ])("%i from a proxy on the way", (status, expected) => {
    for (const text of ["<html>Too bad</html>", "", "[]", '{"error":"x"}', '{"error":{"type":5}}'])
      expect(anthropicChat.error(status, {}, Buffer.from(text))).toMatchObject(expected);
  });
});
