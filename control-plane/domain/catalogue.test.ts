import { describe, expect, test } from "vitest";
import { ErrorReason } from "../../proto/gen/tokenbill/v1/error_pb.ts";
import { ProviderFormat as WireFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { compileSimplePrice } from "../../core/pricing.ts";
import { UnitKind } from "../../core/meters.ts";
import { checkRoutable, checkTargets, isRoutableFormat, ProviderFormat, type TargetModel } from "./catalogue.ts";
import { type DomainError, ERROR_CODES } from "./errors.ts";
import { checkBaseUrl, checkHeaders } from "./upstream_address.ts";

function failure(fn: () => unknown): { code: string; field: string | undefined } | null {
  try {
    fn();
    return null;
  } catch (error) {
    const { code, field } = error as DomainError;
    return { code, field };
  }
}

describe("the domain's words equal the schema's", () => {
  test("error codes", () => {
    const reasons = Object.keys(ErrorReason).filter((name) => name !== "UNSPECIFIED");
    expect(ERROR_CODES.map((code) => code.toUpperCase())).toStrictEqual(reasons);
  });

  test("provider formats", () => {
    expect(Object.entries(ProviderFormat)).toStrictEqual(
      Object.entries(WireFormat).filter(([name]) => name !== "UNSPECIFIED"),
    );
    expect([0, 1, 2, 3, 4, 5].filter(isRoutableFormat)).toStrictEqual([1, 2, 3, 4]);
  });
});

describe("targets", () => {
  const target = (physicalModelId: string, weight: number, tier = 0) => ({ physicalModelId, weight, tier });
  const tokens = compileSimplePrice("price_a", { unit: UnitKind.TOKENS, creditPerUnit: "0", perUnits: 1n });
  const requests = compileSimplePrice("price_b", { unit: UnitKind.REQUESTS, creditPerUnit: "1", perUnits: 1n });
  const images = compileSimplePrice("price_c", { unit: UnitKind.IMAGES, creditPerUnit: "1", perUnits: 1n });
  const models = new Map<string, TargetModel>(
    [
      { id: "free", format: 1, price: tokens },
      { id: "each", format: 1, price: requests },
      { id: "pictures", format: 1, price: images },
      { id: "unpriced", format: 1, price: null },
      { id: "claude", format: 3, price: tokens },
      { id: "newer", format: 5, price: tokens },
    ].map((model) => [model.id, model]),
  );

  test.each([
    [[target("a", 1)], null],
    [[target("a", 0), target("b", 1, 3)], null],
    [[target("a", 0)], { code: "invalid_field", field: "t" }],
    [[], { code: "invalid_field", field: "t" }],
    [[target("a", 1), target("b", 1), target("a", 1, 2)], { code: "invalid_field", field: "t[2].physical_model_id" }],
  ])("checkTargets %j", (targets, expected) => {
    expect(failure(() => checkTargets(targets, "t"))).toStrictEqual(expected);
  });

  test.each([
    ["free", null],
    ["each", null],
    ["pictures", null],
    ["unpriced", "no_price"],
    ["claude", null],
    ["newer", "format_not_routable"],
    ["nobody", "not_found"],
  ])("checkRoutable %s", (id, code) => {
    const expected = code === null ? null : { code, field: "t[1].physical_model_id" };
    expect(failure(() => checkRoutable([target("free", 1), target(id, 1)], models, "t"))).toStrictEqual(expected);
  });
});

describe("base URLs", () => {
  test.each([
    ["https://api.openai.com/v1", "https://api.openai.com/v1"],
    ["https://API.OpenAI.com/v1/", "https://api.openai.com/v1"],
    ["http://example.com", "http://example.com"],
    ["https://example.com:8443/a/b/", "https://example.com:8443/a/b"],
    ["https://[2606:4700::1]/v1", "https://[2606:4700::1]/v1"],
  ])("%s is stored as %s", (text, stored) => {
    expect(checkBaseUrl(text, false)).toBe(stored);
  });

  test.each([
    ["http://127.0.0.1:9000/v1", true],
    ["http://localhost:9000", true],
    ["http://a.localhost", true],
    ["http://10.1.2.3", true],
    ["http://[::1]:1", true],
    ["http://[fd00::1]", true],
    ["http://127.1", true],
    ["http://0x7f.1", true],
    ["http://169.254.169.254", false],
    ["http://[::ffff:a9fe:a9fe]", false],
    ["http://0.0.0.0", false],
    ["http://224.0.0.1", false],
  ])("%s is allowed when private ones are: %s, and never otherwise", (text, allowed) => {
    expect(failure(() => checkBaseUrl(text, true))).toStrictEqual(
      allowed ? null : { code: "address_not_allowed", field: "base_url" },
    );
    expect(failure(() => checkBaseUrl(text, false))).toStrictEqual({ code: "address_not_allowed", field: "base_url" });
  });

  test.each([
    "",
    "x",
    "//example.com",
    "file:///etc/passwd",
    "ftp://example.com",
    "javascript:alert(1)",
    "https://",
    "https://u@example.com",
    "https://:p@example.com",
    "https://example.com/?",
    "https://example.com/#",
    "https://example.com?a=b",
  ])("'%s' is refused", (text) => {
    expect(failure(() => checkBaseUrl(text, true))).toStrictEqual({ code: "invalid_field", field: "base_url" });
  });
});

describe("headers", () => {
  test.each([
    "OpenAI-Organization",
    "openai-project",
    "anthropic-version",
    "x-max-tokens",
    "x-title",
    "HTTP-Referer",
    "x-author",
  ])("%s is allowed", (name) => {
    expect(failure(() => checkHeaders({ [name]: "v" }))).toBeNull();
  });

  test.each([
    "authorization",
    "Proxy-Authorization",
    "api-key",
    "X-Api-Key",
    "x-goog-api-key",
    "x-amz-security-token",
    "Cookie",
    "Set-Cookie",
    "x-secret",
    "client_secret",
    "Host",
    "TE",
    "Upgrade",
    "Content-Length",
    "Keep-Alive",
    "Transfer-Encoding",
  ])("%s is refused", (name) => {
    expect(failure(() => checkHeaders({ [name]: "v" }))).toMatchObject({ code: "invalid_field" });
  });

  test("names that differ by case alone are refused", () => {
    expect(failure(() => checkHeaders({ "X-A": "1", "x-a": "2" }))).toMatchObject({
      code: "invalid_field",
      field: 'headers["x-a"]',
    });
  });
});
