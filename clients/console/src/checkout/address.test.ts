import { describe, expect, test } from "vitest";
import { parseAddress, safeDestination, sessionPath } from "./address.ts";

const at = (text: string) => parseAddress(new URL(text, "https://pay.example"));

describe("addresses", () => {
  test("a link opens a session", () => {
    const origin = { veId: "ve_a", link: "1.abc", returnUrl: "https://app.example/back" };
    expect(at(`/checkout?ve_id=ve_a&link=1.abc&return_url=${encodeURIComponent(origin.returnUrl)}`)).toEqual({
      kind: "new",
      origin,
    });
    expect(at("/checkout/?ve_id=ve_a")).toEqual({ kind: "new", origin: { veId: "ve_a", link: "", returnUrl: "" } });
  });

  test.each([
    ["/checkout/cs_a", null, null],
    ["/checkout/cs_a#tbc_Ab-9_", "tbc_Ab-9_", null],
    ["/checkout/cs_a#tbk_other", null, null],
    ["/checkout/cs_a#tbc_a%20b", null, null],
    ["/checkout/cs_a?code=wx1&state=s", null, "wx1"],
    ["/checkout/cs_a?code=", null, null],
    [`/checkout/cs_a?code=${"x".repeat(257)}`, null, null],
  ])("%s is of a session", (text, secret, wechatCode) => {
    expect(at(text)).toEqual({ kind: "session", id: "cs_a", secret, wechatCode });
  });

  test.each([
    "/checkout",
    "/checkout?ve_id=",
    `/checkout?ve_id=${"v".repeat(65)}`,
    "/checkout/a/b",
    "/other?ve_id=ve_a",
  ])("%s leads nowhere", (text) => expect(at(text)).toEqual({ kind: "none" }));

  test("a session's path is read back", () => {
    expect(at(sessionPath("/checkout", "cs_a"))).toMatchObject({ id: "cs_a" });
  });
});

describe("behind a proxy that has put it below a path", () => {
  test.each(["/pay", "/a/b.c", "/checkout/x"])("%s", (base) => {
    expect(at(`${base}/checkout?ve_id=ve_a`)).toMatchObject({ kind: "new", origin: { veId: "ve_a" } });
    expect(sessionPath(`${base}/checkout`, "cs_a")).toBe(`${base}/checkout/cs_a`);
    expect(sessionPath(`${base}/checkout/cs_b`, "cs_a")).toBe(`${base}/checkout/cs_a`);
    expect(at(`${base}/checkout/cs_a#tbc_1`)).toMatchObject({ kind: "session", id: "cs_a", secret: "tbc_1" });
  });
});

describe("destinations", () => {
  const page = "http://192.0.2.7:8080/checkout/cs_a";
  test.each([
    ["https://checkout.stripe.com/c/pay/cs#frag", "https://checkout.stripe.com/c/pay/cs#frag"],
    ["/sandbox/pay/pmt_1", "http://192.0.2.7:8080/sandbox/pay/pmt_1"],
    ["http://192.0.2.7:8080/x", "http://192.0.2.7:8080/x"],
    ["http://127.0.0.1:3000/back", "http://127.0.0.1:3000/back"],
    ["http://localhost/back", "http://localhost/back"],
    ["http://[::1]:9/back", "http://[::1]:9/back"],
  ])("%s is safe", (text, href) => expect(safeDestination(text, page)?.href).toBe(href));

  test.each([
    "javascript:alert(1)",
    " java\nscript:alert(1)",
    "data:text/html,x",
    "blob:https://a/b",
    "http://192.0.2.7:8081/x",
    "http://shop.example/",
    "http://localhost.evil.example/",
    "http://127.0.0.1.evil.example/",
    "https://user:secret@shop.example/",
    "weixin://wxpay",
    "https://",
  ])("%s is not", (text) => expect(safeDestination(text, page)).toBeNull());
});
