/**
 * PURE. The input items of a Responses request as chat messages. What the assistant did in one turn stands in several items
 * (reasoning, message, calls of tools) and in one chat message. Facts: reference/UPSTREAM-FORMATS.md A2 and A4.
 */

import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { openBlocks, reasoningText } from "./reasoning.ts";

/** Chat upstreams keep nothing, so what only names something stored cannot be read there. */
export function refuseStored(param: string, what: string): never {
  throw new RefusedFieldError(
    "unsupported_parameter",
    param,
    // SDKs refer to what they believe to be stored unless they are told that it is not.
    `This model is served by an upstream that stores nothing: ${what} cannot be used. Send the content itself, with \`store\` set to false.`,
  );
}

function refuseType(param: string, type: unknown): never {
  throw new RefusedFieldError(
    "unsupported_value",
    param,
    `\`${String(type).slice(0, 64)}\` is not supported with this model.`,
  );
}

function need(value: unknown, param: string): string {
  if (typeof value === "string") return value;
  throw new RefusedFieldError(
    value === undefined || value === null ? "missing_required_parameter" : "invalid_type",
    param,
    `\`${param}\` must be a string.`,
  );
}

/** What a breakpoint of the prompt cache says is the same in both formats. */
function marks(part: Json): Json {
  const { prompt_cache_breakpoint: breakpoint, cache_control: control } = part;
  return {
    ...(breakpoint ? { prompt_cache_breakpoint: breakpoint } : {}),
    ...(control ? { cache_control: control } : {}),
  };
}

function imagePart(part: Json, at: string): Json {
  if (part["file_id"]) refuseStored(`${at}.file_id`, "a file id");
  const url = need(part["image_url"], `${at}.image_url`);
  const detail = part["detail"];
  return { type: "image_url", image_url: { url, ...(detail ? { detail } : {}) }, ...marks(part) };
}

function filePart(part: Json, at: string): Json {
  if (part["file_id"]) refuseStored(`${at}.file_id`, "a file id");
  if (part["file_url"]) {
    throw new RefusedFieldError(
      "unsupported_parameter",
      `${at}.file_url`,
      "Files by URL are not supported with this model: send `file_data`.",
    );
  }
  const data = need(part["file_data"], `${at}.file_data`);
  const filename = part["filename"];
  return { type: "file", file: { file_data: data, ...(filename ? { filename } : {}) }, ...marks(part) };
}

function partOf(value: unknown, at: string): Json {
  const part = objectOf(value);
  switch (part["type"]) {
    case "input_text":
    case "output_text":
    case "text":
      return { type: "text", text: need(part["text"], `${at}.text`), ...marks(part) };
    case "refusal":
      return { type: "refusal", refusal: need(part["refusal"], `${at}.refusal`) };
    case "input_image":
      return imagePart(part, at);
    case "input_file":
      return filePart(part, at);
    default:
      return refuseType(`${at}.type`, part["type"]);
  }
}

/** A string, or the parts of a list. */
function contentOf(value: unknown, at: string): string | Json[] {
  if (Array.isArray(value)) return value.map((part, index) => partOf(part, `${at}[${index}]`));
  return need(value, at);
}

/** What the assistant did since the last message of somebody else. */
interface Turn {
  parts: Json[];
  reasoning: string[];
  blocks: unknown[];
  calls: Json[];
}

class Messages {
  readonly list: Json[] = [];
  private turn: Turn | null = null;

  assistant(): Turn {
    this.turn ??= { parts: [], reasoning: [], blocks: [], calls: [] };
    return this.turn;
  }

  add(message: Json): void {
    this.flush();
    this.list.push(message);
  }

  flush(): void {
    const { turn } = this;
    if (turn === null) return;
    this.turn = null;
    const only = turn.parts.length === 1 ? turn.parts[0]! : null;
    const single = only !== null && only["type"] === "text" && Object.keys(only).length === 2;
    this.list.push({
      role: "assistant",
      // Nothing at all, such as after reasoning that was cut, is taken as text but not as null.
      content: single ? only["text"] : turn.parts.length > 0 ? turn.parts : turn.calls.length > 0 ? null : "",
      ...(turn.reasoning.length === 0 ? {} : { reasoning_content: turn.reasoning.join("\n\n") }),
      ...(turn.blocks.length === 0 ? {} : { thinking_blocks: turn.blocks }),
      ...(turn.calls.length === 0 ? {} : { tool_calls: turn.calls }),
    });
  }
}

const ROLES: ReadonlySet<unknown> = new Set(["user", "system", "developer"]);

function addMessage(item: Json, at: string, into: Messages): void {
  const role = item["role"];
  const content = contentOf(item["content"], `${at}.content`);
  if (role === "assistant") {
    const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
    into.assistant().parts.push(...parts);
  } else if (ROLES.has(role)) {
    into.add({ role, content });
  } else {
    refuseType(`${at}.role`, role);
  }
}

function addReasoning(item: Json, into: Messages): void {
  const turn = into.assistant();
  const text = reasoningText(item);
  if (text !== "") turn.reasoning.push(text);
  turn.blocks.push(...openBlocks(item["encrypted_content"]));
}

function addItem(value: unknown, at: string, into: Messages): void {
  const item = objectOf(value);
  const type = item["type"] ?? (item["role"] === undefined ? undefined : "message");
  switch (type) {
    case "message":
      return addMessage(item, at, into);
    case "reasoning":
      return addReasoning(item, into);
    case "function_call":
      into.assistant().calls.push({
        id: need(item["call_id"], `${at}.call_id`),
        type: "function",
        function: { name: need(item["name"], `${at}.name`), arguments: textOf(item["arguments"]) },
      });
      return;
    case "custom_tool_call":
      into.assistant().calls.push({
        id: need(item["call_id"], `${at}.call_id`),
        type: "custom",
        custom: { name: need(item["name"], `${at}.name`), input: textOf(item["input"]) },
      });
      return;
    case "function_call_output":
    case "custom_tool_call_output":
      return into.add({
        role: "tool",
        tool_call_id: need(item["call_id"], `${at}.call_id`),
        content: contentOf(item["output"], `${at}.output`),
      });
    case "item_reference":
      return refuseStored(at, "an item reference");
    default:
      return refuseType(`${at}.type`, type);
  }
}

/** The messages of a request's `instructions` and `input`. @throws RefusedFieldError */
export function messagesOf(body: Json): readonly Json[] {
  const messages = new Messages();
  const { instructions, input } = body;
  // Every upstream knows this role; `developer`, which says the same, not all of them.
  if (instructions !== undefined && instructions !== null && instructions !== "")
    messages.add({ role: "system", content: need(instructions, "instructions") });
  if (typeof input === "string") {
    messages.add({ role: "user", content: input });
  } else if (Array.isArray(input)) {
    listOf(input).forEach((item, index) => addItem(item, `input[${index}]`, messages));
    messages.flush();
  } else {
    throw new RefusedFieldError(
      input === undefined || input === null ? "missing_required_parameter" : "invalid_type",
      "input",
      "`input` must be a string or a list of items.",
    );
  }
  return messages.list;
}
