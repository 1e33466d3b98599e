/** From a chat upstream's bytes to a Messages client: streams and whole answers say the same. */

import { describe, expect, test } from "vitest";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { chatAnswer, chatSource } from "../chat_source.ts";
import type { HubContext, Json } from "../hub.ts";
import { messagesClient } from "./client.ts";
import { accumulate } from "./testing_accumulate.ts";

const CONTEXT: HubContext = { id: "1", createdS: 1, model: "lm", request: {} };

function streamed(chunks: readonly Json[]): any {
  const source = chatSource();
  const sink = messagesClient.sink(CONTEXT);
  const event: SseEvent = { event: "", data: null };
  let out = "";
  const text = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
  new SseSplitter().push(Buffer.from(`: OPENROUTER PROCESSING\n\n${text}data: [DONE]\n\n`), (buffer, start, end) => {
    parseFrame(buffer, start, end, event);
    source.read(event);
    for (const delta of source.deltas) out += sink.push(delta);
  });
  return accumulate(out + sink.end(source.usage));
}

const answered = (body: Json): any => messagesClient.answer(chatAnswer(body)!, CONTEXT);
const delta = (value: Json, reason: string | null = null): Json => ({
  choices: [{ index: 0, delta: value, finish_reason: reason }],
});
const call = (id: string, name: string, text: string) => ({
  id,
  type: "function",
  function: { name, arguments: text },
});

describe.each<[string, Json[], Json, string, Json]>([
  [
    "DeepSeek",
    [
      delta({ role: "assistant", content: "", reasoning_content: null }),
      delta({ content: null, reasoning_content: "Hm" }),
      delta({ content: "Yes", reasoning_content: null }),
      delta({ content: "" }, "stop"),
    ],
    { role: "assistant", content: "Yes", reasoning_content: "Hm" },
    "stop",
    { prompt_tokens: 10, completion_tokens: 5, prompt_cache_hit_tokens: 4, prompt_cache_miss_tokens: 6 },
  ],
  [
    "a server that numbers all calls 0 and ends with stop",
    [
      delta({ tool_calls: [{ index: 0, ...call("a", "x", '{"p":1}') }] }),
      delta({ tool_calls: [{ index: 0, ...call("b", "y", "{}") }] }),
      delta({}, "stop"),
    ],
    { content: null, tool_calls: [call("a", "x", '{"p":1}'), call("b", "y", "{}")] },
    "stop",
    { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 4 } },
  ],
  [
    "an old vLLM",
    [delta({ reasoning: "Hm" }), delta({ content: [{ type: "text", text: "Yes" }] }), delta({}, "length")],
    { reasoning: "Hm", content: [{ type: "text", text: "Yes" }] },
    "length",
    { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 4 } },
  ],
])("%s", (_, chunks, message, reason, usage) => {
  test("says the same in both ways, usage included", () => {
    const whole = answered({ choices: [{ index: 0, message, finish_reason: reason }], usage });
    expect(streamed([...chunks, { choices: [], usage }])).toEqual(whole);
    expect(whole.usage).toMatchObject({ input_tokens: 6, cache_read_input_tokens: 4, output_tokens: 5 });
    expect(whole.content.length).toBe(2);
  });
});
