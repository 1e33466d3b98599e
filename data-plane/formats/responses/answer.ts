/**
 * PURE. A chat completion as a `response` object. Facts: reference/UPSTREAM-FORMATS.md A4, and the types that the official
 * SDK demands of such an object.
 */

import type { HubContext, Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { sealBlocks } from "./reasoning.ts";
import { responsesUsage } from "./usage.ts";

/** The fields of the request that a response repeats, and what stands there if the request does not say. */
const ECHOED: readonly (readonly [name: string, otherwise: unknown])[] = [
  ["instructions", null],
  ["max_output_tokens", null],
  ["max_tool_calls", null],
  ["metadata", {}],
  ["parallel_tool_calls", true],
  ["prompt_cache_key", null],
  ["prompt_cache_retention", null],
  ["safety_identifier", null],
  ["service_tier", "default"],
  ["temperature", 1],
  ["tool_choice", "auto"],
  ["top_logprobs", 0],
  ["top_p", 1],
  ["truncation", "disabled"],
  ["user", null],
];

/** How an answer ended, as a response says it. */
export interface Ending {
  readonly status: "in_progress" | "completed" | "incomplete";
  readonly reason: "max_output_tokens" | "content_filter" | null;
}

export const IN_PROGRESS: Ending = { status: "in_progress", reason: null };
export const LENGTH: Ending = { status: "incomplete", reason: "max_output_tokens" };
const COMPLETED: Ending = { status: "completed", reason: null };
const FILTERED: Ending = { status: "incomplete", reason: "content_filter" };

export function endingOf(finishReason: unknown): Ending {
  if (finishReason === "length") return LENGTH;
  return finishReason === "content_filter" ? FILTERED : COMPLETED;
}

/** Types of SDKs demand every field of a function. */
function toolEcho(value: unknown): unknown {
  const tool = objectOf(value);
  return tool["type"] === "function" ? { description: null, parameters: null, strict: false, ...tool } : value;
}

/** The whole object. @param usage in the hub's shape */
export function responseOf(context: HubContext, ending: Ending, output: readonly Json[], usage: Json | null): Json {
  const { request } = context;
  const reasoning = objectOf(request["reasoning"]);
  const text = objectOf(request["text"]);
  return {
    id: `resp_${context.id}`,
    object: "response",
    created_at: context.createdS,
    status: ending.status,
    background: false,
    access_programs: null,
    error: null,
    incomplete_details: ending.reason === null ? null : { reason: ending.reason },
    model: context.model,
    output,
    previous_response_id: null,
    reasoning: { effort: reasoning["effort"] ?? null, summary: reasoning["summary"] ?? null },
    // Nothing is kept, whatever was asked for: the id cannot be used later.
    store: false,
    tools: listOf(request["tools"]).map(toolEcho),
    text: { format: text["format"] ?? { type: "text" }, verbosity: text["verbosity"] ?? "medium" },
    ...Object.fromEntries(ECHOED.map(([name, otherwise]) => [name, request[name] ?? otherwise])),
    usage: responsesUsage(usage),
  };
}

export type ItemStatus = "in_progress" | "completed" | "incomplete";

export const ItemPrefix = { REASONING: "rs", MESSAGE: "msg", FUNCTION: "fc", CUSTOM: "ctc" } as const;
export type ItemPrefix = (typeof ItemPrefix)[keyof typeof ItemPrefix];

/** Ids of items are made of the request's and the item's place: a stream and a whole answer have the same ones. */
export function itemId(context: HubContext, prefix: ItemPrefix, index: number): string {
  return `${prefix}_${context.id}_${index}`;
}

export function reasoningItem(id: string, text: string, blocks: readonly unknown[]): Json {
  return {
    id,
    type: "reasoning",
    summary: text === "" ? [] : [{ type: "summary_text", text }],
    ...(blocks.length === 0 ? {} : { encrypted_content: sealBlocks(blocks) }),
  };
}

export function messageItem(id: string, content: readonly Json[], status: ItemStatus): Json {
  return { id, type: "message", status, role: "assistant", content };
}

export function textPart(text: string, annotations: readonly Json[], logprobs: readonly unknown[]): Json {
  return { type: "output_text", text, annotations, logprobs };
}

export function refusalPart(refusal: string): Json {
  return { type: "refusal", refusal };
}

/** A call of a tool. @param text its arguments, or its input */
export function callItem(
  id: string,
  custom: boolean,
  callId: string,
  name: string,
  text: string,
  status: ItemStatus,
): Json {
  if (custom) return { id, type: "custom_tool_call", status, call_id: callId, name, input: text };
  return { id, type: "function_call", status, call_id: callId, name, arguments: text };
}

/** Chat nests what an annotation says under its type. */
export function annotationOf(value: unknown): Json {
  const { type, ...rest } = objectOf(value);
  return typeof type === "string" ? { type, ...objectOf(rest[type]) } : { ...rest };
}

/** Text of a message, whose content may come in parts. */
function contentText(content: unknown): string {
  if (typeof content === "string") return content;
  return listOf(content)
    .map((part) => textOf(objectOf(part)["text"]))
    .join("");
}

/** @param start the place of its first item */
function callItems(context: HubContext, calls: readonly unknown[], start: number): Json[] {
  return calls.map((each, at) => {
    const call = objectOf(each);
    const custom = call["type"] === "custom";
    const named = objectOf(call[custom ? "custom" : "function"]);
    const id = itemId(context, custom ? ItemPrefix.CUSTOM : ItemPrefix.FUNCTION, start + at);
    const text = textOf(named[custom ? "input" : "arguments"]);
    return callItem(id, custom, textOf(call["id"]), textOf(named["name"]), text, "completed");
  });
}

function itemsOf(context: HubContext, choice: Json): Json[] {
  const message = objectOf(choice["message"]);
  const items: Json[] = [];
  const reasoning = textOf(message["reasoning_content"]);
  const blocks = listOf(message["thinking_blocks"]);
  if (reasoning !== "" || blocks.length > 0)
    items.push(reasoningItem(itemId(context, ItemPrefix.REASONING, 0), reasoning, blocks));
  const content: Json[] = [];
  const text = contentText(message["content"]);
  const logprobs = listOf(objectOf(choice["logprobs"])["content"]);
  if (text !== "") content.push(textPart(text, listOf(message["annotations"]).map(annotationOf), logprobs));
  const refusal = textOf(message["refusal"]);
  if (refusal !== "") content.push(refusalPart(refusal));
  const calls = listOf(message["tool_calls"]);
  if (content.length > 0)
    items.push(messageItem(itemId(context, ItemPrefix.MESSAGE, items.length), content, "completed"));
  return [...items, ...callItems(context, calls, items.length)];
}

/** What was cut is the last item, if it is of those that have a status. */
export function cutLast(items: readonly Json[]): readonly Json[] {
  const last = items.at(-1);
  return last === undefined || last["status"] === undefined
    ? items
    : [...items.slice(0, -1), { ...last, status: "incomplete" }];
}

/** A `chat.completion` as a response. */
export function responseAnswer(chat: Json, context: HubContext): Json {
  const choice = objectOf(listOf(chat["choices"])[0]);
  const ending = endingOf(choice["finish_reason"]);
  const items = itemsOf(context, choice);
  const { usage, service_tier: tier } = chat;
  const response = responseOf(
    context,
    ending,
    ending.reason === null ? items : cutLast(items),
    typeof usage === "object" && usage !== null ? objectOf(usage) : null,
  );
  return typeof tier === "string" ? { ...response, service_tier: tier } : response;
}
