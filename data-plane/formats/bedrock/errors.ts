/** PURE. Errors of Bedrock, of answers and inside streams (reference/UPSTREAM-FORMATS.md D8, F2). */

import type { FailureKind } from "../../health.ts";
import type { Json, UpstreamError } from "../hub.ts";
import { parseObject, textOf } from "../json.ts";

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** The name of an exception: `x-amzn-errortype` may have an address after it, `__type` a namespace before it. */
export function errorTypeOf(headers: Headers, body: Buffer): string {
  const header = headers["x-amzn-errortype"];
  const found = (Array.isArray(header) ? header[0] : header) ?? textOf(parseObject(body)?.["__type"]);
  return found.split(":")[0]!.split("#").at(-1)!.trim();
}

/** Our credentials are not (or no longer) good: get new ones, and try once more. */
const CREDENTIAL_ERRORS = new Set([
  "UnrecognizedClientException",
  "InvalidSignatureException",
  "SignatureDoesNotMatch",
  "ExpiredTokenException",
  "ExpiredToken",
  "RequestExpired",
  "InvalidClientTokenId",
  "MissingAuthenticationTokenException",
  "IncompleteSignatureException",
]);

/** Whether a refusal is about credentials or signatures, so that new ones could help. */
export function isCredentialError(type: string): boolean {
  return CREDENTIAL_ERRORS.has(type);
}

interface Verdict {
  readonly type: string | null;
  readonly code: string | null;
  readonly clientFault: boolean;
  readonly health: FailureKind;
  readonly status?: number;
}

const SERVER = "server_error";
const UNAVAILABLE = "service_unavailable_error";
const RATE: Verdict = {
  type: "rate_limit_error",
  code: "rate_limit_exceeded",
  clientFault: false,
  health: "rate_limit",
  status: 429,
};
const ACCOUNT: Verdict = { type: SERVER, code: null, clientFault: false, health: "account", status: 502 };
const MODEL: Verdict = { type: SERVER, code: null, clientFault: false, health: "model", status: 502 };
const FAILURE: Verdict = { type: SERVER, code: null, clientFault: false, health: "failure", status: 502 };
const BUSY: Verdict = { type: UNAVAILABLE, code: null, clientFault: false, health: "failure", status: 503 };
const SLOW: Verdict = { ...FAILURE, status: 504 };
const CLIENT: Verdict = { type: "invalid_request_error", code: null, clientFault: true, health: "ignore", status: 400 };

/** By the name of the exception with its first letter small, as streams have it. */
const VERDICTS: Readonly<Record<string, Verdict>> = {
  accessDeniedException: ACCOUNT,
  validationException: CLIENT,
  resourceNotFoundException: MODEL,
  throttlingException: RATE,
  tooManyRequestsException: RATE,
  serviceQuotaExceededException: RATE,
  modelNotReadyException: BUSY,
  modelTimeoutException: SLOW,
  modelErrorException: FAILURE,
  modelStreamErrorException: FAILURE,
  internalServerException: FAILURE,
  internalFailure: FAILURE,
  serviceUnavailableException: BUSY,
  conflictException: CLIENT,
};

const TOO_LONG =
  /input is too long|too many (?:input )?tokens|context (?:window|length)|maximum context|prompt is too long|exceeds? the (?:model's )?(?:maximum|context)/i;
/** What the merchant has set up wrong comes as a fault of the request. */
const MODEL_FAULT =
  /on-demand throughput|inference profile|model identifier is invalid|end of its life|access to the model|isn't supported on this route/i;
const ACCOUNT_FAULT = /operation not allowed|account is not authorized|not authorized to perform|security token/i;

function validation(message: string): Verdict {
  if (MODEL_FAULT.test(message)) return MODEL;
  if (ACCOUNT_FAULT.test(message)) return ACCOUNT;
  return TOO_LONG.test(message) ? { ...CLIENT, code: "context_length_exceeded" } : CLIENT;
}

/** Without a name that is known, the status has to do. */
function byStatus(status: number, message: string): Verdict {
  if (status === 400 || status === 422) return validation(message);
  if (status === 413) return { ...CLIENT, status };
  if (status === 401 || status === 402) return ACCOUNT;
  if (status === 403) return MODEL_FAULT.test(message) ? MODEL : ACCOUNT;
  if (status === 404) return MODEL;
  if (status === 408 || status === 504) return SLOW;
  if (status === 429) return RATE;
  return status === 503 ? BUSY : FAILURE;
}

function verdictOf(type: string, status: number, message: string): Verdict {
  if (CREDENTIAL_ERRORS.has(type)) return ACCOUNT;
  const name = type.charAt(0).toLowerCase() + type.slice(1);
  if (!Object.hasOwn(VERDICTS, name)) return byStatus(status, message);
  if (name === "validationException") return validation(message);
  if (name === "accessDeniedException" && MODEL_FAULT.test(message)) return MODEL;
  return VERDICTS[name]!;
}

const NO_MESSAGE = "The upstream refused the request.";

/** They hold the number of the account. */
const ARNS = /\barn:aws[\w-]*:[^\s"'<>)\],]+/g;

function messageOf(body: Json | null): string {
  return (textOf(body?.["message"]) || textOf(body?.["Message"]) || NO_MESSAGE).replace(ARNS, "***");
}

/** What is not 2xx. */
export function bedrockError(status: number, headers: Headers, body: Buffer): UpstreamError {
  const message = messageOf(parseObject(body));
  return { message, param: null, ...verdictOf(errorTypeOf(headers, body), status, message) };
}

/** An exception or error inside a stream. `type` is what follows the colon in the event's name. */
export function streamError(type: string, data: Buffer | null): UpstreamError {
  const message = messageOf(data === null ? null : parseObject(data));
  return { message, param: null, ...verdictOf(type, 500, message) };
}
