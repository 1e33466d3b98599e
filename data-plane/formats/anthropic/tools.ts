/**
 * PURE. Tools, the choice among them, and structured output, which older models give as the arguments of a tool that they
 * must call. Facts are from reference/UPSTREAM-FORMATS.md C3.
 */

import type { Json } from "../hub.ts";
import { isBlank, listOf, objectOf, textOf } from "../json.ts";
import { type Block, cacheOf } from "./content.ts";
import type { Capabilities } from "./models.ts";
import { optionalText, refuse, requiredText } from "./refuse.ts";
import { closedSchema } from "./schema.ts";

/** The tool that stands for structured output. Its arguments are the answer's text. */
export const JSON_TOOL = "tokenbill_json_output";
/** Custom tools take free text, which is one field here. An answer knows them by the end of their name. */
export const CUSTOM_SUFFIX = "__custom";
export const CUSTOM_FIELD = "input";

/** OpenAI's names have 64 characters at most, which leaves room for the suffix. */
const NAME = /^[A-Za-z0-9_-]{1,120}$/;

export interface ToolPlan {
  readonly tools: readonly Block[];
  /** `tool_choice`, null: not sent. */
  readonly choice: Block | null;
  /** A tool must be called, and the choice says so. */
  readonly forced: boolean;
  /** `output_config.format`, null: none. */
  readonly format: Json | null;
  /** What the model must be told in words, since no field says it. */
  readonly instructions: readonly string[];
}

/** @throws RefusedFieldError */
export function toolPlan(chat: Json, capabilities: Capabilities, usedInHistory: ReadonlySet<string>): ToolPlan {
  const all = toolsOf(chat, capabilities);
  const chosen = choiceOf(chat, all, capabilities);
  let { tools, choice } = chosen;
  const instructions = [...chosen.instructions];
  const output = outputOf(chat, capabilities);
  if (output.instruction !== null) instructions.push(output.instruction);
  const mayCall = choice?.["type"] !== "none" && tools.length > 0;
  // A choice of the client's own is kept: then the answer is a call, and has no text to be structured.
  if (output.tool !== null && (choice === null || choice["type"] === "auto" || choice["type"] === "none")) {
    choice = mayCall ? { ...choice, type: "any" } : { type: "tool", name: JSON_TOOL };
    tools = [...tools, output.tool];
  }
  // Calls in the history need their definitions, even if none may be called any more.
  if (tools.length === 0 && usedInHistory.size > 0) {
    tools = [...usedInHistory].map((name) => ({ name, input_schema: { type: "object" } }));
    choice = { type: "none" };
  }
  const forced = choice?.["type"] === "any" || choice?.["type"] === "tool";
  return { tools, choice, forced, format: output.format, instructions };
}

function toolsOf(chat: Json, capabilities: Capabilities): readonly Block[] {
  // Answers to these would need `function_call`, which clients of today do not look for.
  for (const key of ["functions", "function_call"]) {
    if (chat[key] !== undefined && chat[key] !== null)
      refuse("unsupported_parameter", key, `\`${key}\` is not supported: use \`tools\` and \`tool_choice\`.`);
  }
  const { tools } = chat;
  if (tools === undefined || tools === null) return [];
  if (!Array.isArray(tools)) return refuse("invalid_type", "tools", "`tools` must be a list.");
  return (tools as unknown[]).map((each, index) => toolOf(objectOf(each), capabilities, `tools[${index}]`));
}

function toolOf(tool: Json, capabilities: Capabilities, at: string): Block {
  const type = textOf(tool["type"]);
  if (type !== "function" && type !== "custom")
    return refuse("unsupported_value", `${at}.type`, "Tools must be of the type `function` or `custom`.");
  const spec = objectOf(tool[type]);
  const block = type === "function" ? functionTool(spec, capabilities, at) : customTool(spec, at);
  const cache = cacheOf(tool) ?? cacheOf(spec);
  if (cache !== undefined) block["cache_control"] = cache;
  return block;
}

function nameOf(spec: Json, param: string): string {
  const name = requiredText(spec, "name", param);
  return NAME.test(name)
    ? name
    : refuse("invalid_value", param, "Names of tools consist of letters, digits, `_` and `-`.");
}

function functionTool(spec: Json, capabilities: Capabilities, at: string): Block {
  const path = `${at}.function`;
  const block: Block = { name: nameOf(spec, `${path}.name`) };
  const description = optionalText(spec, "description", `${path}.description`);
  if (description !== undefined) block["description"] = description;
  const strict = spec["strict"] === true && capabilities.structuredOutput;
  const schema = inputSchema(spec["parameters"], `${path}.parameters`);
  block["input_schema"] = strict ? closedSchema(schema) : schema;
  if (strict) block["strict"] = true;
  return block;
}

function inputSchema(parameters: unknown, param: string): Json {
  if (parameters === undefined || parameters === null) return { type: "object", properties: {} };
  if (typeof parameters !== "object" || Array.isArray(parameters))
    return refuse("invalid_type", param, `\`${param}\` must be a JSON schema.`);
  const schema = parameters as Json;
  if (schema["type"] === "object") return schema;
  if (schema["type"] !== undefined) return refuse("invalid_value", `${param}.type`, "It must be `object`.");
  return { ...schema, type: "object" };
}

function customTool(spec: Json, at: string): Block {
  const name = nameOf(spec, `${at}.custom.name`) + CUSTOM_SUFFIX;
  const words = [optionalText(spec, "description", `${at}.custom.description`) ?? ""];
  const grammar = objectOf(objectOf(spec["format"])["grammar"]);
  if (textOf(grammar["definition"]) !== "")
    words.push(`The input must match this grammar (${textOf(grammar["syntax"])}):\n${textOf(grammar["definition"])}`);
  const description = words.filter((each) => !isBlank(each)).join("\n\n");
  const properties = { [CUSTOM_FIELD]: { type: "string" } };
  const block: Block = { name };
  if (description !== "") block["description"] = description;
  block["input_schema"] = { type: "object", properties, required: [CUSTOM_FIELD] };
  return block;
}

type Choice = Pick<ToolPlan, "tools" | "choice" | "instructions">;

function choiceOf(chat: Json, all: readonly Block[], capabilities: Capabilities): Choice {
  const wanted = chat["tool_choice"];
  const parallel = chat["parallel_tool_calls"] !== false;
  const free = (tools: readonly Block[], type: "auto" | "none" | null): Choice => {
    if (tools.length === 0) return { tools, choice: null, instructions: [] };
    const single = !parallel && type !== "none";
    const choice = single ? { type: "auto", disable_parallel_tool_use: true } : type === null ? null : { type };
    return { tools, choice, instructions: [] };
  };
  const force = (tools: readonly Block[], name: string | null): Choice => {
    if (tools.length === 0)
      return refuse("invalid_value", "tool_choice", "A tool cannot be required where there is none.");
    if (capabilities.rejectsForcedTools) {
      const which = name === null ? "one of the tools" : `the tool \`${name}\``;
      return { ...free(tools, "auto"), instructions: [`You must answer by calling ${which}.`] };
    }
    const choice: Block = name === null ? { type: "any" } : { type: "tool", name };
    if (!parallel) choice["disable_parallel_tool_use"] = true;
    return { tools, choice, instructions: [] };
  };
  if (wanted === undefined || wanted === null) return free(all, null);
  if (wanted === "auto" || wanted === "none") return free(all, wanted);
  if (wanted === "required") return force(all, null);
  const choice = objectOf(wanted);
  if (choice["type"] === "allowed_tools") {
    const allowed = objectOf(choice["allowed_tools"] ?? choice);
    const tools = allowedTools(allowed, all);
    return allowed["mode"] === "required" ? force(tools, null) : free(tools, "auto");
  }
  return force(all, namedTool(choice, all, "tool_choice"));
}

/** The name of the tool that is meant, as it is called here. @throws RefusedFieldError if there is none of that name */
function namedTool(choice: Json, all: readonly Block[], at: string): string {
  const type = textOf(choice["type"]);
  if (type !== "function" && type !== "custom") return refuse("invalid_value", at, `\`${at}\` is not known.`);
  const param = `${at}.${type}.name`;
  const spec = typeof choice["name"] === "string" ? choice : objectOf(choice[type]);
  const name = requiredText(spec, "name", param) + (type === "custom" ? CUSTOM_SUFFIX : "");
  return all.some((tool) => tool["name"] === name) ? name : refuse("invalid_value", param, "There is no such tool.");
}

function allowedTools(allowed: Json, all: readonly Block[]): readonly Block[] {
  const at = "tool_choice.allowed_tools.tools";
  const names = new Set(
    listOf(allowed["tools"]).map((each, index) => namedTool(objectOf(each), all, `${at}[${index}]`)),
  );
  return all.filter((tool) => names.has(tool["name"] as string));
}

interface Output {
  readonly format: Json | null;
  readonly tool: Block | null;
  readonly instruction: string | null;
}

const TEXT_OUTPUT: Output = { format: null, tool: null, instruction: null };
const JSON_INSTRUCTION = "Answer with a single JSON object and nothing else: no other text and no code fence.";

function outputOf(chat: Json, capabilities: Capabilities): Output {
  const wanted = chat["response_format"];
  if (wanted === undefined || wanted === null) return TEXT_OUTPUT;
  const format = objectOf(wanted);
  if (format["type"] === "text") return TEXT_OUTPUT;
  if (format["type"] === "json_object") return { ...TEXT_OUTPUT, instruction: JSON_INSTRUCTION };
  if (format["type"] !== "json_schema")
    return refuse("invalid_value", "response_format.type", "It must be `text`, `json_object` or `json_schema`.");
  const spec = objectOf(format["json_schema"]);
  const param = "response_format.json_schema.schema";
  if (typeof spec["schema"] !== "object" || spec["schema"] === null)
    return refuse("missing_required_parameter", param, `\`${param}\` must be a JSON schema.`);
  const schema = spec["schema"] as Json;
  if (capabilities.structuredOutput)
    return { ...TEXT_OUTPUT, format: { type: "json_schema", schema: closedSchema(schema) } };
  const description = textOf(spec["description"]) || "Gives the answer.";
  return { ...TEXT_OUTPUT, tool: { name: JSON_TOOL, description, input_schema: inputSchema(schema, param) } };
}
