/** Streams of Messages keep their grammar whatever order the deltas come in, and say what whole answers say. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { HubContext, Json } from "../hub.ts";
import { WAITING_CHARS_MAX } from "./blocks.ts";
import { messagesClient } from "./client.ts";
import { JsonEnd } from "./json_end.ts";
import { accumulate, eventsOf } from "./testing_accumulate.ts";

const CONTEXT: HubContext = { id: "1", createdS: 1, model: "lm", request: {} };
const USAGE = {
  prompt_tokens: 100,
  completion_tokens: 30,
  total_tokens: 130,
  prompt_tokens_details: { cached_tokens: 50, cache_write_tokens: 20, cache_write_long_tokens: 5 },
  completion_tokens_details: { reasoning_tokens: 12 },
};
const piece = (delta: Json) => ({ index: 0, delta, finishReason: null });
const call = (index: number, args: string, id?: string, name?: string) =>
  piece({ tool_calls: [{ index, ...(id === undefined ? {} : { id }), function: { name, arguments: args } }] });

/** Text cut at random places. */
const pieces = (text: string) =>
  fc
    .array(fc.nat(text.length), { maxLength: 6 })
    .map((cuts) => [0, ...cuts.sort((a, b) => a - b), text.length])
    .map((at) => at.slice(1).map((end, index) => text.slice(at[index], end)));

const args = fc.dictionary(fc.string({ maxLength: 5 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 });
const texts = fc.string({ unit: "grapheme", maxLength: 30 });

/** Several streams of deltas, each of its own kind, in any interleaving that keeps the order of each. */
function interleave<T>(streams: readonly (readonly T[])[], picks: readonly number[]): T[] {
  const rest = streams.map((each) => [...each]);
  const out: T[] = [];
  for (let turn = 0; rest.some((each) => each.length > 0); turn++) {
    const left = rest.filter((each) => each.length > 0);
    out.push(left[(picks[turn % picks.length] ?? 0) % left.length]!.shift()!);
  }
  return out;
}

const joined = (content: readonly any[], type: string, key: string): string =>
  content
    .filter((block) => block.type === type)
    .map((block) => block[key])
    .join("");
const toolsOf = (content: readonly any[]) => content.filter((block) => block.type === "tool_use");

const answers = fc
  .record({ content: texts, reasoning: texts, calls: fc.array(args, { maxLength: 4 }) })
  .chain(({ content, reasoning, calls }) => {
    const jsons = calls.map((each) => JSON.stringify(each));
    return fc.record({
      content: fc.constant(content),
      reasoning: fc.constant(reasoning),
      jsons: fc.constant(jsons),
      texts: pieces(content),
      thoughts: pieces(reasoning),
      parts: fc.tuple(...jsons.map(pieces)),
      picks: fc.array(fc.nat(9), { minLength: 1, maxLength: 40 }),
    });
  });

describe("any interleaving of deltas", () => {
  test("is a sound stream of the same content and usage as the whole answer", () => {
    fc.assert(
      fc.property(answers, ({ content, reasoning, jsons, texts: cut, thoughts, parts, picks }) => {
        const tools = parts.map((each, index) => [
          call(index, "", `call_${index}`, `tool_${index}`),
          ...each.map((text) => call(index, text)),
        ]);
        const streams = [cut.map((text) => piece({ content: text })), ...tools];
        const deltas = interleave([...streams, thoughts.map((text) => piece({ reasoning_content: text }))], picks);
        const sink = messagesClient.sink(CONTEXT);
        let out = deltas.map((delta) => sink.push(delta)).join("");
        out += sink.push({ index: 0, delta: {}, finishReason: "stop" }) + sink.end(USAGE);
        const calls = jsons.map((json, index) => ({
          id: `call_${index}`,
          function: { name: `tool_${index}`, arguments: json },
        }));
        const message = { content, reasoning_content: reasoning, tool_calls: calls };
        const whole: any = messagesClient.answer(
          { choices: [{ index: 0, message, finish_reason: "stop" }], usage: USAGE },
          CONTEXT,
        );
        const streamed = accumulate(out);
        expect({ ...streamed, content: null }).toEqual({ ...whole, content: null });
        expect(joined(streamed.content, "text", "text")).toBe(content);
        expect(joined(streamed.content, "thinking", "thinking")).toBe(reasoning);
        const byId = (a: any, b: any): number => a.id.localeCompare(b.id);
        expect(toolsOf(streamed.content).sort(byId)).toEqual(toolsOf(whole.content));
      }),
      { numRuns: 300 },
    );
  });

  test("in the usual order is the same content, block by block", () => {
    fc.assert(
      fc.property(answers, ({ content, reasoning, jsons, texts: cut, thoughts, parts }) => {
        const sink = messagesClient.sink(CONTEXT);
        let out = "";
        for (const text of thoughts) out += sink.push(piece({ reasoning_content: text }));
        for (const text of cut) out += sink.push(piece({ content: text }));
        for (const [index, each] of parts.entries())
          for (const [at, text] of each.entries())
            out += sink.push(at === 0 ? call(index, text, `call_${index}`, "tool") : call(index, text));
        out += sink.push({ index: 0, delta: {}, finishReason: jsons.length > 0 ? "tool_calls" : "stop" });
        out += sink.end(USAGE);
        const calls = jsons.map((json, index) => ({
          id: `call_${index}`,
          function: { name: "tool", arguments: json },
        }));
        const message = { content, reasoning_content: reasoning, tool_calls: calls };
        const choice = { index: 0, message, finish_reason: "stop" };
        expect(accumulate(out)).toEqual(messagesClient.answer({ choices: [choice], usage: USAGE }, CONTEXT));
      }),
      { numRuns: 100 },
    );
  });
});

test("what cannot wait is sent at once", () => {
  const sink = messagesClient.sink(CONTEXT);
  sink.push(piece({ role: "assistant" }));
  expect(eventsOf(sink.push(piece({ content: "a" }))).map(({ name }) => name)).toEqual([
    "content_block_start",
    "content_block_delta",
  ]);
  expect(eventsOf(sink.push(piece({ content: "b" })))).toHaveLength(1);
  expect(eventsOf(sink.push(call(0, "{}", "x", "y"))).map(({ name }) => name)).toEqual([
    "content_block_stop",
    "content_block_start",
    "content_block_delta",
  ]);
  // The call before is whole: nothing waits for its end.
  expect(sink.push(call(1, '{"a"', "z", "y"))).toContain('"partial_json":"{\\"a\\""');
});

test("a call waits for its name, and needs no id", () => {
  const sink = messagesClient.sink(CONTEXT);
  let out = sink.push(call(0, "{"));
  expect(out).not.toContain("content_block_start");
  out += sink.push(call(0, "}", undefined, "late")) + sink.end(null);
  expect(accumulate(out).content).toEqual([{ type: "tool_use", id: "toolu_1_0", name: "late", input: {} }]);
});

test("other choices, and what comes after the end of arguments, are not told", () => {
  const sink = messagesClient.sink(CONTEXT);
  let out = sink.push({ index: 1, delta: { content: "other" }, finishReason: "length" });
  expect(out).toBe("");
  out += sink.push(call(0, "{}", "a", "b")) + sink.push(call(0, '{"again":1}')) + sink.end(null);
  expect(accumulate(out)).toMatchObject({ stop_reason: "tool_use", content: [{ input: {} }] });
});

test("the signature of something else than what was streamed comes with its own block", () => {
  const sink = messagesClient.sink(CONTEXT);
  let out = sink.push(piece({ reasoning_content: "one" }));
  out += sink.push(piece({ thinking_blocks: [{ type: "thinking", thinking: "two", signature: "s" }] }));
  out += sink.push(piece({ reasoning_content: "three" })) + sink.end(null);
  expect(accumulate(out).content).toEqual([
    { type: "thinking", thinking: "one", signature: "" },
    { type: "thinking", thinking: "two", signature: "s" },
    { type: "thinking", thinking: "three", signature: "" },
  ]);
});

test("thoughts that are signed one by one are not told twice, whatever stands between them", () => {
  const sink = messagesClient.sink(CONTEXT);
  let out = sink.push(piece({ reasoning_content: "one" }));
  out += sink.push(piece({ thinking_blocks: [{ type: "thinking", thinking: "one", signature: "s1" }] }));
  out += sink.push(piece({ reasoning_content: "\n\n" })) + sink.push(piece({ reasoning_content: "\n\ntwo" }));
  out += sink.push(piece({ thinking_blocks: [{ type: "thinking", thinking: "two", signature: "s2" }] }));
  expect(accumulate(out + sink.end(null)).content).toEqual([
    { type: "thinking", thinking: "one", signature: "s1" },
    { type: "thinking", thinking: "two", signature: "s2" },
  ]);
});

test("what waits is bounded", () => {
  const sink = messagesClient.sink(CONTEXT);
  sink.push(call(0, "{", "a", "b"));
  sink.push(call(1, "", "c", "d"));
  expect(sink.push(call(1, " ".repeat(1000)))).toBe("");
  expect(sink.push(call(1, " ".repeat(WAITING_CHARS_MAX)))).toContain('"id":"c"');
  expect(sink.push(call(0, "}"))).toBe("");
});

test("the end of a JSON object is found wherever it is cut", () => {
  fc.assert(
    fc.property(args, fc.nat(), (value, cut) => {
      const json = JSON.stringify(value);
      const at = cut % json.length;
      const end = new JsonEnd();
      end.push(json.slice(0, at));
      expect(end.whole).toBe(false);
      end.push(json.slice(at));
      expect(end.whole).toBe(true);
    }),
  );
});
