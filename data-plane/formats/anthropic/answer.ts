/** PURE. A whole answer of Anthropic's as a chat completion. Facts are from reference/UPSTREAM-FORMATS.md C4. */

import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { CUSTOM_FIELD, CUSTOM_SUFFIX, JSON_TOOL } from "./tools.ts";
import { hubUsage } from "./usage.ts";

/** What is not here is `stop`. */
const FINISH = new Map<unknown, string>([
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  ["refusal", "content_filter"],
]);

/** @param calls tools that the client has to run were called */
export function finishReason(stopReason: unknown, calls: boolean): string {
  // Without calls of the client's, the call was that of the tool that stands for structured output.
  if (stopReason === "tool_use") return calls ? "tool_calls" : "stop";
  return FINISH.get(stopReason) ?? "stop";
}

/** What is said of a refusal, null if the answer is none. */
export function refusalText(stopReason: unknown, stopDetails: unknown): string | null {
  if (stopReason !== "refusal") return null;
  return textOf(objectOf(stopDetails)["explanation"]) || "The model refused to answer.";
}

/** A citation with an address as OpenAI's annotation, null if it has none. Positions are those of the text it belongs to. */
export function annotationOf(citation: unknown, start: number, end: number): Json | null {
  const { url, title } = objectOf(citation);
  if (typeof url !== "string" || url === "") return null;
  return {
    type: "url_citation",
    url_citation: { url, title: textOf(title), start_index: start, end_index: end },
  };
}

/** A call as OpenAI's, of a function or of a custom tool. */
export function toolCall(id: unknown, name: string, input: Json): Json {
  if (name.endsWith(CUSTOM_SUFFIX)) {
    const custom = { name: name.slice(0, -CUSTOM_SUFFIX.length), input: customInput(input) };
    return { id: textOf(id), type: "custom", custom };
  }
  return { id: textOf(id), type: "function", function: { name, arguments: JSON.stringify(input) } };
}

export function customInput(input: Json): string {
  const text = input[CUSTOM_FIELD];
  return typeof text === "string" ? text : JSON.stringify(input);
}

interface Parts {
  text: string;
  /** There was text, if only an empty one. */
  hasText: boolean;
  /** The arguments of the tool that stands for structured output. */
  output: string | null;
  thinking: string;
  readonly blocks: Json[];
  readonly calls: Json[];
  readonly annotations: Json[];
}

/** `chat.completion` without `id`, `created` and `model`; null: this is no answer. */
export function chatAnswer(body: Json): Json | null {
  if (!isAnswer(body)) return null;
  const parts = partsOf(listOf(body["content"]));
  const refusal = refusalText(body["stop_reason"], body["stop_details"]);
  const message: Record<string, unknown> = {
    role: "assistant",
    content: parts.output ?? (parts.hasText ? parts.text : null),
    refusal,
  };
  if (parts.thinking !== "") message["reasoning_content"] = parts.thinking;
  if (parts.blocks.length > 0) message["thinking_blocks"] = parts.blocks;
  if (parts.calls.length > 0) message["tool_calls"] = parts.calls;
  if (parts.annotations.length > 0) message["annotations"] = parts.annotations;
  const finish_reason = finishReason(body["stop_reason"], parts.calls.length > 0);
  const usage = hubUsage(body["usage"]);
  return {
    object: "chat.completion",
    choices: [{ index: 0, message, logprobs: null, finish_reason }],
    ...(usage && { usage }),
  };
}

export function isAnswer(body: Json): boolean {
  return Array.isArray(body["content"]) && body["type"] !== "error";
}

function partsOf(content: readonly unknown[]): Parts {
  const parts: Parts = { text: "", hasText: false, output: null, thinking: "", blocks: [], calls: [], annotations: [] };
  for (const each of content) addBlock(objectOf(each), parts);
  return parts;
}

/** Tools that the upstream itself runs, and what is not known, are passed over. */
function addBlock(block: Json, parts: Parts): void {
  switch (block["type"]) {
    case "text": {
      const start = parts.text.length;
      parts.text += textOf(block["text"]);
      parts.hasText = true;
      for (const citation of listOf(block["citations"])) {
        const annotation = annotationOf(citation, start, parts.text.length);
        if (annotation !== null) parts.annotations.push(annotation);
      }
      return;
    }
    case "thinking":
      parts.thinking += textOf(block["thinking"]);
      if (textOf(block["signature"]) !== "") parts.blocks.push(thinkingBlock(block["thinking"], block["signature"]));
      return;
    case "redacted_thinking":
      parts.blocks.push({ type: "redacted_thinking", data: textOf(block["data"]) });
      return;
    case "tool_use": {
      const name = textOf(block["name"]);
      if (name === JSON_TOOL) parts.output = JSON.stringify(objectOf(block["input"]));
      else parts.calls.push(toolCall(block["id"], name, objectOf(block["input"])));
    }
  }
}

export function thinkingBlock(thinking: unknown, signature: unknown): Json {
  return { type: "thinking", thinking: textOf(thinking), signature: textOf(signature) };
}
