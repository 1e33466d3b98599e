import fc from "fast-check";
import { expect, test } from "vitest";
import { type HubContext, type HubTarget, type Json, RefusedFieldError } from "../hub.ts";
import { idsOfRequest } from "./body.ts";
import { responsesClient } from "./client.ts";
import { ResponsesStream } from "./native.ts";
import { readResponse } from "./native_answer.ts";
import { responsesChat } from "./upstream.ts";

const CONTEXT: HubContext = { id: "r1", createdS: 1, model: "lm", request: {} };
const TARGET: HubTarget = { model: "lm", family: "", maxOutputTokens: 0, apiVersion: "", stream: true };

/** Objects whose names are those that matter, with anything in them. */
function shaped(names: readonly string[], words: readonly string[]): fc.Arbitrary<Json> {
  const { tree } = fc.letrec<{ tree: unknown; object: Json }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.constantFrom<unknown>(...words, null, 0, 7, -1, true, false, ""),
      fc.array(tie("tree"), { maxLength: 3 }),
      tie("object"),
    ),
    object: fc.dictionary(fc.constantFrom(...names), tie("tree"), { maxKeys: 6 }),
  }));
  return fc.dictionary(fc.constantFrom(...names), tree, { minKeys: 1, maxKeys: 8 });
}

const REQUEST = shaped(
  [
    "input",
    "type",
    "role",
    "content",
    "text",
    "tools",
    "tool_choice",
    "name",
    "format",
    "call_id",
    "output",
    "id",
    "summary",
  ].concat([
    "encrypted_content",
    "image_url",
    "file_data",
    "reasoning",
    "effort",
    "messages",
    "tool_calls",
    "function",
    "custom",
    "n",
    "stop",
  ]),
  [
    "message",
    "user",
    "assistant",
    "function",
    "custom",
    "function_call",
    "reasoning",
    "input_text",
    "output_text",
    "json_schema",
  ].concat(["tool", "text", "image_url", "file", "allowed_tools", "auto", "item_reference"]),
);
const EVENT = shaped(
  [
    "type",
    "response",
    "item",
    "output",
    "output_index",
    "delta",
    "usage",
    "input_tokens",
    "output_tokens",
    "status",
    "error",
  ].concat([
    "content",
    "text",
    "call_id",
    "name",
    "arguments",
    "tool_usage",
    "web_search",
    "num_requests",
    "annotations",
    "logprobs",
    "part",
  ]),
  [
    "response.created",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.output_item.added",
  ].concat(
    ["response.output_item.done", "response.output_text.delta", "response.function_call_arguments.delta", "message"],
    ["function_call", "custom_tool_call", "reasoning", "output_text", "refusal", "web_search_call", "completed"],
  ),
);
const CHAT = shaped(
  [
    "choices",
    "message",
    "delta",
    "content",
    "tool_calls",
    "function",
    "custom",
    "id",
    "index",
    "name",
    "arguments",
    "usage",
  ].concat([
    "reasoning_content",
    "thinking_blocks",
    "annotations",
    "logprobs",
    "finish_reason",
    "refusal",
    "prompt_tokens",
  ]),
  ["function", "custom", "stop", "length", "a"],
);

/** Runs it, and passes over the one error that it may throw. */
function refusing(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(RefusedFieldError);
  }
}

test("requests of any shape are translated or refused", () => {
  fc.assert(
    fc.property(REQUEST, (made) => {
      // As it arrives: JSON has no objects without a prototype.
      const body = JSON.parse(JSON.stringify(made)) as Json;
      refusing(() => responsesClient.request(body));
      refusing(() => responsesChat.request(body, TARGET));
      expect(idsOfRequest(Buffer.from(JSON.stringify(body)))).not.toBeNull();
    }),
    { numRuns: 500 },
  );
});

test("events and answers of any shape are read", () => {
  fc.assert(
    fc.property(fc.array(EVENT, { maxLength: 4 }), fc.boolean(), (events, exact) => {
      const reader = new ResponsesStream((id) => `${id}_x`);
      const source = responsesChat.source(TARGET);
      for (const each of events) {
        const data = Buffer.from(JSON.stringify(each));
        reader.read({ event: "", data }, exact);
        reader.replacement(data, 0, data.length);
        source.read({ event: "", data });
        const reading = readResponse(data);
        expect(reading.textBytes()).toBeGreaterThanOrEqual(0);
        reading.hasContent();
        responsesChat.answer(each, TARGET);
      }
      expect(JSON.parse(reader.lengthFrame().toString("utf8").split("\n")[1]!.slice(6))).toBeTruthy();
    }),
    { numRuns: 250 },
  );
});

test("completions and deltas of any shape are told", () => {
  fc.assert(
    fc.property(CHAT, fc.array(CHAT, { maxLength: 4 }), (chat, deltas) => {
      responsesClient.answer(chat, CONTEXT);
      const sink = responsesClient.sink(CONTEXT);
      for (const delta of deltas) sink.push({ index: 0, delta, finishReason: null, logprobs: delta });
      expect(sink.end(chat)).toContain("event: response.completed");
    }),
    { numRuns: 300 },
  );
});
