import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Notification, NotificationRefused, type ProcessorAccount, type RawNotification } from "./payment.ts";
import { BODY_BYTES_MAX, TOLERANCE_SECONDS } from "./stripe_notifications.ts";
import { signStripe, startStripeImitation, type StripeEvent, type StripeImitation } from "./testing_stripe.ts";
import { stripeFixture, type StripeFixture } from "./testing_stripe_fixture.ts";

let stripe: StripeImitation;
let fixture: StripeFixture;
let account: ProcessorAccount;

beforeAll(async () => {
  stripe = await startStripeImitation();
  fixture = stripeFixture(stripe);
  account = fixture.open(stripe);
});
afterAll(() => stripe.close());

async function reasonOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof NotificationRefused) return error.reason;
    throw error;
  }
  return "";
}

/** Of the last event of this type. */
function last(type: string): StripeEvent {
  return stripe.events.findLast((event) => event.type === type)!;
}

function read(type: string): Promise<Notification> {
  return account.readNotification(fixture.raw(stripe, last(type)));
}

async function session(): Promise<{ id: string; paymentId: string }> {
  const order = fixture.order();
  return { id: (await account.start(order)).reference, paymentId: order.paymentId };
}

async function paidSession(): Promise<{ id: string; paymentId: string; intent: string; charge: string }> {
  const made = await session();
  stripe.pay(made.id);
  const intent = stripe.object(made.id).payment_intent as string;
  return { ...made, intent, charge: stripe.object(intent).latest_charge as string };
}

/** A body of any kind, signed as it should be. */
function signed(body: string, secret = stripe.webhookSecret, atMs = fixture.nowMs()): RawNotification {
  return {
    method: "POST",
    headers: { "stripe-signature": signStripe(body, secret, atMs) },
    query: new URLSearchParams(),
    body: new TextEncoder().encode(body),
    nowMs: fixture.nowMs(),
  };
}

describe("what they are about", () => {
  test("payments, found by our id and both of Stripe's", async () => {
    const { id, paymentId, intent } = await paidSession();
    const event = last("checkout.session.completed");
    expect(await account.readNotification(fixture.raw(stripe, event))).toStrictEqual({
      eventId: event.id,
      kind: "checkout.session.completed",
      about: { kind: "payment", paymentId, references: [id, intent] },
    });
    expect((await read("payment_intent.succeeded")).about).toStrictEqual({
      kind: "payment",
      paymentId,
      references: [intent],
    });
  });

  test("payments that ended otherwise", async () => {
    const expired = await session();
    stripe.expire(expired.id);
    expect((await read("checkout.session.expired")).about).toMatchObject({ paymentId: expired.paymentId });
    const declined = await session();
    stripe.decline(declined.id);
    expect((await read("payment_intent.payment_failed")).about).toMatchObject({ paymentId: declined.paymentId });
    for (const ok of [true, false]) {
      const slow = await session();
      stripe.pay(slow.id, "async");
      expect((await read("payment_intent.processing")).about).toMatchObject({ paymentId: slow.paymentId });
      stripe.settle(slow.id, ok);
      const { about } = await read(`checkout.session.async_payment_${ok ? "succeeded" : "failed"}`);
      expect(about).toMatchObject({ kind: "payment", paymentId: slow.paymentId });
    }
  });

  test("refunds made here", async () => {
    const { id, paymentId, intent, charge } = await paidSession();
    const known = fixture.known(fixture.order({ paymentId }), id);
    const { reference } = await account.refund(fixture.refundOrder(known, intent, { refundId: "rfd_ours" }));
    expect((await read("refund.created")).about).toStrictEqual({
      kind: "refund",
      paymentId,
      references: [intent, charge],
      refundId: "rfd_ours",
      refund: {
        reference,
        amountMinor: 5000n,
        currency: "USD",
        reason: "requested_by_customer",
        state: "succeeded",
      },
    });
    expect((await read("charge.refunded")).about).toStrictEqual({
      kind: "payment",
      paymentId,
      references: [intent, charge],
    });
  });

  test("refunds made at Stripe, as they stand now", async () => {
    const { intent } = await paidSession();
    const reference = stripe.refundAtDashboard(intent, 2500, "pending");
    const early = last("refund.created");
    expect((await account.readNotification(fixture.raw(stripe, early))).about).toMatchObject({
      kind: "refund",
      paymentId: null,
      refundId: null,
      refund: { reference, amountMinor: 2500n, reason: "", state: "pending" },
    });
    stripe.endRefund(reference, true);
    const late = await read("refund.updated");
    // What arrives after it was overtaken says the same.
    const overtaken = await account.readNotification(fixture.raw(stripe, early));
    expect(overtaken.about).toStrictEqual(late.about);
    expect(late.about).toMatchObject({ refund: { state: "succeeded" } });
    stripe.endRefund(reference, false);
    expect((await read("refund.failed")).about).toMatchObject({ refund: { state: "failed" } });
  });

  test.each([
    ["won", "won"],
    ["lost", "lost"],
    ["warning_closed", "won"],
    ["prevented", "won"],
    ["under_review", "open"],
    ["appeal_under_review", "open"],
  ])("disputes: %s is %s", async (status, state) => {
    const { intent, charge } = await paidSession();
    const reference = stripe.openDispute(intent);
    const open = last("charge.dispute.created");
    const about = {
      kind: "dispute",
      paymentId: null,
      references: [intent, charge],
      reference,
      state: "open",
      amountMinor: 5000n,
      reason: "fraudulent",
    };
    expect((await account.readNotification(fixture.raw(stripe, open))).about).toStrictEqual(about);
    stripe.endDispute(reference, status);
    const closed = { ...about, state };
    expect((await read("charge.dispute.closed")).about).toStrictEqual(closed);
    expect((await account.readNotification(fixture.raw(stripe, open))).about).toStrictEqual(closed);
    expect((await read("charge.dispute.funds_withdrawn")).about).toStrictEqual(closed);
  });

  test("amounts of currencies that Stripe counts otherwise", async () => {
    const order = fixture.order({ currency: "ISK", amountMinor: 700n });
    const { reference } = await account.start(order);
    stripe.pay(reference);
    const intent = stripe.object(reference).payment_intent as string;
    stripe.refundAtDashboard(intent, 20_000);
    expect((await read("refund.created")).about).toMatchObject({ refund: { amountMinor: 200n, currency: "ISK" } });
    stripe.openDispute(intent);
    expect((await read("charge.dispute.created")).about).toMatchObject({ amountMinor: 700n });
  });

  test("nothing of ours", async () => {
    for (const type of ["customer.created", "invoice.paid", "payout.failed", "charge.succeeded"]) {
      stripe.emit(type, { id: "x_1", object: "x" });
      expect((await read(type)).about).toStrictEqual({ kind: "nothing" });
    }
    stripe.emit("checkout.session.completed", { id: "cs_test_x", object: "checkout.session", mode: "subscription" });
    expect((await read("checkout.session.completed")).about).toStrictEqual({ kind: "nothing" });
  });

  test("metadata of the merchant's other programs is not taken for ours", async () => {
    for (const payment_id of [7, "", "no id", "pmt_<script>", "__proto__", { id: "pmt_1" }, "x".repeat(500)]) {
      stripe.emit("payment_intent.succeeded", { id: "pi_x", object: "payment_intent", metadata: { payment_id } });
      expect((await read("payment_intent.succeeded")).about).toStrictEqual({
        kind: "payment",
        paymentId: null,
        references: ["pi_x"],
      });
    }
  });

  test("a repetition has the same id", async () => {
    await paidSession();
    const event = last("checkout.session.completed");
    const all = await Promise.all(
      Array.from({ length: 10 }, () => account.readNotification(fixture.raw(stripe, event))),
    );
    expect(new Set(all.map((one) => JSON.stringify(one))).size).toBe(1);
  });
});

describe("what is refused", () => {
  beforeAll(async () => {
    await paidSession();
  });

  const event = (): StripeEvent => last("checkout.session.completed");
  const refusal = (raw: RawNotification): Promise<string> => reasonOf(account.readNotification(raw));

  test("forged, and of another account's secret", async () => {
    expect(await refusal(fixture.raw(stripe, event(), { secret: "whsec_guessed00" }))).toBe("bad_signature");
    const other = stripe.addAccount();
    expect(await refusal(fixture.raw(stripe, event(), { secret: other.webhookSecret }))).toBe("bad_signature");
    const theirs = fixture.open(other).readNotification(fixture.raw(stripe, event()));
    expect(await reasonOf(theirs)).toBe("bad_signature");
  });

  test("changed, by a byte anywhere", async () => {
    const raw = fixture.raw(stripe, event());
    for (const at of [0, Math.floor(raw.body.length / 2), raw.body.length - 1]) {
      const body = raw.body.slice();
      body[at] = body[at]! ^ 1;
      expect(await refusal({ ...raw, body })).toBe("bad_signature");
    }
    expect(await refusal({ ...raw, body: new Uint8Array([...raw.body, 0xff]) })).toBe("malformed");
    expect(await refusal({ ...raw, body: new Uint8Array([0xef, 0xbb, 0xbf, ...raw.body]) })).toBe("bad_signature");
  });

  test("too old, and from the future, by the receiver's clock", async () => {
    const seconds = Math.floor(fixture.nowMs() / 1000);
    const at = (offset: number): Promise<string> =>
      refusal({ ...fixture.raw(stripe, event(), { atMs: (seconds + offset) * 1000 }), nowMs: seconds * 1000 });
    expect(await at(-TOLERANCE_SECONDS)).toBe("");
    expect(await at(-TOLERANCE_SECONDS - 1)).toBe("stale");
    expect(await at(TOLERANCE_SECONDS)).toBe("");
    expect(await at(TOLERANCE_SECONDS + 1)).toBe("future");
    // Not the machine's.
    const later = { ...fixture.raw(stripe, event()), nowMs: fixture.nowMs() + 10 * 60_000 };
    expect(await refusal(later)).toBe("stale");
    expect(
      await refusal({ ...later, ...fixture.raw(stripe, event(), { atMs: later.nowMs }), nowMs: later.nowMs }),
    ).toBe("");
  });

  test.each([
    ["nothing", ""],
    ["no time", "v1=00"],
    ["two times", "t=1,t=2,v1=00"],
    ["a time of words", "t=NaN,v1=00"],
    ["no signature", "t=1"],
    ["an empty signature", "t=1,v1="],
    ["another scheme", `t=1,v0=${"0".repeat(64)}`],
    ["noise", "=,=,,t"],
  ])("with a signature of %s", async (_name, header) => {
    const raw = fixture.raw(stripe, event());
    const now = String(Math.floor(raw.nowMs / 1000));
    const headers = { "stripe-signature": header.replace("t=1", `t=${now}`) };
    expect(await refusal({ ...raw, headers })).toBe("bad_signature");
    expect(await refusal({ ...raw, headers: {} })).toBe("bad_signature");
  });

  test("a good signature beside others is enough, while Stripe's secret is rolled", async () => {
    const raw = fixture.raw(stripe, event());
    const headers = { "stripe-signature": `${raw.headers["stripe-signature"]},v1=${"0".repeat(64)}` };
    expect(await refusal({ ...raw, headers })).toBe("");
  });

  test("of the other mode", async () => {
    const live = stripe.addAccount({ live: true });
    const asTest = fixture.open(live, { test: true });
    const event = live.emit("payment_intent.succeeded", { id: "pi_x", object: "payment_intent" });
    expect(await reasonOf(asTest.readNotification(fixture.raw(live, event)))).toBe("wrong_mode");
    expect(await reasonOf(fixture.open(live).readNotification(fixture.raw(live, event)))).toBe("");
    const none = JSON.stringify({ id: "evt_1", object: "event", type: "x", data: { object: {} } });
    expect(await refusal(signed(none))).toBe("wrong_mode");
  });

  test("of an account that is connected to the merchant's", async () => {
    const body = { ...(JSON.parse(event().body) as object), account: "acct_connected" };
    expect(await refusal(signed(JSON.stringify(body)))).toBe("other_account");
  });

  test("of a refund that the key does not see", async () => {
    const other = stripe.addAccount();
    const { intent } = await paidSession();
    stripe.refundAtDashboard(intent, 100);
    const mixed = fixture.open({ ...other, secretKey: other.secretKey }, { webhookSecret: stripe.webhookSecret });
    const raw = fixture.raw(stripe, last("refund.created"));
    expect(await reasonOf(mixed.readNotification(raw))).toBe("other_account");
  });

  test("while Stripe cannot be asked about a refund, so that it is repeated", async () => {
    const { intent } = await paidSession();
    stripe.refundAtDashboard(intent, 100);
    for (const fault of [500, 429, "garbage", "empty"] as const) {
      stripe.fail(fault);
      const refused = await account
        .readNotification(fixture.raw(stripe, last("refund.created")))
        .catch((error: unknown) => error as NotificationRefused);
      expect(refused).toMatchObject({ reason: "unreachable" });
      const raw = fixture.raw(stripe, last("refund.created"));
      expect(account.answerNotification(raw, refused as NotificationRefused).status).toBe(503);
    }
  });

  test("all, before a secret is set up", async () => {
    const open = fixture.open(stripe, { webhookSecret: "" });
    expect(await reasonOf(open.readNotification(fixture.raw(stripe, event())))).toBe("not_set_up");
  });

  test.each([
    ["", "malformed"],
    ["{", "malformed"],
    ["null", "malformed"],
    ["[]", "malformed"],
    ['"event"', "malformed"],
    ['{"object":"v2.core.event","id":"evt_1"}', "malformed"],
    ['{"object":"event","livemode":false,"type":"x","data":{"object":{}}}', "malformed"],
    ['{"object":"event","livemode":false,"id":"evt_1","data":{"object":{}}}', "malformed"],
    ['{"object":"event","livemode":false,"id":"evt_1","type":"<x>","data":{"object":{}}}', "malformed"],
    ['{"object":"event","livemode":false,"id":"evt_1","type":"x"}', "malformed"],
    ['{"object":"event","livemode":false,"id":"evt_1","type":"refund.created","data":{"object":{}}}', "malformed"],
    [
      '{"object":"event","livemode":false,"id":"evt_1","type":"charge.dispute.created","data":{"object":{}}}',
      "malformed",
    ],
  ])("signed but not an event: %s", async (body, reason) => {
    expect(await refusal(signed(body))).toBe(reason);
  });

  test("too large, before anything is read, and what is no POST", async () => {
    expect(await refusal(signed("x".repeat(BODY_BYTES_MAX + 1)))).toBe("too_large");
    expect(await refusal({ ...fixture.raw(stripe, event()), method: "GET" })).toBe("malformed");
    const long = { "stripe-signature": `t=1,${"v1=00,".repeat(1000)}` };
    expect(await refusal({ ...fixture.raw(stripe, event()), headers: long })).toBe("malformed");
  });

  test("anything at all, signed or not, is read or refused and breaks nothing", async () => {
    const json = fc.json({ maxDepth: 5 });
    const types = fc.constantFrom("checkout.session.completed", "payment_intent.succeeded", "charge.refunded", "x.y");
    const event = fc.record({
      id: fc.oneof(fc.string(), fc.constant("evt_1")),
      object: fc.constantFrom("event", "v2.core.event"),
      livemode: fc.constantFrom(false, true, null),
      type: fc.oneof(types, fc.string()),
      data: fc.oneof(fc.jsonValue(), fc.record({ object: fc.jsonValue() })),
    });
    const bodies = fc.oneof(
      json,
      fc.string(),
      event.map((value) => JSON.stringify(value)),
    );
    await fc.assert(
      fc.asyncProperty(bodies, fc.boolean(), fc.string(), async (body, isSigned, header) => {
        const raw = signed(body);
        const sent = isSigned ? raw : { ...raw, headers: { "stripe-signature": header } };
        const reason = await refusal(sent);
        if (!isSigned) expect(["bad_signature", "malformed"]).toContain(reason);
      }),
      { numRuns: 400 },
    );
  });
});

test("a key that may not read refunds takes them as they are told", async () => {
  const limited = await startStripeImitation();
  const there = stripeFixture(limited);
  const open = there.open(limited);
  const { reference } = await open.start(there.order());
  limited.pay(reference);
  const intent = limited.object(reference).payment_intent as string;
  const refund = limited.refundAtDashboard(intent, 100, "pending");
  const early = limited.events.at(-1)!;
  limited.endRefund(refund, true);
  limited.forbid("/v1/refunds");
  const { about } = await open.readNotification(there.raw(limited, early));
  expect(about).toMatchObject({ kind: "refund", refund: { reference: refund, state: "pending" } });
  expect(there.logLines.join("")).toContain("no_permission");
  expect(there.logLines.join("")).not.toContain(limited.secretKey);
  await limited.close();
});

test("answers say in a word what was wrong", () => {
  const raw = signed("{}");
  expect(account.answerNotification(raw, null)).toMatchObject({ status: 200, body: '{"received":true}' });
  for (const [reason, status] of [
    ["bad_signature", 400],
    ["stale", 400],
    ["not_set_up", 400],
    ["too_large", 413],
    ["unreachable", 503],
    ["constructor", 400],
  ] as const) {
    const answer = account.answerNotification(raw, new NotificationRefused(reason, "more than is told"));
    expect(answer).toMatchObject({ status, body: JSON.stringify({ error: reason }) });
  }
});
