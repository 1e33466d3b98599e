import { describe, expect, test } from "vitest";
import type { Json } from "../hub.ts";
import { anthropicChat } from "./upstream.ts";

describe("errors", () => {
  const account = { health: "account", clientFault: false, status: 502, type: "server_error" };
  const fault = { health: "ignore", clientFault: true, type: "invalid_request_error" };
  const failure = { health: "failure", clientFault: false };
  const limit = { health: "rate_limit", clientFault: false, code: "rate_limit_exceeded", type: "rate_limit_error" };
  const model = { health: "model", clientFault: false, code: "model_not_found" };
  const invalid = "invalid_request_error";
  test.each<[number, string, string, Json, string?]>([
    [400, invalid, "max_tokens: Field required", { ...fault, code: null }],
    [400, invalid, "prompt is too long: 210000 tokens > 200000 maximum", { ...fault, code: "context_length_exceeded" }],
    [
      400,
      invalid,
      "input length and `max_tokens` exceed context limit: 1 + 2 > 3",
      { ...fault, code: "context_length_exceeded" },
    ],
    [400, invalid, "You have reached your specified API usage limits.", account],
    [400, invalid, "Your credit balance is too low to access the API.", account],
    [400, invalid, "This organization has been disabled.", account],
    [400, invalid, "messages.0: unexpected text: your credit balance is too low", { ...fault, code: null }],
    [400, invalid, "no", account, "monthly_spend_limit_reached"],
    [401, "authentication_error", "invalid x-api-key", account],
    [402, "billing_error", "no", account, "linked_organization_spend_limit_reached"],
    [403, "permission_error", "no", account],
    [404, "not_found_error", "model: claude-none", model],
    [408, "", "", failure],
    [409, "conflict_error", "no", failure],
    [413, "request_too_large", "no", { ...fault, code: "request_too_large" }],
    [422, invalid, "no", { ...fault, code: null }],
    [429, "rate_limit_error", "slow down", limit],
    [429, "rate_limit_error", "no", account, "enforced_spend_limit_reached"],
    [429, "rate_limit_error", "no", account, "contract_spend_limit_reached"],
    [429, "rate_limit_error", "no", account, "ramp_limit_exceeded"],
    [500, "api_error", "no", { ...failure, type: "server_error" }],
    [500, invalid, "no", failure],
    [503, "api_error", "no", failure, "cmek_key_unreachable"],
    [504, "timeout_error", "no", { ...failure, code: "timeout" }],
    [529, "overloaded_error", "no", { ...failure, status: 503, code: "overloaded" }],
    [418, "teapot_error", "no", failure],
  ])("%i %s: %s", (status, type, message, expected, errorCode) => {
    const details = errorCode === undefined ? {} : { details: { error_code: errorCode } };
    const body = { type: "error", error: { type, message, ...details }, request_id: "req_1" };
    const error = anthropicChat.error(status, {}, Buffer.from(JSON.stringify(body)));
    expect(error).toMatchObject({ ...expected, param: null });
    if (message !== "") expect(error.message).toBe(message);
  });

  test.each<[number, Json]>([
    [401, account],
    [403, account],
    [404, model],
    [413, { ...fault, code: "request_too_large" }],
    [429, limit],
    [502, failure],
    [529, { ...failure, status: 503 }],
  ])("%i from a proxy on the way", (status, expected) => {
    for (const text of ["<html>Too bad</html>", "", "[]", '{"error":"x"}', '{"error":{"type":5}}'])
      expect(anthropicChat.error(status, {}, Buffer.from(text))).toMatchObject(expected);
  });
});
