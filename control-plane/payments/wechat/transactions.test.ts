/** Native, JSAPI and Mini Program payments and their refunds, over HTTP against WeChat Pay's imitation. */

import { createVerify } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PaymentMethod } from "../../domain/checkout.ts";
import type { PaymentOrder, ProcessorAccount } from "../payment.ts";
import { byPublicKey, keyPair, MERCHANT, privatePem } from "./testing_keys.ts";
import type { PayFault } from "./testing_pay.ts";
import { known, newOrder, newRefund, startWechatWorld, type WechatWorld } from "./testing_wechat.ts";

const { WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM } = PaymentMethod;

let world: WechatWorld;
let account: ProcessorAccount;
let accounts = 0;
beforeAll(async () => {
  world = await startWechatWorld();
});
afterAll(() => world.close());
beforeEach(() => {
  // Nothing is kept from one test to the next.
  account = world.account({}, `pay_${++accounts}`);
  world.pay.faults.length = 0;
  world.open.faults.length = 0;
  world.pay.platform.certificates = true;
  world.pay.platform.skewMs = 0;
  world.pay.balance = 1e9;
});

const pathsSince = (count: number): string[] => world.pay.calls.slice(count).map(({ url }) => url.pathname);

async function paidOrder(changes: Partial<PaymentOrder> = {}) {
  const order = newOrder(world, changes);
  const { reference, details } = await account.start(order);
  const paid = world.pay.payOrder(reference);
  return { order, payment: known(order, { reference, details }), transactionId: paid.transactionId };
}

describe("paying", () => {
  test("Native: a QR code, paid, found", async () => {
    const order = newOrder(world);
    const started = await account.start(order);
    expect(started).toEqual({
      reference: order.paymentId,
      action: { kind: "qr_code", text: expect.stringMatching(/^weixin:\/\/wxpay\/bizpayurl\?pr=/) as string },
      details: { app_id: MERCHANT.appId },
    });
    expect(world.pay.orders.get(order.paymentId)!.body).toMatchObject({
      description: "示例商店 - 5,000,000 Credits",
      time_expire: "2025-11-25T00:30:00+08:00",
      notify_url: order.notificationUrl,
      amount: { total: 36_800, currency: "CNY" },
    });
    const payment = known(order, started);
    expect(await account.find(payment)).toEqual({ state: "pending" });
    const { transactionId } = world.pay.payOrder(order.paymentId);
    expect(await account.find(payment)).toEqual({
      state: "paid",
      currency: "CNY",
      amountMinor: 36_800n,
      settledReference: transactionId,
      paymentId: order.paymentId,
      paidAtMs: world.clock.nowMs,
      details: { transaction_id: transactionId },
      savedMethod: null,
    });
  });

  test.each([
    [WECHAT_JSAPI, MERCHANT.appId],
    [WECHAT_MINI_PROGRAM, MERCHANT.miniProgramAppId],
  ])("method %i: what WeChat's own call takes, signed", async (method, appId) => {
    const order = newOrder(world, { method });
    const { action, details } = await account.start(order);
    if (action.kind !== "wechat_pay") throw new Error(action.kind);
    expect(action).toMatchObject({ appId, signType: "RSA", timeStamp: String(world.clock.nowMs / 1_000) });
    expect(action.packageValue).toBe(`prepay_id=${world.pay.orders.get(order.paymentId)!.token}`);
    expect(action.nonceStr).toMatch(/^\w{32}$/);
    const text = `${appId}\n${action.timeStamp}\n${action.nonceStr}\n${action.packageValue}\n`;
    expect(
      createVerify("RSA-SHA256").update(text).verify(keyPair("merchant").publicKey, action.paySign, "base64"),
    ).toBe(true);
    expect(world.pay.orders.get(order.paymentId)!.body).toMatchObject({ payer: { openid: `o-${appId}-payer` } });
    world.pay.payOrder(order.paymentId);
    expect(await account.find(known(order, { details }))).toMatchObject({ state: "paid", amountMinor: 36_800n });
  });

  test("by the public key, certificates are never asked for", async () => {
    world.pay.platform.certificates = false;
    account = world.account(byPublicKey(), `pay_${++accounts}`);
    const before = world.pay.calls.length;
    const { payment } = await paidOrder();
    expect(await account.find(payment)).toMatchObject({ state: "paid" });
    expect(pathsSince(before)).toHaveLength(2);
  });

  test("an order is found by the payment's id alone", async () => {
    const order = newOrder(world);
    expect(await account.find(known(order, { reference: null }))).toEqual({ state: "unknown" });
    world.pay.faults.push({ how: "cut", on: /native/ });
    await expect(account.start(order)).rejects.toMatchObject({ code: "unreachable" });
    expect(await account.find(known(order, { reference: null }))).toEqual({ state: "pending" });
    world.pay.payOrder(order.paymentId);
    expect(await account.find(known(order, { reference: null }))).toMatchObject({ state: "paid" });
  });

  test("sent again after its answer was lost, it is the same order, and the same code serves", async () => {
    for (const method of [WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM]) {
      const order = newOrder(world, { method });
      world.pay.faults.push({ how: "cut", on: /native|jsapi/ });
      await expect(account.start(order)).rejects.toMatchObject({ code: "unreachable", failure: "unreachable" });
      const { token } = world.pay.orders.get(order.paymentId)!;
      expect(JSON.stringify((await account.start(order)).action)).toContain(token);
    }
  });

  test("sent again when it was paid meanwhile, it is not given up", async () => {
    const { order, payment } = await paidOrder();
    await expect(account.start(order)).rejects.toMatchObject({ code: "unreachable", failure: "already_paid" });
    expect(await account.find(payment)).toMatchObject({ state: "paid" });
  });

  test("another currency is refused before anybody is asked", async () => {
    const before = world.pay.calls.length;
    await expect(account.start(newOrder(world, { currency: "USD" }))).rejects.toMatchObject({ code: "refused" });
    expect(world.pay.calls).toHaveLength(before);
  });

  test.each([
    ["used", "code_used", /authorize again/],
    ["of nobody", "code_invalid", /authorize again/],
    ["", "code_missing", /authorize again/],
    ["x".repeat(300), "code_invalid", /authorize again/],
  ])("a code that is %s is refused with a remedy", async (wechatCode, failure, message) => {
    let code = wechatCode;
    if (code === "used") {
      code = world.open.sessions.newCode(MERCHANT.appId);
      await world.account({}, "pay_other").start(newOrder(world, { method: WECHAT_JSAPI, wechatCode: code }));
    }
    const order = { ...newOrder(world), method: WECHAT_JSAPI, wechatCode: code };
    const refused = expect(account.start(order)).rejects;
    await refused.toMatchObject({ code: "refused", failure, message: expect.stringMatching(message) as string });
  });

  test("of a code that was made for another app WeChat Pay says so", async () => {
    const wechatCode = world.open.sessions.newCode(MERCHANT.appId);
    const order = newOrder(world, { method: WECHAT_JSAPI, wechatCode });
    world.pay.faults.push({ how: "instead", on: /jsapi/, instead: { status: 500, body: { code: "OPENID_MISMATCH" } } });
    await expect(account.start(order)).rejects.toMatchObject({ code: "refused", failure: "openid_mismatch" });
  });

  test.each([
    [{ appSecret: "wrong" }, WECHAT_JSAPI, "app_secret"],
    [{ appId: "wx0" }, WECHAT_JSAPI, "app_id"],
    [{ miniProgramAppSecret: "wrong" }, WECHAT_MINI_PROGRAM, "app_secret"],
    [{ appId: "wx0" }, WECHAT_NATIVE, "appid_mchid_not_match"],
    [{ certificateSerialNo: "ABCDEF0123456789" }, WECHAT_NATIVE, "sign_error"],
    [{ privateKey: privatePem("attacker") }, WECHAT_NATIVE, "sign_error"],
    [{ merchantNumber: "1900000110" }, WECHAT_NATIVE, "sign_error"],
    [{ apiV3Key: "x".repeat(32) }, WECHAT_NATIVE, "api_v3_key"],
    [{ appId: "" }, WECHAT_NATIVE, "app_id"],
  ])("wrong credentials %j are told apart", async (changes, method, failure) => {
    const other = world.account(changes, `pay_${++accounts}`);
    await expect(other.start(newOrder(world, { method }))).rejects.toMatchObject({ code: "misconfigured", failure });
  });

  test("a merchant without certificates is told to set the public key", async () => {
    world.pay.platform.certificates = false;
    const order = newOrder(world);
    const refused = expect(account.start(order)).rejects;
    await refused.toMatchObject({
      code: "misconfigured",
      failure: "no_certificates",
      message: expect.stringMatching(/platform_public_key_id/) as string,
    });
    // Nothing is done whose answer could not be checked.
    expect(world.pay.orders.has(order.paymentId)).toBe(false);
  });
});

describe("answers that are not believed", () => {
  const faults: readonly (readonly [PayFault["how"], string])[] = [
    ["down", "busy"],
    ["cut", "unreachable"],
    ["unsigned", "answer_unsigned"],
    ["bad_signature", "answer_bad"],
    ["probe", "answer_bad"],
    ["changed_body", "answer_bad"],
    ["stale", "answer_stale"],
    ["unknown_serial", "answer_unknown_serial"],
    ["not_json", "malformed"],
    ["too_long", "answer_too_long"],
  ];
  test.each(faults)("%s", async (how, failure) => {
    const { payment } = await paidOrder();
    world.pay.faults.push({ how, on: /out-trade-no/ });
    await expect(account.find(payment)).rejects.toMatchObject({ code: "unreachable", failure });
    expect(await account.find(payment)).toMatchObject({ state: "paid" });
  });

  test("an error that nobody signed is no error of WeChat Pay's", async () => {
    const { payment } = await paidOrder();
    const instead = { status: 404, body: { code: "ORDER_NOT_EXIST", message: "" } };
    world.pay.faults.push({ how: "unsigned", on: /out-trade-no/, instead });
    await expect(account.find(payment)).rejects.toMatchObject({ code: "unreachable", failure: "answer_unsigned" });
    world.pay.faults.push({ how: "instead", on: /out-trade-no/, instead });
    expect(await account.find(payment)).toEqual({ state: "unknown" });
  });

  test("clocks may differ by five minutes, and no more", async () => {
    const { payment } = await paidOrder();
    for (const skewMs of [-300_000, 300_000]) {
      world.pay.platform.skewMs = skewMs;
      expect(await account.find(payment)).toMatchObject({ state: "paid" });
    }
    for (const skewMs of [-301_000, 301_000]) {
      world.pay.platform.skewMs = skewMs;
      const refused = expect(account.find(payment)).rejects;
      await refused.toMatchObject({ failure: "answer_stale", message: expect.stringMatching(/clock/) as string });
    }
  });

  test.each([
    ["mchid", { mchid: "1900000110" }],
    ["appid", { appid: "wx0000000000000000" }],
    ["order", { out_trade_no: "pmt_somebodyelse" }],
  ])("a payment of another %s is not ours", async (_, change) => {
    const { order, payment } = await paidOrder();
    const told = {
      appid: MERCHANT.appId,
      mchid: MERCHANT.merchantNumber,
      out_trade_no: order.paymentId,
      transaction_id: "4200",
      trade_state: "SUCCESS",
    };
    const body = { ...told, amount: { total: 36_800, currency: "CNY" }, ...change };
    world.pay.faults.push({ how: "instead", on: /out-trade-no/, instead: { status: 200, body } });
    await expect(account.find(payment)).rejects.toMatchObject({ code: "misconfigured", failure: "other_order" });
  });

  test("what was paid is told as WeChat Pay says it, for others to compare", async () => {
    const { order, payment } = await paidOrder();
    const told = {
      appid: MERCHANT.appId,
      mchid: MERCHANT.merchantNumber,
      out_trade_no: order.paymentId,
      transaction_id: "4200",
      trade_state: "SUCCESS",
    };
    const answer = (amount: unknown, more = {}): void => {
      world.pay.faults.push({
        how: "instead",
        on: /out-trade-no/,
        instead: { status: 200, body: { ...told, ...more, amount } },
      });
    };
    answer({ total: 1, currency: "USD" });
    expect(await account.find(payment)).toMatchObject({
      amountMinor: 1n,
      currency: "USD",
      paidAtMs: world.clock.nowMs,
    });
    for (const amount of [null, {}, { total: "36800" }, { total: 1.5 }, { total: -1 }, { total: 1e300 }]) {
      answer(amount);
      await expect(account.find(payment)).rejects.toMatchObject({ code: "unreachable", failure: "malformed" });
    }
    answer({ total: 36_800 }, { transaction_id: "" });
    await expect(account.find(payment)).rejects.toMatchObject({ failure: "malformed" });
    answer({ total: 36_800 }, { trade_state: "NEW" });
    await expect(account.find(payment)).rejects.toMatchObject({ failure: "unknown_state" });
  });
});

test.each([
  ["NOTPAY", { state: "pending" }],
  ["USERPAYING", { state: "pending" }],
  ["CLOSED", { state: "closed" }],
  ["REVOKED", { state: "closed" }],
  ["PAYERROR", { state: "failed", failure: "payment_error" }],
] as const)("trade state %s", async (state, expected) => {
  const order = newOrder(world);
  await account.start(order);
  world.pay.orders.get(order.paymentId)!.state = state;
  expect(await account.find(known(order))).toEqual(expected);
});

describe("closing", () => {
  test("what nobody paid cannot be paid any more", async () => {
    const order = newOrder(world);
    await account.start(order);
    expect(await account.close(known(order))).toEqual({ state: "closed" });
    expect(() => world.pay.payOrder(order.paymentId)).toThrow("CLOSED");
    expect(await account.close(known(order))).toEqual({ state: "closed" });
    await expect(account.start(order)).rejects.toMatchObject({ code: "refused", failure: "order_closed" });
  });

  test("too late, it says that it is paid", async () => {
    const { payment } = await paidOrder();
    expect(await account.close(payment)).toMatchObject({ state: "paid", amountMinor: 36_800n });
  });

  test("an order that never was is unknown, although WeChat Pay says 204", async () => {
    expect(await account.close(known(newOrder(world)))).toEqual({ state: "unknown" });
  });
});

describe("refunds", () => {
  test("in parts, and how they end", async () => {
    const { payment, transactionId } = await paidOrder();
    const first = newRefund(payment, transactionId, 10_000n);
    const asked = await account.refund(first);
    expect(asked).toEqual({ state: "pending", reference: expect.stringMatching(/^5030/) as string, failure: "" });
    // Sent again it is the same one.
    expect(await account.refund(first)).toEqual(asked);
    expect(world.pay.balance).toBe(1e9 - 10_000);
    expect(world.pay.refunds.get(first.refundId)).toMatchObject({ refund: 10_000 });
    for (const [status, state, failure] of [
      ["ABNORMAL", "pending", "abnormal"],
      ["SUCCESS", "succeeded", ""],
      ["CLOSED", "failed", "closed"],
    ] as const) {
      world.pay.settleRefund(first.refundId, status);
      expect(await account.findRefund(first)).toEqual({ state, failure, reference: asked.reference });
    }
    expect(await account.find(payment)).toMatchObject({ state: "paid", amountMinor: 36_800n });
    const rest = newRefund(payment, transactionId, 36_800n);
    expect(await account.refund(rest)).toMatchObject({ state: "pending" });
    const more = newRefund(payment, transactionId, 1n);
    await expect(account.refund(more)).rejects.toMatchObject({ code: "refused", failure: "invalid_request" });
  });

  test("one that WeChat Pay never heard of is asked for again; one whose answer was lost is not", async () => {
    const { payment, transactionId } = await paidOrder();
    const refund = newRefund(payment, transactionId, 100n);
    expect(await account.findRefund(refund)).toMatchObject({ state: "pending" });
    const lost = newRefund(payment, transactionId, 200n);
    world.pay.faults.push({ how: "cut", on: /refunds$/ });
    await expect(account.refund(lost)).rejects.toMatchObject({ code: "unreachable" });
    const before = world.pay.calls.length;
    expect(await account.findRefund(lost)).toMatchObject({ state: "pending" });
    expect(pathsSince(before)).toEqual([`/v3/refund/domestic/refunds/${lost.refundId}`]);
    expect(world.pay.balance).toBe(1e9 - 300);
  });

  test("the merchant's balance is too small", async () => {
    const { payment, transactionId } = await paidOrder();
    world.pay.balance = 50;
    const refused = expect(account.refund(newRefund(payment, transactionId, 100n))).rejects;
    await refused.toMatchObject({
      code: "refused",
      failure: "not_enough",
      message: expect.stringMatching(/top it up/) as string,
    });
  });

  test("what WeChat Pay does not find yet is asked for again", async () => {
    const { payment } = await paidOrder();
    const refund = newRefund(payment, "420000000000", 100n);
    await expect(account.refund(refund)).rejects.toMatchObject({ code: "unreachable", failure: "payment_not_found" });
  });

  test("another refund, another amount or another payment is not taken for it", async () => {
    const { payment, transactionId } = await paidOrder();
    const refund = newRefund(payment, transactionId, 100n);
    await account.refund(refund);
    const told = world.pay.describeRefund(world.pay.refunds.get(refund.refundId)!);
    for (const change of [{ out_refund_no: "rfd_another" }, { transaction_id: "4200" }, { amount: { refund: 99 } }]) {
      world.pay.faults.push({ how: "instead", on: /refunds/, instead: { status: 200, body: { ...told, ...change } } });
      await expect(account.findRefund(refund)).rejects.toMatchObject({
        code: "misconfigured",
        failure: "other_refund",
      });
    }
    for (const change of [{ refund_id: "" }, { status: "NEW" }]) {
      world.pay.faults.push({ how: "instead", on: /refunds/, instead: { status: 200, body: { ...told, ...change } } });
      await expect(account.findRefund(refund)).rejects.toMatchObject({ code: "unreachable", failure: "malformed" });
    }
  });
});

test("secrets are in no error and no log", async () => {
  const order = newOrder(world, { method: WECHAT_JSAPI });
  const texts: string[] = [];
  world.open.faults.push(
    { on: /sns/, errcode: "cut" },
    { on: /sns/, errcode: "garbage" },
    { on: /sns/, errcode: 40125 },
  );
  for (let at = 0; at < 3; at += 1) {
    await account
      .start(order)
      .catch((error: unknown) => texts.push(String(error), JSON.stringify(error), String((error as Error).stack)));
  }
  expect(texts).toHaveLength(9);
  const all = [...texts, ...world.logLines].join("\n");
  for (const secret of [MERCHANT.appSecret, MERCHANT.apiV3Key, order.wechatCode]) expect(all).not.toContain(secret);
});
