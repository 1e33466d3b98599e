/** PURE. Chat messages as the input items of a Responses request. Facts: reference/UPSTREAM-FORMATS.md A2 and A4. */

import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { FAILED } from "../dialect_request.ts";
import { itemOfBlock } from "./reasoning.ts";

function refuse(param: string, message: string): never {
  throw new RefusedFieldError("unsupported_value", param, message);
}

function marks(part: Json): Json {
  return part["prompt_cache_breakpoint"] ? { prompt_cache_breakpoint: part["prompt_cache_breakpoint"] } : {};
}

/** What a user, a system message or a tool says. */
function inputPart(value: unknown, at: string): Json {
  const part = objectOf(value);
  switch (part["type"]) {
    case "text":
      return { type: "input_text", text: part["text"], ...marks(part) };
    case "image_url": {
      const { url, detail } = objectOf(part["image_url"]);
      return { type: "input_image", image_url: url, detail: detail ?? "auto", ...marks(part) };
    }
    case "file": {
      const { file_id, file_data, filename } = objectOf(part["file"]);
      return {
        type: "input_file",
        ...(file_id ? { file_id } : {}),
        ...(file_data ? { file_data } : {}),
        ...(filename ? { filename } : {}),
        ...marks(part),
      };
    }
    default:
      return refuse(
        `${at}.type`,
        `Parts of type \`${String(part["type"]).slice(0, 64)}\` are not supported with this model.`,
      );
  }
}

function inputContent(content: unknown, at: string): unknown {
  return Array.isArray(content) ? content.map((part, index) => inputPart(part, `${at}[${index}]`)) : (content ?? "");
}

/** There is no field that says that a tool failed. */
function failedOutput(output: unknown): unknown {
  return Array.isArray(output)
    ? [{ type: "input_text", text: FAILED.trimEnd() }, ...(output as unknown[])]
    : FAILED + textOf(output);
}

/** What the assistant said before. */
function outputContent(message: Json, at: string): unknown {
  const { content } = message;
  const refusal = textOf(message["refusal"]);
  if (typeof content === "string" && content !== "" && refusal === "") return content;
  const parts: unknown[] =
    typeof content === "string" && content !== "" ? [{ type: "text", text: content }] : [...listOf(content)];
  if (refusal !== "") parts.push({ type: "refusal", refusal });
  return parts.map((each, index) => {
    const part = objectOf(each);
    if (part["type"] === "text") return { type: "output_text", text: part["text"] };
    if (part["type"] === "refusal") return { type: "refusal", refusal: part["refusal"] };
    return refuse(`${at}[${index}].type`, "The assistant's messages can only have text and refusals.");
  });
}

/** @param customCalls ids of calls whose results have another type */
function assistantItems(message: Json, at: string, customCalls: Set<string>): Json[] {
  const items: Json[] = [];
  for (const block of listOf(message["thinking_blocks"])) {
    const item = itemOfBlock(objectOf(block));
    if (item !== null) items.push(item);
  }
  const content = outputContent(message, `${at}.content`);
  if (content !== "" && !(Array.isArray(content) && content.length === 0)) items.push({ role: "assistant", content });
  for (const each of listOf(message["tool_calls"])) {
    const call = objectOf(each);
    const callId = textOf(call["id"]);
    if (call["type"] === "custom") {
      const { name, input } = objectOf(call["custom"]);
      customCalls.add(callId);
      items.push({ type: "custom_tool_call", call_id: callId, name, input: textOf(input) });
    } else {
      const { name, arguments: args } = objectOf(call["function"]);
      items.push({ type: "function_call", call_id: callId, name, arguments: textOf(args) });
    }
  }
  return items;
}

/** The items of a chat request's messages. @throws RefusedFieldError */
export function inputOf(chat: Json): readonly Json[] {
  const items: Json[] = [];
  const customCalls = new Set<string>();
  listOf(chat["messages"]).forEach((each, index) => {
    const message = objectOf(each);
    const at = `messages[${index}]`;
    const { role } = message;
    if (role === "assistant") {
      items.push(...assistantItems(message, at, customCalls));
    } else if (role === "tool") {
      const callId = textOf(message["tool_call_id"]);
      const type = customCalls.has(callId) ? "custom_tool_call_output" : "function_call_output";
      const output = inputContent(message["content"], `${at}.content`);
      items.push({ type, call_id: callId, output: message["is_error"] === true ? failedOutput(output) : output });
    } else if (role === "user" || role === "system" || role === "developer") {
      items.push({ role, content: inputContent(message["content"], `${at}.content`) });
    } else {
      refuse(`${at}.role`, `Messages of role \`${String(role).slice(0, 64)}\` are not supported with this model.`);
    }
  });
  return items;
}
