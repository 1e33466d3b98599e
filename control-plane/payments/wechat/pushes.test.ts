/** Message pushes of a Mini Program: hints that are asked about. */

import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PaymentMethod } from "../../domain/checkout.ts";
import { NotificationRefused, type ProcessorAccount, type RawNotification } from "../payment.ts";
import { MERCHANT, MESSAGE_ENCRYPTION_KEY } from "./testing_keys.ts";
import type { PushOptions } from "./testing_push.ts";
import { known, newOrder, newRefund, rawOf, startWechatWorld, type WechatWorld } from "./testing_wechat.ts";

const OPENID = `o-${MERCHANT.miniProgramAppId}-payer`;
const NOW_S = 1_764_000_000;

let world: WechatWorld;
let plain: ProcessorAccount;
let sealed: ProcessorAccount;
beforeAll(async () => {
  world = await startWechatWorld();
  plain = world.account();
  sealed = world.account({ messageEncryptionKey: MESSAGE_ENCRYPTION_KEY }, "pay_sealed");
});
afterAll(() => world.close());
beforeEach(() => {
  world.open.faults.length = 0;
});

async function paid() {
  const order = newOrder(world, { method: PaymentMethod.WECHAT_VIRTUAL });
  const { action, details } = await plain.start(order);
  if (action.kind !== "wechat_virtual") throw new Error(action.kind);
  return { payment: known(order, { details }), order: world.open.xpay.payVirtual(action, OPENID) };
}

async function refusal(account: ProcessorAccount, raw: RawNotification): Promise<NotificationRefused> {
  const error: unknown = await account.readNotification(raw).then(
    () => new Error("it was believed"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof NotificationRefused)) throw error;
  return error;
}

const OK = { status: 200, type: "application/json", body: '{"ErrCode":0,"ErrMsg":"success"}' };
const OK_XML = {
  status: 200,
  type: "text/xml",
  body: "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>",
};

describe("a payment", () => {
  test.each<[string, PushOptions, typeof OK]>([
    ["in JSON", { format: "json" }, OK],
    ["in XML", { format: "xml" }, OK_XML],
    ["in JSON, encrypted", { format: "json", encrypted: true }, OK],
    ["in XML, encrypted", { format: "xml", encrypted: true }, OK_XML],
  ])("%s", async (_, options, answer) => {
    const { order } = await paid();
    const account = options.encrypted === true ? sealed : plain;
    const raw = rawOf(world, world.open.deliverPush(order.orderId, options));
    expect(await account.readNotification(raw)).toEqual({
      eventId: "",
      kind: "xpay_goods_deliver_notify",
      about: { kind: "payment", paymentId: order.orderId, references: [order.orderId] },
    });
    expect(account.answerNotification(raw, null)).toEqual(answer);
    const failed = account.answerNotification(raw, new NotificationRefused("unavailable"));
    expect(failed.status).toBe(503);
    expect(failed.body).toContain("unavailable");
  });

  test("a push in both forms is read in the clear, if there is no key", async () => {
    const { order } = await paid();
    const raw = rawOf(world, world.open.deliverPush(order.orderId, { changes: { Encrypt: "AAAA" } }));
    expect((await plain.readNotification(raw)).about).toMatchObject({ paymentId: order.orderId });
  });

  test("is only a hint: what is changed in the clear leads to asking about another order, and no further", async () => {
    const { payment, order } = await paid();
    const changes = { OutTradeNo: "pmt_zzzzzzzzzz", GoodsInfo: { ActualPrice: 1e9 } };
    const read = await plain.readNotification(rawOf(world, world.open.deliverPush(order.orderId, { changes })));
    expect(read.about).toEqual({ kind: "payment", paymentId: "pmt_zzzzzzzzzz", references: ["pmt_zzzzzzzzzz"] });
    const other = { ...payment, paymentId: "pmt_zzzzzzzzzz", reference: "pmt_zzzzzzzzzz" };
    expect(await plain.find(other)).toEqual({ state: "pending" });
  });

  test("of another system is acknowledged, as is every other message", async () => {
    const { order } = await paid();
    const shop = rawOf(world, world.open.deliverPush(order.orderId, { changes: { OutTradeNo: "SHOP123456" } }));
    expect((await plain.readNotification(shop)).about).toEqual({ kind: "nothing" });
    const message = rawOf(world, world.open.push({ MsgType: "text", Content: "你好" }));
    expect(await plain.readNotification(message)).toEqual({ eventId: "", kind: "message", about: { kind: "nothing" } });
    expect(plain.answerNotification(message, null)).toEqual({ status: 200, type: "text/plain", body: "success" });
    const complaint = rawOf(world, world.open.push({ Event: "xpay_complaint_notify" }));
    expect((await plain.readNotification(complaint)).about).toEqual({ kind: "nothing" });
    expect(plain.answerNotification(complaint, null)).toEqual(OK);
  });
});

describe("a refund", () => {
  test("of ours, as WeChat confirms it", async () => {
    const { payment, order } = await paid();
    const refund = newRefund(payment, order.wxOrderId, 700n);
    const { reference } = await plain.refund(refund);
    world.open.xpay.settleRefund(refund.refundId);
    const raw = rawOf(world, world.open.refundPush(refund.refundId));
    expect((await plain.readNotification(raw)).about).toEqual({
      kind: "refund",
      paymentId: order.orderId,
      references: [order.orderId, order.wxOrderId],
      refundId: refund.refundId,
      refund: { reference, amountMinor: 700n, currency: "CNY", reason: "refunded at WeChat", state: "succeeded" },
    });
  });

  test("made by hand, or by Apple", async () => {
    const { order } = await paid();
    const byHand = world.open.xpay.refundByHand(order.orderId, 900);
    world.open.xpay.settleRefund(byHand.orderId);
    const raw = rawOf(world, world.open.refundPush(byHand.orderId, { changes: { RefundFee: 1 } }));
    expect((await plain.readNotification(raw)).about).toMatchObject({
      refundId: null,
      refund: { reference: byHand.wxOrderId, amountMinor: 900n, state: "succeeded" },
    });
  });

  test("that nobody made, or of another payment, is not confirmed", async () => {
    const { payment, order } = await paid();
    const { order: untouched } = await paid();
    const refund = newRefund(payment, order.wxOrderId, 700n);
    await plain.refund(refund);
    world.open.xpay.settleRefund(refund.refundId);
    for (const changes of [
      { MchOrderId: untouched.orderId },
      { MchOrderId: "pmt_zzzzzzzzzz" },
      { WxRefundId: "VRO999" },
      { WxRefundId: order.wxOrderId },
      { MchRefundId: "rfd_another" },
      { OpenId: "o-nobody" },
    ]) {
      const raw = rawOf(world, world.open.refundPush(refund.refundId, { changes }));
      const refused = await refusal(plain, raw);
      expect(refused.reason).toBe("not_confirmed");
      expect(plain.answerNotification(raw, refused).status).toBe(503);
    }
    for (const changes of [{ WxRefundId: "" }, { OpenId: "" }]) {
      expect((await refusal(plain, rawOf(world, world.open.refundPush(refund.refundId, { changes })))).reason).toBe(
        "malformed",
      );
    }
  });

  test("that cannot be asked about is sent again", async () => {
    const { order } = await paid();
    const byHand = world.open.xpay.refundByHand(order.orderId, 5);
    world.open.faults.push({ on: /query_order/, errcode: "cut" });
    const raw = rawOf(world, world.open.refundPush(byHand.orderId));
    const refused = await refusal(plain, raw);
    expect(refused.reason).toBe("not_checked");
    expect(plain.answerNotification(raw, refused).status).toBe(503);
  });
});

describe("is not believed", () => {
  test.each<[string, PushOptions, string, number]>([
    ["with another token", { token: "Another" }, "bad_signature", 401],
    ["a day old", { timestampS: NOW_S - 24 * 3_600 - 1 }, "stale", 401],
    ["from the future", { timestampS: NOW_S + 301 }, "stale", 401],
    ["encrypted, without a key for it", { encrypted: true }, "undecryptable", 503],
  ])("%s", async (_, options, reason, status) => {
    const { order } = await paid();
    const raw = rawOf(world, world.open.deliverPush(order.orderId, options));
    const refused = await refusal(plain, raw);
    expect(refused.reason).toBe(reason);
    expect(plain.answerNotification(raw, refused).status).toBe(status);
  });

  test.each<[string, PushOptions, string]>([
    ["in the clear, where it should be encrypted", {}, "not_encrypted"],
    ["of another app", { encrypted: true, appId: "wx0" }, "other_account"],
    ["changed after it was signed", { encrypted: true, changes: { Encrypt: "AAAA" } }, "bad_signature"],
  ])("%s", async (_, options, reason) => {
    const { order } = await paid();
    const raw = rawOf(world, world.open.deliverPush(order.orderId, options));
    expect((await refusal(sealed, raw)).reason).toBe(reason);
  });

  test("where no token is set, nothing is", async () => {
    const { order } = await paid();
    const silent = world.account({ messageToken: "" }, "pay_silent");
    const raw = rawOf(world, world.open.deliverPush(order.orderId, { token: "" }));
    const refused = await refusal(silent, raw);
    expect(refused.reason).toBe("not_configured");
    expect(silent.answerNotification(raw, refused).status).toBe(403);
  });

  test("any body at all", async () => {
    const bodies = fc.oneof(
      fc.string({ maxLength: 200 }),
      fc.json(),
      fc
        .dictionary(fc.constantFrom("Event", "OutTradeNo", "Encrypt", "__proto__", "MchOrderId"), fc.jsonValue())
        .map((value) => JSON.stringify(value)),
      fc.string({ maxLength: 100 }).map((text) => `<xml><Event>${text}</Event><a><![CDATA[${text}]]></a>`),
    );
    await fc.assert(
      fc.asyncProperty(bodies, fc.boolean(), async (body, encrypts) => {
        const account = encrypts ? sealed : plain;
        const raw = rawOf(world, { query: world.open.push({}).query, body });
        const read = await account.readNotification(raw).catch((error: unknown) => error);
        const refused = read instanceof NotificationRefused ? read : null;
        if (refused === null) expect((read as { about: unknown }).about).toEqual({ kind: "nothing" });
        expect(account.answerNotification(raw, refused).status).toBeGreaterThanOrEqual(200);
      }),
      { numRuns: 150 },
    );
    const long = `<xml>${"<a><![CDATA[".repeat(5_400)}`;
    const started = performance.now();
    await plain.readNotification(rawOf(world, { query: world.open.push({}).query, body: long }));
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});

describe("when the address is registered", () => {
  const echo = (echostr: string, options: PushOptions = {}): RawNotification => {
    const { query } = world.open.push({}, options);
    query.set("echostr", echostr);
    return rawOf(world, { query, body: "" }, { method: "GET" });
  };

  test("what WeChat sent is said back, if it is WeChat", async () => {
    const raw = echo("5718293840192837465");
    expect(await plain.readNotification(raw)).toEqual({ eventId: "", kind: "echo", about: { kind: "nothing" } });
    expect(plain.answerNotification(raw, null)).toEqual({
      status: 200,
      type: "text/plain",
      body: "5718293840192837465",
    });
    const forged = echo("5718293840192837465", { token: "Another" });
    const refused = await refusal(plain, forged);
    expect(refused.reason).toBe("bad_signature");
    expect(plain.answerNotification(forged, refused)).toMatchObject({ status: 401, body: "bad_signature" });
  });

  test("nothing else is said back", () => {
    const raw = echo("<script>alert(1)</script>");
    expect(plain.answerNotification(raw, null)).toEqual({ status: 200, type: "text/plain", body: "" });
  });
});
