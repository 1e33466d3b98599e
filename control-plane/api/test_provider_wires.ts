/** PURE: how each format lists its models, and what its cheapest answer is. */

import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";

/** What decides how a Provider is called. */
export interface WireAccount {
  readonly format: number;
  readonly apiVersion: string;
}

export interface Wire {
  /** What the API is called in messages. */
  readonly name: string;
  /** Header fields that carry the key, if there is one, and what else every call needs. */
  headers(apiKey: string): Record<string, string>;
  /** With its query, appended to the base URL. */
  readonly listPath: string;
  /** Null: the list is not of what can be called, so that only an answer proves a model. */
  readonly modelPath: ((model: string) => string) | null;
  /** The request for an answer of one token. */
  readonly probePath: (model: string) => string;
  /** Whether the body of an answer is one of this API. */
  isAnswer(body: Readonly<Record<string, unknown>>): boolean;
  /** Where `base_url` as a rule ends. */
  readonly baseUrlHint: string;
}

/** As reference/UPSTREAM-FORMATS.md C1 has it. */
const ANTHROPIC_VERSION_DEFAULT = "2023-06-01";
/** The most that the list gives at once. */
const ANTHROPIC_LIST_LIMIT = 1000;

const OPENAI_WIRE: Wire = {
  name: "OpenAI-compatible API",
  headers: (apiKey): Record<string, string> => (apiKey === "" ? {} : { authorization: `Bearer ${apiKey}` }),
  listPath: "/models",
  modelPath: (model) => `/models/${encodeURIComponent(model)}`,
  probePath: () => "/chat/completions",
  isAnswer: ({ choices }) => Array.isArray(choices),
  baseUrlHint: "base_url as a rule ends with /v1.",
};

function anthropicWire(apiVersion: string): Wire {
  const version = apiVersion === "" ? ANTHROPIC_VERSION_DEFAULT : apiVersion;
  return {
    name: "Anthropic API",
    headers: (apiKey) => ({ "anthropic-version": version, ...(apiKey === "" ? {} : { "x-api-key": apiKey }) }),
    listPath: `/v1/models?limit=${ANTHROPIC_LIST_LIMIT}`,
    modelPath: (model) => `/v1/models/${encodeURIComponent(model)}`,
    probePath: () => "/v1/messages",
    isAnswer: ({ type }) => type === "message",
    baseUrlHint: "base_url as a rule ends before /v1, as in https://api.anthropic.com.",
  };
}

/** Models of a resource are what could be deployed; what is called is a deployment (reference/UPSTREAM-FORMATS.md B1). */
function azureWire(apiVersion: string): Wire {
  const query = `?api-version=${encodeURIComponent(apiVersion)}`;
  return {
    name: "Azure OpenAI API",
    headers: (apiKey): Record<string, string> => (apiKey === "" ? {} : { "api-key": apiKey }),
    listPath: apiVersion === "" ? "/openai/v1/models" : `/openai/models${query}`,
    modelPath: null,
    probePath: (model) =>
      apiVersion === ""
        ? "/openai/v1/chat/completions"
        : `/openai/deployments/${encodeURIComponent(model)}/chat/completions${query}`,
    isAnswer: ({ choices }) => Array.isArray(choices),
    baseUrlHint: "base_url as a rule is the resource alone, as in https://name.openai.azure.com.",
  };
}

/** Null: the control plane does not call this format. */
export function wireOf({ format, apiVersion }: WireAccount): Wire | null {
  if (format === ProviderFormat.OPENAI) return OPENAI_WIRE;
  if (format === ProviderFormat.ANTHROPIC) return anthropicWire(apiVersion);
  if (format === ProviderFormat.AZURE_OPENAI) return azureWire(apiVersion);
  return null;
}
