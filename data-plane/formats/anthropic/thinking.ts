/**
 * PURE. How long an answer may be and how much of that is thought, as each model wants to be told. Facts are from
 * reference/UPSTREAM-FORMATS.md C2 and C3.
 */

import type { HubTarget, Json } from "../hub.ts";
import { countOf, objectOf, textOf } from "../json.ts";
import { type Capabilities, type Effort, effortOf } from "./models.ts";
import { optionalText, refuse } from "./refuse.ts";

/** An answer that is not streamed, and longer than this, may take longer than connections live. */
export const UNSTREAMED_OUTPUT_TOKENS = 16_384;
/** The least that may be thought. */
export const BUDGET_TOKENS_MIN = 1024;
/** Of an answer whose length the client limits, so much may be thought; the rest is for what it reads. */
const BUDGET_SHARE_MAX = 0.8;
const BUDGETS: Readonly<Record<Effort, number>> = {
  low: 1024,
  medium: 4096,
  high: 16_384,
  xhigh: 24_576,
  max: 32_000,
};
const EFFORTS = new Set(["none", "minimal", ...Object.keys(BUDGETS)]);

export interface Length {
  readonly tokens: number;
  readonly tokensMax: number;
  /** The client, or the wallet, said it. */
  readonly limited: boolean;
}

export interface Thinking {
  /** `thinking`, null: not sent. */
  readonly thinking: Json | null;
  /** `output_config.effort`, null: not sent. */
  readonly effort: Effort | null;
  /** `max_tokens`. */
  readonly maxTokens: number;
  /** It thinks, or may. */
  readonly on: boolean;
}

/**
 * `max_tokens` before thinking is looked at, which is required. What a limit says is never exceeded: it covers thinking
 * at OpenAI too, and a wallet may stand behind it.
 * @throws RefusedFieldError
 */
export function lengthOf(chat: Json, target: HubTarget, capabilities: Capabilities): Length {
  const key = (chat["max_completion_tokens"] ?? null) === null ? "max_tokens" : "max_completion_tokens";
  const asked = chat[key];
  const tokensMax = target.maxOutputTokens > 0 ? target.maxOutputTokens : capabilities.maxOutputTokens;
  if (asked === undefined || asked === null) {
    const tokens = target.stream ? tokensMax : Math.min(tokensMax, UNSTREAMED_OUTPUT_TOKENS);
    return { tokens, tokensMax, limited: false };
  }
  const tokens = countOf(asked);
  if (tokens === undefined || tokens === 0) {
    const code = typeof asked === "number" ? "invalid_value" : "invalid_type";
    return refuse(code, key, `\`${key}\` must be a positive integer.`);
  }
  return { tokens: Math.min(tokens, tokensMax), tokensMax, limited: true };
}

/**
 * @param budgetAllowed false: the conversation cannot go on with a thinking budget
 * @throws RefusedFieldError
 */
export function thinkingOf(chat: Json, capabilities: Capabilities, length: Length, budgetAllowed: boolean): Thinking {
  const effort = optionalText(chat, "reasoning_effort", "reasoning_effort") ?? null;
  if (effort !== null && !EFFORTS.has(effort))
    return refuse("invalid_value", "reasoning_effort", `It must be one of ${[...EFFORTS].join(", ")}.`);
  const plan = { capabilities, length, budgetAllowed };
  const given = chat["thinking"];
  if (typeof given === "object" && given !== null) return asGiven(objectOf(given), effort, plan);
  if (effort === null || !capabilities.thinking) return silent(null, length);
  if (effort === "none" || effort === "minimal") return off(null, plan);
  if (capabilities.adaptive) return adaptive("summarized", effort, plan);
  return budget(BUDGETS[effort as Effort], null, plan);
}

interface Plan {
  readonly capabilities: Capabilities;
  readonly length: Length;
  readonly budgetAllowed: boolean;
}

function silent(effort: Effort | null, { tokens }: Length): Thinking {
  return { thinking: null, effort, maxTokens: tokens, on: false };
}

/** The hub's `thinking`, or what comes nearest to it at this model. The effort is a matter of its own. */
function asGiven(given: Json, effort: string | null, plan: Plan): Thinking {
  const { capabilities, length } = plan;
  const type = textOf(given["type"]);
  const display = textOf(given["display"]);
  if (!["adaptive", "enabled", "disabled", "between_tools"].includes(type))
    return refuse("invalid_value", "thinking.type", "It must be `adaptive`, `enabled`, `disabled` or `between_tools`.");
  if (!capabilities.thinking) return silent(null, length);
  if (type === "disabled" || type === "between_tools") return off(effort, plan);
  if (type === "adaptive") {
    if (capabilities.adaptive) return adaptive(display, effort, plan);
    return budget(BUDGETS[effort as Effort] ?? BUDGETS.high, null, plan);
  }
  const tokens = countOf(given["budget_tokens"]);
  if (tokens === undefined)
    return refuse("invalid_value", "thinking.budget_tokens", "`thinking.budget_tokens` must be an integer.");
  if (capabilities.rejectsBudget) return adaptive(display, effort ?? effortFor(tokens), plan);
  return budget(tokens, { display }, plan);
}

function effortFor(budgetTokens: number): Effort {
  return budgetTokens <= 2048 ? "low" : budgetTokens <= 8192 ? "medium" : "high";
}

/** The least thinking that the model lets itself be told. */
function off(effort: string | null, { capabilities, length }: Plan): Thinking {
  const { adaptive: knowsEffort, rejectsDisabled, betweenTools } = capabilities;
  const maxTokens = length.tokens;
  // With so little thinking, no more than `high` is taken.
  const asked = effort === null || !knowsEffort ? null : effortOf(effort, capabilities);
  const lowered = asked === "xhigh" || asked === "max" ? "high" : asked;
  if (!rejectsDisabled) return { thinking: { type: "disabled" }, effort: lowered, maxTokens, on: false };
  if (betweenTools) return { thinking: { type: "between_tools" }, effort: lowered ?? "low", maxTokens, on: true };
  return { thinking: null, effort: "low", maxTokens, on: true };
}

function adaptive(display: string, effort: string | null, { capabilities, length }: Plan): Thinking {
  const thinking = display === "" ? { type: "adaptive" } : { type: "adaptive", display };
  const known = effort === null ? null : effortOf(effort, capabilities);
  return { thinking, effort: known, maxTokens: length.tokens, on: true };
}

/** The budget for an answer that the wallet limits to `maxTokens`, thoughts included; null: there is no room for any. */
export function budgetWithin(wanted: number, maxTokens: number): number | null {
  const budget = Math.min(wanted, Math.floor(maxTokens * BUDGET_SHARE_MAX));
  return budget < BUDGET_TOKENS_MIN ? null : budget;
}

/** @param given null: the budget is ours to choose, and what the client limits is kept for its answer too */
function budget(wanted: number, given: { display: string } | null, { length, budgetAllowed }: Plan): Thinking {
  if (!budgetAllowed) return silent(null, length);
  const { tokens, tokensMax, limited } = length;
  const maxTokens = limited ? tokens : Math.min(tokens + wanted, tokensMax);
  const most = given === null ? Math.floor(maxTokens * BUDGET_SHARE_MAX) : maxTokens - 1;
  const budgetTokens = Math.min(wanted, most);
  if (budgetTokens < BUDGET_TOKENS_MIN) return silent(null, length);
  const thinking: Record<string, unknown> = { type: "enabled", budget_tokens: budgetTokens };
  if (given !== null && given.display !== "") thinking["display"] = given.display;
  return { thinking, effort: null, maxTokens, on: true };
}
