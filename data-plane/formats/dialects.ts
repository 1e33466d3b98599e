/**
 * PURE. How servers that speak OpenAI's chat completions differ from it and from each other, as data. `dialect_rules.ts`
 * applies it. Facts: reference/UPSTREAM-FORMATS.md A3, A11, E1, E2 and the servers' own reference pages.
 */

import { ModelApi } from "../route_types.ts";

/** Numbers equal `tokenbill.v1.ProviderDialect`. */
export const ProviderDialect = {
  GENERIC: 1,
  OPENAI: 2,
  DEEPSEEK: 3,
  QWEN: 4,
  MISTRAL: 5,
  VLLM: 6,
  OLLAMA: 7,
  OPENROUTER: 8,
  GROQ: 9,
  XAI: 10,
  TOGETHER: 11,
} as const;

export type LimitField = "max_tokens" | "max_completion_tokens";

export interface Dialect {
  /** A number of ProviderDialect. */
  readonly number: number;
  readonly title: string;
  /** The field that limits an answer where the client used none. */
  readonly limit: LimitField;
  /** The server knows `limit` alone: the other one is renamed. */
  readonly oneLimit: boolean;
  /** False: `stream_options` is refused, and usage comes without being asked for. */
  readonly streamOptions: boolean;
  /** Top-level fields that are refused, and that an answer is as good without. */
  readonly drops: readonly string[];
  /** Top-level fields that have another name here. */
  readonly renames: Readonly<Record<string, string>>;
  /** False: messages of the developer become messages of the system. */
  readonly developerRole: boolean;
  /** False: an empty `tools` is refused, so it goes, and what stands beside it for tools goes too. */
  readonly emptyTools: boolean;
  /** Keys that are refused inside messages, and inside their content parts. */
  readonly messageDrops: readonly string[];
  /** `nine`: ids of tool calls must be nine letters or digits. */
  readonly toolCallId: "any" | "nine";
  /**
   * How much a model thinks: `reasoning_effort` as it is; `thinking`: besides, effort `none` is `thinking.type:"disabled"`;
   * `enable_thinking`: a switch and `thinking_budget` in its place; `none`: not to be said.
   */
  readonly reasoning: "reasoning_effort" | "thinking" | "enable_thinking" | "none";
  /** `reasoning_effort: "none"` is understood by every model that thinks. */
  readonly effortNone: boolean;
  /** Where answers have their reasoning. Readers take either, whatever stands here: servers changed their minds. */
  readonly reasoningField: "reasoning_content" | "reasoning";
  /** Reasoning in the history: refused or useless; wanted with tool calls (even if empty) and only there; or welcome. */
  readonly reasoningBack: "drop" | "tools" | "keep";
  /** `cache_control` on parts means something. For translated requests: a client's own goes through unless it is refused. */
  readonly cacheControl: boolean;
  /** `top_k` means something. For translated requests, like `cacheControl`. */
  readonly topK: boolean;
  /** The rules for OpenAI's reasoning models apply to models named like them. */
  readonly reasoningModels: boolean;
  /** How usage differs from OpenAI's. Told to people: `meter.ts` sees it in the usage itself, whatever the dialect. */
  readonly usage:
    | "openai"
    /** `prompt_cache_hit_tokens` and `prompt_cache_miss_tokens` in place of details. */
    | "cache_hit"
    /** On the last chunk in `x_groq.usage`, in older versions. */
    | "x_groq"
    /** `completion_tokens` has no reasoning in it: that is to be added. */
    | "reasoning_outside";
  /** Numbers of ModelApi: what a Physical Model that does not say so can be called with. */
  readonly apis: readonly number[];
  /** What keeps the connection alive before the answer, and is no progress. */
  readonly keepAlive: string;
}

/** What only OpenAI and those who follow it closely know. Also left out of translated requests to servers of any kind. */
export const OPENAI_ONLY: readonly string[] = [
  "store",
  "metadata",
  "moderation",
  "prediction",
  "prompt_cache_key",
  "prompt_cache_options",
  "prompt_cache_retention",
  "safety_identifier",
  "service_tier",
  "verbosity",
  "web_search_options",
];

const GENERIC: Dialect = {
  number: ProviderDialect.GENERIC,
  title: "Generic",
  limit: "max_tokens",
  oneLimit: false,
  streamOptions: true,
  drops: [],
  renames: {},
  developerRole: true,
  emptyTools: true,
  messageDrops: [],
  toolCallId: "any",
  reasoning: "reasoning_effort",
  effortNone: false,
  reasoningField: "reasoning_content",
  reasoningBack: "drop",
  cacheControl: false,
  topK: false,
  reasoningModels: false,
  usage: "openai",
  apis: [ModelApi.CHAT_COMPLETIONS],
  keepAlive: "",
};

const OPENAI: Dialect = {
  ...GENERIC,
  number: ProviderDialect.OPENAI,
  title: "OpenAI",
  limit: "max_completion_tokens",
  emptyTools: false,
  // What this gateway's own answers of other upstreams carry, and clients send back.
  messageDrops: ["reasoning_content", "thinking_blocks", "cache_control"],
  reasoningModels: true,
  apis: [ModelApi.CHAT_COMPLETIONS, ModelApi.RESPONSES],
};

const DIALECTS: readonly Dialect[] = [
  GENERIC,
  OPENAI,
  {
    ...GENERIC,
    number: ProviderDialect.DEEPSEEK,
    title: "DeepSeek",
    oneLimit: true,
    developerRole: false,
    emptyTools: false,
    messageDrops: ["thinking_blocks", "cache_control"],
    reasoning: "thinking",
    reasoningBack: "tools",
    usage: "cache_hit",
    keepAlive: "blank lines before JSON, `: keep-alive` comments in streams",
  },
  {
    ...GENERIC,
    number: ProviderDialect.QWEN,
    title: "Qwen (DashScope)",
    oneLimit: true,
    developerRole: false,
    emptyTools: false,
    messageDrops: ["thinking_blocks"],
    reasoning: "enable_thinking",
    cacheControl: true,
    topK: true,
  },
  {
    ...GENERIC,
    number: ProviderDialect.MISTRAL,
    title: "Mistral",
    oneLimit: true,
    streamOptions: false,
    drops: [...OPENAI_ONLY, "logit_bias", "logprobs", "stream_options", "top_logprobs", "user"],
    renames: { seed: "random_seed" },
    developerRole: false,
    emptyTools: false,
    messageDrops: [
      "name",
      "reasoning_content",
      "reasoning",
      "thinking_blocks",
      "cache_control",
      "refusal",
      "annotations",
      "audio",
      "function_call",
    ],
    toolCallId: "nine",
    reasoning: "none",
  },
  {
    ...GENERIC,
    number: ProviderDialect.VLLM,
    title: "vLLM",
    developerRole: false,
    emptyTools: false,
    reasoningField: "reasoning",
    topK: true,
  },
  {
    ...GENERIC,
    number: ProviderDialect.OLLAMA,
    title: "Ollama",
    oneLimit: true,
    developerRole: false,
    effortNone: true,
    reasoningField: "reasoning",
  },
  {
    ...GENERIC,
    number: ProviderDialect.OPENROUTER,
    title: "OpenRouter",
    effortNone: true,
    reasoningField: "reasoning",
    reasoningBack: "keep",
    cacheControl: true,
    topK: true,
    keepAlive: "`: OPENROUTER PROCESSING` comments",
  },
  {
    ...GENERIC,
    number: ProviderDialect.GROQ,
    title: "Groq",
    limit: "max_completion_tokens",
    drops: [...OPENAI_ONLY.filter((name) => name !== "service_tier"), "logit_bias", "logprobs", "top_logprobs"],
    developerRole: false,
    emptyTools: false,
    messageDrops: ["name", "reasoning_content", "thinking_blocks", "cache_control", "refusal", "annotations"],
    reasoningField: "reasoning",
    usage: "x_groq",
  },
  {
    ...GENERIC,
    number: ProviderDialect.XAI,
    title: "xAI",
    limit: "max_completion_tokens",
    emptyTools: false,
    messageDrops: ["thinking_blocks", "cache_control"],
    usage: "reasoning_outside",
    apis: [ModelApi.CHAT_COMPLETIONS, ModelApi.RESPONSES],
  },
  {
    ...GENERIC,
    number: ProviderDialect.TOGETHER,
    title: "Together",
    oneLimit: true,
    developerRole: false,
    emptyTools: false,
    reasoningField: "reasoning",
    topK: true,
  },
];

/** By their numbers, without holes but the first. */
const BY_NUMBER: readonly (Dialect | undefined)[] = Array.from({ length: DIALECTS.length + 1 }, (_, number) =>
  DIALECTS.find((dialect) => dialect.number === number),
);

export function allDialects(): readonly Dialect[] {
  return DIALECTS;
}

/** Hosts, and the ends of hosts that begin with a dot. */
const HOSTS: readonly (readonly [string, number])[] = [
  ["api.openai.com", ProviderDialect.OPENAI],
  // Of data residency: `eu.api.openai.com`.
  [".api.openai.com", ProviderDialect.OPENAI],
  ["api.deepseek.com", ProviderDialect.DEEPSEEK],
  ["api.mistral.ai", ProviderDialect.MISTRAL],
  ["codestral.mistral.ai", ProviderDialect.MISTRAL],
  ["openrouter.ai", ProviderDialect.OPENROUTER],
  ["api.groq.com", ProviderDialect.GROQ],
  ["api.x.ai", ProviderDialect.XAI],
  // Of regions: `eu-west-1.api.x.ai`.
  [".api.x.ai", ProviderDialect.XAI],
  ["api.together.xyz", ProviderDialect.TOGETHER],
  ["api.together.ai", ProviderDialect.TOGETHER],
  ["ollama.com", ProviderDialect.OLLAMA],
  // Azure serves what OpenAI does; its format has this dialect also behind other hosts.
  [".openai.azure.com", ProviderDialect.OPENAI],
];
const DASHSCOPE = /^(?:[a-z0-9-]+\.)?dashscope[a-z0-9-]*\.aliyuncs\.com$/;
/** Ollama's own port, which hardly anything else listens on. */
const OLLAMA_PORT = "11434";

function numberOf(origin: string): number {
  const [host = "", port = ""] = origin
    .slice(origin.indexOf("://") + 3)
    .toLowerCase()
    .split(":");
  for (const [name, number] of HOSTS) if (name.startsWith(".") ? host.endsWith(name) : host === name) return number;
  if (DASHSCOPE.test(host)) return ProviderDialect.QWEN;
  return port === OLLAMA_PORT ? ProviderDialect.OLLAMA : ProviderDialect.GENERIC;
}

/**
 * @param number of `tokenbill.v1.ProviderDialect`, 0: known by the host; one that this node does not know is GENERIC
 * @param origin scheme, host and port
 */
export function dialectOf(number: number, origin: string): Dialect {
  return BY_NUMBER[number === 0 ? numberOf(origin) : number] ?? GENERIC;
}

/** OpenAI's own dialect, which Azure has too. */
export const OPENAI_DIALECT = OPENAI;

/** For requests that the gateway makes itself a server that nothing is known of gets what every server takes. */
const GENERIC_TRANSLATED: Dialect = { ...GENERIC, oneLimit: true, developerRole: false, emptyTools: false };

/** The dialect for requests that were translated: those of clients that speak it already keep more as it came. */
export function translatedDialect(dialect: Dialect): Dialect {
  return dialect === GENERIC ? GENERIC_TRANSLATED : dialect;
}

/** o1, o3-mini, gpt-5, gpt-5-mini-2025-08-07, and by their ids at Bedrock and others: they think whether asked to or not, and refuse sampling parameters. */
const ALWAYS_THINKS = /^(?:(?:[a-z-]+\.)?openai[./])?(?:o\d(?:-|$)|gpt-5(?:-(?!chat)|$))/;
/** gpt-5.1 and those that followed it: they can be told not to think, and then take sampling parameters. */
const MAY_THINK = /^(?:(?:[a-z-]+\.)?openai[./])?gpt-(?:5\.\d|[6-9]|\d\d)/;

/** `always`, `may`: one of OpenAI's reasoning models; `no`: not one, as far as its name tells. */
export function thinks(model: string): "always" | "may" | "no" {
  if (ALWAYS_THINKS.test(model)) return "always";
  return MAY_THINK.test(model) && !model.includes("-chat") ? "may" : "no";
}
