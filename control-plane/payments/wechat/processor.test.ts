import { afterAll, beforeAll, expect, test } from "vitest";
import { PaymentMethod, PaymentProcessor } from "../../domain/checkout.ts";
import { createHttp } from "./http.ts";
import { serve } from "./testing_http.ts";
import { MERCHANT, wechatCredentials } from "./testing_keys.ts";
import { startWechatWorld, type WechatWorld } from "./testing_wechat.ts";

let world: WechatWorld;
beforeAll(async () => {
  world = await startWechatWorld();
});
afterAll(() => world.close());

test("what it is and can do", () => {
  const { processor } = world;
  expect(processor.processor).toBe(PaymentProcessor.WECHAT_PAY);
  expect(processor.currencies(PaymentMethod.WECHAT_NATIVE)).toEqual(["CNY"]);
  expect(processor.canSave(PaymentMethod.WECHAT_JSAPI)).toBe(false);
  const account = world.account();
  expect([account.chargeSaved, account.forgetSaved]).toEqual([undefined, undefined]);
  expect(processor.checkCredentials(wechatCredentials()).hint).toBe(MERCHANT.merchantNumber);
});

test("where WeChat's browser gets the code for JSAPI", () => {
  const account = { id: "pay_1", merchantId: "mer_1", credentials: wechatCredentials(), test: false };
  const url = world.processor.authorizeUrl(
    account,
    PaymentMethod.WECHAT_JSAPI,
    "https://pay.example/checkout/cs_1?a=b c",
  );
  expect(url).toBe(
    `https://open.weixin.qq.com/connect/oauth2/authorize?appid=${MERCHANT.appId}&redirect_uri=https%3A%2F%2Fpay.example%2Fcheckout%2Fcs_1%3Fa%3Db+c&response_type=code&scope=snsapi_base&state=wechat#wechat_redirect`,
  );
  expect(world.processor.authorizeUrl(account, PaymentMethod.WECHAT_NATIVE, "https://pay.example/")).toBe("");
  const without = { ...account, credentials: wechatCredentials({ appId: "", appSecret: "" }) };
  expect(world.processor.authorizeUrl(without, PaymentMethod.WECHAT_JSAPI, "https://pay.example/")).toBe("");
});

test("calls end by themselves, are not redirected, and say nothing of the address", async () => {
  const slow = await serve(({ url }) => {
    if (url.pathname === "/moved") return { status: 302, headers: { location: "/slow" }, body: "" };
    return new Promise(() => undefined);
  });
  try {
    const http = createHttp(50);
    const call = (path: string) =>
      http({ method: "GET", url: `${slow.url}${path}?secret=5f4d`, headers: {}, body: null });
    const failed: unknown = await call("/slow").catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: "unreachable", message: "WeChat could not be reached: timeout" });
    expect(await call("/moved")).toMatchObject({ status: 302 });
  } finally {
    await slow.close();
  }
  const failed: unknown = await createHttp()({
    method: "GET",
    url: `${slow.url}/?secret=5f4d`,
    headers: {},
    body: null,
  }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ message: "WeChat could not be reached: econnrefused" });
});
