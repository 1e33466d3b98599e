/**
 * PURE. OpenAI's HTTP API, and servers compatible with it: chat/completions, completions, embeddings. Facts are from
 * reference/UPSTREAM-FORMATS.md sections 1, A and F2.
 */

import { changeBody } from "../body.ts";
import { errorFrame, type ErrorFields, upstreamRefusal } from "../errors.ts";
import type { FailureKind } from "../health.ts";
import { JsonScanError, skipSpace, skipValue } from "../json_scan.ts";
import type { RouteProvider } from "../route_types.ts";
import type { AnswerReading, EndpointSpec, Format, StatusVerdict } from "./format.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../tokenizer/tokens.ts";
import { OpenAiStream } from "./openai_stream.ts";
import { measureValue, type TextMeasure } from "./openai_text.ts";

/** The only request headers of clients that go upstream. Everything else stays here, SDK telemetry included. */
export const FORWARDED_HEADERS = ["openai-beta"] as const;

const OPENAI_HOST = "https://api.openai.com";

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
export function errorOf(body: Buffer): Fields {
  const parsed = fieldsOf(parse(body));
  const error = parsed["error"];
  if (typeof error === "string") return { message: error };
  if (typeof error === "object" && error !== null) return error as Fields;
  return parsed["object"] === "error" || typeof parsed["message"] === "string" ? parsed : {};
}

export function classify(status: number, body: Buffer): StatusVerdict {
  const error = errorOf(body);
  const health = healthOf(status, String(error["code"] ?? ""), error["type"] === "insufficient_quota");
  const ours = health === "account" || health === "model";
  if (CLIENT_FAULTS.has(status) && !ours) return { clientFault: true, health: "ignore" };
  return { clientFault: false, health };
}

/** 403 without more says that our key may not use this model; what it may use at all is said with a code. */
export function healthOf(status: number, code: string, noQuota: boolean): FailureKind {
  if (code === MODEL_CODE) return "model";
  if (noQuota || ACCOUNT_CODES.has(code) || status === 401 || status === 402) return "account";
  if (status === 403 || status === 404) return "model";
  return status === 429 ? "rate_limit" : "failure";
}

const MESSAGE_CHARS_MAX = 2000;
/** Shorter values are no secrets, and hiding them would garble the message. */
const SECRET_CHARS_MIN = 4;
/** What looks like a key, an organisation, a project or an address of somebody's account. */
const SECRETS =
  /\b(?:sk|pk|rk|org|proj|user|acct|key|tbk|tbn)[-_][A-Za-z0-9_-]{6,}|\bBearer\s+\S+|[\w.+-]+@[\w-]+\.[\w.-]+/g;
const URLS = /\b(?:https?|wss?):\/\/[^\s"'<>)\]]+/gi;

/** An upstream's words without credentials, account ids and addresses. */
export function scrub(text: string, provider: RouteProvider): string {
  let clean = text;
  // Cut last: a secret that the cut falls into would not be found.
  for (const secret of [provider.apiKey, ...provider.headers.filter((_, index) => index % 2 === 1)]) {
    if (secret.length >= SECRET_CHARS_MIN) clean = clean.replaceAll(secret, "***");
  }
  clean = clean.replace(URLS, "***").replace(SECRETS, "***");
  const host = provider.origin.replace(/^https?:\/\//, "");
  if (host !== "") clean = clean.replaceAll(host, "***").replaceAll(host.replace(/:\d+$/, ""), "***");
  return clean.slice(0, MESSAGE_CHARS_MAX);
}

const WORD = /^[A-Za-z0-9_.[\]-]{1,128}$/;

/** Types and codes are words; anything else, or what tells of the account, is left out rather than shown. */
function word(value: unknown, provider: RouteProvider): string | null {
  const text = typeof value === "number" ? String(value) : value;
  return typeof text === "string" && WORD.test(text) && scrub(text, provider) === text ? text : null;
}

function refusalFields(body: Buffer, provider: RouteProvider): ErrorFields {
  const error = errorOf(body);
  const message =
    typeof error["message"] === "string" && error["message"] !== "" ? error["message"] : "The request was refused.";
  return {
    message: scrub(message, provider),
    type: word(error["type"], provider) ?? "invalid_request_error",
    param: typeof error["param"] === "string" ? scrub(error["param"], provider) : null,
    code: word(error["code"], provider),
  };
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
    if (holdsArray(body, endpoint.hasOutput ? '"choices"' : '"data"') && !body.includes('"error"', 0, "latin1"))
      return true;
    const answer = this.exact();
    return !answer["error"] && Array.isArray(answer[endpoint.hasOutput ? "choices" : "data"]);
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
    const own = [
      "content-type",
      "application/json",
      "accept-encoding",
      "identity",
      "user-agent",
      "tokenbill",
      ...provider.headers,
    ];
    if (provider.apiKey !== "") own.push("authorization", `Bearer ${provider.apiKey}`);
    made = {
      apiKey: provider.apiKey,
      json: [...own, "accept", "application/json"],
      stream: [...own, "accept", "text/event-stream"],
    };
    headersOf.set(provider.headers, made);
  }
  return stream ? made.stream : made.json;
}

export const openai: Format = {
  request(pm, endpoint, body, changes, forwarded) {
    const { provider } = pm;
    const own = headers(provider, body.stream && endpoint.streams);
    return {
      origin: provider.origin,
      path: provider.basePath + endpoint.path + provider.baseQuery,
      method: "POST",
      headers: forwarded.length === 0 ? own : [...own, ...forwarded],
      body: changeBody(body, changes),
    };
  },
  outputTokensField(provider, endpoint) {
    return endpoint.chat && provider.origin === OPENAI_HOST ? "max_completion_tokens" : "max_tokens";
  },
  classify,
  refusalCode: (body, provider) => word(errorOf(body)["code"], provider) ?? "",
  refusal: (status, body, provider) => upstreamRefusal(status, refusalFields(body, provider)),
  readAnswer: (body, endpoint) => new OpenAiAnswer(body, endpoint),
  readTail: (tail) => lastUsage(tail) ?? null,
  streamReader: (endpoint, stripUsage) => new OpenAiStream(endpoint, stripUsage),
  errorFrame,
};
