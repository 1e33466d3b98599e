/**
 * For tests only: what a model says, written down as each upstream format writes it, whole and as a stream. The shapes are
 * those of reference/UPSTREAM-FORMATS.md A2, A4, A5 (OpenAI), C4 to C6 (Anthropic), D4, D5 and D7 (Bedrock).
 */

import { frameOf } from "./formats/bedrock/testing.ts";

export type Fields = Record<string, unknown>;

export interface Tokens {
  /** All that went in, cached and written tokens included. */
  readonly input: number;
  readonly cached: number;
  readonly written: number;
  /** All that came out, reasoning included. */
  readonly output: number;
  readonly reasoning: number;
}

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly args: Fields;
}

export type Finish = "stop" | "length" | "tools" | "filter";

/** What a model says. */
export interface Turn {
  readonly reasoning?: string;
  readonly text?: string;
  readonly tools?: readonly ToolCall[];
  readonly finish: Finish;
  readonly tokens: Tokens;
}

/** How a format writes it. */
export interface Wire {
  readonly streamType: string;
  body(turn: Turn): Fields;
  /** @param usageAsked of chat completions: the request asks for usage */
  frames(turn: Turn, usageAsked: boolean): (string | Buffer)[];
  /** A frame that reports an error in the middle. */
  errorFrame(message: string): string | Buffer;
  /** The body of an answer that is not 2xx. */
  error(code: string | null, message: string): Fields;
}

/** Two pieces, so that nothing can rely on one. */
function halves(text: string): [string, string] {
  const middle = Math.ceil(text.length / 2);
  return [text.slice(0, middle), text.slice(middle)];
}

const data = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;
const event = (value: Fields): string => `event: ${value["type"] as string}\n${data(value)}`;

// --- chat completions ---------------------------------------------------------------------------------------------------

const CHAT_FINISH = { stop: "stop", length: "length", tools: "tool_calls", filter: "content_filter" } as const;

function chatUsage({ input, cached, written, output, reasoning }: Tokens): Fields {
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_tokens_details: { cached_tokens: cached, audio_tokens: 0, cache_write_tokens: written },
    completion_tokens_details: { reasoning_tokens: reasoning, audio_tokens: 0 },
  };
}

const CHAT_HEAD = {
  id: "chatcmpl-up",
  created: 1_700_000_000,
  model: "model-of-the-upstream",
  system_fingerprint: "fp",
};

export const CHAT_WIRE: Wire = {
  streamType: "text/event-stream; charset=utf-8",
  body: ({ reasoning, text, tools, finish, tokens }) => ({
    ...CHAT_HEAD,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: text ?? null,
          refusal: null,
          ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
          ...(tools === undefined
            ? {}
            : {
                tool_calls: tools.map(({ id, name, args }) => ({
                  id,
                  type: "function",
                  function: { name, arguments: JSON.stringify(args) },
                })),
              }),
        },
        logprobs: null,
        finish_reason: CHAT_FINISH[finish],
      },
    ],
    usage: chatUsage(tokens),
  }),
  frames({ reasoning, text, tools = [], finish, tokens }, usageAsked) {
    const none = usageAsked ? { usage: null } : {};
    const chunk = (delta: Fields, finish_reason: string | null = null): string =>
      data({
        ...CHAT_HEAD,
        object: "chat.completion.chunk",
        choices: [{ index: 0, delta, logprobs: null, finish_reason }],
        ...none,
      });
    const frames = [chunk({ role: "assistant", content: "", refusal: null })];
    if (reasoning !== undefined) for (const half of halves(reasoning)) frames.push(chunk({ reasoning_content: half }));
    if (text !== undefined) for (const half of halves(text)) frames.push(chunk({ content: half }));
    tools.forEach(({ id, name, args }, index) => {
      frames.push(chunk({ tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] }));
      for (const half of halves(JSON.stringify(args)))
        frames.push(chunk({ tool_calls: [{ index, function: { arguments: half } }] }));
    });
    frames.push(chunk({}, CHAT_FINISH[finish]));
    if (usageAsked)
      frames.push(data({ ...CHAT_HEAD, object: "chat.completion.chunk", choices: [], usage: chatUsage(tokens) }));
    return [...frames, "data: [DONE]\n\n"];
  },
  errorFrame: (message) => data({ error: { message, type: "server_error", param: null, code: "server_error" } }),
  error: (code, message) => ({ error: { message, type: "invalid_request_error", param: null, code } }),
};

// --- responses ----------------------------------------------------------------------------------------------------------

export const RESPONSE_ID = "resp_up1";

function responseOf(turn: Turn | null, output: Fields[]): Fields {
  const cut = turn?.finish === "length" ? "max_output_tokens" : turn?.finish === "filter" ? "content_filter" : null;
  const { input = 0, cached = 0, written = 0, output: out = 0, reasoning = 0 } = turn?.tokens ?? {};
  return {
    id: RESPONSE_ID,
    object: "response",
    created_at: 1_700_000_000,
    status: turn === null ? "in_progress" : cut === null ? "completed" : "incomplete",
    background: false,
    error: null,
    incomplete_details: cut === null ? null : { reason: cut },
    instructions: null,
    max_output_tokens: null,
    model: "model-of-the-upstream",
    output,
    parallel_tool_calls: true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    store: true,
    temperature: 1,
    text: { format: { type: "text" } },
    tool_choice: "auto",
    tools: [],
    top_p: 1,
    truncation: "disabled",
    usage:
      turn === null
        ? null
        : {
            input_tokens: input,
            input_tokens_details: { cached_tokens: cached, cache_write_tokens: written },
            output_tokens: out,
            output_tokens_details: { reasoning_tokens: reasoning },
            total_tokens: input + out,
          },
    metadata: {},
  };
}

function itemsOf({ reasoning, text, tools = [], finish }: Turn): Fields[] {
  const items: Fields[] = [];
  const status = finish === "length" ? "incomplete" : "completed";
  if (reasoning !== undefined)
    items.push({ id: "rs_up", type: "reasoning", summary: [{ type: "summary_text", text: reasoning }] });
  if (text !== undefined) {
    const content = [{ type: "output_text", text, annotations: [], logprobs: [] }];
    items.push({ id: "msg_up", type: "message", status, role: "assistant", content });
  }
  tools.forEach(({ id, name, args }, i) => {
    const call = { call_id: id, name, arguments: JSON.stringify(args) };
    items.push({ id: `fc_up${i}`, type: "function_call", status: "completed", ...call });
  });
  return items;
}

function itemFrames(item: Fields, output_index: number, frame: (type: string, fields: Fields) => string): string[] {
  const place = { item_id: item["id"], output_index };
  if (item["type"] === "reasoning") {
    const part = (item["summary"] as Fields[])[0]!;
    const at = { ...place, summary_index: 0 };
    return [
      frame("response.output_item.added", { output_index, item: { ...item, summary: [] } }),
      frame("response.reasoning_summary_part.added", { ...at, part: { ...part, text: "" } }),
      ...halves(part["text"] as string).map((delta) =>
        frame("response.reasoning_summary_text.delta", { ...at, delta }),
      ),
      frame("response.reasoning_summary_text.done", { ...at, text: part["text"] }),
      frame("response.reasoning_summary_part.done", { ...at, part }),
      frame("response.output_item.done", { output_index, item }),
    ];
  }
  if (item["type"] === "message") {
    const part = (item["content"] as Fields[])[0]!;
    const at = { ...place, content_index: 0 };
    return [
      frame("response.output_item.added", { output_index, item: { ...item, status: "in_progress", content: [] } }),
      frame("response.content_part.added", { ...at, part: { ...part, text: "" } }),
      ...halves(part["text"] as string).map((delta) =>
        frame("response.output_text.delta", { ...at, delta, logprobs: [], obfuscation: "xyz" }),
      ),
      frame("response.output_text.done", { ...at, text: part["text"], logprobs: [] }),
      frame("response.content_part.done", { ...at, part }),
      frame("response.output_item.done", { output_index, item }),
    ];
  }
  return [
    frame("response.output_item.added", { output_index, item: { ...item, status: "in_progress", arguments: "" } }),
    ...halves(item["arguments"] as string).map((delta) =>
      frame("response.function_call_arguments.delta", { ...place, delta, obfuscation: "xyz" }),
    ),
    frame("response.function_call_arguments.done", { ...place, arguments: item["arguments"], name: item["name"] }),
    frame("response.output_item.done", { output_index, item }),
  ];
}

export const RESPONSES_WIRE: Wire = {
  streamType: "text/event-stream; charset=utf-8",
  body: (turn) => responseOf(turn, itemsOf(turn)),
  frames(turn) {
    let sequence_number = 0;
    const frame = (type: string, fields: Fields): string =>
      event({ type, sequence_number: sequence_number++, ...fields });
    const items = itemsOf(turn);
    const ended = turn.finish === "length" || turn.finish === "filter" ? "response.incomplete" : "response.completed";
    return [
      frame("response.created", { response: responseOf(null, []) }),
      frame("response.in_progress", { response: responseOf(null, []) }),
      ...items.flatMap((item, i) => itemFrames(item, i, frame)),
      frame(ended, { response: responseOf(turn, items) }),
    ];
  },
  errorFrame: (message) => event({ type: "error", sequence_number: 99, code: "server_error", message, param: null }),
  error: CHAT_WIRE.error,
};

// --- messages -----------------------------------------------------------------------------------------------------------

const MESSAGES_FINISH = { stop: "end_turn", length: "max_tokens", tools: "tool_use", filter: "refusal" } as const;

function messagesUsage({ input, cached, written, output, reasoning }: Tokens): Fields {
  return {
    input_tokens: input - cached - written,
    cache_read_input_tokens: cached,
    cache_creation_input_tokens: written,
    cache_creation: { ephemeral_5m_input_tokens: written, ephemeral_1h_input_tokens: 0 },
    output_tokens: output,
    output_tokens_details: { thinking_tokens: reasoning },
    service_tier: "standard",
  };
}

const MESSAGE = { id: "msg_up", type: "message", role: "assistant", model: "claude-of-the-upstream" };

function blocksOf({ reasoning, text, tools = [] }: Turn): Fields[] {
  return [
    ...(reasoning === undefined ? [] : [{ type: "thinking", thinking: reasoning, signature: "c2lnbmVk" }]),
    ...(text === undefined ? [] : [{ type: "text", text }]),
    ...tools.map(({ id, name, args: input }) => ({ type: "tool_use", id, name, input })),
  ];
}

function blockFrames(block: Fields, index: number): string[] {
  const start = (content_block: Fields): string => event({ type: "content_block_start", index, content_block });
  const delta = (value: Fields): string => event({ type: "content_block_delta", index, delta: value });
  const stop = event({ type: "content_block_stop", index });
  if (block["type"] === "thinking") {
    const words = halves(block["thinking"] as string).map((thinking) => delta({ type: "thinking_delta", thinking }));
    const signed = delta({ type: "signature_delta", signature: block["signature"] });
    return [start({ type: "thinking", thinking: "", signature: "" }), ...words, signed, stop];
  }
  if (block["type"] === "text") {
    const words = halves(block["text"] as string).map((text) => delta({ type: "text_delta", text }));
    return [start({ type: "text", text: "" }), ...words, stop];
  }
  const pieces = ["", ...halves(JSON.stringify(block["input"]))];
  const args = pieces.map((partial_json) => delta({ type: "input_json_delta", partial_json }));
  return [start({ ...block, input: {} }), ...args, stop];
}

export const MESSAGES_WIRE: Wire = {
  streamType: "text/event-stream; charset=utf-8",
  body: (turn) => ({
    ...MESSAGE,
    content: blocksOf(turn),
    stop_reason: MESSAGES_FINISH[turn.finish],
    stop_sequence: null,
    usage: messagesUsage(turn.tokens),
  }),
  frames(turn) {
    const usage = messagesUsage(turn.tokens);
    const begun = { ...MESSAGE, content: [], stop_reason: null, stop_sequence: null };
    return [
      // The tokens that have come out are told from the beginning on, and not to be added up.
      event({ type: "message_start", message: { ...begun, usage: { ...usage, output_tokens: 1 } } }),
      event({ type: "ping" }),
      ...blocksOf(turn).flatMap(blockFrames),
      event({
        type: "message_delta",
        delta: { stop_reason: MESSAGES_FINISH[turn.finish], stop_sequence: null },
        usage,
      }),
      event({ type: "message_stop" }),
    ];
  },
  errorFrame: (message) => event({ type: "error", error: { type: "overloaded_error", message } }),
  error: (code, message) => ({
    type: "error",
    error: { type: code ?? "invalid_request_error", message },
    request_id: "r",
  }),
};

// --- Converse -----------------------------------------------------------------------------------------------------------

const CONVERSE_FINISH = {
  stop: "end_turn",
  length: "max_tokens",
  tools: "tool_use",
  filter: "content_filtered",
} as const;

function converseUsage({ input, cached, written, output }: Tokens): Fields {
  const inputTokens = input - cached - written;
  const cache = { cacheReadInputTokens: cached, cacheWriteInputTokens: written };
  return { inputTokens, outputTokens: output, totalTokens: input + output, ...cache };
}

export const CONVERSE_WIRE: Wire = {
  streamType: "application/vnd.amazon.eventstream",
  body: ({ reasoning, text, tools = [], finish, tokens }) => ({
    output: {
      message: {
        role: "assistant",
        content: [
          ...(reasoning === undefined
            ? []
            : [{ reasoningContent: { reasoningText: { text: reasoning, signature: "c2lnbmVk" } } }]),
          ...(text === undefined ? [] : [{ text }]),
          ...tools.map(({ id, name, args }) => ({ toolUse: { toolUseId: id, name, input: args } })),
        ],
      },
    },
    stopReason: CONVERSE_FINISH[finish],
    usage: converseUsage(tokens),
    metrics: { latencyMs: 12 },
  }),
  frames({ reasoning, text, tools = [], finish, tokens }) {
    let contentBlockIndex = -1;
    const delta = (value: Fields): Buffer =>
      frameOf(["contentBlockDelta", { contentBlockIndex, delta: value, p: "ab" }]);
    const stop = (): Buffer => frameOf(["contentBlockStop", { contentBlockIndex, p: "abc" }]);
    const frames = [frameOf(["messageStart", { role: "assistant", p: "a" }])];
    if (reasoning !== undefined) {
      contentBlockIndex++;
      frames.push(...halves(reasoning).map((half) => delta({ reasoningContent: { text: half } })));
      frames.push(delta({ reasoningContent: { signature: "c2lnbmVk" } }), stop());
    }
    if (text !== undefined) {
      contentBlockIndex++;
      frames.push(...halves(text).map((half) => delta({ text: half })), stop());
    }
    for (const { id, name, args } of tools) {
      contentBlockIndex++;
      const start = { toolUse: { toolUseId: id, name } };
      frames.push(frameOf(["contentBlockStart", { contentBlockIndex, start }]));
      frames.push(...halves(JSON.stringify(args)).map((input) => delta({ toolUse: { input } })), stop());
    }
    frames.push(frameOf(["messageStop", { stopReason: CONVERSE_FINISH[finish] }]));
    return [...frames, frameOf(["metadata", { usage: converseUsage(tokens), metrics: { latencyMs: 12 } }])];
  },
  errorFrame: (message) => frameOf(["exception:modelStreamErrorException", { message }]),
  error: (_code, message) => ({ message }),
};
