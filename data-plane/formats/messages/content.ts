/** PURE. The messages of a Messages body as chat messages. Facts: reference/UPSTREAM-FORMATS.md C3 and C8. */

import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { shortName } from "./names.ts";

/** Blocks of earlier answers that only Anthropic's own servers can read. Without them the conversation still makes sense. */
const SERVER_BLOCK = /^(?:server_tool_use|mcp_tool_use|mcp_tool_result|fallback|container_upload|\w+_tool_result)$/;
const PDF = "application/pdf";

function refuse(code: RefusedFieldError["code"], param: string, what: string): never {
  throw new RefusedFieldError(code, param, `${param}: ${what}`);
}

/** A list that must be one: what is not a list of objects cannot be read. @throws RefusedFieldError */
function blocksOf(value: unknown, at: string): readonly Json[] {
  if (!Array.isArray(value)) refuse("invalid_type", at, "expected a string or a list of content blocks.");
  return value.map((block: unknown, index) => {
    if (typeof block !== "object" || block === null || Array.isArray(block))
      refuse("invalid_type", `${at}[${index}]`, "expected an object.");
    return block as Json;
  });
}

function cacheControl(block: Json): Json {
  const value = block["cache_control"];
  return typeof value === "object" && value !== null ? { cache_control: value } : {};
}

function textPart(text: string, block: Json): Json[] {
  // Empty text is an error at many upstreams, and says nothing.
  return text === "" ? [] : [{ type: "text", text, ...cacheControl(block) }];
}

function imageUrl(source: Json, at: string): string {
  switch (source["type"]) {
    case "base64":
      return `data:${textOf(source["media_type"])};base64,${textOf(source["data"])}`;
    case "url":
      return textOf(source["url"]);
    default:
      return refuse("unsupported_value", `${at}.source.type`, "only base64 and url images can be used here.");
  }
}

/** Upstreams go by the ending. */
function pdfName(title: string): string {
  if (title === "") return "document.pdf";
  return title.toLowerCase().endsWith(".pdf") ? title : `${title}.pdf`;
}

function documentParts(block: Json, at: string): Json[] {
  const source = objectOf(block["source"]);
  const title = textOf(block["title"]);
  switch (source["type"]) {
    case "base64": {
      const type = textOf(source["media_type"]);
      if (type !== PDF) refuse("unsupported_value", `${at}.source.media_type`, `only ${PDF} can be used here.`);
      const file = { file_data: `data:${PDF};base64,${textOf(source["data"])}`, filename: pdfName(title) };
      return [...textPart(textOf(block["context"]), {}), { type: "file", file, ...cacheControl(block) }];
    }
    case "text": {
      const texts = [title, textOf(block["context"]), textOf(source["data"])];
      return textPart(texts.filter((text) => text !== "").join("\n\n"), block);
    }
    case "content": {
      const content = source["content"];
      const head = [title, textOf(block["context"])].filter((text) => text !== "").join("\n\n");
      const inner = typeof content === "string" ? textPart(content, {}) : parts(content, `${at}.source.content`);
      return marked([...textPart(head, {}), ...inner], block);
    }
    default:
      return refuse(
        "unsupported_value",
        `${at}.source.type`,
        "only base64, text and content documents can be used here.",
      );
  }
}

/** The parts, the last of them with the block's `cache_control`. */
function marked(made: Json[], block: Json): Json[] {
  const last = made.at(-1);
  if (last !== undefined) made[made.length - 1] = { ...last, ...cacheControl(block) };
  return made;
}

function part(block: Json, at: string): Json[] {
  switch (block["type"]) {
    case "text":
      return textPart(textOf(block["text"]), block);
    case "image":
      return [
        { type: "image_url", image_url: { url: imageUrl(objectOf(block["source"]), at) }, ...cacheControl(block) },
      ];
    case "document":
      return documentParts(block, at);
    case "search_result": {
      const texts = listOf(block["content"]).map((each) => textOf(objectOf(each)["text"]));
      const all = [textOf(block["title"]), textOf(block["source"]), ...texts];
      return textPart(all.filter((text) => text !== "").join("\n"), block);
    }
    case "tool_reference":
      return textPart(textOf(block["tool_name"]), block);
    default:
      return refuse(
        "unsupported_value",
        `${at}.type`,
        `content blocks of type ${JSON.stringify(block["type"])} cannot be used here.`,
      );
  }
}

function parts(content: unknown, at: string): Json[] {
  return blocksOf(content, at).flatMap((block, index) => part(block, `${at}[${index}]`));
}

/** As a string where nothing is lost by it: more upstreams take that. */
function simplest(made: readonly Json[], separator: string): string | readonly Json[] {
  const plain = made.every((each) => each["type"] === "text" && each["cache_control"] === undefined);
  return plain ? made.map((each) => textOf(each["text"])).join(separator) : made;
}

/** The text of `system`, or of a message of role `system`: null if there is none. @throws RefusedFieldError */
export function systemMessage(content: unknown, at: string): Json | null {
  const made = typeof content === "string" ? textPart(content, {}) : parts(content, at);
  for (const [index, each] of made.entries())
    if (each["type"] !== "text") refuse("unsupported_value", `${at}[${index}]`, "only text can be used here.");
  return made.length === 0 ? null : { role: "system", content: simplest(made, "\n\n") };
}

function toolMessage(block: Json, at: string): Json {
  const content = block["content"] ?? "";
  const made = typeof content === "string" ? textPart(content, {}) : parts(content, `${at}.content`);
  const message: Record<string, unknown> = {
    role: "tool",
    tool_call_id: textOf(block["tool_use_id"]),
    content: simplest(made, "\n"),
  };
  if (block["is_error"] === true) message["is_error"] = true;
  return { ...message, ...cacheControl(block) };
}

/** Results of tools come first: in chat each answers a call of the message right before. */
function userMessages(content: unknown, at: string): Json[] {
  if (typeof content === "string") return [{ role: "user", content }];
  const results: Json[] = [];
  const rest: Json[] = [];
  for (const [index, block] of blocksOf(content, at).entries()) {
    const where = `${at}[${index}]`;
    if (block["type"] === "tool_result") results.push(toolMessage(block, where));
    else rest.push(...part(block, where));
  }
  if (rest.length > 0) results.push({ role: "user", content: simplest(rest, "\n\n") });
  return results;
}

interface AssistantParts {
  readonly texts: Json[];
  readonly calls: Json[];
  readonly thinking: string[];
  readonly blocks: Json[];
  /** `cache_control` of a call: chat has it at the message. */
  cache: Json;
}

function assistantBlock(block: Json, at: string, into: AssistantParts): void {
  const type = textOf(block["type"]);
  switch (type) {
    case "tool_use":
      into.calls.push({
        id: textOf(block["id"]),
        type: "function",
        function: { name: shortName(textOf(block["name"])), arguments: JSON.stringify(block["input"] ?? {}) },
      });
      into.cache = cacheControl(block);
      break;
    case "thinking": {
      const thinking = textOf(block["thinking"]);
      const signature = textOf(block["signature"]);
      if (thinking !== "") into.thinking.push(thinking);
      // Not signed: this gateway made it of another model's reasoning, and Claude would refuse it.
      if (signature !== "") into.blocks.push({ type, thinking, signature });
      break;
    }
    case "redacted_thinking":
      into.blocks.push({ type, data: textOf(block["data"]) });
      break;
    case "compaction":
      into.texts.push(...textPart(textOf(block["content"]), block));
      break;
    default:
      if (!SERVER_BLOCK.test(type)) into.texts.push(...part(block, at));
  }
}

function assistantMessage(content: unknown, at: string): Json[] {
  if (typeof content === "string") return [{ role: "assistant", content }];
  const found: AssistantParts = { texts: [], calls: [], thinking: [], blocks: [], cache: {} };
  for (const [index, block] of blocksOf(content, at).entries()) assistantBlock(block, `${at}[${index}]`, found);
  const { texts, calls, thinking, blocks } = found;
  if (texts.length + calls.length + thinking.length + blocks.length === 0) return [];
  const text = simplest(texts, "");
  const message: Record<string, unknown> = {
    role: "assistant",
    content: texts.length === 0 && calls.length > 0 ? null : text,
  };
  if (thinking.length > 0) message["reasoning_content"] = thinking.join("\n");
  if (blocks.length > 0) message["thinking_blocks"] = blocks;
  if (calls.length > 0) message["tool_calls"] = calls;
  return [{ ...message, ...found.cache }];
}

/** @throws RefusedFieldError */
export function chatMessages(body: Json): Json[] {
  const messages = body["messages"];
  if (messages === undefined || messages === null)
    throw new RefusedFieldError("missing_required_parameter", "messages", "messages: this field is required.");
  if (!Array.isArray(messages)) refuse("invalid_type", "messages", "expected a list.");
  if (messages.length === 0) refuse("invalid_value", "messages", "at least one message is required.");
  const made: Json[] = [];
  const system = body["system"];
  const first = system === undefined || system === null ? null : systemMessage(system, "system");
  if (first !== null) made.push(first);
  for (const [index, message] of blocksOf(messages, "messages").entries()) {
    const at = `messages[${index}]`;
    const { role, content } = message;
    if (role === "user") made.push(...userMessages(content, `${at}.content`));
    else if (role === "assistant") made.push(...assistantMessage(content, `${at}.content`));
    else if (role === "system") {
      // Claude Code says such things in the middle of a conversation.
      const between = systemMessage(content, `${at}.content`);
      if (between !== null) made.push(between);
    } else refuse("invalid_value", `${at}.role`, "expected user, assistant or system.");
  }
  return made;
}
