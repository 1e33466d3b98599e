/**
 * PURE. Anthropic's errors, of whole answers and in the middle of streams, in the hub's words. Facts are from
 * reference/UPSTREAM-FORMATS.md C7 and F2.
 */

import type { FailureKind } from "../../health.ts";
import type { Json, UpstreamError } from "../hub.ts";
import { objectOf, parseObject, textOf } from "../json.ts";

/** Statuses of requests that are at fault themselves. */
const CLIENT_FAULTS = new Set([400, 413, 415, 422]);
/** Codes of limits on what the account may spend, which no waiting helps against. */
const SPEND_CODES = new Set(["enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded"]);
/**
 * Some of the account's troubles come as invalid requests without a code. Their messages begin with it, so that words of
 * the client's, quoted further on, do not make a target cool down.
 */
const ACCOUNT_MESSAGE =
  /^(?:your credit balance|you have reached your (?:specified )?(?:api )?(?:usage|spend)|(?:your|this) (?:organization|workspace|account)\b)/i;
const TOO_LONG = /^prompt is too long\b|exceeds? (?:the )?context (?:limit|window)|maximum context length/i;

/** What a client is told where the upstream's status speaks of our account. */
const BAD_GATEWAY = 502;
const UNAVAILABLE = 503;

const SERVER = "server_error";
const INVALID = "invalid_request_error";

type Verdict = Pick<UpstreamError, "type" | "code" | "clientFault" | "health" | "status">;

function verdict(health: FailureKind, type: string, code: string | null, status?: number): Verdict {
  return { health, type, code, clientFault: false, ...(status !== undefined && { status }) };
}

const ACCOUNT = verdict("account", SERVER, "upstream_account", BAD_GATEWAY);
const FAILURE = verdict("failure", SERVER, null);

/** By the type that the error says; what is not here is judged by its status. */
const BY_TYPE: Readonly<Record<string, Verdict>> = {
  authentication_error: ACCOUNT,
  permission_error: ACCOUNT,
  billing_error: ACCOUNT,
  not_found_error: verdict("model", INVALID, "model_not_found"),
  rate_limit_error: verdict("rate_limit", "rate_limit_error", "rate_limit_exceeded"),
  overloaded_error: verdict("failure", "service_unavailable_error", "overloaded", UNAVAILABLE),
  timeout_error: verdict("failure", SERVER, "timeout"),
  api_error: FAILURE,
  conflict_error: FAILURE,
};
const BY_STATUS: Readonly<Record<number, Verdict>> = {
  401: ACCOUNT,
  402: ACCOUNT,
  403: ACCOUNT,
  404: verdict("model", INVALID, "model_not_found"),
  429: verdict("rate_limit", "rate_limit_error", "rate_limit_exceeded"),
  504: verdict("failure", SERVER, "timeout"),
  529: verdict("failure", "service_unavailable_error", "overloaded", UNAVAILABLE),
};

/** Reads an answer whose status is not 2xx. Proxies on the way answer with HTML: then the status is all there is. */
export function anthropicError(status: number, body: Buffer): UpstreamError {
  return errorOf(objectOf(parseObject(body)?.["error"]), status);
}

/** Reads an error in the middle of a stream: `{type: "error", error: {type, message}}`. */
export function streamError(event: Json): UpstreamError {
  return errorOf(objectOf(event["error"]), 0);
}

function errorOf(error: Json, status: number): UpstreamError {
  const message = textOf(error["message"]) || "The upstream refused the request.";
  return { message, param: null, ...verdictOf(error, message, status) };
}

function verdictOf(error: Json, message: string, status: number): Verdict {
  const type = textOf(error["type"]);
  const code = textOf(objectOf(error["details"])["error_code"]);
  if (SPEND_CODES.has(code) || code.endsWith("spend_limit_reached")) return ACCOUNT;
  const known = Object.hasOwn(BY_TYPE, type) ? BY_TYPE[type] : BY_STATUS[status];
  if (known !== undefined) return known;
  // Whatever a failing server calls it.
  const named = status < 500 && (type === "invalid_request_error" || type === "request_too_large");
  const invalid = CLIENT_FAULTS.has(status) || named;
  if (!invalid) return FAILURE;
  if (type === "invalid_request_error" && ACCOUNT_MESSAGE.test(message)) return ACCOUNT;
  const tooLarge = status === 413 || type === "request_too_large";
  const told = tooLarge ? "request_too_large" : TOO_LONG.test(message) ? "context_length_exceeded" : null;
  return { health: "ignore", type: INVALID, code: told, clientFault: true };
}
