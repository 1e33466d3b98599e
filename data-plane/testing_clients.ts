/** For tests only: the official SDKs, each asked the same things and heard in the same words. */

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { aiClients } from "./testing_ai.ts";
import type { Fields, Finish } from "./testing_turns.ts";

/** What is asked of a model. */
export interface Ask {
  readonly prompt: string;
  readonly image?: boolean;
  readonly tools?: boolean;
  readonly schema?: boolean;
  /** The prompt was answered with a call, and here is its result. */
  readonly history?: boolean;
  readonly think?: boolean;
}

/** What a client understands. */
export interface Heard {
  readonly text: string;
  /** "": none, or the SDK does not show it. */
  readonly reasoning: string;
  readonly tools: readonly { readonly id: string; readonly name: string; readonly args: unknown }[];
  readonly finish: Finish;
  readonly usage: { readonly input: number; readonly cached: number; readonly output: number };
}

export interface TestClient {
  readonly name: string;
  /** A number of Endpoint. */
  readonly endpoint: number;
  readonly stream: boolean;
  /** The SDK shows what was thought. */
  readonly showsReasoning: boolean;
  ask(url: string, key: string, ask: Ask): Promise<Heard>;
}

export const MAX_TOKENS = 2000;
export const SYSTEM = "Be brief.";
/** One pixel. */
export const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
} as const;
export const CALL = { id: "toolu_1", name: "weather", args: { city: "Rome" }, result: "20 degrees" } as const;

const FINISHES: Readonly<Record<string, Finish>> = {
  stop: "stop",
  end_turn: "stop",
  length: "length",
  max_tokens: "length",
  max_output_tokens: "length",
  tool_calls: "tools",
  tool_use: "tools",
  "tool-calls": "tools",
  content_filter: "filter",
  "content-filter": "filter",
  refusal: "filter",
};

export function finishOf(reason: string | null | undefined): Finish {
  const finish = FINISHES[reason ?? ""];
  if (finish === undefined) throw new Error(`finish ${String(reason)}`);
  return finish;
}

// --- openai: chat -------------------------------------------------------------------------------------------------------

function chatBody({ prompt, image, tools, schema, history, think }: Ask) {
  const content = image
    ? [
        { type: "text" as const, text: prompt },
        { type: "image_url" as const, image_url: { url: `data:image/png;base64,${PNG}` } },
      ]
    : prompt;
  const { id, name, args, result } = CALL;
  const called = { id, type: "function" as const, function: { name, arguments: JSON.stringify(args) } };
  const weather = { name, description: "Says it.", parameters: CITY, strict: true };
  return {
    model: "gpt",
    max_completion_tokens: MAX_TOKENS,
    messages: [
      { role: "system" as const, content: SYSTEM },
      { role: "user" as const, content },
      ...(history
        ? [
            { role: "assistant" as const, content: null, tool_calls: [called] },
            { role: "tool" as const, tool_call_id: id, content: result },
          ]
        : []),
    ],
    ...(tools && { tools: [{ type: "function" as const, function: weather }] }),
    ...(schema && {
      response_format: { type: "json_schema" as const, json_schema: { name: "city", schema: CITY, strict: true } },
    }),
    ...(think && { reasoning_effort: "low" as const }),
  };
}

function heardChat({ choices, usage }: OpenAI.ChatCompletion): Heard {
  const { message, finish_reason } = choices[0]!;
  return {
    text: message.content ?? "",
    reasoning: ((message as unknown as Fields)["reasoning_content"] as string | undefined) ?? "",
    tools: (message.tool_calls ?? []).map((call) => {
      if (call.type !== "function") throw new Error(call.type);
      return { id: call.id, name: call.function.name, args: JSON.parse(call.function.arguments) as unknown };
    }),
    finish: finishOf(finish_reason),
    usage: {
      input: usage!.prompt_tokens,
      cached: usage!.prompt_tokens_details?.cached_tokens ?? 0,
      output: usage!.completion_tokens,
    },
  };
}

// --- openai: responses --------------------------------------------------------------------------------------------------

function responsesBody({ prompt, image, tools, schema, history, think }: Ask) {
  const url = `data:image/png;base64,${PNG}`;
  const pictured = [
    { type: "input_text" as const, text: prompt },
    { type: "input_image" as const, image_url: url, detail: "auto" as const },
  ];
  const { id, name, args, result } = CALL;
  const called = { type: "function_call" as const, call_id: id, name, arguments: JSON.stringify(args) };
  return {
    model: "gpt",
    max_output_tokens: MAX_TOKENS,
    instructions: SYSTEM,
    input: [
      { role: "user" as const, content: image ? pictured : prompt },
      ...(history ? [called, { type: "function_call_output" as const, call_id: id, output: result }] : []),
    ],
    ...(tools && {
      tools: [{ type: "function" as const, name, description: "Says it.", parameters: CITY, strict: true }],
    }),
    ...(schema && { text: { format: { type: "json_schema" as const, name: "city", schema: CITY, strict: true } } }),
    ...(think && { reasoning: { effort: "low" as const, summary: "auto" as const } }),
  };
}

function heardResponse({ output, output_text, status, incomplete_details, usage }: OpenAI.Responses.Response): Heard {
  const calls = output.filter((item) => item.type === "function_call");
  const summaries = output.filter((item) => item.type === "reasoning").flatMap(({ summary }) => summary);
  return {
    text: output_text,
    reasoning: summaries.map(({ text }) => text).join(""),
    tools: calls.map((call) => ({ id: call.call_id, name: call.name, args: JSON.parse(call.arguments) as unknown })),
    finish:
      status === "incomplete" ? finishOf(incomplete_details!.reason) : calls.length > 0 ? "tools" : finishOf("stop"),
    usage: {
      input: usage!.input_tokens,
      cached: usage!.input_tokens_details.cached_tokens,
      output: usage!.output_tokens,
    },
  };
}

// --- anthropic ----------------------------------------------------------------------------------------------------------

function messagesBody({ prompt, image, tools, schema, history, think }: Ask) {
  const source = { type: "base64" as const, media_type: "image/png" as const, data: PNG };
  const { id, name, args, result } = CALL;
  return {
    model: "gpt",
    max_tokens: MAX_TOKENS,
    system: SYSTEM,
    messages: [
      {
        role: "user" as const,
        content: image
          ? [
              { type: "text" as const, text: prompt },
              { type: "image" as const, source },
            ]
          : prompt,
      },
      ...(history
        ? [
            { role: "assistant" as const, content: [{ type: "tool_use" as const, id, name, input: args }] },
            { role: "user" as const, content: [{ type: "tool_result" as const, tool_use_id: id, content: result }] },
          ]
        : []),
    ],
    ...(tools && { tools: [{ name, description: "Says it.", input_schema: { ...CITY, required: ["city"] } }] }),
    ...(schema && { output_config: { format: { type: "json_schema" as const, schema: CITY } } }),
    ...(think && { thinking: { type: "enabled" as const, budget_tokens: 1024 } }),
  };
}

function heardMessage({ content, stop_reason, usage }: Anthropic.Message): Heard {
  const { input_tokens, cache_read_input_tokens, cache_creation_input_tokens, output_tokens } = usage;
  const cached = cache_read_input_tokens ?? 0;
  return {
    text: content.map((block) => (block.type === "text" ? block.text : "")).join(""),
    reasoning: content.map((block) => (block.type === "thinking" ? block.thinking : "")).join(""),
    tools: content
      .filter((block) => block.type === "tool_use")
      .map(({ id, name, input: args }) => ({ id, name, args })),
    finish: finishOf(stop_reason),
    usage: { input: input_tokens + cached + (cache_creation_input_tokens ?? 0), cached, output: output_tokens },
  };
}

// --- all of them ----------------------------------------------------------------------------------------------------------

export function openAi(url: string, key: string): OpenAI {
  return new OpenAI({
    apiKey: key,
    baseURL: `${url}/v1`,
    organization: "org-of-the-client",
    project: "proj_of_the_client",
    maxRetries: 0,
  });
}

export function anthropic(url: string, key: string): Anthropic {
  return new Anthropic({ apiKey: key, authToken: null, baseURL: url, maxRetries: 0 });
}

export const CLIENTS: readonly TestClient[] = [
  {
    name: "openai chat",
    endpoint: 1,
    stream: false,
    showsReasoning: true,
    ask: async (url, key, ask) => heardChat(await openAi(url, key).chat.completions.create(chatBody(ask))),
  },
  {
    name: "openai chat stream",
    endpoint: 1,
    stream: true,
    // The helper puts together what it knows.
    showsReasoning: false,
    async ask(url, key, ask) {
      const options = { ...chatBody(ask), stream_options: { include_usage: true } };
      return heardChat(await openAi(url, key).chat.completions.stream(options).finalChatCompletion());
    },
  },
  {
    name: "openai responses",
    endpoint: 4,
    stream: false,
    showsReasoning: true,
    ask: async (url, key, ask) => heardResponse(await openAi(url, key).responses.create(responsesBody(ask))),
  },
  {
    name: "openai responses stream",
    endpoint: 4,
    stream: true,
    showsReasoning: true,
    ask: async (url, key, ask) =>
      heardResponse(await openAi(url, key).responses.stream(responsesBody(ask)).finalResponse()),
  },
  {
    name: "anthropic messages",
    endpoint: 5,
    stream: false,
    showsReasoning: true,
    ask: async (url, key, ask) => heardMessage(await anthropic(url, key).messages.create(messagesBody(ask))),
  },
  {
    name: "anthropic messages stream",
    endpoint: 5,
    stream: true,
    showsReasoning: true,
    ask: async (url, key, ask) =>
      heardMessage(await anthropic(url, key).messages.stream(messagesBody(ask)).finalMessage()),
  },
  ...aiClients(),
];
