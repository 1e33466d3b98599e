/** PURE. A `response` object as a chat completion. Facts: reference/UPSTREAM-FORMATS.md A4. */

import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { blockOfItem, PART_BREAK, reasoningText } from "./reasoning.ts";
import { hubUsage } from "./usage.ts";

/** Why an answer ended, in the words of chat. */
export function finishReasonOf(response: Json, calls: boolean): string {
  if (response["status"] === "incomplete") {
    const { reason } = objectOf(response["incomplete_details"]);
    return reason === "content_filter" ? "content_filter" : "length";
  }
  return calls ? "tool_calls" : "stop";
}

/** A call of a tool as it stands in a message; null if the item is none. */
export function callOf(item: Json): Json | null {
  const { type, name } = item;
  const id = textOf(item["call_id"]);
  if (type === "function_call")
    return { id, type: "function", function: { name, arguments: textOf(item["arguments"]) } };
  return type === "custom_tool_call" ? { id, type: "custom", custom: { name, input: textOf(item["input"]) } } : null;
}

/** Annotations are nested under their type in chat. Only citations are known there. */
export function chatAnnotation(value: unknown): Json | null {
  const { type, ...rest } = objectOf(value);
  return type === "url_citation" ? { type, url_citation: rest } : null;
}

interface Gathered {
  text: string[];
  refusal: string[];
  reasoning: string[];
  readonly annotations: Json[];
  readonly logprobs: unknown[];
  readonly blocks: Json[];
  readonly calls: Json[];
}

function gatherPart(part: Json, into: Gathered): void {
  if (part["type"] === "refusal") into.refusal.push(textOf(part["refusal"]));
  if (part["type"] !== "output_text") return;
  into.logprobs.push(...listOf(part["logprobs"]));
  for (const each of listOf(part["annotations"])) {
    const annotation = chatAnnotation(each);
    if (annotation !== null) into.annotations.push(annotation);
  }
}

function gatherMessage(item: Json, into: Gathered): void {
  const parts = listOf(item["content"]).map(objectOf);
  for (const part of parts) gatherPart(part, into);
  const texts = parts.filter((part) => part["type"] === "output_text").map((part) => textOf(part["text"]));
  if (texts.length > 0) into.text.push(texts.join(""));
}

function gather(output: readonly unknown[]): Gathered {
  const into: Gathered = { text: [], refusal: [], reasoning: [], annotations: [], logprobs: [], blocks: [], calls: [] };
  for (const each of output) {
    const item = objectOf(each);
    const call = callOf(item);
    if (call !== null) into.calls.push(call);
    if (item["type"] === "message") gatherMessage(item, into);
    if (item["type"] !== "reasoning") continue;
    into.reasoning.push(reasoningText(item));
    const block = blockOfItem(item);
    if (block !== null) into.blocks.push(block);
  }
  return into;
}

const ENDED: ReadonlySet<unknown> = new Set(["completed", "incomplete", undefined]);

/** The chat completion; null if this is no answer: failed, cancelled, not done, or something else altogether. */
export function chatAnswer(response: Json): Json | null {
  const { output, error, status } = response;
  if (!Array.isArray(output) || error || !ENDED.has(status)) return null;
  const { text, refusal, reasoning, annotations, logprobs, blocks, calls } = gather(output as unknown[]);
  const shown = reasoning.filter((each) => each !== "").join(PART_BREAK);
  const message = {
    role: "assistant",
    // A response may hold several messages, a chat completion holds one.
    content: text.length === 0 ? null : text.filter((each) => each !== "").join(PART_BREAK),
    refusal: refusal.length === 0 ? null : refusal.join(""),
    ...(annotations.length === 0 ? {} : { annotations }),
    ...(shown === "" ? {} : { reasoning_content: shown }),
    ...(blocks.length === 0 ? {} : { thinking_blocks: blocks }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
  return {
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message,
        logprobs: logprobs.length === 0 ? null : { content: logprobs, refusal: null },
        finish_reason: finishReasonOf(response, calls.length > 0),
      },
    ],
    usage: hubUsage(response),
    ...(typeof response["service_tier"] === "string" ? { service_tier: response["service_tier"] } : {}),
  };
}
