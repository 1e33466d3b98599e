/**
 * PURE. A Responses request as a chat request. What a chat upstream cannot do is refused by its name; what it can leave out
 * without harm is dropped: see docs/formats/responses.md. Facts: reference/UPSTREAM-FORMATS.md A2, A4 and E1.
 */

import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { messagesOf, refuseStored } from "./items.ts";

function refuse(param: string, message: string): never {
  throw new RefusedFieldError("unsupported_value", param, message);
}

function functionTool(tool: Json): Json {
  const made: Record<string, unknown> = { name: tool["name"] };
  if (typeof tool["description"] === "string") made["description"] = tool["description"];
  if (tool["parameters"]) made["parameters"] = tool["parameters"];
  if (typeof tool["strict"] === "boolean") made["strict"] = tool["strict"];
  return {
    type: "function",
    function: made,
    ...(tool["cache_control"] ? { cache_control: tool["cache_control"] } : {}),
  };
}

/** Grammars stand one level deeper in chat. */
function customFormat(value: unknown): Json {
  const format = objectOf(value);
  if (format["type"] !== "grammar") return format;
  return { type: "grammar", grammar: { definition: format["definition"], syntax: format["syntax"] } };
}

function customTool(tool: Json): Json {
  const made: Record<string, unknown> = { name: tool["name"] };
  if (typeof tool["description"] === "string") made["description"] = tool["description"];
  if (tool["format"]) made["format"] = customFormat(tool["format"]);
  return { type: "custom", custom: made };
}

function toolOf(value: unknown, index: number): Json {
  const tool = objectOf(value);
  const { type } = tool;
  if ((type === "function" || type === "custom") && textOf(tool["name"]) === "") {
    throw new RefusedFieldError(
      "missing_required_parameter",
      `tools[${index}].name`,
      `\`tools[${index}].name\` must be a string.`,
    );
  }
  if (type === "function") return functionTool(tool);
  if (type === "custom") return customTool(tool);
  return refuse(
    `tools[${index}].type`,
    `Tools of type \`${String(type).slice(0, 64)}\` are not supported with this model: its upstream runs no tools.`,
  );
}

/** `{type:"function",name}` is nested in chat. */
function namedTool(tool: Json, param: string): Json {
  const { type, name } = tool;
  if (type === "function") return { type, function: { name } };
  if (type === "custom") return { type, custom: { name } };
  return refuse(param, `A tool choice of type \`${String(type).slice(0, 64)}\` is not supported with this model.`);
}

function toolChoiceOf(value: unknown): unknown {
  if (typeof value === "string") return value;
  const choice = objectOf(value);
  if (choice["type"] !== "allowed_tools") return namedTool(choice, "tool_choice.type");
  const tools = listOf(choice["tools"]).map((tool, index) =>
    namedTool(objectOf(tool), `tool_choice.tools[${index}].type`),
  );
  return { type: "allowed_tools", allowed_tools: { mode: choice["mode"] ?? "auto", tools } };
}

function addText(text: Json, chat: Record<string, unknown>): void {
  if (text["verbosity"]) chat["verbosity"] = text["verbosity"];
  const { type, ...schema } = objectOf(text["format"]);
  if (type === undefined || type === "text") return;
  if (type === "json_object") chat["response_format"] = { type };
  else if (type === "json_schema") chat["response_format"] = { type, json_schema: withoutNulls(schema) };
  else refuse("text.format.type", `The format \`${String(type).slice(0, 64)}\` is not supported with this model.`);
}

function withoutNulls(fields: Json): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));
}

/** Fields that mean the same in chat and have the same name. */
const SAME = [
  "model",
  "stream",
  "temperature",
  "top_p",
  "user",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_options",
  "prompt_cache_retention",
  "service_tier",
] as const;

function refuseState(body: Json): void {
  if (body["previous_response_id"]) refuseStored("previous_response_id", "`previous_response_id`");
  if (body["conversation"]) refuseStored("conversation", "`conversation`");
  if (body["prompt"]) refuseStored("prompt", "a stored `prompt`");
  if (body["background"] === true) {
    throw new RefusedFieldError("unsupported_parameter", "background", "`background` is not supported.");
  }
}

const LOGPROBS = "message.output_text.logprobs";

function addLogprobs(body: Json, chat: Record<string, unknown>): void {
  const top = body["top_logprobs"];
  const many = typeof top === "number" && top > 0;
  if (!many && !listOf(body["include"]).includes(LOGPROBS)) return;
  chat["logprobs"] = true;
  if (many) chat["top_logprobs"] = top;
}

/** The chat request of a Responses request. A streamed one asks for usage. @throws RefusedFieldError */
export function chatRequest(body: Json): Json {
  refuseState(body);
  const chat: Record<string, unknown> = { messages: messagesOf(body) };
  for (const name of SAME) if (body[name] !== undefined && body[name] !== null) chat[name] = body[name];
  if (chat["stream"] === true) chat["stream_options"] = { include_usage: true };
  const limit = body["max_output_tokens"];
  if (limit !== undefined && limit !== null) chat["max_completion_tokens"] = limit;
  const tools = listOf(body["tools"]).map(toolOf);
  if (tools.length > 0) {
    chat["tools"] = tools;
    // Neither means anything without tools, and servers refuse them then.
    if (body["tool_choice"]) chat["tool_choice"] = toolChoiceOf(body["tool_choice"]);
    if (typeof body["parallel_tool_calls"] === "boolean") chat["parallel_tool_calls"] = body["parallel_tool_calls"];
  }
  addText(objectOf(body["text"]), chat);
  const { effort } = objectOf(body["reasoning"]);
  if (effort) chat["reasoning_effort"] = effort;
  addLogprobs(body, chat);
  return chat;
}
