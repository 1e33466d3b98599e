/** What of a Messages body is refused and how thinking is told; the rest is in the golden pairs. */

import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { lastUserText as inBytes, scanBody } from "../../body.ts";
import { type Json, RefusedFieldError } from "../hub.ts";
import { messagesClient } from "./client.ts";
import { lastUserText } from "./last_text.ts";
import { isWarmUp, maxTokensOf } from "./request.ts";
import { accumulate } from "./testing_accumulate.ts";
import { checkVersion, STRICT_VERSION } from "./version.ts";

const BASE = { model: "m", max_tokens: 10, messages: [{ role: "user", content: "Hi" }] };
const chat = (fields: Json = {}): any => messagesClient.request({ ...BASE, ...fields });

function refusal(run: () => unknown): RefusedFieldError {
  try {
    run();
  } catch (error) {
    if (error instanceof RefusedFieldError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

const user = (...content: Json[]): Json => ({ messages: [{ role: "user", content }] });
const assistant = (...content: Json[]): Json => ({ messages: [BASE.messages[0], { role: "assistant", content }] });

describe("refused, naming the field", () => {
  test.each<[Json, string, string]>([
    [{ max_tokens: undefined }, "missing_required_parameter", "max_tokens"],
    [{ max_tokens: null }, "missing_required_parameter", "max_tokens"],
    [{ max_tokens: 1.5 }, "invalid_type", "max_tokens"],
    [{ max_tokens: -1 }, "invalid_type", "max_tokens"],
    [{ max_tokens: "10" }, "invalid_type", "max_tokens"],
    [{ messages: undefined }, "missing_required_parameter", "messages"],
    [{ messages: "Hi" }, "invalid_type", "messages"],
    [{ messages: [] }, "invalid_value", "messages"],
    [{ messages: ["Hi"] }, "invalid_type", "messages[0]"],
    [{ messages: [{ role: "tool", content: "x" }] }, "invalid_value", "messages[0].role"],
    [{ messages: [{ role: "user" }] }, "invalid_type", "messages[0].content"],
    [{ messages: [{ role: "user", content: [7] }] }, "invalid_type", "messages[0].content[0]"],
    [{ system: 7 }, "invalid_type", "system"],
    [{ system: [{ type: "image", source: { type: "url", url: "u" } }] }, "unsupported_value", "system[0]"],
    [user({ type: "hologram" }), "unsupported_value", "messages[0].content[0].type"],
    [user({ type: "image", source: { type: "file" } }), "unsupported_value", "messages[0].content[0].source.type"],
    [user({ type: "document", source: { type: "url" } }), "unsupported_value", "messages[0].content[0].source.type"],
    [
      user({ type: "document", source: { type: "base64", media_type: "text/html" } }),
      "unsupported_value",
      "messages[0].content[0].source.media_type",
    ],
    [
      user({ type: "tool_result", tool_use_id: "t", content: [{ type: "text", text: "" }, { type: "hologram" }] }),
      "unsupported_value",
      "messages[0].content[0].content[1].type",
    ],
    [assistant({ type: "tool_result" }), "unsupported_value", "messages[1].content[0].type"],
    [{ tools: [{ name: "a" }, { type: "web_search_20250305" }] }, "unsupported_value", "tools[1].type"],
    [{ tools: [{ type: "bash_20250124", name: "bash" }] }, "unsupported_value", "tools[0].type"],
    [{ tools: [{ type: "computer_20250124" }] }, "unsupported_value", "tools[0].type"],
    [{ tools: [{ type: "mcp_toolset" }] }, "unsupported_value", "tools[0].type"],
    [{ tools: [{ description: "no name" }] }, "missing_required_parameter", "tools[0].name"],
    [{ tools: [{ name: "a" }], tool_choice: { type: "some" } }, "invalid_value", "tool_choice.type"],
    [{ output_config: { format: { type: "xml" } } }, "unsupported_value", "output_config.format.type"],
  ])("%j", (fields, code, param) => {
    const error = refusal(() => chat(fields));
    expect([error.code, error.param]).toEqual([code, param]);
    // The envelope of Messages has no field for it.
    expect(error.message).toContain(param);
  });
});

describe("tools", () => {
  test.each([
    [{ type: "auto" }, "auto", undefined],
    [{ type: "any" }, "required", undefined],
    [{ type: "any", disable_parallel_tool_use: true }, "required", false],
    [
      { type: "tool", name: "a", disable_parallel_tool_use: false },
      { type: "function", function: { name: "a" } },
      undefined,
    ],
    [{ type: "none" }, "none", undefined],
    [null, undefined, undefined],
  ])("choice %j", (choice, made, parallel) => {
    const { tool_choice, parallel_tool_calls } = chat({ tools: [{ name: "a" }], tool_choice: choice });
    expect([tool_choice, parallel_tool_calls]).toEqual([made, parallel]);
  });

  test("that only search for others are left out, and a choice among none with them", () => {
    const tools = [{ type: "tool_search_tool_bm25_20251119", name: "tool_search_tool_bm25" }];
    expect(chat({ tools, tool_choice: { type: "auto" } })).toEqual(chat());
    expect(chat({ tools: [] })).toEqual(chat());
  });
});

describe("names of tools that are too long for chat", () => {
  const LONG = [`mcp__${"server".repeat(10)}__read`, `mcp__${"server".repeat(10)}__write`];
  const request = {
    ...BASE,
    tools: LONG.map((name) => ({ name })),
    tool_choice: { type: "tool", name: LONG[1] },
    messages: [
      BASE.messages[0],
      { role: "assistant", content: [{ type: "tool_use", id: "t", name: LONG[0], input: {} }] },
    ],
  };
  const made: any = messagesClient.request(request);
  const names: string[] = made.tools.map((tool: any) => tool.function.name);
  const context = { id: "1", createdS: 1, model: "lm", request };
  const calls = names.map((name, index) => ({ index, id: `c${index}`, function: { name, arguments: "{}" } }));

  test("are cut, and still differ", () => {
    expect(names.map((name) => name.length)).toEqual([64, 64]);
    expect(new Set(names).size).toBe(2);
    expect(made.tool_choice.function.name).toBe(names[1]);
    expect(made.messages[1].tool_calls[0].function.name).toBe(names[0]);
  });

  test("are whole again in answers and streams", () => {
    const choice = { index: 0, message: { tool_calls: calls }, finish_reason: "tool_calls" };
    const whole: any = messagesClient.answer({ choices: [choice] }, context);
    expect(whole.content.map(({ name }: any) => name)).toEqual(LONG);
    const sink = messagesClient.sink(context);
    const out = sink.push({ index: 0, delta: { tool_calls: calls }, finishReason: "tool_calls" }) + sink.end(null);
    expect(accumulate(out).content).toEqual(whole.content);
  });
});

test.each<[Json, string | undefined]>([
  [{}, undefined],
  [{ thinking: { type: "adaptive" } }, "high"],
  [{ thinking: { type: "adaptive" }, output_config: { effort: "low" } }, "low"],
  [{ output_config: { effort: "xhigh" } }, "xhigh"],
  [{ thinking: { type: "enabled", budget_tokens: 1024 } }, "low"],
  [{ thinking: { type: "enabled", budget_tokens: 2048 } }, "low"],
  [{ thinking: { type: "enabled", budget_tokens: 2049 } }, "medium"],
  [{ thinking: { type: "enabled", budget_tokens: 8192 } }, "medium"],
  [{ thinking: { type: "enabled", budget_tokens: 8193 } }, "high"],
  [{ thinking: { type: "enabled", budget_tokens: 9000 }, output_config: { effort: "low" } }, "low"],
  [{ thinking: { type: "between_tools" } }, "low"],
  [{ thinking: { type: "disabled" }, output_config: { effort: "high" } }, undefined],
])("%j is effort %s, and thinking goes along", (fields, effort) => {
  const made = chat(fields);
  expect(made.reasoning_effort).toBe(effort);
  expect(made.thinking).toEqual(fields["thinking"]);
});

test.each([
  ["abc_DEF-1", "abc_DEF-1"],
  ["a".repeat(64), "a".repeat(64)],
  ...["a".repeat(65), "somebody@example.com"].map((id) => [id, createHash("sha256").update(id).digest("hex")]),
])("user id %s", (id, made) => {
  const { user: old, safety_identifier } = chat({ metadata: { user_id: id } });
  expect([old, safety_identifier]).toEqual([made, made]);
  expect(made!.length).toBeLessThanOrEqual(64);
});

test("a limit of 0 warms a cache", () => {
  expect([isWarmUp(BASE), isWarmUp({ ...BASE, max_tokens: 0 })]).toEqual([false, true]);
  expect(maxTokensOf({ max_tokens: 0 })).toBe(0);
  expect(chat({ max_tokens: 0 }).max_completion_tokens).toBe(1);
});

describe("the version", () => {
  const DOCUMENT = assistant({ type: "document", source: {} });
  const CITED = user({ type: "text", text: "a", citations: [{}] });
  test.each<[Json, string]>([
    [{ temperature: 1 }, "temperature"],
    [{ top_p: 1 }, "top_p"],
    [{ top_k: 1 }, "top_k"],
    [DOCUMENT, "messages[1].content[0].type"],
    [CITED, "messages[0].content[0].citations"],
  ])(`${STRICT_VERSION} refuses %j`, (fields, param) => {
    expect(refusal(() => checkVersion({ ...BASE, ...fields }, STRICT_VERSION)).param).toBe(param);
    for (const version of ["", "2023-06-01", "2099-01-01"]) checkVersion({ ...BASE, ...fields }, version);
  });

  test("refuses nothing else", () => {
    checkVersion({ ...BASE, temperature: null }, STRICT_VERSION);
    checkVersion(user({ type: "document" }, { type: "text", text: "a", citations: [] }) as Json, STRICT_VERSION);
    checkVersion(assistant({ type: "text", text: "a", citations: [{}] }) as Json, STRICT_VERSION);
    checkVersion({ messages: 7 }, STRICT_VERSION);
  });
});

describe("what the user said last", () => {
  const text = (value: string): Json => ({ type: "text", text: value });
  const NOTE = text("<system-reminder>\nTasks.\n</system-reminder>\n");
  const RESULT = { type: "tool_result", tool_use_id: "t", content: "/tokenbill" };
  test.each<[unknown, string | null]>([
    ["/tokenbill", "/tokenbill"],
    [[text("/token"), text("bill")], "/tokenbill"],
    [[NOTE, text("/tokenbill"), NOTE], "/tokenbill"],
    [[NOTE], null],
    [[RESULT], null],
    [[RESULT, text("/tokenbill")], null],
    [[text("/tokenbill"), { type: "image" }], null],
    [[], null],
    [7, null],
  ])("in %j", (content, said) => {
    const after = [
      { role: "assistant", content: "x" },
      { role: "system", content: "/other" },
    ];
    expect(lastUserText({ messages: [{ role: "user", content: "first" }, { role: "user", content }, ...after] })).toBe(
      said,
    );
  });

  test("is found in the bytes of Messages too, but for Claude Code's notes", () => {
    const said = (content: unknown): string | null => {
      const messages = [
        { role: "user", content },
        { role: "system", content: "/other" },
      ];
      return inBytes(scanBody(Buffer.from(JSON.stringify({ ...BASE, messages }))), "/tokenbill");
    };
    expect(said([text("/tokenbill")])).toBe("/tokenbill");
    expect(said([RESULT])).toBeNull();
    expect(said([RESULT, text("/tokenbill")])).toBeNull();
    expect(said([NOTE, text("/tokenbill")])).not.toBe("/tokenbill");
  });

  test("is nothing without a user", () => {
    expect(lastUserText({})).toBeNull();
    expect(lastUserText({ messages: [{ role: "assistant", content: "/tokenbill" }] })).toBeNull();
  });
});

test("no body whatever fails in any other way", () => {
  const block = fc.record(
    {
      type: fc.constantFrom("text", "image", "document", "tool_use", "tool_result", "thinking", 7),
      text: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );
  const message = fc.record({
    role: fc.constantFrom("user", "assistant", "system"),
    content: fc.oneof(fc.jsonValue(), fc.array(block)),
  });
  const body = fc.record(
    {
      max_tokens: fc.constant(1),
      messages: fc.array(message),
      system: fc.jsonValue(),
      tools: fc.jsonValue(),
      tool_choice: fc.jsonValue(),
      thinking: fc.jsonValue(),
      output_config: fc.jsonValue(),
      metadata: fc.jsonValue(),
    },
    { requiredKeys: ["max_tokens"] },
  );
  fc.assert(
    fc.property(body, (value) => {
      try {
        expect(messagesClient.request(value as Json)["messages"]).toBeInstanceOf(Array);
      } catch (error) {
        expect(error).toBeInstanceOf(RefusedFieldError);
      }
    }),
    { numRuns: 300 },
  );
});
