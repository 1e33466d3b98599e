import { describe, expect, test } from "vitest";
import type { ChatDelta, Json } from "../hub.ts";
import { listOf, textOf } from "../json.ts";
import { responsesClient } from "./client.ts";
import { ANSWERS, context, delta, letters, REQUESTS, streamOf, textFixture } from "./testing.ts";

describe("requests", () => {
  test.each(REQUESTS)("$name", ({ responses, chat }) => {
    expect(responsesClient.request(responses)).toEqual(chat);
  });

  const hosted = ["web_search", "file_search", "code_interpreter", "image_generation", "mcp", "computer", "namespace"];
  const message = (part: Json) => ({ input: [{ role: "user", content: [part] }] });
  test.each<[Json, string]>([
    ...hosted.map((type): [Json, string] => [{ tools: [{ type: "function", name: "f" }, { type }] }, "tools[1].type"]),
    [{ tools: [{ type: "function" }] }, "tools[0].name"],
    [{ tools: [{ type: "custom", name: "c" }], tool_choice: { type: "mcp", server_label: "s" } }, "tool_choice.type"],
    [{ previous_response_id: "resp_1" }, "previous_response_id"],
    [{ conversation: "conv_1" }, "conversation"],
    [{ conversation: { id: "conv_1" } }, "conversation"],
    [{ prompt: { id: "pmpt_1" } }, "prompt"],
    [{ background: true }, "background"],
    [{ text: { format: { type: "grammar" } } }, "text.format.type"],
    [{ input: undefined }, "input"],
    [{ input: 7 }, "input"],
    [{ instructions: ["x"] }, "instructions"],
    [{ input: ["x"] }, "input[0].type"],
    [
      {
        input: [
          { role: "user", content: "a" },
          { type: "item_reference", id: "msg_1" },
        ],
      },
      "input[1]",
    ],
    [{ input: [{ type: "web_search_call", id: "ws_1", status: "completed" }] }, "input[0].type"],
    [{ input: [{ type: "function_call", name: "f", arguments: "{}" }] }, "input[0].call_id"],
    [{ input: [{ role: "tool", content: "x" }] }, "input[0].role"],
    [{ input: [{ role: "user" }] }, "input[0].content"],
    [message({ type: "input_image", file_id: "file-1" }), "input[0].content[0].file_id"],
    [message({ type: "input_image" }), "input[0].content[0].image_url"],
    [message({ type: "input_file", file_id: "file-1" }), "input[0].content[0].file_id"],
    [message({ type: "input_file", file_url: "https://x.example/a.pdf" }), "input[0].content[0].file_url"],
    [message({ type: "input_audio" }), "input[0].content[0].type"],
    [message({ type: "input_text", text: 7 }), "input[0].content[0].text"],
  ])("%j is refused by its name", (fields, param) => {
    expect(() => responsesClient.request({ model: "lm", input: "x", ...fields })).toThrow(
      expect.objectContaining({ name: "Error", param }),
    );
  });
});

describe("whole answers", () => {
  test.each(ANSWERS)("$name", ({ chat, status, incomplete_details, output, usage }) => {
    expect(responsesClient.answer(chat, context())).toMatchObject({
      id: "resp_r1",
      object: "response",
      created_at: 1_700_000_000,
      model: "lm",
      error: null,
      status,
      incomplete_details,
      output,
      usage,
    });
  });

  test("repeat the request", () => {
    const request = {
      input: "x",
      instructions: "i",
      metadata: { a: "b" },
      max_output_tokens: 5,
      temperature: 0,
      top_p: 0.1,
      parallel_tool_calls: false,
      tool_choice: "none",
      tools: [{ type: "function", name: "f" }],
      truncation: "auto",
      user: "u",
      safety_identifier: "s",
      prompt_cache_key: "k",
      service_tier: "flex",
      top_logprobs: 2,
    };
    const all = { ...request, store: true, reasoning: { effort: "low" }, text: { verbosity: "high" } };
    const { input: _, ...echoed } = request;
    expect(responsesClient.answer(ANSWERS[0]!.chat, context(all))).toMatchObject({
      ...echoed,
      tools: [{ type: "function", name: "f", description: null, parameters: null, strict: false }],
      store: false,
      previous_response_id: null,
      reasoning: { effort: "low", summary: null },
      text: { format: { type: "text" }, verbosity: "high" },
    });
  });

  test("without usage say null, and the tier that was used", () => {
    const answer = responsesClient.answer({ ...ANSWERS[0]!.chat, usage: null, service_tier: "flex" }, context());
    expect(answer).toMatchObject({ usage: null, service_tier: "flex" });
  });

  test("carry thinking blocks that the next turn replays unchanged", () => {
    const blocks = [
      { type: "thinking", thinking: "Think ü.", signature: "c2ln" },
      { type: "redacted_thinking", data: "x" },
    ];
    const chat = { choices: [{ finish_reason: "stop", message: { content: "Hi", thinking_blocks: blocks } }] };
    const { output } = responsesClient.answer(chat, context());
    const next = responsesClient.request({ input: [...listOf(output), { role: "user", content: "Go on" }] });
    expect(listOf(next["messages"])[0]).toEqual({ role: "assistant", content: "Hi", thinking_blocks: blocks });
  });
});

interface Event {
  readonly type: string;
  readonly sequence_number: number;
  readonly response?: Json;
}

function eventsOf(text: string): Event[] {
  return text
    .split("\n\n")
    .filter((frame) => frame !== "")
    .map((frame) => {
      const [event, data] = frame.split("\n");
      const parsed = JSON.parse(data!.slice("data: ".length)) as Event;
      expect(event).toBe(`event: ${parsed.type}`);
      return parsed;
    });
}

describe("streams", () => {
  test.each(ANSWERS)("$name: end as the whole answer, number their events and name every item", ({ chat }) => {
    const events = eventsOf(streamOf(chat, {}, letters));
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, index) => index));
    expect(events.slice(0, 2).map((event) => event.type)).toEqual(["response.created", "response.in_progress"]);
    expect(events[0]!.response).toMatchObject({ id: "resp_r1", status: "in_progress", output: [], usage: null });
    const whole = responsesClient.answer(chat, context());
    expect(events.at(-1)).toMatchObject({ type: `response.${textOf(whole["status"])}` });
    expect(events.at(-1)!.response).toEqual(whole);
  });

  test("the whole stream of reasoning, text and parallel calls", () => {
    const request = { input: "x", tools: [{ type: "function", name: "f", parameters: {}, strict: true }] };
    const whole = (text: string): string[] => (text === "" ? [] : [text]);
    expect(streamOf(ANSWERS[1]!.chat, request, whole)).toBe(textFixture("client_tools.sse"));
  });

  test("events of text", () => {
    const types = eventsOf(streamOf(ANSWERS[0]!.chat, {}, (text) => (text === "" ? [] : [text]))).map(
      ({ type }) => type,
    );
    expect(types).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
  });

  test("events of reasoning, text and parallel calls", () => {
    const types = eventsOf(streamOf(ANSWERS[1]!.chat, {}, (text) => (text === "" ? [] : [text]))).map(({ type }) =>
      type.slice("response.".length),
    );
    expect(types).toEqual([
      "created",
      "in_progress",
      "output_item.added",
      "reasoning_summary_part.added",
      "reasoning_summary_text.delta",
      "reasoning_summary_text.done",
      "reasoning_summary_part.done",
      "output_item.done",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "output_item.added",
      "output_item.added",
      "function_call_arguments.delta",
      "custom_tool_call_input.delta",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "custom_tool_call_input.done",
      "output_item.done",
      "function_call_arguments.done",
      "output_item.done",
      "completed",
    ]);
  });

  test("of servers that give every call place 0, or name a tool late, lose none", () => {
    const sink = responsesClient.sink(context());
    const call = (id: string | undefined, name: string | undefined, args: string): ChatDelta =>
      delta({ tool_calls: [{ index: 0, id, function: { name, arguments: args } }] });
    const text = [call("a", undefined, "{"), call(undefined, "f", "}"), call("b", "g", "[]"), delta({}, "tool_calls")]
      .map((each) => sink.push(each))
      .join("");
    const last = eventsOf(text + sink.end(null)).at(-1)!;
    expect(last.response!["output"]).toMatchObject([
      { call_id: "a", name: "f", arguments: "{}" },
      { call_id: "b", name: "g", arguments: "[]" },
    ]);
    expect(last.response!["usage"]).toBeNull();
  });

  test("of other choices and of unknown deltas say nothing", () => {
    const sink = responsesClient.sink(context());
    sink.push(delta({ role: "assistant" }));
    expect(sink.push({ index: 1, delta: { content: "x" }, finishReason: null })).toBe("");
    expect(sink.push(delta({ audio: { id: "a" }, content: null }))).toBe("");
  });
});
