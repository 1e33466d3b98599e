/** PURE. Chat answers as Messages: content blocks, stop reasons, usage. Facts: reference/UPSTREAM-FORMATS.md C4, C5, C8. */

import type { HubContext, Json } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { longNames } from "./names.ts";

/** Arguments of a call that are no JSON object stand here, as the text that they came as. */
export const RAW_INPUT_KEY = "_raw";

/** How a call is called that has no id of its own. */
export function toolUseId(context: HubContext, index: number): string {
  return `toolu_${context.id}_${index}`;
}

function inputOf(text: string): Json {
  if (text.trim() === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  } catch {
    // Kept as it is: the client may know what to make of it.
  }
  return { [RAW_INPUT_KEY]: text };
}

export interface Stop {
  readonly stop_reason: string;
  readonly stop_sequence: null;
  readonly stop_details: Json | null;
}

/**
 * @param calls how many calls of tools the answer has: clients go by the reason, and some servers say `stop` all the same
 * @param refusal what the model said in refusing, "" if it did not
 */
export function stopOf(finishReason: string | null, calls: number, refusal: string): Stop {
  const refused = finishReason === "content_filter" || (refusal !== "" && calls === 0 && finishReason !== "length");
  if (refused) {
    const details = { type: "refusal", category: null, explanation: refusal === "" ? null : refusal };
    return { stop_reason: "refusal", stop_sequence: null, stop_details: details };
  }
  let reason = "end_turn";
  if (finishReason === "length") reason = "max_tokens";
  else if (calls > 0) reason = "tool_use";
  return { stop_reason: reason, stop_sequence: null, stop_details: null };
}

/** Chat usage in the words of Messages, where input does not include what was cached. Unknown: zeros. */
export function messagesUsage(usage: Json | null): Json {
  const given = usage ?? {};
  const prompt = objectOf(given["prompt_tokens_details"]);
  const cached = countOf(prompt["cached_tokens"]) ?? 0;
  const written = countOf(prompt["cache_write_tokens"]) ?? 0;
  const long = Math.min(written, countOf(prompt["cache_write_long_tokens"]) ?? 0);
  const thinking = countOf(objectOf(given["completion_tokens_details"])["reasoning_tokens"]);
  return {
    input_tokens: Math.max(0, (countOf(given["prompt_tokens"]) ?? 0) - cached - written),
    cache_creation_input_tokens: written,
    cache_read_input_tokens: cached,
    cache_creation: { ephemeral_5m_input_tokens: written - long, ephemeral_1h_input_tokens: long },
    output_tokens: countOf(given["completion_tokens"]) ?? 0,
    output_tokens_details: thinking === undefined ? null : { thinking_tokens: thinking },
    server_tool_use: null,
    service_tier: null,
  };
}

/** A message without content and end, as a stream begins with it. */
export function emptyMessage(context: HubContext): Json {
  return {
    id: `msg_${context.id}`,
    type: "message",
    role: "assistant",
    model: context.model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    stop_details: null,
    container: null,
    // SDKs keep this split from the beginning of a stream, when nothing is known of it.
    usage: { ...messagesUsage(null), cache_creation: null },
  };
}

export function textBlock(text: string): Json {
  return { type: "text", text, citations: null };
}

/** Signed and redacted blocks as they are; reasoning that nobody signed has no signature. */
function thinkingBlocks(message: Json): Json[] {
  const blocks = listOf(message["thinking_blocks"]).map(objectOf).flatMap(wholeBlock);
  if (blocks.length > 0) return blocks;
  const reasoning = textOf(message["reasoning_content"]);
  return reasoning === "" ? [] : [{ type: "thinking", thinking: reasoning, signature: "" }];
}

/** A thinking block in its own fields; none for what is no such block. */
export function wholeBlock(block: Json): Json[] {
  if (block["type"] === "redacted_thinking") return [{ type: "redacted_thinking", data: textOf(block["data"]) }];
  if (block["type"] !== "thinking") return [];
  return [{ type: "thinking", thinking: textOf(block["thinking"]), signature: textOf(block["signature"]) }];
}

/** The text of a message, which may come in parts. */
function contentText(content: unknown): string {
  if (typeof content === "string") return content;
  return listOf(content)
    .map((part) => textOf(objectOf(part)["text"]))
    .join("");
}

function toolUse(call: unknown, index: number, context: HubContext, names: ReadonlyMap<string, string>): Json {
  const { id, function: called } = objectOf(call);
  const name = textOf(objectOf(called)["name"]);
  const input = inputOf(textOf(objectOf(called)["arguments"]));
  return { type: "tool_use", id: textOf(id) || toolUseId(context, index), name: names.get(name) ?? name, input };
}

/** A `chat.completion` as a message. Only its first choice counts: Messages has no others. */
export function messagesAnswer(chat: Json, context: HubContext): Json {
  const choice = objectOf(listOf(chat["choices"])[0]);
  const message = objectOf(choice["message"]);
  const content = thinkingBlocks(message);
  const text = contentText(message["content"]);
  const refusal = textOf(message["refusal"]);
  if (text !== "") content.push(textBlock(text));
  if (refusal !== "") content.push(textBlock(refusal));
  const calls = listOf(message["tool_calls"]);
  const names = longNames(context.request);
  for (const [index, call] of calls.entries()) content.push(toolUse(call, index, context, names));
  const reason = choice["finish_reason"];
  return {
    ...emptyMessage(context),
    content,
    ...stopOf(typeof reason === "string" ? reason : null, calls.length, refusal),
    usage: messagesUsage(objectOf(chat["usage"])),
  };
}
