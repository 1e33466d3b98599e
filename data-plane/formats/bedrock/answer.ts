/** PURE. From Converse's answers to `chat.completion` (reference/UPSTREAM-FORMATS.md D4). */

import type { Json } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { JSON_TOOL } from "./tools.ts";

/**
 * Usage in the hub's shape; null if the object says not what went in and came out. `inputTokens` excludes what was read from
 * and written to the cache; their total is not to be trusted.
 */
export function usageOf(value: unknown): Json | null {
  const usage = objectOf(value);
  const input = countOf(usage["inputTokens"]);
  const output = countOf(usage["outputTokens"]);
  if (input === undefined || output === undefined) return null;
  const read = countOf(usage["cacheReadInputTokens"]);
  const written = countOf(usage["cacheWriteInputTokens"]);
  const details: Record<string, number> = {};
  if (read !== undefined) details["cached_tokens"] = read;
  if (written !== undefined) details["cache_write_tokens"] = written;
  const long = Math.min(longCacheTokens(usage["cacheDetails"]), written ?? 0);
  if (long > 0) details["cache_write_long_tokens"] = long;
  const prompt = input + (read ?? 0) + (written ?? 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: output,
    total_tokens: prompt + output,
    ...(Object.keys(details).length > 0 ? { prompt_tokens_details: details } : {}),
  };
}

/** What is kept for an hour: `1h` in the schema, `T1H` on the wire of some models. */
function longCacheTokens(details: unknown): number {
  let tokens = 0;
  for (const each of listOf(details)) {
    const { ttl, inputTokens } = objectOf(each);
    if (/^(?:p?t)?1h$/i.test(textOf(ttl))) tokens += countOf(inputTokens) ?? 0;
  }
  return tokens;
}

const FINISH_REASONS: Readonly<Record<string, string>> = {
  end_turn: "stop",
  stop_sequence: "stop",
  max_tokens: "length",
  model_context_window_exceeded: "length",
  guardrail_intervened: "content_filter",
  content_filtered: "content_filter",
  refusal: "content_filter",
};

/**
 * @param calls calls of the client's tools in the answer
 * @param json the tool that stands in for structured output was called
 */
export function finishReasonOf(stopReason: unknown, calls: number, json: boolean): string {
  const reason = textOf(stopReason);
  if (reason === "tool_use") return calls > 0 || !json ? "tool_calls" : "stop";
  return FINISH_REASONS[reason] ?? "stop";
}

const TIERS = new Set(["default", "flex", "priority"]);

interface Message {
  content: string;
  json: string | null;
  reasoning: string;
  readonly thinkingBlocks: Json[];
  readonly calls: Json[];
}

function addBlock(message: Message, block: Json): void {
  if (typeof block["text"] === "string") message.content += block["text"];
  for (const part of listOf(objectOf(block["citationsContent"])["content"]))
    message.content += textOf(objectOf(part)["text"]);
  if (typeof block["reasoningContent"] === "object") addReasoning(message, objectOf(block["reasoningContent"]));
  if (typeof block["toolUse"] !== "object" || block["toolUse"] === null) return;
  const { name, toolUseId, input } = objectOf(block["toolUse"]);
  const text = JSON.stringify(input ?? {});
  if (name === JSON_TOOL) message.json ??= text;
  else {
    const call = { name: textOf(name), arguments: text };
    message.calls.push({ id: textOf(toolUseId), type: "function", function: call });
  }
}

function addReasoning(message: Message, reasoning: Json): void {
  const { redactedContent } = reasoning;
  if (typeof redactedContent === "string")
    message.thinkingBlocks.push({ type: "redacted_thinking", data: redactedContent });
  if (typeof reasoning["reasoningText"] !== "object") return;
  const { text, signature } = objectOf(reasoning["reasoningText"]);
  message.reasoning += textOf(text);
  if (typeof signature === "string")
    message.thinkingBlocks.push({ type: "thinking", thinking: textOf(text), signature });
}

/** Null: this is no answer. */
export function chatCompletionOf(body: Json): Json | null {
  const output = objectOf(objectOf(body["output"])["message"]);
  if (!Array.isArray(output["content"])) return null;
  const message: Message = { content: "", json: null, reasoning: "", thinkingBlocks: [], calls: [] };
  for (const block of output["content"] as readonly unknown[]) addBlock(message, objectOf(block));
  const { json, reasoning, thinkingBlocks, calls } = message;
  // Whoever asked for JSON cannot use what was said around it.
  const content = json ?? message.content;
  const usage = usageOf(body["usage"]);
  const tier = textOf(objectOf(body["serviceTier"])["type"]);
  return {
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: content === "" ? null : content,
          refusal: null,
          ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
          ...(thinkingBlocks.length === 0 ? {} : { thinking_blocks: thinkingBlocks }),
          ...(calls.length === 0 ? {} : { tool_calls: calls }),
        },
        logprobs: null,
        finish_reason: finishReasonOf(body["stopReason"], calls.length, json !== null),
      },
    ],
    ...(usage === null ? {} : { usage }),
    ...(TIERS.has(tier) ? { service_tier: tier } : {}),
  };
}
