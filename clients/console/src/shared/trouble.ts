/** PURE: what a failed call means to somebody in front of a page. */

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, ErrorReason } from "../../../ts/src/gen/tokenbill/v1/error_pb.ts";

/**
 * `connection`: no answer of the server: asked again by itself. `throttled`: too many calls; `afterS` if the server said for
 * how long. `closed`: the credentials are not good for it, or it does not exist. `state`: it has gone on meanwhile.
 * `refused`: by the payment processor, with its word for why. `invalid`: what was sent is not right. `server`: anything else.
 */
export type Trouble =
  | { readonly kind: "connection" }
  | { readonly kind: "throttled"; readonly afterS: number | null }
  | { readonly kind: "closed" }
  | { readonly kind: "state" }
  | { readonly kind: "refused"; readonly failure: string }
  | { readonly kind: "invalid"; readonly field: string }
  | { readonly kind: "server" };

/** Codes that stand for no answer, where nothing in the error says that TokenBill made it. */
const NO_ANSWER: readonly Code[] = [
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Unknown,
  Code.Internal,
  Code.Aborted,
  Code.Canceled,
];

/** More than a day is no answer to a person. */
const AFTER_S_MAX = 86_400;

function afterSeconds(error: ConnectError, metadata: Readonly<Record<string, string>>): number | null {
  const text = metadata["retry_after_s"] ?? error.metadata.get("retry-after") ?? "";
  return /^\d{1,6}$/.test(text) ? Math.min(Number(text), AFTER_S_MAX) : null;
}

export function troubleOf(error: unknown): Trouble {
  const known = ConnectError.from(error);
  const info = known.findDetails(ErrorInfoSchema)[0];
  if (info === undefined) {
    if (known.code === Code.ResourceExhausted) return { kind: "throttled", afterS: afterSeconds(known, {}) };
    return { kind: NO_ANSWER.includes(known.code) ? "connection" : "server" };
  }
  switch (info.reason) {
    case ErrorReason.UNAVAILABLE:
      // With a processor's word it is the processor that does not answer: the payer tries again, not the page for ever.
      if (info.metadata["failure"] === undefined) return { kind: "connection" };
      return { kind: "refused", failure: info.metadata["failure"] };
    case ErrorReason.LIMIT_REACHED:
      return { kind: "throttled", afterS: afterSeconds(known, info.metadata) };
    case ErrorReason.UNAUTHENTICATED:
    case ErrorReason.WRONG_SCOPE:
    case ErrorReason.NOT_FOUND:
      return { kind: "closed" };
    case ErrorReason.WRONG_STATE:
      return { kind: "state" };
    case ErrorReason.PAYMENT_REFUSED:
      return { kind: "refused", failure: info.metadata["failure"] ?? "" };
    case ErrorReason.INVALID_FIELD:
      return { kind: "invalid", field: info.metadata["field"] ?? "" };
    default:
      return { kind: "server" };
  }
}

export function isConnectionTrouble(error: unknown): boolean {
  return troubleOf(error).kind === "connection";
}
