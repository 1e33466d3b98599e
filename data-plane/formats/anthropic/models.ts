/**
 * PURE. What each Claude model takes and refuses, as data. Facts are from reference/UPSTREAM-FORMATS.md C2. The rows hold for
 * the models wherever they are served; a platform with rules of its own adds those itself.
 */

export type Effort = "low" | "medium" | "high" | "xhigh" | "max";

export interface Capabilities {
  readonly maxOutputTokens: number;
  /** `temperature`, `top_p` and `top_k` are answered with 400, unless they say the default. */
  readonly rejectsSampling: boolean;
  /** `temperature` and `top_p` may not be sent together. */
  readonly temperatureXorTopP: boolean;
  /** False: there is no `thinking` at all. */
  readonly thinking: boolean;
  /** `thinking: {type: "adaptive"}` is known. */
  readonly adaptive: boolean;
  /** `thinking: {type: "enabled", budget_tokens}` is answered with 400, or about to be. */
  readonly rejectsBudget: boolean;
  /** `thinking: {type: "disabled"}` is answered with 400. */
  readonly rejectsDisabled: boolean;
  /** `thinking: {type: "between_tools"}` is its lowest setting. */
  readonly betweenTools: boolean;
  /** `tool_choice` `any` and `tool` are answered with 400. */
  readonly rejectsForcedTools: boolean;
  /** The same, but only while the model thinks. */
  readonly rejectsForcedToolsThinking: boolean;
  /** Values of `output_config.effort`, the lowest first; empty: the field is refused. */
  readonly efforts: readonly Effort[];
  /** `output_config.format`, and `strict` of tools. */
  readonly structuredOutput: boolean;
  /** The last message may be the assistant's. */
  readonly prefill: boolean;
  /** Messages with the role `system` may stand among the others. */
  readonly midSystem: boolean;
}

const ALL_EFFORTS: readonly Effort[] = ["low", "medium", "high", "xhigh", "max"];

/** Claude 3, which nothing later takes away from but what its row says. */
const OLDEST: Capabilities = {
  maxOutputTokens: 4096,
  rejectsSampling: false,
  temperatureXorTopP: false,
  thinking: false,
  adaptive: false,
  rejectsBudget: false,
  rejectsDisabled: false,
  betweenTools: false,
  rejectsForcedTools: false,
  rejectsForcedToolsThinking: false,
  efforts: [],
  structuredOutput: false,
  prefill: true,
  midSystem: false,
};
const THINKING: Capabilities = {
  ...OLDEST,
  maxOutputTokens: 64_000,
  thinking: true,
  rejectsForcedToolsThinking: true,
};
const V4_5: Capabilities = { ...THINKING, temperatureXorTopP: true, structuredOutput: true };
const V4_6: Capabilities = {
  ...V4_5,
  maxOutputTokens: 128_000,
  adaptive: true,
  rejectsForcedToolsThinking: false,
  efforts: ["low", "medium", "high", "max"],
  prefill: false,
};
const V4_7: Capabilities = { ...V4_6, rejectsSampling: true, rejectsBudget: true, efforts: ALL_EFFORTS };
const V5: Capabilities = { ...V4_7, midSystem: true };
const V5_STRICT: Capabilities = { ...V5, rejectsDisabled: true, rejectsForcedTools: true };

/** Names after `claude-`, in any order: the longest that fits counts. */
const MODELS: Readonly<Record<string, Capabilities>> = {
  "sonnet-5-5": { ...V5_STRICT, betweenTools: true },
  "opus-5-5": V5_STRICT,
  "haiku-5-5": V5,
  "opus-5": V5,
  "sonnet-5": V5,
  "fable-5-1": V5_STRICT,
  "mythos-5-1": V5_STRICT,
  "fable-5": { ...V5, rejectsDisabled: true },
  "mythos-5": { ...V5, rejectsDisabled: true },
  "opus-4-8": V5,
  "opus-4-7": V4_7,
  "opus-4-6": V4_6,
  "sonnet-4-6": V4_6,
  "opus-4-5": { ...V4_5, efforts: ["low", "medium", "high"] },
  "sonnet-4-5": V4_5,
  "haiku-4-5": V4_5,
  "opus-4-1": { ...THINKING, maxOutputTokens: 32_000, temperatureXorTopP: true },
  "opus-4-0": { ...THINKING, maxOutputTokens: 32_000 },
  "opus-4": { ...THINKING, maxOutputTokens: 32_000 },
  "sonnet-4-0": THINKING,
  "sonnet-4": THINKING,
  "3-7": THINKING,
  "3-5": { ...OLDEST, maxOutputTokens: 8192 },
  "3": OLDEST,
  "2": OLDEST,
  instant: OLDEST,
};

/** What every model takes: for names that no row knows, which are newer ones more likely than older. */
export const UNKNOWN_MODEL: Capabilities = { ...V5_STRICT, midSystem: false };

/** The longest first, so that the first that fits is the one. */
const NAMES = Object.keys(MODELS).toSorted((a, b) => b.length - a.length);
/** Names are few: what was found is kept for so many of them. */
const KNOWN_NAMES_MAX = 1024;
const known = new Map<string, Capabilities>();

/**
 * What a model can do.
 * @param model `family || model` of a target: `claude-opus-4-6`, a dated or aliased form of it, or an id of another
 * platform such as `us.anthropic.claude-sonnet-4-5-20250929-v1:0`
 */
export function capabilitiesOf(model: string): Capabilities {
  const cached = known.get(model);
  if (cached !== undefined) return cached;
  const found = find(model.toLowerCase().replaceAll(/(?<=\d)\.(?=\d)/g, "-"));
  if (known.size >= KNOWN_NAMES_MAX) known.clear();
  known.set(model, found);
  return found;
}

function find(model: string): Capabilities {
  for (const name of NAMES) {
    const at = model.indexOf(`claude-${name}`);
    if (at === -1) continue;
    const rest = model.slice(at + "claude-".length + name.length);
    // A digit or two more, such as the 9 in opus-4-9, are a version of its own. Dates have eight.
    if (/^\d|^-\d{1,2}(?!\d)/.test(rest)) return UNKNOWN_MODEL;
    return MODELS[name]!;
  }
  return UNKNOWN_MODEL;
}

/** The nearest effort that the model knows: the next lower one, else its lowest; null if it knows none. */
export function effortOf(wanted: string, { efforts }: Capabilities): Effort | null {
  const rank = ALL_EFFORTS.indexOf(wanted as Effort);
  return efforts.findLast((each) => ALL_EFFORTS.indexOf(each) <= rank) ?? efforts[0] ?? null;
}
