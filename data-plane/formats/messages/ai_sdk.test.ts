/** The Vercel AI SDK checks what it reads against schemas of its own, more strictly than Anthropic's SDK. */

import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { beforeEach, describe, expect, test } from "vitest";
import { exhausted } from "../../errors.ts";
import type { HubContext, Json } from "../hub.ts";
import { messagesClient } from "./client.ts";
import { messagesError } from "./errors.ts";

const CONTEXT: HubContext = { id: "1", createdS: 1, model: "lm", request: {} };
const USAGE = {
  prompt_tokens: 100,
  completion_tokens: 30,
  prompt_tokens_details: { cached_tokens: 50, cache_write_tokens: 20 },
};
const CALLED = { id: "call_0", function: { name: "weather", arguments: '{"city":"Rome"}' } };
const MESSAGE = { reasoning_content: "Hm", content: "I look.", tool_calls: [CALLED] };

let asked: Json;
let made: Json;
let respond: (body: Json) => Response;
beforeEach(() => {
  respond = (body) => {
    made = messagesClient.request(body);
    const usage = USAGE;
    if (body["stream"] !== true) {
      const choices = [{ index: 0, message: MESSAGE, finish_reason: "tool_calls" }];
      return Response.json(messagesClient.answer({ choices, usage }, CONTEXT));
    }
    const sink = messagesClient.sink(CONTEXT);
    const push = (delta: Json, finishReason: string | null = null): string =>
      sink.push({ index: 0, delta, finishReason });
    const { reasoning_content, content } = MESSAGE;
    const out = push({ reasoning_content }) + push({ content }) + push({ tool_calls: [{ index: 0, ...CALLED }] });
    const stream = out + push({}, "tool_calls") + sink.end(usage);
    return new Response(stream, { headers: { "content-type": "text/event-stream" } });
  };
});

const provider = createAnthropic({
  apiKey: "key",
  baseURL: "http://gateway.invalid/v1",
  fetch: (_, init) => {
    asked = JSON.parse(init!.body as string) as Json;
    return Promise.resolve(respond(asked));
  },
});
const CITY = jsonSchema<{ city: string }>({
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
});
const options = {
  model: provider("lm"),
  system: "Be short.",
  prompt: "Weather in Rome?",
  maxOutputTokens: 50,
  maxRetries: 0,
  tools: { weather: tool({ description: "Says it.", inputSchema: CITY }) },
};
const EXPECTED = { text: "I look.", finishReason: "tool-calls", reasoningText: "Hm" };

describe("the AI SDK", () => {
  test("reads a whole answer", async () => {
    const result = await generateText(options);
    expect(result).toMatchObject(EXPECTED);
    expect(result.toolCalls).toMatchObject([{ toolCallId: "call_0", toolName: "weather", input: { city: "Rome" } }]);
    expect(result.usage).toMatchObject({ inputTokens: 100, outputTokens: 30 });
    expect(made).toMatchObject({
      max_completion_tokens: 50,
      messages: [
        { role: "system", content: "Be short." },
        { role: "user", content: "Weather in Rome?" },
      ],
      tools: [{ type: "function", function: { name: "weather", parameters: { required: ["city"] } } }],
    });
  });

  test("reads a stream", async () => {
    const result = streamText(options);
    expect(await result.text).toBe(EXPECTED.text);
    expect(await result.finishReason).toBe(EXPECTED.finishReason);
    expect(await result.reasoningText).toBe(EXPECTED.reasoningText);
    expect(await result.toolCalls).toMatchObject([{ toolName: "weather", input: { city: "Rome" } }]);
    expect(await result.usage).toMatchObject({ inputTokens: 100, outputTokens: 30 });
  });

  test("shows the link of an empty wallet", async () => {
    const { status, body } = messagesError(exhausted(429, "https://pay.example/checkout"), "req_1");
    respond = () => new Response(Uint8Array.from(body), { status, headers: { "content-type": "application/json" } });
    await expect(generateText(options)).rejects.toThrow("https://pay.example/checkout");
  });
});
