import { describe, expect, test } from "vitest";
import { ModelApi, type RoutePm, type RouteProvider } from "../route_types.ts";
import { azureDialect, azureError, azurePath, azureResetMs, azureUsesV1, entraCloud } from "./azure.ts";

function target(baseUrl: string, apiVersion: string, upstreamName = "gpt 4o/eu"): [RouteProvider, RoutePm] {
  const url = new URL(baseUrl);
  const provider = {
    origin: url.origin,
    basePath: url.pathname.replace(/\/+$/, ""),
    baseQuery: url.search,
    account: { apiVersion },
  } as RouteProvider;
  return [provider, { upstreamName, provider } as RoutePm];
}

const HOST = "https://name.openai.azure.com";
const V = "2024-10-21";
const D = "/openai/deployments/gpt%204o%2Feu";

describe("azurePath", () => {
  test.each([
    // Deployment URLs.
    ["", V, "/chat/completions", `${D}/chat/completions?api-version=${V}`],
    ["/", V, "/embeddings", `${D}/embeddings?api-version=${V}`],
    ["/openai", V, "/completions", `${D}/completions?api-version=${V}`],
    ["", V, "/images/edits", `${D}/images/edits?api-version=${V}`],
    ["", V, "/audio/speech", `${D}/audio/speech?api-version=${V}`],
    ["", V, "/responses", `/openai/responses?api-version=${V}`],
    ["", V, "/responses/resp_1?stream=true", `/openai/responses/resp_1?stream=true&api-version=${V}`],
    ["", V, "/files", `/openai/files?api-version=${V}`],
    ["", V, "/realtime", `/openai/realtime?api-version=${V}&deployment=gpt%204o%2Feu`],
    [
      "/openai/deployments/my%2Fown",
      V,
      "/chat/completions",
      `/openai/deployments/my%2Fown/chat/completions?api-version=${V}`,
    ],
    [
      "/openai/deployments/own/chat/completions?api-version=2024-06-01",
      "",
      "/chat/completions",
      "/openai/deployments/own/chat/completions?api-version=2024-06-01",
    ],
    ["/openai/deployments/own", V, "/files", `/openai/files?api-version=${V}`],
    ["?a=1&api-version=2024-06-01&b=2", V, "/chat/completions", `${D}/chat/completions?a=1&b=2&api-version=${V}`],
    ["/gate/way/openai", V, "/chat/completions", `/gate/way${D}/chat/completions?api-version=${V}`],
    ["/gate/way", V, "/chat/completions", `/gate/way${D}/chat/completions?api-version=${V}`],
    // The v1 API.
    ["", "", "/chat/completions", "/openai/v1/chat/completions"],
    ["/openai", "", "/responses", "/openai/v1/responses"],
    ["/openai/v1/", "", "/embeddings", "/openai/v1/embeddings"],
    ["/openai/v1", "preview", "/responses", "/openai/v1/responses?api-version=preview"],
    ["", "v1", "/responses", "/openai/v1/responses"],
    ["", "latest", "/responses", "/openai/v1/responses?api-version=latest"],
    ["/openai/deployments/own", "", "/chat/completions", "/openai/v1/chat/completions"],
    ["/gate?k=v", "", "/chat/completions", "/gate/openai/v1/chat/completions?k=v"],
    ["", "", "/realtime", "/openai/v1/realtime?model=gpt%204o%2Feu"],
  ])("%s with %j: %s is %s", (base, version, op, path) => {
    expect(azurePath(...target(HOST + base, version), op)).toBe(path);
  });

  test("says which API it is", () => {
    expect(azureUsesV1(target(HOST, "")[0])).toBe(true);
    expect(azureUsesV1(target(HOST, V)[0])).toBe(false);
    expect(azureUsesV1(target(`${HOST}/openai/v1`, V)[0])).toBe(true);
  });
});

test.each([
  ["", true, "max_completion_tokens", true],
  ["preview", true, "max_completion_tokens", true],
  ["2024-06-01", false, "max_tokens", false],
  ["2024-08-01-preview", false, "max_tokens", false],
  ["2024-09-01-preview", true, "max_completion_tokens", false],
  ["2024-10-21", true, "max_completion_tokens", false],
  ["2025-02-01-preview", true, "max_completion_tokens", false],
  ["2025-03-01-preview", true, "max_completion_tokens", true],
])("version %j: stream_options %s, %s, responses %s", (version, streamOptions, limit, responses) => {
  const dialect = azureDialect(version);
  expect([dialect.streamOptions, dialect.limit, dialect.apis.includes(ModelApi.RESPONSES)]).toEqual([
    streamOptions,
    limit,
    responses,
  ]);
});

test.each([
  [HOST, "https://login.microsoftonline.com", "https://cognitiveservices.azure.com/.default"],
  [
    "https://a.cognitiveservices.azure.com",
    "https://login.microsoftonline.com",
    "https://cognitiveservices.azure.com/.default",
  ],
  ["https://a.services.ai.azure.com:443", "https://login.microsoftonline.com", "https://ai.azure.com/.default"],
  ["https://a.openai.azure.us", "https://login.microsoftonline.us", "https://cognitiveservices.azure.us/.default"],
  [
    "https://a.openai.azure.cn",
    "https://login.partner.microsoftonline.cn",
    "https://cognitiveservices.azure.cn/.default",
  ],
  ["https://gateway.example", "https://login.microsoftonline.com", "https://cognitiveservices.azure.com/.default"],
])("tokens for %s", (origin, authority, scope) => {
  expect(entraCloud(origin)).toEqual({ authority, scope });
});

describe("azureError", () => {
  const FILTER = {
    message: "The response was filtered due to the prompt triggering the content management policy.",
    type: null,
    param: "prompt",
    code: "content_filter",
    status: 400,
    innererror: {
      code: "ResponsibleAIPolicyViolation",
      content_filter_result: { hate: { filtered: true, severity: "high" } },
    },
  };
  test.each([
    [400, { error: FILTER }, "content_filter", true, "ignore"],
    [
      400,
      { error: { message: "m", inner_error: { code: "ResponsibleAIPolicyViolation" } } },
      "content_filter",
      true,
      "ignore",
    ],
    [400, { error: { code: "contentFilter", message: "m" } }, "content_filter", true, "ignore"],
    [400, { error: { code: "content_policy_violation", message: "m" } }, "content_policy_violation", true, "ignore"],
    [
      400,
      { error: { code: "context_length_exceeded", message: "m", type: "invalid_request_error" } },
      "context_length_exceeded",
      true,
      "ignore",
    ],
    [400, { error: { code: "OperationNotSupported", message: "m" } }, "OperationNotSupported", false, "model"],
    [422, { error: { code: "422", message: "m" } }, null, true, "ignore"],
    [404, { error: { code: "DeploymentNotFound", message: "m" } }, "DeploymentNotFound", false, "model"],
    [404, { error: { code: "404", message: "Resource not found" } }, null, false, "model"],
    [401, { error: { code: "401", message: "m" } }, null, false, "account"],
    [401, { statusCode: 401, message: "m" }, null, false, "account"],
    [403, { error: { code: "AuthorizationFailure", message: "m" } }, "AuthorizationFailure", false, "account"],
    [408, { error: { code: "Timeout", message: "m" } }, "Timeout", false, "failure"],
    [424, {}, null, false, "failure"],
    [429, { error: { code: "429", message: "m" } }, "rate_limit_exceeded", false, "rate_limit"],
    [429, { error: { code: "rate_limit_exceeded", message: "m" } }, "rate_limit_exceeded", false, "rate_limit"],
    [429, { error: { code: "insufficient_quota", message: "m" } }, "insufficient_quota", false, "account"],
    [500, { error: { code: "InternalServerError", message: "m" } }, "InternalServerError", false, "failure"],
    [503, "down", null, false, "failure"],
  ])("%d %j", (status, body, code, clientFault, health) => {
    const error = azureError(status, {}, Buffer.from(typeof body === "string" ? body : JSON.stringify(body)));
    expect([error.code, error.clientFault, error.health]).toEqual([code, clientFault, health]);
    expect(error.message).not.toBe("");
    expect(error.type).not.toBe("");
  });

  test("keeps the words, and finds them wherever they are", () => {
    expect(azureError(400, {}, Buffer.from(JSON.stringify({ error: FILTER })))).toMatchObject({
      message: FILTER.message,
      param: "prompt",
      type: "invalid_request_error",
    });
    expect(azureError(401, {}, Buffer.from('{"statusCode":401,"message":"Unauthorized."}')).message).toBe(
      "Unauthorized.",
    );
    expect(azureError(500, {}, Buffer.from('{"error":"broken"}')).message).toBe("broken");
  });
});

describe("azureResetMs", () => {
  test.each([
    [{ "x-ratelimit-reset-requests": "3", "x-ratelimit-reset-tokens": "9" }, 9000],
    [
      {
        "x-ratelimit-reset-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-tokens": "9",
        "x-ratelimit-remaining-tokens": "500",
      },
      3000,
    ],
    [
      {
        "x-ratelimit-reset-requests": "-1",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-tokens": "0",
      },
      0,
    ],
    [{ "x-ratelimit-reset-tokens": "86400" }, 60_000],
    [{ "x-ratelimit-reset-tokens": "1m0s" }, 0],
    [{}, 0],
  ])("%j: %d", (headers, ms) => {
    expect(azureResetMs(headers)).toBe(ms);
    expect(azureError(429, headers, Buffer.from("{}"))).toMatchObject({ health: "rate_limit", retryAfterMs: ms });
  });
});
