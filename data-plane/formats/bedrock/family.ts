/**
 * PURE. What the model families on Bedrock take through Converse, as data. Facts are from reference/UPSTREAM-FORMATS.md D2
 * and D3; Claude's own are in `anthropic/models.ts`.
 */

import { type Capabilities, capabilitiesOf } from "../anthropic/models.ts";
import type { HubTarget } from "../hub.ts";

export interface Family {
  readonly kind: "claude" | "nova" | "nova2" | "gpt" | "gpt_oss" | "deepseek" | "mistral" | "other";
  /** Null unless it is Claude. */
  readonly claude: Capabilities | null;
  /** Where `cachePoint` blocks may stand. */
  readonly cache: "none" | "messages" | "everywhere";
  /** Cache points may be kept for an hour. */
  readonly longCache: boolean;
  /** Which members of `toolChoice` besides `auto` it takes. */
  readonly forces: "none" | "any" | "any_and_tool";
  /** A forced choice is refused while the model thinks. */
  readonly forcesOnlyUnthinking: boolean;
  /** `status` of tool results. */
  readonly resultStatus: boolean;
  /** `outputConfig.textFormat`; else a tool stands in for it. */
  readonly nativeJson: boolean;
  readonly strictTools: boolean;
  /** Reasoning of earlier turns is taken back. */
  readonly replaysReasoning: boolean;
  /** `temperature`, `topP` and `stopSequences`. */
  readonly sampling: boolean;
  /** What ids of tool calls must look like. */
  readonly toolIds: RegExp;
}

const TOOL_IDS = /^[a-zA-Z0-9_.:-]{1,64}$/;
const MISTRAL_TOOL_IDS = /^[a-zA-Z0-9]{9}$/;

const OTHER: Family = {
  kind: "other",
  claude: null,
  cache: "none",
  longCache: false,
  forces: "none",
  forcesOnlyUnthinking: false,
  resultStatus: false,
  nativeJson: false,
  strictTools: false,
  replaysReasoning: false,
  sampling: true,
  toolIds: TOOL_IDS,
};
const NOVA: Family = { ...OTHER, kind: "nova", cache: "messages", forces: "any_and_tool", resultStatus: true };
const GPT: Family = { ...OTHER, kind: "gpt", nativeJson: true, replaysReasoning: true, sampling: false };

/** Of open models, those for which AWS lists structured output. */
const NATIVE_JSON =
  /deepseek[.-]v3|qwen3|kimi|moonshot|minimax|gemma-3|nemotron|magistral|ministral|mistral-large-3|voxtral/;
const MISTRAL = /mistral|mixtral|pixtral|magistral|ministral|voxtral/;
/** Later ones than Sonnet 5 are not known to need it. */
const SONNET_5 = /claude-sonnet-5(?!-\d(?!\d))/;

const FAMILIES_KNOWN_MAX = 1024;
const known = new Map<string, Family>();

/** By the model that the merchant says it is, else by the id at Bedrock. ARNs tell nothing, and are of no known family. */
export function familyOf(target: Pick<HubTarget, "model" | "family">): Family {
  const name = target.family || target.model;
  const cached = known.get(name);
  if (cached !== undefined) return cached;
  const family = find(name.toLowerCase());
  if (known.size >= FAMILIES_KNOWN_MAX) known.clear();
  known.set(name, family);
  return family;
}

function find(name: string): Family {
  if (name.includes("claude")) return claudeOf(name);
  if (name.includes("nova-2")) return { ...NOVA, kind: "nova2" };
  if (name.includes("nova")) return NOVA;
  const nativeJson = NATIVE_JSON.test(name);
  if (name.includes("gpt-oss")) return { ...OTHER, kind: "gpt_oss", nativeJson: true };
  if (name.includes("gpt-")) return GPT;
  if (name.includes("deepseek")) return { ...OTHER, kind: "deepseek", nativeJson };
  if (!MISTRAL.test(name)) return { ...OTHER, nativeJson };
  const forces = /(?:mistral|pixtral)-large/.test(name) ? "any" : "none";
  return { ...OTHER, kind: "mistral", nativeJson, forces, toolIds: MISTRAL_TOOL_IDS };
}

function claudeOf(name: string): Family {
  const claude = capabilitiesOf(name);
  // Bedrock refuses `output_config.format` and `strict` for those from 4.7 on, which are those that refuse sampling.
  const structured = claude.structuredOutput && !claude.rejectsSampling;
  return {
    ...OTHER,
    kind: "claude",
    claude,
    cache: "everywhere",
    longCache: claude.structuredOutput,
    forces: claude.rejectsForcedTools ? "none" : "any_and_tool",
    forcesOnlyUnthinking: claude.rejectsForcedToolsThinking || SONNET_5.test(name),
    resultStatus: true,
    nativeJson: structured,
    strictTools: structured,
    replaysReasoning: true,
  };
}
