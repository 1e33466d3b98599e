/** Errors on the wire: a Connect code and one ErrorInfo, whatever went wrong and wherever. */

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, ErrorReason } from "../../proto/gen/tokenbill/v1/error_pb.ts";
import { isUnavailable } from "../db/errors.ts";
import { DomainError, type ErrorCode } from "../domain/errors.ts";

export const ERROR_DOMAIN = "tokenbill";

const CONNECT_CODES: Readonly<Record<ErrorCode, Code>> = {
  invalid_field: Code.InvalidArgument,
  unauthenticated: Code.Unauthenticated,
  wrong_scope: Code.PermissionDenied,
  not_found: Code.NotFound,
  name_taken: Code.AlreadyExists,
  request_id_reused: Code.AlreadyExists,
  etag_mismatch: Code.Aborted,
  in_use: Code.FailedPrecondition,
  bad_page_token: Code.InvalidArgument,
  price_not_exact: Code.InvalidArgument,
  format_not_routable: Code.FailedPrecondition,
  no_price: Code.FailedPrecondition,
  address_not_allowed: Code.InvalidArgument,
  not_available: Code.FailedPrecondition,
  limit_reached: Code.ResourceExhausted,
  insufficient_credits: Code.FailedPrecondition,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
  wrong_state: Code.FailedPrecondition,
  payment_refused: Code.FailedPrecondition,
};

export function reasonOf(code: ErrorCode): ErrorReason {
  return ErrorReason[code.toUpperCase() as keyof typeof ErrorReason];
}

/** The cause that stands for errors of the protocol itself, which are made without one. */
const REASON_OF_CONNECT_CODE: Readonly<Partial<Record<Code, ErrorCode>>> = {
  [Code.InvalidArgument]: "invalid_field",
  [Code.OutOfRange]: "invalid_field",
  [Code.Unauthenticated]: "unauthenticated",
  [Code.PermissionDenied]: "wrong_scope",
  [Code.NotFound]: "not_found",
  [Code.ResourceExhausted]: "limit_reached",
  [Code.Unimplemented]: "not_available",
  [Code.Unavailable]: "unavailable",
  [Code.DeadlineExceeded]: "unavailable",
  [Code.Canceled]: "unavailable",
};

export function withInfo(
  message: string,
  code: Code,
  reason: ErrorCode,
  metadata: Readonly<Record<string, string>>,
): ConnectError {
  const value = { reason: reasonOf(reason), domain: ERROR_DOMAIN, metadata: { ...metadata } };
  const error = new ConnectError(message, code, undefined, [{ desc: ErrorInfoSchema, value }]);
  if (code === Code.Unauthenticated) error.metadata.set("www-authenticate", 'Bearer realm="tokenbill"');
  if (metadata["retry_after_s"] !== undefined) error.metadata.set("retry-after", metadata["retry_after_s"]);
  return error;
}

/**
 * The decoder's messages quote what was sent, and that may be a secret: only the field and the kind of mistake are kept.
 */
function decodingError(message: string): ConnectError {
  const unknownKey = /key "([^]*)" is unknown/.exec(message);
  if (unknownKey !== null) {
    // What does not look like a misspelt name may be a value in the wrong place.
    const field = /^[A-Za-z_]{1,40}$/.test(unknownKey[1]!) ? unknownKey[1]! : "";
    const text =
      field === "" ? "it has a field that this call does not know" : "there is no such field in this request";
    return withInfo(`${field || "request"}: ${text}`, Code.InvalidArgument, "invalid_field", {
      field,
      rule: "unknown_field",
    });
  }
  const field = /cannot decode field [\w.]*?([a-z0-9_]+) from/.exec(message)?.[1];
  if (field !== undefined) {
    return withInfo(`${field}: the value does not have the type of this field`, Code.InvalidArgument, "invalid_field", {
      field,
      rule: "type",
    });
  }
  const text =
    "the request body cannot be read: it must be this call's message as JSON (application/json) or protobuf (application/proto)";
  return withInfo(text, Code.InvalidArgument, "invalid_field", { field: "", rule: "decode" });
}

/** The protocol library calls some bodies that cannot be read its own failure; they are the client's. */
function isDecodingFailure(error: ConnectError): boolean {
  if (error.code === Code.InvalidArgument) return true;
  return error.code === Code.Internal && /^(parse binary: |received compressed envelope)/.test(error.rawMessage);
}

/** An error that the protocol library made, with its ErrorInfo. */
export function completeConnectError(error: ConnectError): ConnectError {
  if (error.details.length > 0) return error;
  const reason = REASON_OF_CONNECT_CODE[error.code] ?? "internal";
  if (isDecodingFailure(error)) return decodingError(error.rawMessage);
  if (error.code === Code.ResourceExhausted) {
    return withInfo("the request body is larger than this call accepts", error.code, reason, {
      limit: "request_bytes",
    });
  }
  if (reason === "internal") return withInfo("the server failed; its log says more", Code.Internal, "internal", {});
  return withInfo(error.rawMessage, error.code, reason, {});
}

/** True for errors that nobody expects: they are logged whole, and the caller is told nothing of them. */
export function isUnexpected(error: unknown): boolean {
  if (error instanceof DomainError) return error.code === "internal";
  if (error instanceof ConnectError) {
    return error.details.length === 0 && REASON_OF_CONNECT_CODE[error.code] === undefined && !isDecodingFailure(error);
  }
  return !isUnavailable(error);
}

/** What the caller gets for anything that was thrown. */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof DomainError)
    return withInfo(error.message, CONNECT_CODES[error.code], error.code, error.metadata);
  if (error instanceof ConnectError) return completeConnectError(error);
  if (isUnavailable(error)) {
    return withInfo("the database cannot be reached at the moment: try again", Code.Unavailable, "unavailable", {});
  }
  return withInfo("the server failed; its log says more", Code.Internal, "internal", {});
}
