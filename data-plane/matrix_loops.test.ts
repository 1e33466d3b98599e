/** Agents: the AI SDK runs a tool and goes on by itself, so what one answer said must be understood when it is sent back. */

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, jsonSchema, type LanguageModel, streamText, tool } from "ai";
import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Gateway, KEY } from "./testing.ts";
import { CALL, CITY, openAi } from "./testing_clients.ts";
import { type FormatName, imitate, type Imitation, says } from "./testing_formats.ts";
import { creditsOf, gatewayTo, unitsOf } from "./testing_matrix.ts";
import type { Tokens, Turn } from "./testing_turns.ts";

const TOKENS: Tokens = { input: 40, cached: 0, written: 0, output: 25, reasoning: 18 };
const { id, name, args, result } = CALL;
const CALLS: Turn = {
  reasoning: "Hm",
  text: "I look.",
  tools: [{ id, name, args }],
  finish: "tools",
  tokens: TOKENS,
};
const ANSWERS: Turn = { text: "Warm", finish: "stop", tokens: TOKENS };

const MODELS = {
  "chat completions": (url: string) => createOpenAI({ apiKey: KEY, baseURL: `${url}/v1` }).chat("gpt"),
  responses: (url: string) => createOpenAI({ apiKey: KEY, baseURL: `${url}/v1` }).responses("gpt"),
  messages: (url: string) => createAnthropic({ apiKey: KEY, baseURL: `${url}/v1` })("gpt"),
};
type Api = keyof typeof MODELS;
const APIS = Object.keys(MODELS) as Api[];
const FORMATS: readonly FormatName[] = ["openai", "responses", "anthropic", "converse"];
/** What an upstream must get back of its thoughts, where the client can keep it. */
const SIGNED: ReadonlySet<string> = new Set(["anthropic", "converse"]);

async function run(model: LanguageModel, stream: boolean, store: boolean): Promise<string> {
  const inputSchema = jsonSchema<{ city: string }>(CITY as never);
  const options = {
    model,
    prompt: "Weather?",
    maxOutputTokens: 4000,
    maxRetries: 0,
    tools: { weather: tool({ description: "Says it.", inputSchema, execute: () => Promise.resolve(result) }) },
    stopWhen: isStepCount(3),
    providerOptions: { openai: { store }, anthropic: { thinking: { type: "enabled" as const, budgetTokens: 1024 } } },
  };
  if (!stream) return (await generateText(options)).text;
  let failure: unknown = null;
  const streamed = streamText({ ...options, onError: ({ error }) => void (failure = error) });
  await streamed.consumeStream();
  if (failure !== null) throw failure;
  return await streamed.text;
}

describe.each(FORMATS)("an agent at %s", (format) => {
  let imitation: Imitation;
  let gateway: Gateway;
  beforeAll(async () => {
    imitation = await imitate(format);
    gateway = await gatewayTo([imitation]);
  });
  afterAll(async () => {
    await gateway.close();
    await imitation.close();
    expect(imitation.wrong).toEqual([]);
  });

  describe.each(APIS)("by %s", (api) => {
    test.each([false, true])("stream: %s", async (stream) => {
      const [called, settled] = [imitation.calls.length, gateway.journal.settlements.length];
      imitation.next(says(CALLS), says(ANSWERS));
      expect(await run(MODELS[api](gateway.url), stream, false)).toBe("Warm");
      expect(imitation.wrong).toEqual([]);
      const calls = imitation.calls.slice(called);
      expect(calls).toHaveLength(2);
      for (const part of [id, "Rome", result, "I look."]) expect(calls[1]!.text).toContain(part);
      // Its client for chat completions knows no thoughts.
      if (SIGNED.has(format) && api !== "chat completions") expect(calls[1]!.text).toContain("c2lnbmVk");
      const credits = gateway.journal.settlements.slice(settled).map((record) => record.credits);
      const each = creditsOf(unitsOf(TOKENS, imitation.facts));
      expect(credits).toEqual([each, each]);
    });
  });

  test("by OpenAI's SDK, which sends back what it got", async () => {
    imitation.next(says(CALLS), says(ANSWERS), says(CALLS), says(ANSWERS));
    const called = imitation.calls.length;
    const { chat, responses } = openAi(gateway.url, KEY);
    const weather = { name, description: "Says it.", parameters: CITY, strict: true };
    const tools = [{ type: "function" as const, function: weather }];
    const effort = "low" as const;
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "Weather?" }];
    const ask = { model: "gpt", messages, tools, reasoning_effort: effort, max_completion_tokens: 4000 };
    messages.push((await chat.completions.create(ask)).choices[0]!.message);
    messages.push({ role: "tool", tool_call_id: id, content: result });
    expect((await chat.completions.create(ask)).choices[0]!.message.content).toBe("Warm");
    const input: OpenAI.Responses.ResponseInput = [{ role: "user", content: "Weather?" }];
    const flat = [{ type: "function" as const, ...weather }];
    const more = { model: "gpt", input, tools: flat, reasoning: { effort }, max_output_tokens: 4000, store: false };
    const { output } = await responses.create(more);
    // Its types do not let all of what comes out in again.
    input.push(...(output as OpenAI.Responses.ResponseInputItem[]), {
      type: "function_call_output",
      call_id: id,
      output: result,
    });
    expect((await responses.create(more)).output_text).toBe("Warm");
    for (const { text } of [imitation.calls[called + 1]!, imitation.calls[called + 3]!]) {
      for (const part of [id, "Rome", result, "I look."]) expect(text).toContain(part);
      if (SIGNED.has(format)) expect(text).toContain("c2lnbmVk");
    }
  });

  test("that relies on what is stored is served where something is, else told how to do without", async () => {
    imitation.next(says(CALLS));
    if (format === "responses") imitation.next(says(ANSWERS));
    const ran = run(MODELS.responses(gateway.url), false, true);
    if (format !== "responses") await expect(ran).rejects.toThrow("`store: false`");
    else expect(await ran).toBe("Warm");
  });
});
