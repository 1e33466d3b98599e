/** Virtual Payment over HTTP against its imitation. */

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PaymentMethod } from "../../domain/checkout.ts";
import type { PaymentOrder, ProcessorAccount } from "../payment.ts";
import { type CredentialChanges, MERCHANT } from "./testing_keys.ts";
import { known, newOrder, newRefund, startWechatWorld, type WechatWorld } from "./testing_wechat.ts";

const { WECHAT_VIRTUAL } = PaymentMethod;
const OPENID = `o-${MERCHANT.miniProgramAppId}-payer`;
const HOUR_MS = 3_600_000;

let world: WechatWorld;
let account: ProcessorAccount;
let accounts = 0;
const open = (changes: CredentialChanges = {}): ProcessorAccount => world.account(changes, `pay_${++accounts}`);
beforeAll(async () => {
  world = await startWechatWorld();
});
afterAll(() => world.close());
beforeEach(() => {
  account = open();
  world.open.faults.length = 0;
});

async function start(changes: Partial<PaymentOrder> = {}, by: ProcessorAccount = account) {
  const order = newOrder(world, { method: WECHAT_VIRTUAL, ...changes });
  const { action, details, reference } = await by.start(order);
  if (action.kind !== "wechat_virtual") throw new Error(action.kind);
  return { order, action, payment: known(order, { details, reference }) };
}

async function paid(by: ProcessorAccount = account) {
  const { action, payment } = await start({}, by);
  return { payment, order: world.open.xpay.payVirtual(action, OPENID) };
}

const callsOf = (path: string): number => world.open.calls.filter(({ url }) => url.pathname === path).length;

describe("paying", () => {
  test("what the phone takes, paid, found", async () => {
    const { order, action, payment } = await start();
    expect(JSON.parse(action.signData)).toEqual({
      offerId: MERCHANT.virtualOfferId,
      buyQuantity: 36_800,
      env: 0,
      currencyType: "CNY",
      productId: MERCHANT.virtualProductId,
      goodsPrice: 1,
      outTradeNo: order.paymentId,
      attach: order.paymentId,
    });
    expect(payment).toMatchObject({ reference: order.paymentId, details: { openid: OPENID } });
    // WeChat knows nothing of it until the phone has made it.
    expect(await account.find(payment)).toEqual({ state: "pending" });
    const { wxOrderId } = world.open.xpay.payVirtual(action, OPENID);
    expect(await account.find(payment)).toEqual({
      state: "paid",
      currency: "CNY",
      amountMinor: 36_800n,
      settledReference: wxOrderId,
      paymentId: order.paymentId,
      paidAtMs: world.clock.nowMs,
      details: { wx_order_id: wxOrderId },
      savedMethod: null,
    });
  });

  test("another amount than was signed is not paid", async () => {
    const { action } = await start();
    const cheaper = action.signData.replace("36800", "1");
    expect(() => world.open.xpay.payVirtual({ ...action, signData: cheaper }, OPENID)).toThrow("paySig");
    world.open.sessions.newCode(MERCHANT.miniProgramAppId);
    expect(() => world.open.xpay.payVirtual(action, OPENID)).toThrow("signature");
  });

  test("the session key is nowhere", async () => {
    const { action, payment } = await start();
    const key = world.open.sessions.sessionKeyOf(OPENID);
    expect(key).not.toBe("");
    expect(JSON.stringify([action, payment.details])).not.toContain(key);
    expect(world.logLines.join("\n")).not.toContain(key);
  });

  test("a code that was used is refused, with what to do", async () => {
    const wechatCode = world.open.sessions.newCode(MERCHANT.miniProgramAppId);
    await start({ wechatCode });
    const refused = expect(start({ wechatCode })).rejects;
    await refused.toMatchObject({
      code: "refused",
      failure: "code_used",
      message: expect.stringMatching(/wx\.login/) as string,
    });
  });

  test("in WeChat's test environment, with no money", async () => {
    const sandbox = open({ virtualSandbox: true });
    const { payment, order } = await paid(sandbox);
    expect(order.env).toBe(1);
    expect(await sandbox.find(payment)).toMatchObject({ state: "paid" });
    // The other environment does not know it.
    expect(await account.find(payment)).toEqual({ state: "pending" });
  });

  test("nobody can close it, so it counts as closed an hour after its time", async () => {
    const { action, payment } = await start();
    expect(await account.close(payment)).toEqual({ state: "pending" });
    const before = world.clock.nowMs;
    world.clock.nowMs = payment.expiresAtMs + HOUR_MS;
    try {
      expect(await account.close(payment)).toEqual({ state: "unknown" });
      world.open.xpay.payVirtual(action, OPENID).status = 1;
      expect(await account.close(payment)).toEqual({ state: "closed" });
      world.open.xpay.orders.get(payment.paymentId)!.status = 2;
      expect(await account.close(payment)).toMatchObject({ state: "paid" });
    } finally {
      world.clock.nowMs = before;
    }
  });

  test("what the payer never got is unknown, and nobody is asked", async () => {
    const { order } = await start();
    const before = world.open.calls.length;
    expect(await account.find(known(order, { reference: null }))).toEqual({ state: "unknown" });
    expect(world.open.calls).toHaveLength(before);
  });

  test.each([
    [0, "pending"],
    [1, "pending"],
    [2, "paid"],
    [3, "paid"],
    [4, "paid"],
    [5, "paid"],
    [6, "closed"],
    [7, "paid"],
    [8, "paid"],
    [9, "paid"],
    [10, "paid"],
  ])("status %i: %s", async (status, state) => {
    const { payment, order } = await paid();
    order.status = status;
    expect((await account.find(payment)).state).toBe(state);
  });

  test("what is not to be understood is asked for again", async () => {
    const { payment, order } = await paid();
    order.status = 11;
    await expect(account.find(payment)).rejects.toMatchObject({ code: "unreachable", failure: "unknown_state" });
    for (const fault of ["garbage", "cut", -1, 45011, 268490015] as const) {
      world.open.faults.push({ on: /query_order/, errcode: fault });
      await expect(account.find(payment)).rejects.toMatchObject({ code: "unreachable" });
    }
    world.open.faults.push({ on: /query_order/, errcode: 268490003 });
    await expect(account.find(payment)).rejects.toMatchObject({ code: "misconfigured", failure: "virtual_app_key" });
    world.open.faults.push({ on: /query_order/, errcode: 268490001 });
    await expect(account.find(payment)).rejects.toMatchObject({ code: "refused", failure: "errcode_268490001" });
  });

  test("an order that WeChat tells of in another's place is not taken", async () => {
    const { payment } = await paid();
    const { payment: second, order } = await paid();
    world.open.xpay.orders.set(payment.paymentId, order);
    await expect(account.find(payment)).rejects.toMatchObject({ code: "misconfigured", failure: "other_order" });
    world.open.xpay.orders.set(second.paymentId, { ...order, kind: "refund" });
    await expect(account.find(second)).rejects.toMatchObject({ code: "misconfigured", failure: "other_order" });
  });
});

describe("delivering", () => {
  test("where pushes come, they say that the goods are delivered", async () => {
    const { payment } = await paid();
    const before = callsOf("/xpay/notify_provide_goods");
    await account.find(payment);
    expect(callsOf("/xpay/notify_provide_goods")).toBe(before);
  });

  test("where none come, WeChat is told, and what it says changes nothing", async () => {
    const silent = open({ messageToken: "" });
    const { payment, order } = await paid(silent);
    for (const errcode of ["cut", 268490013] as const) {
      world.open.faults.push({ on: /notify_provide/, errcode });
      expect(await silent.find(payment)).toMatchObject({ state: "paid" });
      expect(world.logLines.at(-1)).toMatch(/delivered/);
      order.status = 2;
    }
    expect(await silent.find(payment)).toMatchObject({ state: "paid" });
    expect(order.status).toBe(4);
    const before = callsOf("/xpay/notify_provide_goods");
    await silent.find(payment);
    expect(callsOf("/xpay/notify_provide_goods")).toBe(before);
  });
});

describe("access tokens", () => {
  test("are asked for once, and kept until shortly before they expire", async () => {
    const { payment } = await start();
    const before = callsOf("/cgi-bin/stable_token");
    await Promise.all(Array.from({ length: 10 }, () => account.find(payment)));
    expect(callsOf("/cgi-bin/stable_token")).toBe(before + 1);
    world.clock.nowMs += 6_899_000;
    await account.find(payment);
    expect(callsOf("/cgi-bin/stable_token")).toBe(before + 1);
    world.clock.nowMs += 2_000;
    await account.find(payment);
    expect(callsOf("/cgi-bin/stable_token")).toBe(before + 2);
  });

  test("one that is refused is replaced, by force if it must be, and what was asked is asked again", async () => {
    const { payment } = await paid();
    await account.find(payment);
    const made = world.open.sessions.tokensMade();
    world.open.faults.push({ on: /query_order/, errcode: 42001 });
    expect(await account.find(payment)).toMatchObject({ state: "paid" });
    world.open.sessions.spoilToken();
    expect(await account.find(payment)).toMatchObject({ state: "paid" });
    expect(world.open.sessions.tokensMade()).toBeGreaterThan(made);
  });

  test("without a right secret there is none", async () => {
    const { payment } = await start();
    const other = open({ miniProgramAppSecret: "wrong" });
    await expect(other.find(payment)).rejects.toMatchObject({ code: "misconfigured", failure: "app_secret" });
    world.open.faults.push({ on: /stable_token/, errcode: 40164 });
    const refused = expect(open().find(payment)).rejects;
    await refused.toMatchObject({ code: "misconfigured", message: expect.stringMatching(/address/) as string });
  });
});

describe("refunds", () => {
  test("in parts, and how they end", async () => {
    const { payment, order } = await paid();
    const first = newRefund(payment, order.wxOrderId, 10_000n);
    const asked = await account.refund(first);
    expect(asked).toEqual({ state: "pending", reference: expect.stringMatching(/^VRO/) as string, failure: "" });
    expect(await account.refund(first)).toEqual(asked);
    expect(await account.findRefund(first)).toEqual(asked);
    expect(order.left).toBe(26_800);
    world.open.xpay.settleRefund(first.refundId);
    expect(await account.findRefund(first)).toEqual({ ...asked, state: "succeeded" });
    world.open.xpay.settleRefund(first.refundId, 7);
    expect(await account.findRefund(first)).toEqual({ ...asked, state: "failed", failure: "refund_failed" });
    const second = newRefund(payment, order.wxOrderId, 26_800n);
    expect(await account.findRefund(second)).toMatchObject({ state: "pending" });
    const third = newRefund(payment, order.wxOrderId, 1n);
    await expect(account.refund(third)).rejects.toMatchObject({ code: "refused", failure: "amount_exceeds" });
    expect(await account.find(payment)).toMatchObject({ state: "paid", amountMinor: 36_800n });
  });

  test("whose answer was lost is not asked for twice", async () => {
    const { payment, order } = await paid();
    const refund = newRefund(payment, order.wxOrderId, 500n);
    world.open.faults.push({ on: /refund_order/, errcode: "cut" });
    await expect(account.refund(refund)).rejects.toMatchObject({ code: "unreachable" });
    expect(await account.refund(refund)).toMatchObject({ state: "pending" });
    expect(order.left).toBe(36_300);
    expect(callsOf("/xpay/refund_order")).toBeGreaterThan(0);
  });

  test.each([
    [268490014, "unreachable", "refund_running"],
    [268490016, "unreachable", "left_fee_changed"],
    [268490013, "refused", "errcode_268490013"],
    [268490005, "refused", "errcode_268490005"],
  ])("errcode %i", async (errcode, code, failure) => {
    const { payment, order } = await paid();
    world.open.faults.push({ on: /refund_order/, errcode });
    await expect(account.refund(newRefund(payment, order.wxOrderId, 5n))).rejects.toMatchObject({ code, failure });
  });

  test("without the payer's openid WeChat would not take it", async () => {
    const { payment, order } = await paid();
    const refund = newRefund({ ...payment, details: {} }, order.wxOrderId, 5n);
    await expect(account.refund(refund)).rejects.toMatchObject({ code: "refused", failure: "payer_unknown" });
    const other = newRefund(
      known(newOrder(world, { method: WECHAT_VIRTUAL }), { details: { openid: OPENID } }),
      "VPO",
      5n,
    );
    await expect(account.refund(other)).rejects.toMatchObject({ code: "refused", failure: "payment_not_found" });
  });
});
