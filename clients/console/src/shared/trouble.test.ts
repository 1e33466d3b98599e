import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { ErrorInfoSchema, ErrorReason } from "../../../ts/src/gen/tokenbill/v1/error_pb.ts";
import { isConnectionTrouble, troubleOf } from "./trouble.ts";

function told(reason: ErrorReason, metadata: Record<string, string> = {}): ConnectError {
  const detail = { desc: ErrorInfoSchema, value: { reason, domain: "tokenbill", metadata } };
  return new ConnectError("told", Code.Internal, { "retry-after": "7" }, [detail]);
}

test.each([
  [ErrorReason.UNAVAILABLE, {}, { kind: "connection" }],
  [ErrorReason.UNAVAILABLE, { failure: "timeout" }, { kind: "refused", failure: "timeout" }],
  [ErrorReason.LIMIT_REACHED, {}, { kind: "throttled", afterS: 7 }],
  [ErrorReason.LIMIT_REACHED, { retry_after_s: "120" }, { kind: "throttled", afterS: 120 }],
  [ErrorReason.LIMIT_REACHED, { retry_after_s: "999999" }, { kind: "throttled", afterS: 86_400 }],
  [ErrorReason.LIMIT_REACHED, { retry_after_s: "soon" }, { kind: "throttled", afterS: null }],
  [ErrorReason.UNAUTHENTICATED, {}, { kind: "closed" }],
  [ErrorReason.NOT_FOUND, {}, { kind: "closed" }],
  [ErrorReason.WRONG_STATE, {}, { kind: "state" }],
  [ErrorReason.PAYMENT_REFUSED, { failure: "card_declined" }, { kind: "refused", failure: "card_declined" }],
  [ErrorReason.INVALID_FIELD, { field: "amount" }, { kind: "invalid", field: "amount" }],
  [ErrorReason.INTERNAL, {}, { kind: "server" }],
])("reason %i with %j", (reason, metadata, trouble) => {
  expect(troubleOf(told(reason, metadata as Record<string, string>))).toEqual(trouble);
});

test("what TokenBill did not say is no answer, unless its code says otherwise", () => {
  expect(troubleOf(new TypeError("Failed to fetch"))).toEqual({ kind: "connection" });
  expect(troubleOf(new ConnectError("", Code.Unavailable))).toEqual({ kind: "connection" });
  expect(troubleOf(new ConnectError("", Code.ResourceExhausted))).toEqual({ kind: "throttled", afterS: null });
  expect(troubleOf(new ConnectError("", Code.Unimplemented))).toEqual({ kind: "server" });
  expect([isConnectionTrouble(new Error("x")), isConnectionTrouble(told(ErrorReason.INTERNAL))]).toEqual([true, false]);
});
