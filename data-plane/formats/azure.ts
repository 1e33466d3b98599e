/**
 * PURE. What Azure OpenAI (Foundry) has of its own: addresses, errors, and what its API versions can. Bodies and streams are
 * OpenAI's. Facts: reference/UPSTREAM-FORMATS.md B.
 */

import { ModelApi, type RoutePm, type RouteProvider } from "../route_types.ts";
import { RETRY_AFTER_MS_MAX } from "../health.ts";
import type { AnswerHeaders } from "./format.ts";
import { type Dialect, OPENAI_DIALECT } from "./dialects.ts";
import type { UpstreamError } from "./hub.ts";
import { objectOf, parseObject, textOf } from "./json.ts";

/** These have the deployment in their address under an API version; it counts more than the body's model. */
const DEPLOYMENT_OPS = new Set([
  "/completions",
  "/chat/completions",
  "/embeddings",
  "/audio/transcriptions",
  "/audio/translations",
  "/audio/speech",
  "/images/generations",
  "/images/edits",
  "/batches",
]);
const REALTIME = "/realtime";
/** What stands for an API version with the v1 API, which has none. */
const V1_VERSIONS = new Set(["v1", "preview", "latest"]);
const V1 = "v1";
const VERSION = "api-version";

/** What a base URL has after the resource: nothing, `/openai`, `/openai/v1`, or a deployment and whatever follows it. */
const BASE_PATH = /^(.*?)(?:\/openai(?:(\/v1)|\/deployments\/([^/]+)(?:\/.*)?)?)?$/;

interface Base {
  /** Of a proxy in front of the resource, mostly "". */
  readonly prefix: string;
  readonly v1: boolean;
  /** As it stands in the path; "" if there is none. */
  readonly deployment: string;
}

function baseOf(basePath: string): Base {
  const match = BASE_PATH.exec(basePath);
  return { prefix: match?.[1] ?? basePath, v1: match?.[2] !== undefined, deployment: match?.[3] ?? "" };
}

/** Query members as they came, without `?` and without this name. */
function queryWithout(query: string, name: string): string[] {
  const members = query.replace(/^\?/, "").split("&");
  return members.filter((member) => member !== "" && member.split("=")[0] !== name);
}

function queryValue(query: string, name: string): string {
  return new URLSearchParams(query).get(name) ?? "";
}

/** The API version of a Provider: its own, or else that of its base URL; "": none, so that the v1 API is called. */
export function azureVersion(provider: RouteProvider): string {
  return provider.account.apiVersion || (provider.baseQuery === "" ? "" : queryValue(provider.baseQuery, VERSION));
}

function isV1(base: Base, version: string): boolean {
  return base.v1 || version === "" || V1_VERSIONS.has(version);
}

/** True: the body says the deployment, by its `model`. */
export function azureUsesV1(provider: RouteProvider): boolean {
  return isV1(baseOf(provider.basePath), azureVersion(provider));
}

function join(path: string, query: readonly string[]): string {
  return query.length === 0 ? path : `${path}?${query.join("&")}`;
}

/** A path that is no deployment's, such as that of a file: also batches are read there. */
export function azureAccountPath(provider: RouteProvider, path: string): string {
  const base = baseOf(provider.basePath);
  const version = azureVersion(provider);
  const v1 = isV1(base, version);
  const [op = "", opQuery = ""] = path.split("?");
  const query = [...queryWithout(provider.baseQuery, VERSION), ...queryWithout(opQuery, VERSION)];
  if (version !== "" && !(v1 && version === V1)) query.push(`${VERSION}=${encodeURIComponent(version)}`);
  return join(`${base.prefix}/openai${v1 ? "/v1" : ""}${op}`, query);
}

/**
 * Path and query of a call, after the origin. A deployment in the base URL counts more than the Physical Model's name.
 * @param endpointPath such as `/chat/completions`; may have a query
 */
export function azurePath(provider: RouteProvider, pm: RoutePm, endpointPath: string): string {
  const base = baseOf(provider.basePath);
  const version = azureVersion(provider);
  const [op = "", opQuery = ""] = endpointPath.split("?");
  const query = [...queryWithout(provider.baseQuery, VERSION), ...queryWithout(opQuery, VERSION)];
  const deployment = base.deployment === "" ? encodeURIComponent(pm.upstreamName) : base.deployment;
  const root = `${base.prefix}/openai`;
  if (isV1(base, version)) {
    if (version !== "" && version !== V1) query.push(`${VERSION}=${encodeURIComponent(version)}`);
    if (op === REALTIME) query.push(`model=${deployment}`);
    return join(`${root}/v1${op}`, query);
  }
  query.push(`${VERSION}=${encodeURIComponent(version)}`);
  if (op === REALTIME) query.push(`deployment=${deployment}`);
  return join(DEPLOYMENT_OPS.has(op) ? `${root}/deployments/${deployment}${op}` : root + op, query);
}

/** `2024-09-01-preview`: the first API version with `stream_options` and `max_completion_tokens` (B3). */
const USAGE_FLOOR = "2024-09-01";
/** `2025-03-01-preview`: the first one with responses. */
const RESPONSES_FLOOR = "2025-03-01";

/** Versions are dates: their order is that of their text. What is no date is new. */
function reaches(version: string, floor: string): boolean {
  return !/^\d{4}-\d\d-\d\d/.test(version) || version.slice(0, floor.length) >= floor;
}

/** On versions that are too old for them, unknown fields are refused: usage of streams is then not to be had. */
const OLD_DIALECT: Dialect = {
  ...OPENAI_DIALECT,
  title: "Azure OpenAI before 2024-09-01-preview",
  limit: "max_tokens",
  oneLimit: true,
  streamOptions: false,
  drops: ["stream_options", "parallel_tool_calls"],
  apis: [ModelApi.CHAT_COMPLETIONS],
};
const WITHOUT_RESPONSES: Dialect = { ...OPENAI_DIALECT, apis: [ModelApi.CHAT_COMPLETIONS] };

/** @param version of `azureVersion` */
export function azureDialect(version: string): Dialect {
  if (!reaches(version, USAGE_FLOOR)) return OLD_DIALECT;
  return reaches(version, RESPONSES_FLOOR) ? OPENAI_DIALECT : WITHOUT_RESPONSES;
}

/** Where tokens for a resource come from, and what they are for. */
export interface EntraCloud {
  /** Scheme and host. */
  readonly authority: string;
  readonly scope: string;
}

/** Hosts of `services.ai.azure.com` take the newer scope, the others the older one, which they all know. */
export function entraCloud(origin: string): EntraCloud {
  const host = origin
    .slice(origin.indexOf("://") + 3)
    .toLowerCase()
    .replace(/:\d+$/, "");
  if (host.endsWith(".azure.us"))
    return { authority: "https://login.microsoftonline.us", scope: "https://cognitiveservices.azure.us/.default" };
  if (host.endsWith(".azure.cn"))
    return {
      authority: "https://login.partner.microsoftonline.cn",
      scope: "https://cognitiveservices.azure.cn/.default",
    };
  const scope = host.endsWith(".services.ai.azure.com")
    ? "https://ai.azure.com"
    : "https://cognitiveservices.azure.com";
  return { authority: "https://login.microsoftonline.com", scope: `${scope}/.default` };
}

const FILTERED = new Set([
  "content_filter",
  "contentFilter",
  "content_policy_violation",
  "ResponsibleAIPolicyViolation",
]);
/** The deployment is not there, or is one that cannot do this: the Provider's configuration is at fault. */
const MODEL_CODES = new Set(["DeploymentNotFound", "OperationNotSupported", "model_not_found", "unknown_model"]);
const ACCOUNT_CODES = new Set(["insufficient_quota", "billing_hard_limit_reached", "invalid_api_key"]);
const CLIENT_FAULTS = new Set([400, 413, 422, 451]);
const DIGITS = /^\d+$/;
const REFUSED = "The request was refused.";

interface AzureFields {
  readonly message: string;
  readonly type: string | null;
  readonly param: string | null;
  /** "" for none, and for a status in place of one. */
  readonly code: string;
  readonly filtered: boolean;
}

/** `{error:{code,message,innererror}}`, `{statusCode,message}`, or `{code,message}`. */
function fieldsOf(body: Buffer): AzureFields {
  const parsed = objectOf(parseObject(body));
  const error = typeof parsed["error"] === "object" ? objectOf(parsed["error"]) : parsed;
  const inner = objectOf(error["innererror"] ?? error["inner_error"]);
  const given = textOf(error["code"]);
  return {
    message: textOf(error["message"]) || textOf(parsed["error"]) || REFUSED,
    type: textOf(error["type"]) || null,
    param: textOf(error["param"]) || null,
    code: DIGITS.test(given) ? "" : given,
    filtered: FILTERED.has(given) || FILTERED.has(textOf(inner["code"])),
  };
}

function healthOf(status: number, code: string): UpstreamError["health"] {
  if (MODEL_CODES.has(code)) return "model";
  if (ACCOUNT_CODES.has(code)) return "account";
  if (status === 401 || status === 402 || status === 403) return "account";
  if (status === 404) return "model";
  return status === 429 ? "rate_limit" : "failure";
}

/** An error in OpenAI's words. What the resource's filter blocked is the client's own fault. */
export function azureError(status: number, headers: AnswerHeaders, body: Buffer): UpstreamError {
  const { message, type, param, code, filtered } = fieldsOf(body);
  if (filtered && status < 500) {
    const own = code === "" || code === "contentFilter" ? "content_filter" : code;
    return { message, type: type ?? "invalid_request_error", param, code: own, clientFault: true, health: "ignore" };
  }
  const health = healthOf(status, code);
  const clientFault = CLIENT_FAULTS.has(status) && health !== "model" && health !== "account";
  return {
    message,
    type: type ?? (status === 429 ? "rate_limit_error" : status < 500 ? "invalid_request_error" : "server_error"),
    param,
    code: code || (status === 429 ? "rate_limit_exceeded" : null),
    clientFault,
    health: clientFault ? "ignore" : health,
    ...(status === 429 && { retryAfterMs: azureResetMs(headers) }),
  };
}

const RESETS = [
  ["x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"],
  ["x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"],
] as const;

function single(headers: AnswerHeaders, name: string): string {
  const value = headers[name];
  return (Array.isArray(value) ? value[0] : value) ?? "";
}

/**
 * Milliseconds until the window that refused resets, 0 if that is not said: for a 429 without `retry-after`. Azure tells
 * plain seconds; -1 means that it does not know (B4).
 */
export function azureResetMs(headers: AnswerHeaders): number {
  let longest = 0;
  for (const [reset, remaining] of RESETS) {
    const seconds = single(headers, reset);
    const left = single(headers, remaining);
    // A window with something left is not the one that refused.
    if (!/^\d+(?:\.\d+)?$/.test(seconds) || (DIGITS.test(left) && Number(left) > 0)) continue;
    longest = Math.max(longest, Number(seconds) * 1000);
  }
  return Math.min(longest, RETRY_AFTER_MS_MAX);
}
