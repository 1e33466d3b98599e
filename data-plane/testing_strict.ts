/** For tests only: fields and headers that upstreams do not take, and would answer with 400 or be surprised by. */

import type { IncomingHttpHeaders } from "node:http";
import { CHAT_WIRE, CONVERSE_WIRE, type Fields, MESSAGES_WIRE, type Wire } from "./testing_turns.ts";

/** Headers that may go upstream; of clients only betas are among them. */
const HEADERS = new Set([
  "host",
  "connection",
  "content-type",
  "content-length",
  "accept",
  "accept-encoding",
  "user-agent",
  "authorization",
  "api-key",
  "x-api-key",
  "anthropic-version",
  "x-amz-date",
  "x-amz-security-token",
]);

/** What is wrong with the headers, null: nothing. */
export function badHeader(headers: IncomingHttpHeaders, wire: Wire): string | null {
  const stray = Object.keys(headers).find((name) => !HEADERS.has(name));
  if (stray !== undefined) return `header ${stray}`;
  if (headers["user-agent"] !== "tokenbill") return `user-agent ${headers["user-agent"]}`;
  if (wire === MESSAGES_WIRE && headers["anthropic-version"] === undefined) return "no anthropic-version";
  if (wire !== MESSAGES_WIRE && headers["anthropic-version"] !== undefined) return "anthropic-version";
  return null;
}

const words = (text: string): ReadonlySet<string> => new Set(text.split(" "));

const CHAT = words(
  "model messages audio frequency_penalty logit_bias logprobs max_completion_tokens max_tokens metadata modalities n " +
    "parallel_tool_calls prediction presence_penalty prompt_cache_key reasoning_effort response_format " +
    "safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs " +
    "top_p user verbosity web_search_options",
);
const CHAT_MESSAGE = words("role content name refusal tool_calls tool_call_id");
const RESPONSES = words(
  "model input instructions max_output_tokens max_tool_calls metadata parallel_tool_calls previous_response_id " +
    "prompt_cache_key reasoning safety_identifier service_tier store stream stream_options temperature text tool_choice " +
    "tools top_logprobs top_p truncation user include",
);
const MESSAGES = words(
  "model messages max_tokens system stream stop_sequences temperature top_p top_k tools tool_choice thinking metadata " +
    "service_tier output_config cache_control",
);
const CONVERSE = words(
  "messages system inferenceConfig toolConfig additionalModelRequestFields requestMetadata outputConfig serviceTier",
);
const INFERENCE = words("maxTokens temperature topP stopSequences");

function stranger(object: Fields, known: ReadonlySet<string>): string | null {
  return Object.keys(object).find((name) => !known.has(name)) ?? null;
}

/** Turns of user and assistant, the user first, none empty. */
function badTurns(messages: readonly Fields[]): string | null {
  let before = "assistant";
  for (const [i, { role, content }] of messages.entries()) {
    if (role === before) return `messages[${i}]: two of ${role}`;
    if (role !== "user" && role !== "assistant") return `messages[${i}].role ${String(role)}`;
    if (content === "" || !content || (content as unknown[]).length === 0) return `messages[${i}] is empty`;
    before = role;
  }
  return messages.length === 0 ? "no messages" : null;
}

function badChat(body: Fields, model: string): string | null {
  if (body["model"] !== model) return `model ${String(body["model"])}`;
  if (body["stream_options"] !== undefined && body["stream"] !== true) return "stream_options without stream";
  if (body["max_tokens"] !== undefined && body["max_completion_tokens"] !== undefined) return "two limits";
  for (const message of body["messages"] as Fields[]) {
    const field = stranger(message, CHAT_MESSAGE);
    if (field !== null) return `messages[].${field}`;
    if (message["role"] === "assistant" && message["content"] === undefined && message["tool_calls"] === undefined)
      return "an assistant's message without anything";
  }
  return stranger(body, CHAT);
}

/** What is wrong with the body of a chat call, null: nothing. */
export function badBody(body: Fields, wire: Wire, model: string): string | null {
  if (wire === CHAT_WIRE) return badChat(body, model);
  if (wire === CONVERSE_WIRE) {
    const config = (body["inferenceConfig"] ?? {}) as Fields;
    return stranger(body, CONVERSE) ?? stranger(config, INFERENCE) ?? badTurns((body["messages"] ?? []) as Fields[]);
  }
  if (body["model"] !== model) return `model ${String(body["model"])}`;
  if (wire !== MESSAGES_WIRE) return stranger(body, RESPONSES);
  if (!Number.isInteger(body["max_tokens"]) || (body["max_tokens"] as number) < 1) return "max_tokens";
  return stranger(body, MESSAGES) ?? badTurns((body["messages"] ?? []) as Fields[]);
}
