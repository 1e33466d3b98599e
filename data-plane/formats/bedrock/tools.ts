/**
 * PURE. Tools, the choice among them, and structured output, which on many models is a tool in disguise
 * (reference/UPSTREAM-FORMATS.md C3, D3, E1).
 */

import { closedSchema } from "../anthropic/schema.ts";
import { type Json, RefusedFieldError } from "../hub.ts";
import { isBlank, listOf, objectOf, textOf } from "../json.ts";
import type { Family } from "./family.ts";
import { cachePoint } from "./parts.ts";

/** The tool that stands in for `response_format`. Its calls become the answer's text, so no client's tool may have its name. */
export const JSON_TOOL = "tokenbill_json_output";
const JSON_TOOL_DESCRIPTION = "Gives the final answer to the user, as structured data.";

export interface ToolPlan {
  /** Null: no tools are declared. */
  readonly toolConfig: Json | null;
  /** Claude's own `tool_choice`, which can say more; then `toolConfig` says no choice. */
  readonly toolChoice: Json | null;
  /** Converse's `outputConfig`. */
  readonly outputConfig: Json | null;
  /** What the system prompt must say because no field can. */
  readonly instruction: string | null;
  /** Some tool has to be called: some models may not think then. */
  readonly forced: boolean;
}

type Choice = { readonly type: "auto" | "none" | "any" } | { readonly type: "tool"; readonly name: string };

/** What the client wants, in one shape whatever fields it used. */
interface Wish {
  readonly tools: readonly Json[];
  readonly choice: Choice;
}

const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/;

function toolSpec(tool: Json, param: string, family: Family): Json[] {
  if (tool["type"] !== "function" && tool["type"] !== undefined)
    throw new RefusedFieldError("unsupported_value", `${param}.type`, "This model has tools of type `function` only.");
  const { name, description, parameters, strict } = objectOf(tool["function"]);
  if (typeof name !== "string" || !TOOL_NAME.test(name) || name === JSON_TOOL) {
    throw new RefusedFieldError(
      "invalid_value",
      `${param}.function.name`,
      "Names of tools have 1 to 64 letters, digits, `_` and `-`.",
    );
  }
  const schema = objectOf(parameters);
  const spec: Record<string, unknown> = { name };
  if (typeof description === "string" && !isBlank(description)) spec["description"] = description;
  const whole = schema["type"] === "object" ? schema : { properties: {}, ...schema, type: "object" };
  const strictly = strict === true && family.strictTools;
  spec["inputSchema"] = { json: strictly ? closedSchema(whole) : whole };
  if (strictly) spec["strict"] = true;
  const point = cachePoint(tool, family, "tool");
  return point === null ? [{ toolSpec: spec }] : [{ toolSpec: spec }, point];
}

function wishOf(chat: Json): Wish {
  const tools = listOf(chat["tools"]).map(objectOf);
  const wanted = chat["tool_choice"];
  if (wanted === "none") return { tools, choice: { type: "none" } };
  if (wanted === "required") return { tools, choice: { type: "any" } };
  if (wanted === undefined || wanted === null || typeof wanted === "string") return { tools, choice: { type: "auto" } };
  const choice = objectOf(wanted);
  if (choice["type"] === "allowed_tools") return allowedTools(objectOf(choice["allowed_tools"]), tools);
  const name = textOf(objectOf(choice["function"])["name"] ?? choice["name"]);
  if (choice["type"] === "custom" || name === "")
    throw new RefusedFieldError("unsupported_value", "tool_choice", "This model cannot be made to choose this tool.");
  return { tools, choice: { type: "tool", name } };
}

function allowedTools(allowed: Json, tools: readonly Json[]): Wish {
  const names = new Set(listOf(allowed["tools"]).map((each) => objectOf(objectOf(each)["function"])["name"]));
  const kept = tools.filter((tool) => names.has(objectOf(tool["function"])["name"]));
  return { tools: kept, choice: { type: allowed["mode"] === "required" ? "any" : "auto" } };
}

interface JsonWish {
  /** Null: any JSON object. */
  readonly schema: Json | null;
  readonly name: string;
  readonly description: string;
}

function jsonWishOf(chat: Json): JsonWish | null {
  const format = objectOf(chat["response_format"]);
  if (format["type"] === "json_object") return { schema: null, name: "", description: "" };
  if (format["type"] !== "json_schema") return null;
  const { schema, name, description } = objectOf(format["json_schema"]);
  const found = typeof schema === "object" && schema !== null ? objectOf(schema) : { type: "object" };
  return { schema: found, name: textOf(name), description: textOf(description) };
}

function nativeJson(schema: Json, { name, description }: JsonWish): Json {
  const jsonSchema: Record<string, unknown> = { schema: JSON.stringify(closedSchema(schema)) };
  if (name !== "") jsonSchema["name"] = name;
  if (!isBlank(description)) jsonSchema["description"] = description;
  return { textFormat: { type: "json_schema", structure: { jsonSchema } } };
}

const ANY_JSON = "Answer with one JSON object and nothing else.";
const SOME_TOOL = "You must call one of the tools now instead of answering in text.";

/**
 * @param thinks the model is to think, as far as tools do not speak against it
 * @throws RefusedFieldError
 */
export function planTools(chat: Json, family: Family, thinks: boolean): ToolPlan {
  const json = jsonWishOf(chat);
  const { tools, choice: wanted } = wishOf(chat);
  // No member of Converse's choice says none, so nothing is declared.
  const offered = wanted.type === "none" ? [] : tools;
  let choice: Choice = offered.length === 0 ? { type: "auto" } : wanted;
  let specs = offered.map((tool, index) => toolSpec(tool, `tools[${index}]`, family));
  let instruction: string | null = json !== null && json.schema === null ? ANY_JSON : null;
  const outputConfig =
    json !== null && json.schema !== null && family.nativeJson ? nativeJson(json.schema, json) : null;
  // Whoever demands a call of a tool gets one, and no structured answer with it.
  if (json !== null && json.schema !== null && !family.nativeJson && choice.type === "auto") {
    const only = specs.length === 0;
    specs = [...specs, [jsonTool(json)]];
    // The model may think before it answers rather than be forced to.
    if (canForce(family, thinks)) choice = only ? { type: "tool", name: JSON_TOOL } : { type: "any" };
    else instruction = `When you give your final answer, give it by calling the tool ${JSON_TOOL}, not in text.`;
  }
  if (choice.type === "tool" && !specs.some(([spec]) => nameOf(spec!) === (choice as { name: string }).name))
    throw new RefusedFieldError("invalid_value", "tool_choice", "This tool is not among `tools`.");
  if (choice.type === "tool" && family.forces !== "any_and_tool") {
    const { name } = choice;
    specs = specs.filter(([spec]) => nameOf(spec!) === name);
    choice = { type: "any" };
  }
  if (choice.type === "any" && family.forces === "none") {
    choice = { type: "auto" };
    instruction = SOME_TOOL;
  }
  if (specs.length === 0) return { toolConfig: null, toolChoice: null, outputConfig, instruction, forced: false };
  const forced = choice.type !== "auto";
  const all = specs.flat();
  const one = chat["parallel_tool_calls"] === false && family.kind === "claude";
  const toolChoice = one ? { ...choice, disable_parallel_tool_use: true } : null;
  const toolConfig = one || !forced ? { tools: all } : { tools: all, toolChoice: converseChoice(choice) };
  return { toolConfig, toolChoice, outputConfig, instruction, forced };
}

function canForce(family: Family, thinks: boolean): boolean {
  return family.forces !== "none" && !(thinks && family.forcesOnlyUnthinking);
}

function jsonTool({ schema, description }: JsonWish): Json {
  return {
    toolSpec: {
      name: JSON_TOOL,
      description: isBlank(description) ? JSON_TOOL_DESCRIPTION : description,
      inputSchema: { json: schema },
    },
  };
}

function nameOf(spec: Json): unknown {
  return objectOf(spec["toolSpec"])["name"];
}

function converseChoice(choice: Choice): Json {
  return choice.type === "tool" ? { tool: { name: choice.name } } : { [choice.type]: {} };
}
