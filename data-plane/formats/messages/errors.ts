/** PURE. The gateway's errors in the envelope of Messages. Facts: reference/UPSTREAM-FORMATS.md section 1 and C7. */

import type { ErrorAnswer, ErrorFields } from "../../errors.ts";
import { frame } from "./frames.ts";

/** Clients look for the id of a request here, besides in the body. */
export const REQUEST_ID_HEADER = "request-id";

const QUOTA = "insufficient_quota";

const TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  409: "conflict_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
  504: "timeout_error",
  529: "overloaded_error",
};

/** Types and codes of ours, where there is no status: errors inside of streams. */
const STATUSES: Readonly<Record<string, number>> = {
  timeout: 504,
  shutting_down: 503,
  invalid_api_key: 401,
  model_not_found: 404,
  rate_limit_exceeded: 429,
  invalid_request_error: 400,
  rate_limit_error: 429,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  service_unavailable_error: 503,
  overloaded_error: 503,
};

/**
 * What Messages calls an error. An empty wallet is `billing_error` whatever its status: no client should wait it out.
 * @param status null: inside of a stream
 */
export function messagesErrorType(status: number | null, { type, code }: ErrorFields): string {
  if (code === QUOTA || type === QUOTA) return "billing_error";
  const known = status ?? STATUSES[code ?? ""] ?? STATUSES[type] ?? 500;
  return TYPES[known] ?? (known >= 500 ? "api_error" : "invalid_request_error");
}

/**
 * `{type:"error",error:{type,message,details},request_id}`. `details.error_code` is our code, where Anthropic's SDKs look
 * for one. With an empty wallet there are `code` and `checkout_url` too, as in OpenAI's envelope.
 */
function envelopeOf(status: number | null, fields: ErrorFields, requestId: string): Record<string, unknown> {
  const { message, code, param, checkout_url } = fields;
  const error: Record<string, unknown> = { type: messagesErrorType(status, fields), message };
  if (code !== null) error["details"] = { error_code: code, ...(param ? { param } : {}) };
  if (code === QUOTA) error["code"] = code;
  if (checkout_url !== undefined) error["checkout_url"] = checkout_url;
  return { type: "error", error, request_id: requestId };
}

export function messagesErrorBody(status: number, fields: ErrorFields, requestId: string): Buffer {
  return Buffer.from(JSON.stringify(envelopeOf(status, fields, requestId)));
}

/** The last frame of a stream that failed. */
export function messagesErrorFrame(fields: ErrorFields, requestId: string): Buffer {
  return Buffer.from(frame("error", envelopeOf(null, fields, requestId)));
}

/** The same error as the one made by `errors.ts` for OpenAI's clients, its status and headers included. */
export function messagesError(answer: ErrorAnswer, requestId: string): ErrorAnswer {
  const { fields } = answer;
  const headers = [...answer.headers, REQUEST_ID_HEADER, requestId];
  return {
    status: answer.status,
    code: answer.code,
    body: messagesErrorBody(answer.status, fields, requestId),
    headers,
    fields,
  };
}
