/**
 * PURE. OpenAI's HTTP API, and servers compatible with it: chat/completions, completions, embeddings. Facts are from
 * reference/UPSTREAM-FORMATS.md sections 1, A and F2.
 */

import { type BodyChanges, changeBody, type LimitName } from "../body.ts";
import { Endpoint } from "../endpoints.ts";
import type { FailureKind } from "../health.ts";
import { JsonScanError, skipSpace, skipValue } from "../json_scan.ts";
import type { RoutePm, RouteProvider } from "../route_types.ts";
import { SseSplitter } from "../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../tokenizer/tokens.ts";
import type { OutboundRequest } from "../transport.ts";
import type { AnswerHeaders, AnswerReading, Asked, AskedForm, Bridge, ClientShape, EndpointSpec } from "./format.ts";
import type { UpstreamError } from "./hub.ts";
import { CALL_HEADERS, openAiKey, pathOf } from "./call.ts";
import { type Dialect, ProviderDialect } from "./dialects.ts";
import { dialectChanges } from "./dialect_changes.ts";
import { OpenAiStream } from "./openai_stream.ts";
import { measureValue, type TextMeasure } from "./openai_text.ts";

/** Statuses that say the client's request is at fault: no other target would answer differently. */
const CLIENT_FAULTS = new Set([400, 413, 422, 451]);
/** Code of an error about the model, whatever the status. */
const MODEL_CODE = "model_not_found";
/** Codes that speak of our account, not of the client's request, whatever the status. */
const ACCOUNT_CODES = new Set([
  "invalid_api_key",
  "account_deactivated",
  "billing_hard_limit_reached",
  "billing_not_active",
  "insufficient_quota",
  "credit_balance_exhausted",
  "organization_spend_limit_exceeded",
  "project_spend_limit_exceeded",
  "organization_usage_limit_exceeded",
  "unsupported_country_region_territory",
]);

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}

/** Error objects come as `{error:{…}}`, `{error:"…"}` or, from older servers, flat. */
function errorOf(body: Buffer): Fields {
  const parsed = fieldsOf(parse(body));
  const error = parsed["error"];
  if (typeof error === "string") return { message: error };
  if (typeof error === "object" && error !== null) return error as Fields;
  return parsed["object"] === "error" || typeof parsed["message"] === "string" ? parsed : {};
}

/** Reads an answer of OpenAI, or of a server like it, that is not 2xx. */
export function openAiError(status: number, _headers: AnswerHeaders, body: Buffer): UpstreamError {
  const error = errorOf(body);
  const { message, type, param, code } = error;
  const health = healthOf(status, String(code ?? ""), type === "insufficient_quota");
  // Reasoning that another account encrypted, which that one can still read.
  const elsewhere = code === "invalid_encrypted_content";
  const clientFault = !elsewhere && CLIENT_FAULTS.has(status) && health !== "account" && health !== "model";
  return {
    message: typeof message === "string" ? message : "",
    type: wordOf(type),
    param: typeof param === "string" ? param : null,
    code: wordOf(code),
    clientFault,
    health: clientFault || elsewhere ? "ignore" : health,
    ...(elsewhere && { elsewhere }),
  };
}

/** Codes come as numbers too. */
function wordOf(value: unknown): string | null {
  return typeof value === "number" ? String(value) : typeof value === "string" ? value : null;
}

/** 403 without more says that our key may not use this model; what it may use at all is said with a code. */
export function healthOf(status: number, code: string, noQuota: boolean): FailureKind {
  if (code === MODEL_CODE) return "model";
  if (noQuota || ACCOUNT_CODES.has(code) || status === 401 || status === 402) return "account";
  if (status === 403 || status === 404) return "model";
  return status === 429 ? "rate_limit" : "failure";
}

const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const COLON = 0x3a;
const USAGE_KEY = Buffer.from('"usage"');

/**
 * The last usage object in these bytes. Quotes inside strings are escaped, so the word in quotes is a key, or a value
 * that no colon follows. Undefined: none found, or it is not an object.
 */
export function lastUsage(bytes: Buffer): unknown {
  const key = bytes.lastIndexOf(USAGE_KEY);
  if (key === -1) return undefined;
  const colon = skipSpace(bytes, key + USAGE_KEY.length);
  if (bytes[colon] !== COLON) return undefined;
  const start = skipSpace(bytes, colon + 1);
  if (bytes[start] !== OBJECT) return undefined;
  try {
    return JSON.parse(bytes.toString("utf8", start, skipValue(bytes, start)));
  } catch {
    return undefined;
  }
}

/** True if the first of these words is a key whose value is an array. */
function holdsArray(bytes: Buffer, key: string): boolean {
  const at = bytes.indexOf(key, 0, "latin1");
  if (at === -1) return false;
  const colon = skipSpace(bytes, at + key.length);
  return bytes[colon] === COLON && bytes[skipSpace(bytes, colon + 1)] === 0x5b;
}

/** Where the substance of an answer stands. */
function rowsOf({ hasOutput, number }: EndpointSpec): "choices" | "results" | "data" {
  if (hasOutput) return "choices";
  return number === Endpoint.MODERATIONS ? "results" : "data";
}

/** Up to this size the whole of an answer is parsed natively in less time than it takes to look at it here. */
const PARSE_BYTES_MAX = 3072;

class OpenAiAnswer implements AnswerReading {
  readonly valid: boolean;
  readonly usage: unknown;
  private readonly body: Buffer;
  private readonly endpoint: EndpointSpec;
  private parsed: Fields | null = null;
  private measured: TextMeasure | null = null;

  constructor(body: Buffer, endpoint: EndpointSpec) {
    this.body = body;
    this.endpoint = endpoint;
    const small = body.length <= PARSE_BYTES_MAX && endpoint.hasOutput ? this.parseSmall() : null;
    this.valid = small !== null || this.check();
    this.usage = small ?? (this.valid ? (lastUsage(body) ?? this.exact()["usage"] ?? null) : null);
  }

  /** The usage of a sound answer that says one at its top level; null: look closer. */
  private parseSmall(): Fields | null {
    const answer = this.exact();
    const { usage } = answer;
    const sound = !answer["error"] && Array.isArray(answer["choices"]) && !Array.isArray(usage);
    return sound && typeof usage === "object" ? (usage as Fields | null) : null;
  }

  /** Whole answers are cheap to check on bytes, since their long strings are skipped; rows of numbers are not. */
  private check(): boolean {
    const { body, endpoint } = this;
    const start = skipSpace(body, 0);
    let last = body.length - 1;
    while (last > start && body[last]! <= 0x20) last--;
    if (body[start] !== OBJECT || body[last] !== OBJECT_END) return false;
    if (endpoint.hasOutput) {
      try {
        if (skipValue(body, start) !== last + 1) return false;
      } catch (error) {
        if (error instanceof JsonScanError) return false;
        throw error;
      }
    }
    const rows = rowsOf(endpoint);
    if (holdsArray(body, `"${rows}"`) && !body.includes('"error"', 0, "latin1")) return true;
    const answer = this.exact();
    return !answer["error"] && Array.isArray(answer[rows]);
  }

  private exact(): Fields {
    this.parsed ??= fieldsOf(parse(this.body));
    return this.parsed;
  }

  private measure(): TextMeasure {
    if (this.measured !== null) return this.measured;
    this.measured = { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) };
    const choices = this.exact()["choices"];
    for (const each of Array.isArray(choices) ? (choices as unknown[]) : []) {
      const choice = fieldsOf(each);
      measureValue(this.endpoint.chat ? choice["message"] : { text: choice["text"] }, this.measured);
    }
    return this.measured;
  }

  textBytes(): number {
    return this.measure().bytes;
  }

  sample(): TextSample {
    return this.measure().sampler.sample();
  }

  hasContent(): boolean {
    return !this.endpoint.hasOutput || this.measure().content;
  }
}

/** Headers that are the same for every call to a Provider, made once for each version of it. */
const headersOf = new WeakMap<
  readonly string[],
  { apiKey: string; json: readonly string[]; stream: readonly string[] }
>();

function headers(provider: RouteProvider, stream: boolean): readonly string[] {
  let made = headersOf.get(provider.headers);
  if (made === undefined || made.apiKey !== provider.apiKey) {
    const own = ["content-type", "application/json", ...CALL_HEADERS, ...provider.headers, ...openAiKey(provider)];
    made = {
      apiKey: provider.apiKey,
      json: [...own, "accept", "application/json"],
      stream: [...own, "accept", "text/event-stream"],
    };
    headersOf.set(provider.headers, made);
  }
  return stream ? made.stream : made.json;
}

/** Limits of an answer's length that the endpoint does not know, by its shape. */
const FOREIGN_LIMITS: Readonly<Partial<Record<ClientShape, readonly LimitName[]>>> = {
  chat: ["max_output_tokens"],
  completions: ["max_completion_tokens", "max_output_tokens"],
  responses: ["max_tokens", "max_completion_tokens"],
};
const NO_LIMITS: readonly LimitName[] = [];
/** Servers that nothing is known of may not know the newer field: a limit that the wallet sets is said in both. */
const UNKNOWN_LIMITS: readonly LimitName[] = ["max_output_tokens", "max_completion_tokens"];

function foreignLimits(dialect: Dialect, { endpoint, clampTo }: Asked): readonly LimitName[] {
  if (clampTo !== null && endpoint.shape === "chat" && dialect.number === ProviderDialect.GENERIC)
    return UNKNOWN_LIMITS;
  return FOREIGN_LIMITS[endpoint.shape] ?? NO_LIMITS;
}

/** What an upstream reads instead of what the client wrote. */
export function bodyChanges(dialect: Dialect, pm: RoutePm, asked: Asked): BodyChanges {
  const { stream, clampTo } = asked;
  const { shape } = asked.endpoint;
  return {
    model: pm.upstreamName,
    includeUsage: stream && dialect.streamOptions && (shape === "chat" || shape === "completions"),
    outputTokensMax: clampTo,
    outputTokensField: shape === "responses" ? "max_output_tokens" : shape === "chat" ? dialect.limit : "max_tokens",
    foreignLimits: foreignLimits(dialect, asked),
  };
}

/** The client's body with these changes, and those that the dialect asks of chat completions. */
export function nativeBody(dialect: Dialect, pm: RoutePm, asked: Asked): Buffer {
  const { body, endpoint } = asked;
  const more = endpoint.shape === "chat" ? dialectChanges(dialect, body, pm.family || pm.upstreamName) : null;
  return changeBody(body, bodyChanges(dialect, pm, asked), more);
}

/** The call for a client that speaks OpenAI's format itself. */
export function nativeCall(pm: RoutePm, asked: Asked, body: Buffer, forwarded: readonly string[]): OutboundRequest {
  const { provider } = pm;
  if (asked.form !== null) return formCall(pm, asked, asked.form);
  const own = headers(provider, asked.stream);
  return {
    origin: provider.origin,
    path: pathOf(pm, asked.endpoint.path),
    method: "POST",
    headers: forwarded.length === 0 ? own : [...own, ...forwarded],
    body,
  };
}

/** The same with the client's form as it came, but for the model. */
function formCall(pm: RoutePm, { endpoint, stream }: Asked, form: AskedForm): OutboundRequest {
  const { provider } = pm;
  const accept = stream ? "text/event-stream" : "*/*";
  const own = ["content-type", form.contentType, "accept", accept, ...CALL_HEADERS];
  return {
    origin: provider.origin,
    path: pathOf(pm, endpoint.path),
    method: "POST",
    headers: [...own, ...provider.headers, ...openAiKey(provider)],
    body: form.source(pm.upstreamName),
  };
}

/** Chat completions, completions, embeddings and moderations where client and upstream speak OpenAI's format. */
export function openAiBridge(dialect: Dialect, error: Bridge["error"]): Bridge {
  return {
    translated: false,
    whole: false,
    request: (pm, asked, forwarded) => nativeCall(pm, asked, nativeBody(dialect, pm, asked), forwarded),
    error,
    readAnswer: (body, { endpoint }) => new OpenAiAnswer(body, endpoint),
    readTail: (tail) => lastUsage(tail) ?? null,
    streamReader: ({ endpoint, body }) => new OpenAiStream(endpoint, !body.usageAsked),
    splitter: () => new SseSplitter(),
  };
}
