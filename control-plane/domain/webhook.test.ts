import { describe, expect, test } from "vitest";
import { DomainError } from "./errors.ts";
import { checkEventTypes, checkWebhookUrl, judgeAttempt, RETRY_DELAYS_MS, wantsEvent } from "./webhook.ts";

const DAY_MS = 86_400_000;

function failure(fn: () => unknown): DomainError {
  try {
    fn();
  } catch (error) {
    if (error instanceof DomainError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("URLs", () => {
  test.each([
    ["https://shop.example/hooks?tenant=1&x=%20", "https://shop.example/hooks?tenant=1&x=%20"],
    ["HTTPS://Shop.Example:8443", "https://shop.example:8443/"],
    ["https://93.184.216.34/h", "https://93.184.216.34/h"],
    ["https://[2606:2800:220:1::1]/h", "https://[2606:2800:220:1::1]/h"],
  ])("%s is taken", (text, stored) => {
    expect(checkWebhookUrl(text, false)).toBe(stored);
  });

  test.each([
    ["shop.example/hooks", "invalid_field"],
    ["ftp://shop.example/", "invalid_field"],
    ["http://shop.example/", "invalid_field"],
    ["https://user:pw@shop.example/", "invalid_field"],
    ["https://shop.example/#there", "invalid_field"],
    ["https://shop.example/#", "invalid_field"],
    ["https://localhost/", "address_not_allowed"],
    ["https://api.localhost./", "address_not_allowed"],
    ["https://127.0.0.1/", "address_not_allowed"],
    ["https://2130706433/", "address_not_allowed"],
    ["https://0x7f.1/", "address_not_allowed"],
    ["https://10.1.2.3/", "address_not_allowed"],
    ["https://[::1]/", "address_not_allowed"],
    ["https://[::ffff:127.0.0.1]/", "address_not_allowed"],
    ["https://169.254.169.254/latest/meta-data", "address_not_allowed"],
  ])("%s is refused", (text, code) => {
    expect(failure(() => checkWebhookUrl(text, false))).toMatchObject({ code, field: "url" });
  });

  test("private addresses and http are for deployments that allow them; link-local ones are for none", () => {
    expect(checkWebhookUrl("http://localhost:3000/h", true)).toBe("http://localhost:3000/h");
    expect(checkWebhookUrl("http://10.0.0.1/h", true)).toBe("http://10.0.0.1/h");
    expect(failure(() => checkWebhookUrl("http://169.254.169.254/", true)).code).toBe("address_not_allowed");
    expect(failure(() => checkWebhookUrl("ftp://10.0.0.1/", true)).code).toBe("invalid_field");
  });
});

describe("event types", () => {
  const KNOWN = ["wallet.low", "wallet.exhausted", "auto_top_up.failed"];

  test("known ones and whole kinds are taken", () => {
    checkEventTypes([...KNOWN, "wallet.*", "auto_top_up.*"], KNOWN);
    expect(failure(() => checkEventTypes(["wallet.low", "wallet.full"], KNOWN))).toMatchObject({
      code: "invalid_field",
      field: "event_types[1]",
      message:
        "event_types[1]: there is no event of this type; there are wallet.low, wallet.exhausted, auto_top_up.failed, wallet.*, auto_top_up.*",
    });
    expect(failure(() => checkEventTypes(["walle.*"], KNOWN)).code).toBe("invalid_field");
  });

  test.each([
    [[], true],
    [["wallet.low"], true],
    [["wallet.*"], true],
    [["checkout.fulfilled", "wallet.*"], true],
    [["wallet.exhausted"], false],
    [["checkout.*"], false],
  ] as const)("%j wants wallet.low: %s", (types, wants) => {
    expect(wantsEvent(types, "wallet.low")).toBe(wants);
  });
});

describe("attempts", () => {
  test.each([200, 201, 204, 299])("%i is delivered", (status) => {
    expect(judgeAttempt(status, 1, 0.5)).toEqual({ kind: "delivered" });
  });

  test("410 is gone, everything else is tried again", () => {
    expect(judgeAttempt(410, 1, 0.5)).toEqual({ kind: "gone" });
    for (const status of [0, 300, 301, 307, 400, 404, 429, 500, 503]) {
      expect(judgeAttempt(status, 1, 0.5)).toEqual({ kind: "retry", delayMs: 5000 });
    }
  });

  test("pauses grow, are spread by a tenth, and end after about three days", () => {
    const pauses = RETRY_DELAYS_MS.map((delayMs, i) => {
      expect(judgeAttempt(500, i + 1, 0)).toEqual({ kind: "retry", delayMs: Math.round(delayMs * 0.9) });
      expect(judgeAttempt(500, i + 1, 1)).toEqual({ kind: "retry", delayMs: Math.round(delayMs * 1.1) });
      return delayMs;
    });
    expect(pauses).toEqual(pauses.toSorted((a, b) => a - b));
    const allMs = pauses.reduce((sum, pause) => sum + pause, 0);
    expect(allMs / DAY_MS).toBeGreaterThan(2.75);
    expect(allMs / DAY_MS).toBeLessThan(3.25);
    expect(judgeAttempt(500, RETRY_DELAYS_MS.length + 1, 0.5)).toEqual({ kind: "failed" });
    expect(judgeAttempt(200, RETRY_DELAYS_MS.length + 5, 0.5)).toEqual({ kind: "delivered" });
  });
});
