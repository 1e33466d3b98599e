/**
 * PURE. A request that was translated into the hub's chat (`hub.ts`), for a server of some dialect: what the hub has beyond
 * OpenAI's fields is mapped or left out, then the dialect's rules apply.
 */

import { type Dialect, OPENAI_ONLY, thinks, translatedDialect } from "./dialects.ts";
import { applyDialect, isObject, mapped, without } from "./dialect_rules.ts";
import type { Json } from "./hub.ts";
import { countOf, listOf, objectOf, textOf } from "./json.ts";
import { isStrictSchema } from "./strict_schema.ts";

/** Thinking budgets up to these are so much effort; larger ones are `high` (C8). */
const LOW_TOKENS_MAX = 2048;
const MEDIUM_TOKENS_MAX = 8192;
/** What Anthropic's clients may ask for and other servers do not know. */
const ABOVE_HIGH = new Set(["xhigh", "max"]);
/** The most that chat takes; others take more. */
const STOP_SEQUENCES_MAX = 4;
/** Stands before the content of a tool's message that says why the tool failed: chat has no field for that. */
export const FAILED = "Error: ";

function effortOf(thinking: Json, effort: string): string {
  if (thinking["type"] === "disabled") return "none";
  if (effort !== "") return ABOVE_HIGH.has(effort) ? "high" : effort;
  const budget = countOf(thinking["budget_tokens"]);
  if (budget === undefined || budget > MEDIUM_TOKENS_MAX) return "high";
  return budget <= LOW_TOKENS_MAX ? "low" : "medium";
}

/** The members that say how much to think, in the dialect's words. Without `thinking` an effort is left to the rules. */
function reasoningMembers(dialect: Dialect, chat: Json, model: string): Json {
  const given = chat["reasoning_effort"];
  if (!isObject(chat["thinking"])) return given === undefined ? {} : { reasoning_effort: given };
  const thinking = chat["thinking"];
  const effort = effortOf(thinking, textOf(given));
  switch (dialect.reasoning) {
    case "none":
      return {};
    case "thinking":
      if (effort === "none") return { thinking: { type: "disabled" } };
      return { thinking: { type: "enabled" }, reasoning_effort: effort };
    case "enable_thinking": {
      if (effort === "none") return { enable_thinking: false };
      const budget = countOf(thinking["budget_tokens"]);
      // Without a budget the rules make one of the effort.
      return budget === undefined ? { reasoning_effort: effort } : { enable_thinking: true, thinking_budget: budget };
    }
    default: {
      const noneTaken = dialect.effortNone || (dialect.reasoningModels && thinks(model) === "may");
      if (effort === "none" && !noneTaken) return {};
      // Models that do not reason refuse the field at OpenAI.
      return dialect.reasoningModels && thinks(model) === "no" ? {} : { reasoning_effort: effort };
    }
  }
}

function reasoningText(message: Json): string {
  const text = textOf(message["reasoning_content"]);
  if (text !== "") return text;
  return listOf(message["thinking_blocks"])
    .map((block) => textOf(objectOf(block)["thinking"]))
    .join("");
}

const EXTENSIONS = ["reasoning_content", "thinking_blocks", "is_error"];
const CACHE_CONTROL = ["cache_control"];

function withoutCache(value: unknown): unknown {
  return isObject(value) ? without(value, CACHE_CONTROL) : value;
}

function plainMessage(dialect: Dialect, value: unknown): unknown {
  if (!isObject(value)) return value;
  let message = without(value, EXTENSIONS);
  if (dialect.reasoningBack !== "drop" && value["role"] === "assistant") {
    const text = reasoningText(value);
    if (text !== "") message = { ...message, [dialect.reasoningField]: text };
  }
  if (!dialect.cacheControl) {
    message = without(message, CACHE_CONTROL);
    const { content } = message;
    const parts = Array.isArray(content) ? mapped(content, withoutCache) : content;
    if (parts !== content) message = { ...message, content: parts };
  }
  return message;
}

function isPlainText(part: unknown): boolean {
  return objectOf(part)["type"] === "text";
}

/** A tool's message with text alone, and the parts that a user must show instead. */
function toolMessage(message: Json, failed: boolean, shown: unknown[]): Json {
  const { content } = message;
  const prefix = failed ? FAILED : "";
  if (!Array.isArray(content)) return failed ? { ...message, content: prefix + textOf(content) } : message;
  shown.push(...content.filter((part) => !isPlainText(part)));
  const text = content
    .filter(isPlainText)
    .map((part) => textOf(objectOf(part)["text"]))
    .join("\n");
  return { ...message, content: prefix + text };
}

/** Parts in front of what a user says; another message of the user if there is none. */
function shownByUser(parts: readonly unknown[], next: unknown): { message: Json; merged: boolean } {
  const content = isObject(next) && next["role"] === "user" ? next["content"] : undefined;
  if (typeof content === "string")
    return { message: { ...objectOf(next), content: [...parts, { type: "text", text: content }] }, merged: true };
  if (Array.isArray(content))
    return { message: { ...objectOf(next), content: [...parts, ...(content as unknown[])] }, merged: true };
  return { message: { role: "user", content: parts }, merged: false };
}

/** Results of tools follow the calls without a gap, so what they show comes after the last of them. */
function plainMessages(dialect: Dialect, messages: readonly unknown[]): unknown[] {
  const plain: unknown[] = [];
  let shown: unknown[] = [];
  for (let i = 0; i < messages.length; i++) {
    const message = plainMessage(dialect, messages[i]);
    if (isObject(message) && message["role"] === "tool") {
      plain.push(toolMessage(message, objectOf(messages[i])["is_error"] === true, shown));
      continue;
    }
    if (shown.length === 0) {
      plain.push(message);
      continue;
    }
    const user = shownByUser(shown, message);
    shown = [];
    plain.push(user.message);
    if (!user.merged) plain.push(message);
  }
  if (shown.length > 0) plain.push(shownByUser(shown, undefined).message);
  return plain;
}

/** The limit under the one name that the server knows or likes best. */
function limitMembers(dialect: Dialect, chat: Json): Json {
  const limit = chat["max_completion_tokens"] ?? chat["max_tokens"];
  return limit === undefined || limit === null ? {} : { [dialect.limit]: limit };
}

/** A strict tool whose schema OpenAI would refuse for it is as good a tool without. */
function plainTool(dialect: Dialect, value: unknown): unknown {
  const tool = dialect.cacheControl ? value : withoutCache(value);
  const { strict, parameters } = objectOf(objectOf(tool)["function"]);
  if (strict !== true || isStrictSchema(parameters)) return tool;
  return { ...objectOf(tool), function: without(objectOf(objectOf(tool)["function"]), ["strict"]) };
}

const REWRITTEN = ["thinking", "reasoning_effort", "max_tokens", "max_completion_tokens"];

/**
 * @param chat of the hub
 * @param model its family, or else its upstream name; the request's own `model` stays
 */
export function dialectRequest(dialect: Dialect, chat: Json, model: string): Json {
  const translated = translatedDialect(dialect);
  let request = without(chat, REWRITTEN);
  if (!translated.topK) request = without(request, ["top_k"]);
  if (!translated.reasoningModels) request = without(request, OPENAI_ONLY);
  request = { ...request, ...limitMembers(translated, chat), ...reasoningMembers(translated, chat, model) };
  const { messages, tools } = chat;
  if (Array.isArray(messages)) request = { ...request, messages: plainMessages(translated, messages) };
  if (Array.isArray(tools)) request = { ...request, tools: mapped(tools, (tool) => plainTool(translated, tool)) };
  if (Array.isArray(chat["stop"])) request = { ...request, stop: chat["stop"].slice(0, STOP_SEQUENCES_MAX) };
  return applyDialect(translated, request, model);
}
