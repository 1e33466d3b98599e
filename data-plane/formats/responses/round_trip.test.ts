import fc from "fast-check";
import { expect, test } from "vitest";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import type { ChatDelta, HubContext, HubTarget, Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { responsesClient } from "./client.ts";
import { responsesChat } from "./upstream.ts";

const CONTEXT: HubContext = { id: "r1", createdS: 1, model: "lm", request: {} };
const TARGET: HubTarget = { model: "lm", family: "", maxOutputTokens: 0, apiVersion: "", stream: true };

const text = fc.string({ minLength: 1 });
const call = fc.oneof(
  fc.record({
    id: text,
    type: fc.constant("function"),
    function: fc.record({ name: text, arguments: fc.string() }),
  }),
  fc.record({ id: text, type: fc.constant("custom"), custom: fc.record({ name: text, input: fc.string() }) }),
);
const usage = fc
  .tuple(fc.nat(1e6), fc.nat(1e6), fc.nat(1e3), fc.nat(1e3), fc.nat(1e3))
  .map(([prompt, completion, cached, written, reasoning]) => ({
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached, cache_write_tokens: written },
    completion_tokens_details: { reasoning_tokens: reasoning },
  }));
const completion = fc
  .record({
    content: fc.option(text),
    refusal: fc.option(text),
    reasoning: fc.option(text),
    calls: fc.uniqueArray(call, { maxLength: 3, selector: (each) => each.id }),
    length: fc.boolean(),
    usage,
  })
  .map(({ content, refusal, reasoning, calls, length, usage: used }) => ({
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content,
          refusal,
          ...(reasoning === null ? {} : { reasoning_content: reasoning }),
          ...(calls.length === 0 ? {} : { tool_calls: calls }),
        },
        logprobs: null,
        finish_reason: length ? "length" : calls.length > 0 ? "tool_calls" : "stop",
      },
    ],
    usage: used,
  }));

test("a chat completion told as a response and read back is the same", () => {
  fc.assert(
    fc.property(completion, (chat) => {
      const { service_tier: _, ...back } = responsesChat.answer(responsesClient.answer(chat, CONTEXT), TARGET)!;
      expect(back).toEqual(chat);
    }),
  );
});

/** The deltas that a source finds in the events of a sink. */
function backFrom(events: string): { deltas: ChatDelta[]; usage: Json | null } {
  const source = responsesChat.source(TARGET);
  const deltas: ChatDelta[] = [];
  const event: SseEvent = { event: "", data: null };
  new SseSplitter().push(Buffer.from(events), (buffer, start, end) => {
    parseFrame(buffer, start, end, event);
    source.read(event);
    deltas.push(...source.deltas);
  });
  return { deltas, usage: source.usage };
}

test("a stream told as a response and read back says the same", () => {
  fc.assert(
    fc.property(completion, (chat) => {
      const choice = objectOf(chat.choices[0]);
      const { role: _, tool_calls: calls, ...message } = objectOf(choice["message"]);
      const sink = responsesClient.sink(CONTEXT);
      const step = (delta: Json, finishReason: string | null = null) => sink.push({ index: 0, delta, finishReason });
      let events = "";
      for (const key of ["reasoning_content", "content", "refusal"]) {
        if (message[key] !== null && message[key] !== undefined) events += step({ [key]: message[key] });
      }
      listOf(calls).forEach((each, index) => (events += step({ tool_calls: [{ index, ...objectOf(each) }] })));
      events += step({}, textOf(choice["finish_reason"])) + sink.end(chat.usage);
      const back = backFrom(events);
      const said = (key: string): string => back.deltas.map(({ delta }) => textOf(delta[key])).join("");
      for (const key of ["reasoning_content", "content", "refusal"]) expect(said(key)).toBe(textOf(message[key]));
      const found: Json[] = back.deltas.flatMap(({ delta }) => listOf(delta["tool_calls"]).map(objectOf));
      const begun = found.filter((each) => each["id"] !== undefined);
      expect(begun.map((each) => each["id"])).toEqual(listOf(calls).map((each) => objectOf(each)["id"]));
      expect(back.deltas.at(-1)!.finishReason).toBe(choice["finish_reason"]);
      expect(back.usage).toEqual(chat.usage);
    }),
  );
});
