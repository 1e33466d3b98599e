/**
 * PURE. From OpenAI's messages to Converse's: `system` apart, turns that alternate and begin with the user, results of tools
 * before what the user says (reference/UPSTREAM-FORMATS.md D3).
 */

import { createHash } from "node:crypto";
import { type Json, RefusedFieldError } from "../hub.ts";
import { isBlank, listOf, objectOf, parseObject, textOf } from "../json.ts";
import { isSealed } from "../responses/reasoning.ts";
import type { Family } from "./family.ts";
import { blockOf, cachePoint } from "./parts.ts";

/** Stands where Converse demands a text and the client has none. */
const FILLER = ".";
const NO_OUTPUT = "(no output)";

interface Turn {
  readonly role: "user" | "assistant";
  /** Results of tools, which must come first. */
  readonly results: Json[];
  readonly blocks: Json[];
}

export interface Conversation {
  readonly system: readonly Json[];
  readonly messages: readonly Json[];
}

/**
 * @param historyAsText no tools are declared, without which Converse takes no calls and results of tools: they become text
 * @throws RefusedFieldError
 */
export function conversationOf(chat: Json, family: Family, historyAsText: boolean): Conversation {
  const { messages } = chat;
  if (!Array.isArray(messages))
    throw new RefusedFieldError("invalid_type", "messages", "`messages` must be an array of messages.");
  const builder = new ConversationBuilder(family, historyAsText);
  messages.forEach((message: unknown, index) => builder.add(objectOf(message), `messages[${index}]`));
  return builder.finish();
}

/** An id as the family wants it: the same for a call and its result, whatever the client's looks like. */
function toolId(id: string, family: Family): string {
  if (family.toolIds.test(id)) return id;
  const digest = createHash("sha256").update(id).digest("hex");
  return family.kind === "mistral" ? digest.slice(0, 9) : `call_${digest.slice(0, 32)}`;
}

/** Models make mistakes, which clients send back: what is no object is shown as it came. */
function inputOf(text: unknown): Json {
  if (typeof text !== "string" || text === "") return {};
  return parseObject(Buffer.from(text)) ?? { _raw: text };
}

class ConversationBuilder {
  private readonly system: Json[] = [];
  private readonly turns: Turn[] = [];
  private readonly count = { documents: 0 };
  private readonly family: Family;
  private readonly historyAsText: boolean;
  /** The id made for the last `function_call`, which has none. */
  private functionId = "";
  /** Where the message stands that was added last, if it is the assistant's; else "". */
  private assistantAt = "";

  constructor(family: Family, historyAsText: boolean) {
    this.family = family;
    this.historyAsText = historyAsText;
  }

  add(message: Json, param: string): void {
    const { role } = message;
    this.assistantAt = role === "assistant" ? param : "";
    if (role === "system" || role === "developer") this.system.push(...this.content(message, param));
    else if (role === "user") this.turn("user").blocks.push(...this.content(message, param));
    else if (role === "assistant") this.addAssistant(message, param);
    else if (role === "tool") this.addResult(message, textOf(message["tool_call_id"]), param);
    else if (role === "function") this.addResult(message, this.functionId, param);
    else throw new RefusedFieldError("invalid_value", `${param}.role`, "This is no role of a message.");
  }

  /** The last turn if it is this role's, else a new one. */
  private turn(role: Turn["role"]): Turn {
    let last = this.turns.at(-1);
    if (last?.role !== role) this.turns.push((last = { role, results: [], blocks: [] }));
    return last;
  }

  /** The blocks of a message's content, each with the cache point that is set on it. */
  private content(message: Json, param: string): Json[] {
    const { content } = message;
    const blocks: Json[] = [];
    if (typeof content === "string") {
      if (!isBlank(content)) blocks.push({ text: content });
    } else {
      listOf(content).forEach((each, index) => {
        const part = objectOf(each);
        const block = blockOf(part, `${param}.content[${index}]`, this.count);
        if (block === null) return;
        blocks.push(block);
        this.mark(blocks, part);
      });
    }
    this.mark(blocks, message);
    return blocks;
  }

  /** Sets the cache point that a part or message asks for, unless there is one. */
  private mark(blocks: Json[], marked: Json): void {
    const last = blocks.at(-1);
    const point = cachePoint(marked, this.family, "message");
    if (last !== undefined && point !== null && !("cachePoint" in last)) blocks.push(point);
  }

  private addAssistant(message: Json, param: string): void {
    const blocks = this.reasoning(message);
    const { content, refusal } = message;
    blocks.push(...this.content({ content }, param));
    if (typeof refusal === "string" && !isBlank(refusal)) blocks.push({ text: refusal });
    listOf(message["tool_calls"]).forEach((each, index) => {
      const call = objectOf(each);
      const at = `${param}.tool_calls[${index}]`;
      if (call["type"] === "custom")
        throw new RefusedFieldError("unsupported_value", `${at}.type`, "This model has no custom tools.");
      blocks.push(this.call(objectOf(call["function"]), textOf(call["id"])));
    });
    if (typeof message["function_call"] === "object" && message["function_call"] !== null) {
      this.functionId = `function_${param.replaceAll(/\D/g, "")}`;
      blocks.push(this.call(objectOf(message["function_call"]), this.functionId));
    }
    this.mark(blocks, message);
    // Thoughts alone, such as those of an answer that was cut, are no turn.
    if (blocks.some((block) => !("reasoningContent" in block))) this.turn("assistant").blocks.push(...blocks);
  }

  /** Unsigned reasoning is left out: nobody would believe it. */
  private reasoning(message: Json): Json[] {
    if (!this.family.replaysReasoning) return [];
    const blocks: Json[] = [];
    for (const each of listOf(message["thinking_blocks"])) {
      const { type, thinking, signature, data } = objectOf(each);
      if (type === "thinking" && typeof signature === "string" && signature !== "" && !isSealed(signature))
        blocks.push({ reasoningContent: { reasoningText: { text: textOf(thinking), signature } } });
      else if (type === "redacted_thinking" && typeof data === "string" && data !== "")
        blocks.push({ reasoningContent: { redactedContent: data } });
    }
    return blocks;
  }

  private call(called: Json, id: string): Json {
    const name = textOf(called["name"]);
    const input = inputOf(called["arguments"]);
    if (this.historyAsText) return { text: `[Called the tool ${name} with ${JSON.stringify(input)}]` };
    return { toolUse: { toolUseId: toolId(id, this.family), name, input } };
  }

  private addResult(message: Json, id: string, param: string): void {
    const { blocks, points } = this.resultContent(message, param);
    const failed = message["is_error"] === true;
    const turn = this.turn("user");
    if (this.historyAsText) {
      turn.results.push({ text: failed ? "[The tool failed:]" : "[The tool's result:]" }, ...blocks, ...points);
      return;
    }
    const result: Record<string, unknown> = { toolUseId: toolId(id, this.family), content: blocks };
    if (failed && this.family.resultStatus) result["status"] = "error";
    turn.results.push({ toolResult: result }, ...points);
  }

  /** Cache points may not stand inside a result: they follow it. */
  private resultContent(message: Json, param: string): { blocks: Json[]; points: Json[] } {
    const all = this.content(message, param);
    if (all.length === 0) {
      all.push({ text: NO_OUTPUT });
      this.mark(all, message);
    }
    const blocks = all.filter((block) => !("cachePoint" in block));
    return { blocks, points: all.filter((block) => "cachePoint" in block).slice(-1) };
  }

  finish(): Conversation {
    const { turns } = this;
    // Turns that had nothing but blank text.
    const kept = mergeTurns(turns.filter(({ results, blocks }) => results.length + blocks.length > 0));
    if (kept[0]?.role !== "user") kept.unshift({ role: "user", results: [], blocks: [{ text: FILLER }] });
    const last = kept.at(-1)!;
    if (last.role === "assistant") {
      // What the user said last was blank, or the assistant's words are to be gone on with.
      if (this.assistantAt === "") kept.push({ role: "user", results: [], blocks: [{ text: FILLER }] });
      else this.prefill(last);
    }
    const messages = kept.map(({ role, results, blocks }) => {
      const needsText = blocks.some((block) => "document" in block) && !blocks.some((block) => "text" in block);
      return { role, content: [...results, ...blocks, ...(needsText ? [{ text: FILLER }] : [])] };
    });
    return { system: this.system, messages };
  }

  /** An answer that is to be gone on with may not end with white space. */
  private prefill({ blocks }: Turn): void {
    const { claude } = this.family;
    if (claude !== null && !claude.prefill) {
      const what = "This model does not go on with a message of the assistant.";
      throw new RefusedFieldError("unsupported_value", this.assistantAt, what);
    }
    const at = blocks.findLastIndex((block) => !("cachePoint" in block));
    const text = blocks[at]?.["text"];
    if (typeof text === "string") blocks[at] = { text: text.trimEnd() };
  }
}

function mergeTurns(turns: readonly Turn[]): Turn[] {
  const merged: Turn[] = [];
  for (const turn of turns) {
    const last = merged.at(-1);
    if (last?.role === turn.role) {
      last.results.push(...turn.results);
      last.blocks.push(...turn.blocks);
    } else {
      merged.push(turn);
    }
  }
  return merged;
}

/** The conversation forbids a budget for thinking: a call of a tool that was not thought about, or an answer to go on with. */
export function forbidsBudget(chat: Json): boolean {
  const messages = listOf(chat["messages"]).map(objectOf);
  const assistant = messages.findLast(({ role }) => role === "assistant");
  if (assistant === undefined) return false;
  if (assistant === messages.at(-1)) return true;
  const calls = listOf(assistant["tool_calls"]).length > 0 || typeof assistant["function_call"] === "object";
  const thought = listOf(assistant["thinking_blocks"]).some((each) => {
    const { signature, data } = objectOf(each);
    return (textOf(signature) !== "" && !isSealed(textOf(signature))) || textOf(data) !== "";
  });
  return calls && !thought;
}
