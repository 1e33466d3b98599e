/**
 * PURE. Sampling, length and reasoning, which each family names in its own way: `inferenceConfig` and
 * `additionalModelRequestFields` (reference/UPSTREAM-FORMATS.md C2, C3, D3).
 */

import { type Capabilities, effortOf } from "../anthropic/models.ts";
import { type HubTarget, type Json, RefusedFieldError } from "../hub.ts";
import { countOf, isBlank, objectOf, textOf } from "../json.ts";
import { forbidsBudget } from "./content.ts";
import type { Family } from "./family.ts";

/** Claude takes no smaller budget for thinking. */
const BUDGET_TOKENS_MIN = 1024;
/** Budgets for models that know no effort. */
const BUDGET_TOKENS: Readonly<Record<string, number>> = {
  low: 1024,
  medium: 4096,
  high: 16_384,
  xhigh: 24_576,
  max: 32_000,
};
/** At most this part of a limit that the client set is thought: the rest is for the answer. */
const BUDGET_PART = 0.8;
/** What is left to say after thinking, where the client set no limit. */
const ANSWER_TOKENS = 16_384;

export interface Reasoning {
  /** Members of `additionalModelRequestFields`. */
  readonly fields: Json;
  /** The model thinks because of them, which forbids some sampling. */
  readonly active: boolean;
  /** The thinking has a budget, so the whole answer must have a limit: this one, if the client set none; 0: it needs none. */
  readonly outputTokens: number;
  /** Nova thinks as hard as it can: then neither length nor sampling may be set. */
  readonly unlimited: boolean;
}

const NO_REASONING: Reasoning = { fields: {}, active: false, outputTokens: 0, unlimited: false };

/** The effort that the client asks for, "" if it asks for none in particular. */
function wantedEffort(chat: Json): string {
  return textOf(chat["reasoning_effort"]);
}

/** Whether the client wants the model to think. */
export function wantsReasoning(chat: Json): boolean {
  const { type } = objectOf(chat["thinking"]);
  if (type !== undefined) return type !== "disabled";
  const effort = wantedEffort(chat);
  return effort !== "" && effort !== "none" && effort !== "minimal";
}

export interface OutputLimit {
  /** What the client wants, as far as the model gives it; null: it did not say. */
  readonly wanted: number | null;
  /** What the model gives. */
  readonly most: number;
}

export function outputLimitOf(chat: Json, target: HubTarget, family: Family): OutputLimit {
  const most = target.maxOutputTokens || family.claude?.maxOutputTokens || Number.MAX_SAFE_INTEGER;
  const wanted = countOf(chat["max_completion_tokens"]) ?? countOf(chat["max_tokens"]);
  return { wanted: wanted === undefined ? null : Math.max(1, Math.min(wanted, most)), most };
}

/** @param forced a tool has to be called */
export function reasoningOf(chat: Json, family: Family, limit: OutputLimit, forced: boolean): Reasoning {
  const effort = wantedEffort(chat);
  if (family.claude !== null) return claudeReasoning(chat, family, family.claude, limit, forced);
  if (effort === "") return NO_REASONING;
  if (family.kind === "gpt_oss") return fieldsOf({ reasoning_effort: atMostHigh(effort) });
  if (family.kind === "gpt") return fieldsOf({ reasoning: { effort: effort === "minimal" ? "low" : effort } });
  return family.kind === "nova2" ? novaReasoning(effort, limit.wanted !== null) : NO_REASONING;
}

function fieldsOf(fields: Json): Reasoning {
  return { ...NO_REASONING, fields };
}

function atMostHigh(effort: string): string {
  if (effort === "none" || effort === "minimal") return "low";
  return effort === "xhigh" || effort === "max" ? "high" : effort;
}

/** The highest effort refuses any limit of length. Whoever sets one means it: then it is the next lower one. */
function novaReasoning(effort: string, limited: boolean): Reasoning {
  if (effort === "none" || effort === "minimal") return fieldsOf({ reasoningConfig: { type: "disabled" } });
  const high = atMostHigh(effort) === "high";
  const maxReasoningEffort = high && limited ? "medium" : atMostHigh(effort);
  const fields = { reasoningConfig: { type: "enabled", maxReasoningEffort } };
  return { ...NO_REASONING, fields, active: true, unlimited: maxReasoningEffort === "high" };
}

function claudeReasoning(
  chat: Json,
  family: Family,
  claude: Capabilities,
  limit: OutputLimit,
  forced: boolean,
): Reasoning {
  const effort = wantedEffort(chat);
  if (!claude.thinking) return NO_REASONING;
  // Those that think unless told not to are told; the others must not be told anything.
  if (forced && family.forcesOnlyUnthinking) return unthinking(claude, effort);
  const outputConfig = outputConfigOf(effort, claude);
  const { type, budget_tokens } = objectOf(chat["thinking"]);
  const off = type === "disabled" || (type === undefined && (effort === "none" || effort === "minimal"));
  if (off) return unthinking(claude, effort);
  if (type === "between_tools" && claude.betweenTools) return active({ thinking: { type }, ...outputConfig });
  if (type === undefined && effort === "") return NO_REASONING;
  if (claude.adaptive && (type !== "enabled" || claude.rejectsBudget))
    return active({ thinking: { type: "adaptive", display: "summarized" }, ...outputConfig });
  const wanted = countOf(budget_tokens) ?? BUDGET_TOKENS[effort] ?? BUDGET_TOKENS["medium"]!;
  return budgeted(chat, wanted, limit);
}

function active(fields: Json): Reasoning {
  return { ...NO_REASONING, fields, active: true };
}

/** The effort for models that choose themselves how long they think. On Bedrock older ones know it as a beta only. */
function outputConfigOf(effort: string, claude: Capabilities): Json {
  const known = effort === "" || effort === "none" ? null : effortOf(effort === "minimal" ? "low" : effort, claude);
  return known === null || !claude.adaptive ? {} : { output_config: { effort: known } };
}

/** As little as the model allows. Who does not think may not be asked for more than high effort. */
function unthinking(claude: Capabilities, effort: string): Reasoning {
  if (!claude.adaptive) return NO_REASONING;
  const outputConfig = outputConfigOf(effort === "xhigh" || effort === "max" ? "high" : effort, claude);
  if (!claude.rejectsDisabled) return fieldsOf({ thinking: { type: "disabled" }, ...outputConfig });
  if (claude.betweenTools) return active({ thinking: { type: "between_tools" }, ...outputConfig });
  return fieldsOf({ output_config: { effort: "low" } });
}

/** The limit of the whole answer stands as the client set it, since it is what the client pays for: the budget gives way. */
function budgeted(chat: Json, tokens: number, { wanted, most }: OutputLimit): Reasoning {
  const budgetTokens = Math.min(Math.max(tokens, BUDGET_TOKENS_MIN), Math.floor(BUDGET_PART * (wanted ?? most)));
  if (budgetTokens < BUDGET_TOKENS_MIN || forbidsBudget(chat)) return NO_REASONING;
  const outputTokens = Math.min(budgetTokens + ANSWER_TOKENS, most);
  return { ...active({ thinking: { type: "enabled", budget_tokens: budgetTokens } }), outputTokens };
}

/** @throws RefusedFieldError */
export function inferenceConfigOf(
  chat: Json,
  family: Family,
  limit: OutputLimit,
  reasoning: Reasoning,
): Record<string, unknown> {
  const config: Record<string, unknown> = {};
  const maxTokens = limit.wanted ?? reasoning.outputTokens;
  if (maxTokens > 0 && !reasoning.unlimited) config["maxTokens"] = maxTokens;
  Object.assign(config, samplingOf(chat, family, reasoning));
  const stop = stopOf(chat["stop"]);
  if (stop.length === 0) return config;
  if (!family.sampling)
    throw new RefusedFieldError("unsupported_parameter", "stop", "This model takes no stop sequences.");
  config["stopSequences"] = stop;
  return config;
}

function stopOf(stop: unknown): string[] {
  const all: readonly unknown[] = Array.isArray(stop) ? (stop as unknown[]) : [stop];
  return all.filter((each): each is string => typeof each === "string" && !isBlank(each));
}

function samplingOf(chat: Json, family: Family, { active: thinks, unlimited }: Reasoning): Json {
  const { temperature, top_p } = chat;
  const { claude } = family;
  if (!family.sampling || unlimited || claude?.rejectsSampling) return {};
  const sampling: Record<string, unknown> = {};
  const claudeThinks = claude !== null && thinks;
  if (typeof temperature === "number" && !claudeThinks) sampling["temperature"] = Math.min(temperature, 1);
  if (typeof top_p !== "number" || (claudeThinks && top_p < 0.95)) return sampling;
  if (!(claude?.temperatureXorTopP && "temperature" in sampling)) sampling["topP"] = top_p;
  return sampling;
}

/** `top_k` where a family has it. */
export function topKOf(chat: Json, family: Family, { active: thinks, unlimited }: Reasoning): Json {
  const topK = countOf(chat["top_k"]);
  if (topK === undefined || unlimited) return {};
  if (family.claude !== null) return family.claude.rejectsSampling || thinks ? {} : { top_k: topK };
  return family.kind === "nova" || family.kind === "nova2" ? { inferenceConfig: { topK } } : {};
}
