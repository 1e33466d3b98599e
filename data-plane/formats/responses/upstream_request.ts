/**
 * PURE. A chat request as a Responses request, for upstreams that have nothing else. Nothing is stored there. Facts:
 * reference/UPSTREAM-FORMATS.md A2, A4 and E1.
 */

import { refusesSampling, SAMPLING } from "../dialect_rules.ts";
import { thinks } from "../dialects.ts";
import { type HubTarget, type Json, RefusedFieldError } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { isStrictSchema } from "../strict_schema.ts";
import { inputOf } from "./upstream_items.ts";

function refuse(param: string, message: string): never {
  throw new RefusedFieldError("unsupported_parameter", param, message);
}

/** Fields that mean the same and have the same name. */
const SAME = [
  "temperature",
  "top_p",
  "parallel_tool_calls",
  "user",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_options",
  "prompt_cache_retention",
  "metadata",
  "service_tier",
  "moderation",
] as const;

/** What would change the answer if it were left out. */
function refuseUnsupported(chat: Json): void {
  const many = countOf(chat["n"]) ?? 1;
  if (many > 1) refuse("n", "This model gives one choice only.");
  if (chat["audio"] || listOf(chat["modalities"]).includes("audio"))
    refuse(chat["audio"] ? "audio" : "modalities", "Audio is not supported with this model.");
  if (chat["web_search_options"]) refuse("web_search_options", "Web search is not supported with this model.");
  const { stop } = chat;
  if ((typeof stop === "string" && stop !== "") || listOf(stop).length > 0)
    refuse("stop", "Stop sequences are not supported with this model.");
  if (listOf(chat["functions"]).length > 0)
    refuse("functions", "`functions` is not supported with this model: use `tools`.");
}

function toolOf(value: unknown, index: number): Json {
  const tool = objectOf(value);
  const { type } = tool;
  if (type === "function") {
    const { name, description, parameters, strict } = objectOf(tool["function"]);
    return {
      type,
      name,
      ...(typeof description === "string" ? { description } : {}),
      parameters: parameters ?? { type: "object", properties: {} },
      // Strict unless something else is said, other than in chat; and no tool is refused for its schema.
      strict: strict === true && isStrictSchema(parameters),
    };
  }
  if (type === "custom") {
    const { name, description, format } = objectOf(tool["custom"]);
    return {
      type,
      name,
      ...(typeof description === "string" ? { description } : {}),
      ...(format ? { format: customFormat(objectOf(format)) } : {}),
    };
  }
  return refuse(`tools[${index}].type`, `Tools of type \`${String(type).slice(0, 64)}\` are not supported.`);
}

function customFormat(format: Json): Json {
  return format["type"] === "grammar" ? { type: "grammar", ...objectOf(format["grammar"]) } : format;
}

function flatChoice(value: unknown): Json {
  const choice = objectOf(value);
  const type = textOf(choice["type"]);
  return { type, name: objectOf(choice[type])["name"] };
}

function toolChoiceOf(value: unknown): unknown {
  if (typeof value === "string") return value;
  const choice = objectOf(value);
  if (choice["type"] !== "allowed_tools") return flatChoice(choice);
  const { mode, tools } = objectOf(choice["allowed_tools"]);
  return { type: "allowed_tools", mode: mode ?? "auto", tools: listOf(tools).map(flatChoice) };
}

function textConfig(chat: Json): Json {
  const text: Record<string, unknown> = {};
  const format = objectOf(chat["response_format"]);
  if (format["type"] === "json_schema") text["format"] = { type: "json_schema", ...objectOf(format["json_schema"]) };
  else if (format["type"] !== undefined && format["type"] !== "text") text["format"] = { type: format["type"] };
  if (chat["verbosity"]) text["verbosity"] = chat["verbosity"];
  return text;
}

/** Up to so many tokens of thinking are that effort (C8). */
const EFFORT_LOW_TOKENS = 2048;
const EFFORT_MEDIUM_TOKENS = 8192;
/** What Anthropic's clients may ask for, and most models do not know. */
const ABOVE_HIGH = new Set(["xhigh", "max"]);
/** OpenAI's models that do not reason, and refuse to be asked for it. */
const UNTHINKING = /^(?:openai\/)?(?:gpt-[34]|chatgpt-|gpt-\d.*-chat)/;

/**
 * `thinking` says more than an effort, and who sends it wants to read the thoughts. Others are not given a summary: OpenAI
 * gives it to verified organisations only, and chat clients do not know it.
 */
function reasoningOf(chat: Json, model: string): Json | null {
  const thinking = objectOf(chat["thinking"]);
  const effort = chat["reasoning_effort"];
  if (thinking["type"] === undefined) return typeof effort === "string" ? { effort } : null;
  if (UNTHINKING.test(model)) return null;
  // Only the later ones can be told not to.
  if (thinking["type"] === "disabled") return thinks(model) === "may" ? { effort: "none" } : null;
  if (typeof effort === "string") return { effort: ABOVE_HIGH.has(effort) ? "high" : effort, summary: "auto" };
  if (thinking["type"] !== "enabled") return { summary: "auto" };
  const budget = countOf(thinking["budget_tokens"]) ?? EFFORT_MEDIUM_TOKENS;
  const wanted = budget <= EFFORT_LOW_TOKENS ? "low" : budget <= EFFORT_MEDIUM_TOKENS ? "medium" : "high";
  return { effort: wanted, summary: "auto" };
}

/** Which fields the model would refuse, for the effort that it is asked with. */
function refusedSampling(chat: Json, model: string, effort: unknown): ReadonlySet<string> {
  if (!refusesSampling(model, (key) => (key === "reasoning_effort" ? effort : undefined))) return NO_FIELDS;
  return new Set(Object.keys(SAMPLING).filter((name) => chat[name] !== SAMPLING[name]));
}

const NO_FIELDS: ReadonlySet<string> = new Set();

/** The request for `/responses`. @throws RefusedFieldError */
export function responsesRequest(chat: Json, target: HubTarget): Json {
  refuseUnsupported(chat);
  const body: Record<string, unknown> = { model: target.model, input: inputOf(chat), store: false };
  if (target.stream) body["stream"] = true;
  const model = target.family || target.model;
  const reasoning = reasoningOf(chat, model);
  const refused = refusedSampling(chat, model, reasoning?.["effort"]);
  for (const name of SAME)
    if (chat[name] !== undefined && chat[name] !== null && !refused.has(name)) body[name] = chat[name];
  const limit = chat["max_completion_tokens"] ?? chat["max_tokens"];
  if (limit !== undefined && limit !== null) body["max_output_tokens"] = limit;
  const tools = listOf(chat["tools"]).map(toolOf);
  if (tools.length > 0) {
    body["tools"] = tools;
    if (chat["tool_choice"]) body["tool_choice"] = toolChoiceOf(chat["tool_choice"]);
  } else {
    delete body["parallel_tool_calls"];
  }
  const text = textConfig(chat);
  if (Object.keys(text).length > 0) body["text"] = text;
  const include: string[] = [];
  if (reasoning !== null) {
    body["reasoning"] = reasoning;
    // Models that do not reason refuse to be asked for it.
    if (reasoning["effort"] !== "none") include.push("reasoning.encrypted_content");
  }
  if (chat["logprobs"] === true && !refused.has("logprobs")) {
    include.push("message.output_text.logprobs");
    if (chat["top_logprobs"]) body["top_logprobs"] = chat["top_logprobs"];
  }
  if (include.length > 0) body["include"] = include;
  return body;
}
