/**
 * PURE. OpenAI messages as Anthropic's turns. Its rules: the first turn is the user's, all results of a turn's calls stand
 * at the beginning of the very next one, thinking stands before what it led to, and nothing is empty. Facts are from
 * reference/UPSTREAM-FORMATS.md C3 and E2.
 */

import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { isSealed } from "../responses/reasoning.ts";
import { type Block, blocksOf, cacheOf } from "./content.ts";
import type { Capabilities } from "./models.ts";
import { optionalText, refuse, requiredText } from "./refuse.ts";
import { CUSTOM_FIELD, CUSTOM_SUFFIX } from "./tools.ts";

export interface Turn {
  readonly role: "user" | "assistant" | "system";
  readonly content: Block[];
}

export interface Conversation {
  readonly system: readonly Block[];
  readonly turns: readonly Turn[];
  /** Names of the tools that were called. */
  readonly called: ReadonlySet<string>;
  /** The path of the last message if that is the assistant's, to be gone on with; null: it is not. */
  readonly prefill: string | null;
  /** The last turn of the assistant calls tools without having thought: it cannot go on with a thinking budget. */
  readonly calledUnthinking: boolean;
}

/** What stands for a turn of the user where there must be one and is none. */
const NO_WORDS = ".";
const UNSAFE_ID = /[^A-Za-z0-9_-]/g;

/** @throws RefusedFieldError */
export function conversationOf(chat: Json, capabilities: Capabilities): Conversation {
  const { messages } = chat;
  if (messages === undefined || messages === null)
    return refuse("missing_required_parameter", "messages", "`messages` is required.");
  if (!Array.isArray(messages)) return refuse("invalid_type", "messages", "`messages` must be a list.");
  if (messages.length === 0) return refuse("invalid_value", "messages", "`messages` must not be empty.");
  const builder = new Builder(capabilities.midSystem);
  for (const [index, message] of (messages as readonly unknown[]).entries())
    builder.add(objectOf(message), `messages[${index}]`);
  return builder.done();
}

class Builder {
  private readonly midSystem: boolean;
  private readonly system: Block[] = [];
  private readonly turns: Turn[] = [];
  private readonly called = new Set<string>();
  /** System text that waits for the end of a turn of the user. */
  private held: Block[] = [];
  /** Ids of calls whose results have not come, and where they were made. */
  private readonly open = new Map<string, string>();
  /** Results at the beginning of the last turn. */
  private results = 0;
  /** The path of the last message if that is the assistant's. */
  private assistantAt: string | null = null;
  /** Calls of old have no ids: the one of the last `function_call`. */
  private legacyId = "";

  constructor(midSystem: boolean) {
    this.midSystem = midSystem;
  }

  add(message: Json, at: string): void {
    this.assistantAt = message["role"] === "assistant" ? at : null;
    switch (message["role"]) {
      case "system":
      case "developer":
        return this.addSystem(withCache(blocksOf(message["content"], "text", `${at}.content`), message));
      case "user":
        return this.addUser(withCache(blocksOf(message["content"], "user", `${at}.content`), message));
      case "assistant":
        return this.addAssistant(message, at);
      case "tool":
        return this.addResult(message, safeId(requiredText(message, "tool_call_id", `${at}.tool_call_id`)), at);
      case "function":
        return this.addResult(message, this.legacyId, at);
      default:
        return refuse(
          "invalid_value",
          `${at}.role`,
          "It must be `system`, `developer`, `user`, `assistant` or `tool`.",
        );
    }
  }

  done(): Conversation {
    this.settle();
    const { turns, held } = this;
    // What the user never answered to is said by the user rather than not at all.
    if (!this.release() && held.length > 0) this.push("user", held);
    if (turns[0]?.role !== "user") turns.unshift({ role: "user", content: [{ type: "text", text: NO_WORDS }] });
    const prefill = turns.at(-1)!.role === "assistant" ? this.assistantAt : null;
    // The last message is another's, and was empty.
    if (prefill === null && turns.at(-1)!.role === "assistant") this.push("user", [{ type: "text", text: NO_WORDS }]);
    if (prefill !== null) trimEnd(turns.at(-1)!);
    const answer = turns.findLast(({ role }) => role === "assistant")?.content ?? [];
    const calledUnthinking = answer.some(({ type }) => type === "tool_use") && !isThinking(answer[0]!);
    return { system: this.system, turns, called: this.called, prefill, calledUnthinking };
  }

  private push(role: Turn["role"], blocks: Block[]): void {
    if (blocks.length === 0) return;
    const last = this.turns.at(-1);
    if (last?.role === role) last.content.push(...blocks);
    else {
      this.turns.push({ role, content: [...blocks] });
      this.results = 0;
    }
  }

  /** Says what waits where it may stand: after a turn of the user, and before one of the assistant or at the end. */
  private release(): boolean {
    if (this.held.length === 0 || this.turns.at(-1)?.role !== "user" || this.open.size > 0) return false;
    this.push("system", this.held);
    this.held = [];
    return true;
  }

  private addSystem(blocks: Block[]): void {
    if (this.midSystem && this.turns.length > 0) this.held.push(...blocks);
    else this.system.push(...blocks);
  }

  private addUser(blocks: Block[]): void {
    this.push("user", blocks);
  }

  private addAssistant(message: Json, at: string): void {
    this.settle();
    this.release();
    const blocks: Block[] = thinkingBlocks(message["thinking_blocks"]);
    blocks.push(...blocksOf(message["content"], "assistant", `${at}.content`));
    if (message["content"] === undefined || message["content"] === null || message["content"] === "")
      blocks.push(...blocksOf(optionalText(message, "refusal", `${at}.refusal`), "text", `${at}.refusal`));
    for (const [index, call] of listOf(message["tool_calls"]).entries())
      blocks.push(this.call(objectOf(call), `${at}.tool_calls[${index}]`));
    const legacy = message["function_call"];
    if (legacy !== undefined && legacy !== null) {
      this.legacyId = `call_${this.turns.length}`;
      blocks.push(this.call({ id: this.legacyId, function: legacy }, `${at}.function_call`));
    }
    // Thoughts alone, such as those of an answer that was cut, are no turn.
    if (!blocks.every(isThinking)) this.push("assistant", withCache(blocks, message));
  }

  private call(call: Json, at: string): Block {
    const id = safeId(requiredText(call, "id", `${at}.id`));
    const custom = call["type"] === "custom";
    const spec = objectOf(custom ? call["custom"] : call["function"]);
    const name =
      requiredText(spec, "name", `${at}.${custom ? "custom" : "function"}.name`) + (custom ? CUSTOM_SUFFIX : "");
    const input = custom ? { [CUSTOM_FIELD]: textOf(spec["input"]) } : inputOf(textOf(spec["arguments"]));
    if (this.open.has(id)) return refuse("invalid_value", `${at}.id`, "Two calls have the same id.");
    this.open.set(id, at);
    this.called.add(name);
    return { type: "tool_use", id, name, input };
  }

  private addResult(message: Json, id: string, at: string): void {
    if (!this.open.delete(id))
      return refuse("invalid_value", at, "There is no call before it, without a result, that this is the result of.");
    const content = blocksOf(message["content"], "tool", `${at}.content`);
    const result: Block = { type: "tool_result", tool_use_id: id };
    if (content.length === 1 && typeof message["content"] === "string") result["content"] = content[0]!["text"];
    else if (content.length > 0) result["content"] = content;
    if (message["is_error"] === true) result["is_error"] = true;
    const blocks = withCache([result], message);
    const last = this.turns.at(-1);
    if (last?.role === "user") last.content.splice(this.results, 0, ...blocks);
    else this.push("user", blocks);
    this.results++;
  }

  /** @throws RefusedFieldError if a call has no result */
  private settle(): void {
    for (const at of this.open.values())
      return refuse(
        "invalid_value",
        at,
        "Each call needs a message of the role `tool` with its result right after it.",
      );
  }
}

function safeId(id: string): string {
  return id.replaceAll(UNSAFE_ID, "_");
}

/** Arguments that are no JSON object, as those of an answer that was cut, are shown to the model as they are. */
function inputOf(text: string): Json {
  if (text.trim() === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  } catch {
    // Said below.
  }
  return { _raw: text };
}

/** Only what Claude signed can be replayed: a signature is never made up, and what was packed here is none. */
function thinkingBlocks(value: unknown): Block[] {
  return listOf(value).flatMap((each): Block[] => {
    const { type, thinking, signature, data } = objectOf(each) as Record<string, unknown>;
    if (type === "redacted_thinking" && typeof data === "string" && data !== "") return [{ type, data }];
    if (type !== "thinking" || typeof signature !== "string" || signature === "" || isSealed(signature)) return [];
    return [{ type, thinking: textOf(thinking), signature }];
  });
}

function isThinking({ type }: Block): boolean {
  return type === "thinking" || type === "redacted_thinking";
}

/** A breakpoint of the message is one of its last block; thinking cannot have any. */
function withCache(blocks: Block[], message: Json): Block[] {
  const cache = cacheOf(message);
  const last = blocks.at(-1);
  if (cache !== undefined && last !== undefined && !isThinking(last)) last["cache_control"] = cache;
  return blocks;
}

/** What is gone on with must not end with white space. */
function trimEnd(turn: Turn): void {
  const last = turn.content.at(-1)!;
  if (last["type"] === "text") last["text"] = textOf(last["text"]).trimEnd();
}
