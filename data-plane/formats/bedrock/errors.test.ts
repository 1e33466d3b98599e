import { describe, expect, test } from "vitest";
import { bedrockError, errorTypeOf, isCredentialError } from "./errors.ts";

/** reference/UPSTREAM-FORMATS.md D8. */
describe("errors", () => {
  test.each<[number, string, string, number, string, string | null, boolean]>([
    [403, "AccessDeniedException", "You don't have access to the model", 502, "model", null, false],
    [403, "AccessDeniedException", "User is not authorized", 502, "account", null, false],
    [400, "ValidationException", "Malformed input", 400, "ignore", null, true],
    [
      400,
      "ValidationException",
      "Input is too long for requested model.",
      400,
      "ignore",
      "context_length_exceeded",
      true,
    ],
    [400, "ValidationException", "prompt is too long: 1 > 0", 400, "ignore", "context_length_exceeded", true],
    [400, "ValidationException", "with on-demand throughput isn't supported", 502, "model", null, false],
    [400, "ValidationException", "The provided model identifier is invalid.", 502, "model", null, false],
    [400, "ValidationException", "Operation not allowed", 502, "account", null, false],
    [404, "ResourceNotFoundException", "no", 502, "model", null, false],
    [429, "ThrottlingException", "slow", 429, "rate_limit", "rate_limit_exceeded", false],
    [400, "ServiceQuotaExceededException", "q", 429, "rate_limit", "rate_limit_exceeded", false],
    [429, "ModelNotReadyException", "wait", 503, "failure", null, false],
    [408, "ModelTimeoutException", "late", 504, "failure", null, false],
    [424, "ModelErrorException", "bad", 502, "failure", null, false],
    [424, "ModelStreamErrorException", "bad", 502, "failure", null, false],
    [500, "InternalServerException", "oops", 502, "failure", null, false],
    [503, "ServiceUnavailableException", "busy", 503, "failure", null, false],
    [400, "ConflictException", "twice", 400, "ignore", null, true],
    [403, "UnrecognizedClientException", "token", 502, "account", null, false],
    [403, "InvalidSignatureException", "sig", 502, "account", null, false],
    [403, "ExpiredTokenException", "old", 502, "account", null, false],
    [400, "", "bad", 400, "ignore", null, true],
    [401, "", "no", 502, "account", null, false],
    [403, "", "no", 502, "account", null, false],
    [404, "", "no", 502, "model", null, false],
    [413, "", "big", 413, "ignore", null, true],
    [429, "", "slow", 429, "rate_limit", "rate_limit_exceeded", false],
    [500, "toString", "x", 502, "failure", null, false],
    [503, "", "x", 503, "failure", null, false],
    [504, "", "x", 504, "failure", null, false],
  ])("%i %s: %s", (status, type, message, told, health, code, clientFault) => {
    const headers = type === "" ? {} : { "x-amzn-errortype": `${type}:http://internal.amazon.com/coral/` };
    const error = bedrockError(status, headers, Buffer.from(JSON.stringify({ message })));
    expect(error).toMatchObject({ message, param: null, health, code, clientFault, status: told });
  });

  test("say their name in the body, and their words with a capital letter", () => {
    const body = Buffer.from('{"__type":"com.amazon.coral#ThrottlingException","Message":"slow"}');
    expect(errorTypeOf({}, body)).toBe("ThrottlingException");
    expect(bedrockError(400, {}, body)).toMatchObject({ message: "slow", health: "rate_limit" });
  });

  test("do not tell of the account", () => {
    const message = "User: arn:aws:iam::123456789012:user/x is not authorized on arn:aws-us-gov:bedrock:r::m/a.";
    const body = Buffer.from(JSON.stringify({ message }));
    expect(bedrockError(403, {}, body).message).toBe("User: *** is not authorized on ***");
  });

  test("may say nothing", () => {
    expect(bedrockError(502, {}, Buffer.from("<html>"))).toMatchObject({ health: "failure", clientFault: false });
  });

  test("of credentials", () => {
    expect(["ExpiredTokenException", "AccessDeniedException"].map(isCredentialError)).toEqual([true, false]);
  });
});
