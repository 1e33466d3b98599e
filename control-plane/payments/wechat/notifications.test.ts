/** Notifications of WeChat Pay, true and forged, and the keys they are signed with. */

import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { NotificationRefused, type ProcessorAccount, type RawNotification } from "../payment.ts";
import { serve } from "./testing_http.ts";
import { byPublicKey, MERCHANT } from "./testing_keys.ts";
import type { EnvelopeOptions } from "./testing_platform.ts";
import { known, newOrder, newRefund, rawOf, startWechatWorld, type WechatWorld } from "./testing_wechat.ts";

let world: WechatWorld;
let account: ProcessorAccount;
let accounts = 0;
beforeAll(async () => {
  world = await startWechatWorld();
});
afterAll(() => world.close());
beforeEach(() => {
  account = world.account({}, `pay_${++accounts}`);
  world.pay.faults.length = 0;
  world.pay.platform.certificates = true;
});

async function paid() {
  const order = newOrder(world);
  await account.start(order);
  const { transactionId } = world.pay.payOrder(order.paymentId);
  return { payment: known(order), orderNo: order.paymentId, transactionId };
}

const certificateCalls = (): number => world.pay.calls.filter(({ url }) => url.pathname === "/v3/certificates").length;

async function refusal(raw: RawNotification, by: ProcessorAccount = account): Promise<NotificationRefused> {
  const error: unknown = await by.readNotification(raw).then(
    () => new Error("it was believed"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof NotificationRefused)) throw error;
  return error;
}

test("a payment", async () => {
  const { orderNo, transactionId } = await paid();
  const envelope = world.pay.paymentEnvelope(orderNo, { id: "EV-1" });
  const raw = rawOf(world, envelope);
  const about = { kind: "payment", paymentId: orderNo, references: [orderNo, transactionId] };
  expect(await account.readNotification(raw)).toEqual({ eventId: "EV-1", kind: "TRANSACTION.SUCCESS", about });
  // Every repetition has the same id.
  const repeated = rawOf(world, world.pay.paymentEnvelope(orderNo, { id: "EV-1" }));
  expect((await account.readNotification(repeated)).eventId).toBe("EV-1");
  expect(account.answerNotification(raw, null)).toEqual({ status: 204, type: "text/plain", body: "" });
});

test.each([
  ["SUCCESS", "succeeded"],
  ["ABNORMAL", "pending"],
  ["CLOSED", "failed"],
] as const)("a refund of ours: %s", async (status, state) => {
  const { payment, orderNo, transactionId } = await paid();
  const order = newRefund(payment, transactionId, 300n);
  const { reference } = await account.refund(order);
  world.pay.settleRefund(order.refundId, status);
  const read = await account.readNotification(rawOf(world, world.pay.refundEnvelope(order.refundId)));
  expect(read).toMatchObject({ kind: `REFUND.${status}` });
  expect(read.about).toEqual({
    kind: "refund",
    paymentId: orderNo,
    references: [orderNo, transactionId],
    refundId: order.refundId,
    refund: { reference, amountMinor: 300n, currency: "CNY", reason: "refunded at WeChat Pay", state },
  });
});

test("a refund that was made on the merchant platform", async () => {
  const { orderNo } = await paid();
  const { outRefundNo } = world.pay.refundByHand(orderNo, 500);
  world.pay.settleRefund(outRefundNo, "SUCCESS");
  const read = await account.readNotification(rawOf(world, world.pay.refundEnvelope(outRefundNo)));
  expect(read.about).toMatchObject({
    kind: "refund",
    refundId: null,
    refund: { amountMinor: 500n, state: "succeeded" },
  });
});

test("what concerns others is acknowledged", async () => {
  const { orderNo } = await paid();
  const other = world.pay.paymentEnvelope(orderNo, { content: { out_trade_no: "SHOP20251124" } });
  expect((await account.readNotification(rawOf(world, other))).about).toEqual({ kind: "nothing" });
  const complaint = world.pay.platform.envelope(
    "COMPLAINT.CREATE",
    "complaint",
    { mchid: MERCHANT.merchantNumber, out_trade_no: orderNo },
    {},
  );
  expect((await account.readNotification(rawOf(world, complaint))).about).toEqual({ kind: "nothing" });
});

describe("is not believed", () => {
  const now = 1_764_000_000;
  test.each<[string, EnvelopeOptions, string, number]>([
    ["signed by somebody else under WeChat Pay's serial number", { signer: "attacker" }, "bad_signature", 401],
    ["of the public key, where none is set", { signer: "public_key" }, "bad_signature", 401],
    ["older than five minutes", { timestampS: now - 301 }, "stale", 401],
    ["from the future", { timestampS: now + 301 }, "stale", 401],
    ["of another merchant number", { content: { mchid: "1900000110" } }, "other_account", 403],
    ["encrypted with another key", { apiV3Key: "x".repeat(32) }, "undecryptable", 503],
  ])("%s", async (_, options, reason, status) => {
    const { orderNo } = await paid();
    const raw = rawOf(world, world.pay.paymentEnvelope(orderNo, options));
    const refused = await refusal(raw);
    expect(refused.reason).toBe(reason);
    const answer = account.answerNotification(raw, refused);
    expect(answer).toEqual({ status, type: "application/json", body: `{"code":"FAIL","message":"${reason}"}` });
  });

  test("just within the five minutes it is", async () => {
    const { orderNo } = await paid();
    for (const timestampS of [now - 300, now + 300]) {
      const raw = rawOf(world, world.pay.paymentEnvelope(orderNo, { timestampS }));
      expect((await account.readNotification(raw)).about).toMatchObject({ paymentId: orderNo });
    }
  });

  test("what lacks a header, has another one, or was changed", async () => {
    const { orderNo } = await paid();
    const { headers, body } = world.pay.paymentEnvelope(orderNo);
    for (const name of ["timestamp", "nonce", "signature", "serial"]) {
      const { [`wechatpay-${name}`]: _, ...rest } = headers;
      expect((await refusal(rawOf(world, { headers: rest, body }))).reason).toBe("bad_signature");
    }
    const changes: Record<string, string> = {
      "wechatpay-nonce": "another",
      "wechatpay-timestamp": String(now + 1),
      "wechatpay-serial": "7".repeat(40),
      "wechatpay-signature": `WECHATPAY/SIGNTEST/${headers["wechatpay-signature"]!.slice(19)}`,
    };
    for (const [name, value] of Object.entries(changes)) {
      expect((await refusal(rawOf(world, { headers: { ...headers, [name]: value }, body }))).reason).toBe(
        "bad_signature",
      );
    }
    for (const timestamp of ["", "now", "1e9", "-1", "9".repeat(20)]) {
      const raw = rawOf(world, { headers: { ...headers, "wechatpay-timestamp": timestamp }, body });
      expect((await refusal(raw)).reason).toBe("bad_signature");
    }
    for (const changed of [`${body} `, body.replace("EV-", "EV_"), body.slice(0, -1), "", "{}"]) {
      expect((await refusal(rawOf(world, { headers, body: changed }))).reason).toBe("bad_signature");
    }
    expect((await refusal(rawOf(world, { headers, body }, { method: "GET" }))).reason).toBe("malformed");
    expect((await refusal(rawOf(world, { headers, body: "x".repeat(70_000) }))).reason).toBe("malformed");
  });

  test("signed, but nothing that is known", async () => {
    const { platform } = world.pay;
    const send = (body: string) => rawOf(world, { headers: platform.sign(body, "current"), body });
    for (const body of ["", "[]", "null", "1", "{}", '{"id":1}', '{"id":"EV","event_type":""}', "\uFFFF"]) {
      expect((await refusal(send(body))).reason).toBe("malformed");
    }
    const unopened = await refusal(send('{"id":"EV","event_type":"TRANSACTION.SUCCESS","resource":null}'));
    expect(unopened.reason).toBe("undecryptable");
    const { orderNo } = await paid();
    const { outRefundNo } = world.pay.refundByHand(orderNo, 5);
    for (const content of [{ refund_id: "" }, { amount: { refund: 0 } }, { amount: {} }, { refund_status: "NEW" }]) {
      expect((await refusal(rawOf(world, world.pay.refundEnvelope(outRefundNo, { content })))).reason).toBe(
        "malformed",
      );
    }
  });

  test("any body at all", async () => {
    const { orderNo } = await paid();
    const { headers, body } = world.pay.paymentEnvelope(orderNo);
    const changed = fc.nat(body.length - 1).map((at) => body.slice(0, at) + body.slice(at + 1));
    const others = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
      fc.json(),
      fc
        .record({ id: fc.string(), event_type: fc.string(), resource: fc.dictionary(fc.string(), fc.jsonValue()) })
        .map((value) => JSON.stringify(value)),
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(changed, others), others, async (forged, signed) => {
        expect((await refusal(rawOf(world, { headers, body: forged }))).reason).toBe("bad_signature");
        const raw = rawOf(world, { headers: world.pay.platform.sign(signed, "current"), body: signed });
        const refused = await refusal(raw);
        expect(["malformed", "undecryptable"]).toContain(refused.reason);
        expect(account.answerNotification(raw, refused).status).toBeGreaterThanOrEqual(400);
      }),
      { numRuns: 100 },
    );
  });

  test("anything decrypted that is no transaction", async () => {
    const types = fc.constantFrom("TRANSACTION.SUCCESS", "REFUND.SUCCESS", "REFUND.", "OTHER");
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string(), fc.jsonValue()), types, async (content, type) => {
        const mine = { out_trade_no: "pmt_aaaaaaaa", ...content, mchid: MERCHANT.merchantNumber };
        const raw = rawOf(world, world.pay.platform.envelope(type, "x", mine, {}));
        const read = await account.readNotification(raw).catch((error: unknown) => error);
        if (read instanceof NotificationRefused) expect(read.reason).toBe("malformed");
        else expect(read).toMatchObject({ kind: type });
      }),
      { numRuns: 60 },
    );
  });
});

describe("keys", () => {
  test("while a merchant changes to the public key, both are believed", async () => {
    account = world.account(byPublicKey(), `pay_${++accounts}`);
    const { orderNo } = await paid();
    for (const signer of ["current", "public_key"] as const) {
      const raw = rawOf(world, world.pay.paymentEnvelope(orderNo, { signer }));
      expect((await account.readNotification(raw)).about).toMatchObject({ kind: "payment" });
    }
  });

  test("a certificate is replaced: both are believed until the old one expires", async () => {
    const { orderNo } = await paid();
    const read = (signer: EnvelopeOptions["signer"]) =>
      account.readNotification(rawOf(world, world.pay.paymentEnvelope(orderNo, { signer })));
    world.pay.platform.rotate({ listed: false });
    // So soon after the last look a serial number that nobody knows is not worth another.
    await expect(read("current")).rejects.toMatchObject({ reason: "bad_signature" });
    world.clock.nowMs += 61_000;
    const before = certificateCalls();
    expect((await read("current")).about).toMatchObject({ kind: "payment" });
    expect((await read("old")).about).toMatchObject({ kind: "payment" });
    expect(certificateCalls()).toBe(before + 1);
    expect(await account.find(known(newOrder(world)))).toEqual({ state: "unknown" });
  });

  test("what expired is believed no more", async () => {
    account = world.account({}, `pay_${++accounts}`);
    world.pay.platform.rotate({ oldValidMs: 3_600_000 });
    const { orderNo } = await paid();
    const old = rawOf(world, world.pay.paymentEnvelope(orderNo, { signer: "old" }));
    expect((await account.readNotification(old)).about).toMatchObject({ kind: "payment" });
    world.clock.nowMs += 3_600_001;
    const later = rawOf(world, world.pay.paymentEnvelope(orderNo, { signer: "old" }));
    expect((await refusal(later)).reason).toBe("bad_signature");
  });

  test("they are looked for again after half a day; if that fails the old ones serve", async () => {
    const { orderNo } = await paid();
    world.clock.nowMs += 12 * 3_600_000;
    const before = certificateCalls();
    world.pay.faults.push({ how: "down", on: /certificates/ });
    const read = () => account.readNotification(rawOf(world, world.pay.paymentEnvelope(orderNo)));
    expect((await read()).about).toMatchObject({ kind: "payment" });
    expect((await read()).about).toMatchObject({ kind: "payment" });
    expect(certificateCalls()).toBe(before + 1);
    expect(world.logLines.at(-1)).toMatch(/certificates are old/);
    world.clock.nowMs += 6_000;
    await read();
    await read();
    expect(certificateCalls()).toBe(before + 2);
  });

  test("fetched once, however many ask", async () => {
    const { orderNo } = await paid();
    account = world.account({}, `pay_${++accounts}`);
    const before = certificateCalls();
    const raw = rawOf(world, world.pay.paymentEnvelope(orderNo));
    const all = await Promise.all(Array.from({ length: 10 }, () => account.readNotification(raw)));
    expect(new Set(all.map(({ eventId }) => eventId)).size).toBe(1);
    expect(certificateCalls()).toBe(before + 1);
  });

  test.each([
    ["bad_signature", "not_checked"],
    ["probe", "not_checked"],
    ["unsigned", "not_checked"],
    ["down", "not_checked"],
    ["cut", "not_checked"],
  ] as const)("a list of certificates that is %s is not taken, and WeChat is asked to repeat", async (how, reason) => {
    const { orderNo } = await paid();
    account = world.account({}, `pay_${++accounts}`);
    world.pay.faults.push({ how, on: /certificates/ });
    const raw = rawOf(world, world.pay.paymentEnvelope(orderNo));
    const refused = await refusal(raw);
    expect(refused.reason).toBe(reason);
    expect(account.answerNotification(raw, refused).status).toBe(503);
    world.clock.nowMs += 6_000;
    const again = rawOf(world, world.pay.paymentEnvelope(orderNo));
    expect((await account.readNotification(again)).about).toMatchObject({ kind: "payment" });
  });

  test("new credentials begin anew", async () => {
    const { orderNo } = await paid();
    const id = `pay_${accounts}`;
    const raw = rawOf(world, world.pay.paymentEnvelope(orderNo));
    const changed = world.account({ merchantNumber: "1900000111" }, id);
    expect((await refusal(raw, changed)).reason).toBe("not_checked");
    expect((await refusal(raw, world.account({ apiV3Key: "y".repeat(32) }, id))).reason).toBe("not_checked");
    expect((await world.account({}, id).readNotification(raw)).about).toMatchObject({ kind: "payment" });
  });
});

test("delivered over HTTP, ten times at once, each is read as the same event", async () => {
  const { orderNo } = await paid();
  const events: string[] = [];
  const server = await serve(async ({ headers, body, url }) => {
    const raw: RawNotification = { method: "POST", headers, body, query: url.searchParams, nowMs: world.clock.nowMs };
    const problem = await account.readNotification(raw).then(
      ({ eventId }) => void events.push(eventId),
      (error: unknown) => error as NotificationRefused,
    );
    const { status, type, body: text } = account.answerNotification(raw, problem ?? null);
    return { status, headers: { "content-type": type }, body: text };
  });
  try {
    const envelope = world.pay.paymentEnvelope(orderNo, { id: "EV-10" });
    const statuses = await Promise.all(Array.from({ length: 10 }, () => world.pay.deliver(envelope, server.url)));
    expect(new Set(statuses)).toEqual(new Set([204]));
    expect(events).toEqual(Array.from({ length: 10 }, () => "EV-10"));
    const forged = world.pay.paymentEnvelope(orderNo, { signer: "attacker" });
    expect(await world.pay.deliver(forged, server.url)).toBe(401);
  } finally {
    await server.close();
  }
});
