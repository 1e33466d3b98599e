/**
 * PURE. What a chat request must look like for a dialect. `dialect_changes.ts` applies it to bytes and
 * `dialect_request.ts` to parsed JSON: both ask here, so that they cannot differ.
 */

import { createHash } from "node:crypto";
import { type Dialect, type LimitField, thinks } from "./dialects.ts";
import type { Json } from "./hub.ts";
import { objectOf } from "./json.ts";

/** What becomes of one top-level member. */
export type Edit =
  | { readonly kind: "drop" }
  /** The value stays. */
  | { readonly kind: "rename"; readonly name: string }
  /** These members stand in its place, at least one. */
  | { readonly kind: "replace"; readonly members: Json };

const DROP: Edit = { kind: "drop" };

export type Edits = ReadonlyMap<string, Edit>;

/** A top-level value by its key, undefined if it is absent. */
export type Lookup = (key: string) => unknown;

/** What goes with tools and is refused without them. */
const BESIDE_TOOLS = ["tool_choice", "parallel_tool_calls"];

/** Sampling parameters that OpenAI's reasoning models refuse, and the values that they do not. */
export const SAMPLING: Readonly<Record<string, unknown>> = {
  temperature: 1,
  top_p: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  logprobs: false,
  top_logprobs: null,
  logit_bias: null,
};

/** Tokens that a model may think with for an effort; without one for the highest. Our own scale, as C8 has it. */
const EFFORT_BUDGETS: Readonly<Record<string, number>> = { minimal: 1024, low: 2048, medium: 8192 };

function limitEdits(only: LimitField, lookup: Lookup, edits: Map<string, Edit>): void {
  const other = only === "max_tokens" ? "max_completion_tokens" : "max_tokens";
  const value = lookup(other);
  if (value === undefined) return;
  const own = lookup(only);
  if (value === null || (own !== undefined && own !== null)) {
    edits.set(other, DROP);
  } else {
    edits.set(other, { kind: "rename", name: only });
    if (own === null) edits.set(only, DROP);
  }
}

function reasoningEdits(dialect: Dialect, lookup: Lookup, edits: Map<string, Edit>): void {
  const effort = lookup("reasoning_effort");
  if (effort === undefined || dialect.reasoning === "reasoning_effort") return;
  const replace = (members: Json) => edits.set("reasoning_effort", { kind: "replace", members });
  if (dialect.reasoning === "none" || effort === null) {
    edits.set("reasoning_effort", DROP);
  } else if (dialect.reasoning === "thinking") {
    if (effort !== "none") return;
    if (lookup("thinking") === undefined) replace({ thinking: { type: "disabled" } });
    else edits.set("reasoning_effort", DROP);
  } else if (lookup("enable_thinking") !== undefined || lookup("thinking_budget") !== undefined) {
    // The client speaks the dialect itself.
    edits.set("reasoning_effort", DROP);
  } else if (effort === "none") {
    replace({ enable_thinking: false });
  } else {
    const budget = typeof effort === "string" ? EFFORT_BUDGETS[effort] : undefined;
    replace(budget === undefined ? { enable_thinking: true } : { enable_thinking: true, thinking_budget: budget });
  }
}

/** Whether one of OpenAI's models is asked in a way in which it takes no sampling parameters. */
export function refusesSampling(model: string, lookup: Lookup): boolean {
  const kind = thinks(model);
  if (kind !== "may") return kind === "always";
  const effort = lookup("reasoning_effort");
  // Without one the default decides, and it differs between these models: that is for the upstream to say.
  return typeof effort === "string" && effort !== "none";
}

/** What must become of top-level members; empty if nothing must. @param model its family, or else its upstream name */
export function topLevelEdits(dialect: Dialect, model: string, lookup: Lookup): Edits {
  const edits = new Map<string, Edit>();
  const openAiReasoning = dialect.reasoningModels && thinks(model) !== "no";
  if (dialect.oneLimit) limitEdits(dialect.limit, lookup, edits);
  else if (openAiReasoning) limitEdits("max_completion_tokens", lookup, edits);
  reasoningEdits(dialect, lookup, edits);
  for (const name of dialect.drops) if (lookup(name) !== undefined) edits.set(name, DROP);
  for (const [name, to] of Object.entries(dialect.renames)) {
    if (lookup(name) === undefined) continue;
    edits.set(name, lookup(to) === undefined ? { kind: "rename", name: to } : DROP);
  }
  const tools = lookup("tools");
  if (!dialect.emptyTools && Array.isArray(tools) && tools.length === 0) {
    for (const name of ["tools", ...BESIDE_TOOLS]) if (lookup(name) !== undefined) edits.set(name, DROP);
  }
  if (openAiReasoning && refusesSampling(model, lookup)) {
    for (const [name, standard] of Object.entries(SAMPLING)) {
      const value = lookup(name);
      if (value !== undefined && value !== null && value !== standard) edits.set(name, DROP);
    }
  }
  return edits;
}

/** True: some top-level field may need an edit in whatever body. False: only an empty `tools` or a limit may. */
export function hasTopLevelRules(dialect: Dialect, model: string): boolean {
  return (
    dialect.drops.length > 0 ||
    dialect.reasoning !== "reasoning_effort" ||
    (dialect.reasoningModels && thinks(model) !== "no")
  );
}

/** Keys of messages that may need a change wherever they are; a message without them needs none, its role apart. */
export function messageKeys(dialect: Dialect): readonly string[] {
  const keys = [...dialect.messageDrops];
  if (dialect.toolCallId === "nine" || dialect.reasoningBack === "tools") keys.push("tool_calls");
  if (dialect.toolCallId === "nine") keys.push("tool_call_id");
  if (dialect.reasoningBack === "tools") keys.push("reasoning_content");
  return keys;
}

/** The object without these keys; the same one if it has none of them. */
export function without(object: Json, keys: readonly string[]): Json {
  if (!keys.some((key) => Object.hasOwn(object, key))) return object;
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

/** The list with every element mapped; the same one if nothing changed. */
export function mapped(list: readonly unknown[], map: (each: unknown) => unknown): readonly unknown[] {
  let changed: unknown[] | null = null;
  for (let i = 0; i < list.length; i++) {
    const value = map(list[i]);
    if (value !== list[i]) (changed ??= [...list])[i] = value;
  }
  return changed ?? list;
}

/** True for `{…}`. */
export const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const NINE = /^[A-Za-z0-9]{9}$/;
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** An id of nine letters or digits, always the same one for the same id. */
export function nineOf(id: string): string {
  if (NINE.test(id)) return id;
  let rest = createHash("sha256").update(id).digest().readBigUInt64BE(0);
  let text = "";
  for (let i = 0; i < 9; i++) {
    text += DIGITS[Number(rest % 62n)]!;
    rest /= 62n;
  }
  return text;
}

function withNine(object: Json, key: string): Json {
  const id = object[key];
  if (typeof id !== "string" || NINE.test(id)) return object;
  return { ...object, [key]: nineOf(id) };
}

function dialectMessage(dialect: Dialect, value: unknown): unknown {
  if (!isObject(value)) return value;
  let message = without(value, dialect.messageDrops);
  const { content } = message;
  if (dialect.messageDrops.length > 0 && Array.isArray(content)) {
    const parts = mapped(content, (part) => (isObject(part) ? without(part, dialect.messageDrops) : part));
    if (parts !== content) message = { ...message, content: parts };
  }
  if (!dialect.developerRole && message["role"] === "developer") message = { ...message, role: "system" };
  const calls = message["tool_calls"];
  const calling = Array.isArray(calls) && calls.length > 0;
  if (dialect.toolCallId === "nine") {
    message = withNine(message, "tool_call_id");
    if (calling) {
      const ids = mapped(calls, (call) => (isObject(call) ? withNine(call, "id") : call));
      if (ids !== calls) message = { ...message, tool_calls: ids };
    }
  }
  if (dialect.reasoningBack === "tools" && message["role"] === "assistant") {
    if (!calling) message = without(message, ["reasoning_content"]);
    else if (typeof message["reasoning_content"] !== "string") message = { ...message, reasoning_content: "" };
  }
  return message;
}

/** The messages as the dialect takes them; the same list if nothing must change. */
export function dialectMessages(dialect: Dialect, messages: readonly unknown[]): readonly unknown[] {
  return mapped(messages, (message) => dialectMessage(dialect, message));
}

/** The request with these edits, its members in their order. */
export function edited(chat: Json, edits: Edits): Json {
  if (edits.size === 0) return chat;
  const members: [string, unknown][] = [];
  for (const [key, value] of Object.entries(chat)) {
    const edit = edits.get(key);
    if (edit === undefined) members.push([key, value]);
    else if (edit.kind === "rename") members.push([edit.name, value]);
    else if (edit.kind === "replace") members.push(...Object.entries(edit.members));
  }
  return Object.fromEntries(members);
}

/** The whole of the rules on parsed JSON. The same object if nothing must change. */
export function applyDialect(dialect: Dialect, chat: Json, model: string): Json {
  const edits = topLevelEdits(dialect, model, (key) => (Object.hasOwn(chat, key) ? chat[key] : undefined));
  const result = edited(chat, edits);
  const { messages } = objectOf(result);
  if (!Array.isArray(messages)) return result;
  const list = dialectMessages(dialect, messages);
  return list === messages ? result : { ...result, messages: list };
}
