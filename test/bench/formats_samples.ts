/** What upstreams of each format answer, and what clients of each ask, for the bench of translations. */

import { encodeEventFrame } from "../../data-plane/formats/bedrock/event_stream.ts";

type Json = Readonly<Record<string, unknown>>;

/** What a stream is made of: text, or the arguments of one call of a tool. */
export type Content = "text" | "tool";

const WORDS = "The quick brown fox jumps over the lazy dog while nobody pays for the tokens ";
/** As long as a token is, with something that JSON escapes now and then. */
const TEXT_PIECES = [" and", " a word", ",", " the", " gateway", ".\n", " “so”", " it", " said"];
const JSON_PIECES = ['{"city":', '"Par', 'is",', ' "days', '": 3', ', "unit', '":"', "cel", 'sius"', ', "x":1'];
const USAGE = { prompt_tokens: 200, completion_tokens: 200, total_tokens: 400 };
const MESSAGES_USAGE = { input_tokens: 200, output_tokens: 200, cache_read_input_tokens: 0 };
const RESPONSES_USAGE = { input_tokens: 200, output_tokens: 200, total_tokens: 400 };
const CONVERSE_USAGE = { inputTokens: 200, outputTokens: 200, totalTokens: 400 };

function piecesOf(content: Content, count: number): string[] {
  const from = content === "text" ? TEXT_PIECES : JSON_PIECES;
  return Array.from({ length: count }, (_, at) => from[at % from.length]!);
}

const data = (value: Json): Buffer => Buffer.from(`data: ${JSON.stringify(value)}\n\n`);
const named = (value: Json): Buffer =>
  Buffer.from(`event: ${String(value["type"])}\ndata: ${JSON.stringify(value)}\n\n`);

/** Chunks of chat completions, one frame each. */
export function chatStream(content: Content, count: number): Buffer[] {
  const head = {
    id: "chatcmpl-bench",
    object: "chat.completion.chunk",
    created: 1_764_000_000,
    model: "bench-upstream",
  };
  const chunk = (delta: Json, finish_reason: string | null = null): Buffer =>
    data({ ...head, choices: [{ index: 0, delta, logprobs: null, finish_reason }] });
  const call = (fields: Json): Json => ({ tool_calls: [{ index: 0, ...fields }] });
  const name = { id: "call_1", type: "function", function: { name: "weather", arguments: "" } };
  return [
    chunk({ role: "assistant", content: content === "text" ? "" : null, ...(content === "tool" ? call(name) : {}) }),
    ...piecesOf(content, count).map((piece) =>
      chunk(content === "text" ? { content: piece } : call({ function: { arguments: piece } })),
    ),
    chunk({}, content === "text" ? "stop" : "tool_calls"),
    data({ ...head, choices: [], usage: USAGE }),
    Buffer.from("data: [DONE]\n\n"),
  ];
}

/** Events of Messages. */
export function messagesStream(content: Content, count: number): Buffer[] {
  const message = { id: "msg_1", type: "message", role: "assistant", model: "bench-upstream", content: [] };
  const tool = { type: "tool_use", id: "toolu_1", name: "weather", input: {} };
  const delta = (text: string): Json =>
    content === "text" ? { type: "text_delta", text } : { type: "input_json_delta", partial_json: text };
  return [
    named({ type: "message_start", message: { ...message, usage: { ...MESSAGES_USAGE, output_tokens: 1 } } }),
    named({
      type: "content_block_start",
      index: 0,
      content_block: content === "text" ? { type: "text", text: "" } : tool,
    }),
    ...piecesOf(content, count).map((text) => named({ type: "content_block_delta", index: 0, delta: delta(text) })),
    named({ type: "content_block_stop", index: 0 }),
    named({
      type: "message_delta",
      delta: { stop_reason: content === "text" ? "end_turn" : "tool_use", stop_sequence: null },
      usage: MESSAGES_USAGE,
    }),
    named({ type: "message_stop" }),
  ];
}

/** Events of Responses. */
export function responsesStream(content: Content, count: number): Buffer[] {
  const pieces = piecesOf(content, count);
  const whole = pieces.join("");
  let sequence_number = 0;
  const event = (type: string, fields: Json): Buffer => named({ type, sequence_number: sequence_number++, ...fields });
  const response = { id: "resp_1", object: "response", created_at: 1_764_000_000, model: "bench-upstream" };
  const isText = content === "text";
  const item = isText
    ? { id: "msg_1", type: "message", role: "assistant", status: "in_progress", content: [] }
    : { id: "fc_1", type: "function_call", call_id: "call_1", name: "weather", arguments: "", status: "in_progress" };
  const part = { type: "output_text", text: whole, annotations: [], logprobs: [] };
  const ended = { ...item, status: "completed", ...(isText ? { content: [part] } : { arguments: whole }) };
  const at = { item_id: item.id, output_index: 0, ...(isText ? { content_index: 0 } : {}) };
  const kind = isText ? "response.output_text" : "response.function_call_arguments";
  return [
    event("response.created", { response: { ...response, status: "in_progress", output: [], usage: null } }),
    event("response.output_item.added", { output_index: 0, item }),
    ...(isText ? [event("response.content_part.added", { ...at, part: { ...part, text: "" } })] : []),
    ...pieces.map((delta) => event(`${kind}.delta`, { ...at, delta, ...(isText ? { logprobs: [] } : {}) })),
    event(`${kind}.done`, { ...at, ...(isText ? { text: whole } : { arguments: whole }) }),
    event("response.output_item.done", { output_index: 0, item: ended }),
    event("response.completed", {
      response: { ...response, status: "completed", output: [ended], usage: RESPONSES_USAGE },
    }),
  ];
}

/** Binary frames of Converse, with the padding that it adds. */
export function converseStream(content: Content, count: number): Buffer[] {
  const kind = { ":content-type": "application/json", ":message-type": "event" };
  const event = (type: string, payload: Json): Buffer =>
    encodeEventFrame({ ":event-type": type, ...kind }, JSON.stringify({ ...payload, p: "abcdefghijklmnop" }));
  const isText = content === "text";
  const delta = (text: string): Json => (isText ? { text } : { toolUse: { input: text } });
  const start = { toolUse: { toolUseId: "tooluse_1", name: "weather" } };
  return [
    event("messageStart", { role: "assistant" }),
    ...(isText ? [] : [event("contentBlockStart", { contentBlockIndex: 0, start })]),
    ...piecesOf(content, count).map((text) => event("contentBlockDelta", { contentBlockIndex: 0, delta: delta(text) })),
    event("contentBlockStop", { contentBlockIndex: 0 }),
    event("messageStop", { stopReason: isText ? "end_turn" : "tool_use" }),
    event("metadata", { usage: CONVERSE_USAGE, metrics: { latencyMs: 1000 } }),
  ];
}

function filler(bytes: number): string {
  return WORDS.repeat(Math.ceil(bytes / WORDS.length)).slice(0, bytes);
}

/** Whole answers with so many bytes of text. */
export const ANSWERS: Readonly<Record<"chat" | "messages" | "responses" | "converse", (bytes: number) => Json>> = {
  chat: (bytes) => ({
    id: "chatcmpl-bench",
    object: "chat.completion",
    created: 1_764_000_000,
    model: "bench-upstream",
    choices: [{ index: 0, message: { role: "assistant", content: filler(bytes) }, finish_reason: "stop" }],
    usage: USAGE,
  }),
  messages: (bytes) => ({
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "bench-upstream",
    content: [{ type: "text", text: filler(bytes) }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: MESSAGES_USAGE,
  }),
  responses: (bytes) => ({
    id: "resp_1",
    object: "response",
    created_at: 1_764_000_000,
    model: "bench-upstream",
    status: "completed",
    output: [
      {
        id: "msg_1",
        type: "message",
        role: "assistant",
        status: "completed",
        content: [{ type: "output_text", text: filler(bytes), annotations: [] }],
      },
    ],
    usage: RESPONSES_USAGE,
  }),
  converse: (bytes) => ({
    output: { message: { role: "assistant", content: [{ text: filler(bytes) }] } },
    stopReason: "end_turn",
    usage: CONVERSE_USAGE,
    metrics: { latencyMs: 1000 },
  }),
};

const MESSAGES = 10;
const TOOLS = 5;

/** `make` gets the text of each message; what surrounds the texts is counted too. */
function sized(bytes: number, make: (text: string) => Json): Json {
  const around = JSON.stringify(make("")).length;
  return make(filler(Math.max(0, Math.floor((bytes - around) / MESSAGES))));
}

function turns(text: string): { role: "user" | "assistant"; content: string }[] {
  return Array.from({ length: MESSAGES }, (_, at) => ({ role: at % 2 === 0 ? "user" : "assistant", content: text }));
}

function tools<T>(make: (name: string, description: string, schema: Json) => T): T[] {
  const schema = {
    type: "object",
    properties: { city: { type: "string", description: "Where" }, days: { type: "integer", minimum: 1 } },
    required: ["city"],
    additionalProperties: false,
  };
  return Array.from({ length: TOOLS }, (_, at) => make(`tool_${at}`, "What the weather will be in some days.", schema));
}

/** Requests of so many bytes in all, with ten messages and five tools. */
export const REQUESTS: Readonly<Record<"chat" | "messages" | "responses", (bytes: number) => Json>> = {
  chat: (bytes) =>
    sized(bytes, (text) => ({
      model: "bench",
      messages: [{ role: "system", content: "Be terse." }, ...turns(text)],
      max_tokens: 256,
      tools: tools((name, description, parameters) => ({
        type: "function",
        function: { name, description, parameters },
      })),
    })),
  messages: (bytes) =>
    sized(bytes, (text) => ({
      model: "bench",
      system: "Be terse.",
      messages: turns(text),
      max_tokens: 256,
      tools: tools((name, description, input_schema) => ({ name, description, input_schema })),
    })),
  responses: (bytes) =>
    sized(bytes, (text) => ({
      model: "bench",
      instructions: "Be terse.",
      input: turns(text),
      max_output_tokens: 256,
      tools: tools((name, description, parameters) => ({
        type: "function",
        name,
        description,
        parameters,
        strict: false,
      })),
    })),
};
