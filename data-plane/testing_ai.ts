/** For tests only: the Vercel AI SDK with its providers for OpenAI and Anthropic, as `testing_clients.ts` has the others. */

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, type LanguageModel, type ModelMessage, Output, streamText, tool } from "ai";
import {
  type Ask,
  CALL,
  CITY,
  finishOf,
  type Heard,
  MAX_TOKENS,
  PNG,
  SYSTEM,
  type TestClient,
} from "./testing_clients.ts";

function messagesOf({ prompt, image, history }: Ask): ModelMessage[] {
  const { id, name, args, result } = CALL;
  return [
    {
      role: "user",
      content: image
        ? [
            { type: "text", text: prompt },
            { type: "file", mediaType: "image/png", data: PNG },
          ]
        : prompt,
    },
    ...(history
      ? ([
          { role: "assistant", content: [{ type: "tool-call", toolCallId: id, toolName: name, input: args }] },
          {
            role: "tool",
            content: [{ type: "tool-result", toolCallId: id, toolName: name, output: { type: "text", value: result } }],
          },
        ] satisfies ModelMessage[])
      : []),
  ];
}

function optionsOf(model: LanguageModel, ask: Ask) {
  const schema = jsonSchema<{ city: string }>(CITY as never);
  return {
    model,
    system: SYSTEM,
    messages: messagesOf(ask),
    maxOutputTokens: MAX_TOKENS,
    maxRetries: 0,
    ...(ask.tools && { tools: { weather: tool({ description: "Says it.", inputSchema: schema }) } }),
    ...(ask.schema && { output: Output.object({ schema }) }),
    ...(ask.think && {
      providerOptions: {
        // By its name it is no reasoning model.
        openai: { forceReasoning: true, reasoningEffort: "low" },
        anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } },
      },
    }),
  };
}

interface Result {
  readonly text: string;
  readonly reasoningText: string | undefined;
  readonly toolCalls: readonly { toolCallId: string; toolName: string; input: unknown }[];
  readonly finishReason: string;
  readonly usage: {
    readonly inputTokens: number | undefined;
    readonly inputTokenDetails: { readonly cacheReadTokens: number | undefined };
    readonly outputTokens: number | undefined;
  };
}

function heard({ text, reasoningText, toolCalls, finishReason, usage }: Result): Heard {
  return {
    text,
    reasoning: reasoningText ?? "",
    tools: toolCalls.map(({ toolCallId: id, toolName: name, input: args }) => ({ id, name, args })),
    finish: finishOf(finishReason),
    usage: {
      input: usage.inputTokens ?? -1,
      cached: usage.inputTokenDetails.cacheReadTokens ?? 0,
      output: usage.outputTokens ?? -1,
    },
  };
}

async function streamedBy(model: LanguageModel, ask: Ask): Promise<Heard> {
  let failure: unknown = null;
  const result = streamText({
    ...(optionsOf(model, ask) as Parameters<typeof streamText>[0]),
    onError: ({ error }) => void (failure = error),
  });
  await result.consumeStream();
  if (failure !== null) throw failure;
  return heard({
    text: await result.text,
    reasoningText: await result.reasoningText,
    toolCalls: await result.toolCalls,
    finishReason: await result.finishReason,
    usage: await result.usage,
  });
}

async function whole(model: LanguageModel, ask: Ask): Promise<Heard> {
  return heard(await generateText(optionsOf(model, ask) as Parameters<typeof generateText>[0]));
}

type Models = readonly [
  name: string,
  endpoint: number,
  showsReasoning: boolean,
  (url: string, key: string) => LanguageModel,
];

const MODELS: readonly Models[] = [
  ["ai chat", 1, false, (url, apiKey) => createOpenAI({ apiKey, baseURL: `${url}/v1` }).chat("gpt")],
  ["ai responses", 4, true, (url, apiKey) => createOpenAI({ apiKey, baseURL: `${url}/v1` }).responses("gpt")],
  ["ai messages", 5, true, (url, apiKey) => createAnthropic({ apiKey, baseURL: `${url}/v1` })("gpt")],
];

export function aiClients(): TestClient[] {
  return MODELS.flatMap(([name, endpoint, showsReasoning, model]) => [
    { name, endpoint, showsReasoning, stream: false, ask: (url, key, ask) => whole(model(url, key), ask) },
    {
      name: `${name} stream`,
      endpoint,
      showsReasoning,
      stream: true,
      ask: (url, key, ask) => streamedBy(model(url, key), ask),
    },
  ]);
}
