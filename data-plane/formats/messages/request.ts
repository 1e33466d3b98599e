/** PURE. A Messages body as a chat request. Facts: reference/UPSTREAM-FORMATS.md C3 and C8; the table is docs/formats/messages.md. */

import { createHash } from "node:crypto";
import { type Json, RefusedFieldError } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { isStrictSchema } from "../strict_schema.ts";
import { chatMessages } from "./content.ts";
import { shortName } from "./names.ts";

/** The longest user id that OpenAI takes; a SHA-256 in hex has just this length. */
export const USER_ID_CHARS_MAX = 64;
/** Budgets of thinking up to these are low and medium effort. */
export const LOW_BUDGET_TOKENS_MAX = 2048;
export const MEDIUM_BUDGET_TOKENS_MAX = 8192;

/**
 * Typed tools that are left out. They only search among the tools that are sent along, all of which the model is shown
 * anyway: without them it can do all that it could.
 */
const NEEDLESS_TOOL = /^tool_search_tool_/;
const USER_ID = /^[A-Za-z0-9_-]+$/;

/** The output limit, 0 for a request that only warms a cache. @throws RefusedFieldError */
export function maxTokensOf(body: Json): number {
  const value = body["max_tokens"];
  if (value === undefined || value === null)
    throw new RefusedFieldError("missing_required_parameter", "max_tokens", "max_tokens: this field is required.");
  const max = countOf(value);
  if (max === undefined)
    throw new RefusedFieldError("invalid_type", "max_tokens", "max_tokens: expected an integer of at least 0.");
  return max;
}

/** The request only asks to warm a prompt cache: nothing is generated, and the gateway answers by itself. */
export function isWarmUp(body: Json): boolean {
  return body["max_tokens"] === 0;
}

function tool(value: unknown, index: number): Json[] {
  const given = objectOf(value);
  const type = given["type"] ?? "custom";
  if (type !== "custom") {
    if (typeof type === "string" && NEEDLESS_TOOL.test(type)) return [];
    const at = `tools[${index}].type`;
    throw new RefusedFieldError(
      "unsupported_value",
      at,
      `${at}: tools of type ${JSON.stringify(type)} cannot be used with this model, only custom tools.`,
    );
  }
  const name = textOf(given["name"]);
  if (name === "") {
    const at = `tools[${index}].name`;
    throw new RefusedFieldError("missing_required_parameter", at, `${at}: this field is required.`);
  }
  const described: Record<string, unknown> = { name: shortName(name) };
  if (typeof given["description"] === "string") described["description"] = given["description"];
  described["parameters"] = given["input_schema"] ?? { type: "object", properties: {} };
  if (typeof given["strict"] === "boolean") described["strict"] = given["strict"];
  const made: Record<string, unknown> = { type: "function", function: described };
  if (given["cache_control"]) made["cache_control"] = given["cache_control"];
  return [made];
}

function toolChoice(choice: Json): unknown {
  switch (choice["type"]) {
    case "auto":
      return "auto";
    case "any":
      return "required";
    case "none":
      return "none";
    case "tool":
      return { type: "function", function: { name: shortName(textOf(choice["name"])) } };
    default:
      throw new RefusedFieldError(
        "invalid_value",
        "tool_choice.type",
        "tool_choice.type: expected auto, any, tool or none.",
      );
  }
}

function addTools(body: Json, chat: Record<string, unknown>): void {
  const tools = listOf(body["tools"]).flatMap(tool);
  // Upstreams refuse a choice among no tools, and an empty list of them.
  if (tools.length === 0) return;
  chat["tools"] = tools;
  const choice = body["tool_choice"];
  if (choice === undefined || choice === null) return;
  chat["tool_choice"] = toolChoice(objectOf(choice));
  if (objectOf(choice)["disable_parallel_tool_use"] === true) chat["parallel_tool_calls"] = false;
}

/** What thinking means in words of effort; undefined: say nothing, as for thinking that is disabled. */
function effortOf(body: Json): string | undefined {
  const thinking = objectOf(body["thinking"]);
  if (thinking["type"] === "disabled") return undefined;
  const effort = textOf(objectOf(body["output_config"])["effort"]);
  if (effort !== "") return effort;
  switch (thinking["type"]) {
    case "adaptive":
      return "high";
    case "between_tools":
      return "low";
    case "enabled": {
      const budget = countOf(thinking["budget_tokens"]) ?? 0;
      if (budget <= LOW_BUDGET_TOKENS_MAX) return "low";
      return budget <= MEDIUM_BUDGET_TOKENS_MAX ? "medium" : "high";
    }
    default:
      return undefined;
  }
}

function addThinking(body: Json, chat: Record<string, unknown>): void {
  if (typeof objectOf(body["thinking"])["type"] === "string") chat["thinking"] = body["thinking"];
  const effort = effortOf(body);
  if (effort !== undefined) chat["reasoning_effort"] = effort;
}

function addFormat(body: Json, chat: Record<string, unknown>): void {
  // `output_format` is its name from before it was released.
  const format = objectOf(objectOf(body["output_config"])["format"] ?? body["output_format"]);
  if (format["type"] === undefined) return;
  if (format["type"] !== "json_schema") {
    const at = "output_config.format.type";
    throw new RefusedFieldError("unsupported_value", at, `${at}: only json_schema can be used here.`);
  }
  const schema = objectOf(format["schema"]);
  // OpenAI refuses to be strict about schemas whose properties may be left out.
  const json_schema = { name: "output", schema, strict: isStrictSchema(schema) };
  chat["response_format"] = { type: "json_schema", json_schema };
}

function addSampling(body: Json, chat: Record<string, unknown>): void {
  for (const name of ["temperature", "top_p", "top_k"]) if (typeof body[name] === "number") chat[name] = body[name];
  const stop = listOf(body["stop_sequences"]).filter((each) => typeof each === "string" && each !== "");
  if (stop.length > 0) chat["stop"] = stop;
}

/** Ids that chat would not take become digests: still one for each user, always the same. */
function userId(body: Json): string {
  const id = textOf(objectOf(body["metadata"])["user_id"]);
  if (id === "" || (id.length <= USER_ID_CHARS_MAX && USER_ID.test(id))) return id;
  return createHash("sha256").update(id).digest("hex");
}

/** Automatic caching of all up to the end, as chat messages say it. */
function markLast(body: Json, messages: Json[]): void {
  const last = messages.at(-1);
  if (body["cache_control"] && last !== undefined && last["cache_control"] === undefined)
    messages[messages.length - 1] = { ...last, cache_control: body["cache_control"] };
}

/**
 * The chat request. Its output limit is `max_completion_tokens`, as OpenAI calls it now. What no other format knows (betas,
 * containers, service tiers and the like) is left out: clients send such things all the time.
 * @throws RefusedFieldError
 */
export function chatRequest(body: Json): Json {
  const max = maxTokensOf(body);
  const messages = chatMessages(body);
  markLast(body, messages);
  const chat: Record<string, unknown> = { model: textOf(body["model"]), messages };
  // A cache that is warmed is answered here; should it go upstream all the same, that is the least they take.
  chat["max_completion_tokens"] = Math.max(1, max);
  if (body["stream"] === true) chat["stream"] = true;
  addTools(body, chat);
  addSampling(body, chat);
  addThinking(body, chat);
  addFormat(body, chat);
  const user = userId(body);
  if (user !== "") {
    chat["safety_identifier"] = user;
    chat["user"] = user;
  }
  return chat;
}
