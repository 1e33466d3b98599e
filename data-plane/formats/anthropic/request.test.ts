import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type HubTarget, type Json, RefusedFieldError } from "../hub.ts";
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

describe("whatever comes", () => {
  const words = fc.constantFrom(
    "user",
    "assistant",
    "tool",
    "system",
    "text",
    "image_url",
    "function",
    "custom",
    "f",
    "{}",
  );
  const keys = fc.constantFrom(
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "id",
    "url",
    "tool_call_id",
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, words, fc.constant(null), fc.integer(), tie("list"), tie("object")),
    list: fc.array(tie("value"), { maxLength: 4 }),
    object: fc.dictionary(keys, tie("value"), { maxKeys: 4 }),
  }));
  const fields = fc.record(
    { tools: value, tool_choice: value, response_format: value, thinking: value, stop: value, max_tokens: value },
    { requiredKeys: [] },
  );

  test("a request is mapped, or refused by name", () => {
    const check = (messages: unknown, more: Json): void => {
      try {
        anthropicChat.request({ messages, ...more }, TARGET);
      } catch (error) {
        expect(error).toBeInstanceOf(RefusedFieldError);
      }
    };
    fc.assert(fc.property(fc.oneof(value, fc.array(value)), fc.oneof(fc.constant({}), fields), check), {
      numRuns: 300,
    });
  });
});
