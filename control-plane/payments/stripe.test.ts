import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PaymentMethod } from "../domain/checkout.ts";
import type { KnownPayment, PaidPayment, PaymentOrder, ProcessorAccount } from "./payment.ts";
import { UNDER_WAY_MS } from "./stripe.ts";
import { STRIPE_API_VERSION } from "./stripe_client.ts";
import { expiresAtSeconds } from "./stripe_start.ts";
import { startStripeImitation, type StripeImitation } from "./testing_stripe.ts";
import { parseForm } from "./testing_stripe_api.ts";
import { failureOf, HOUR_MS, stripeFixture, type StripeFixture } from "./testing_stripe_fixture.ts";

let stripe: StripeImitation;
let fixture: StripeFixture;
let account: ProcessorAccount;

beforeAll(async () => {
  stripe = await startStripeImitation();
  fixture = stripeFixture(stripe);
  account = fixture.open(stripe);
});
afterAll(() => stripe.close());

/** The last one that was sent. */
function sent(path: string): { headers: Record<string, unknown>; form: ReturnType<typeof parseForm> } {
  const request = stripe.requests.findLast((one) => one.method === "POST" && one.path === path)!;
  return { headers: request.headers, form: parseForm(request.body) };
}

async function started(
  changes: Partial<PaymentOrder> = {},
): Promise<{ order: PaymentOrder; known: KnownPayment; id: string }> {
  const order = fixture.order(changes);
  const { reference } = await account.start(order);
  return { order, known: fixture.known(order, reference), id: reference };
}

describe("start", () => {
  test("makes a hosted session, and says all that is needed", async () => {
    const order = fixture.order({ language: "zh" });
    const payment = await account.start(order);
    expect(payment).toStrictEqual({
      reference: expect.stringMatching(/^cs_test_/),
      action: { kind: "redirect", url: `${stripe.url}/c/pay/${payment.reference}` },
      details: {},
    });
    const { headers, form } = sent("/v1/checkout/sessions");
    const metadata = { payment_id: order.paymentId, session_id: order.sessionId, ve_id: order.veId };
    expect(JSON.parse(JSON.stringify(form))).toStrictEqual({
      mode: "payment",
      line_items: {
        0: {
          quantity: "1",
          price_data: { currency: "usd", unit_amount: "5000", product_data: { name: "5,000,000 Credits" } },
        },
      },
      client_reference_id: order.paymentId,
      metadata,
      payment_intent_data: { metadata, description: "Ada's shop: 5,000,000 Credits" },
      success_url: order.returnUrl,
      cancel_url: order.returnUrl,
      expires_at: String(Math.floor(order.expiresAtMs / 1000)),
      locale: "zh",
      adaptive_pricing: { enabled: "false" },
    });
    expect(headers).toMatchObject({
      authorization: `Bearer ${stripe.secretKey}`,
      "idempotency-key": `tokenbill:${order.paymentId}:start`,
      "stripe-version": STRIPE_API_VERSION,
    });
    expect(headers).not.toHaveProperty("x-stripe-client-telemetry");
  });

  test("asks for a saved method only when the payer agreed", async () => {
    await started({ saveMethod: true });
    const { form } = sent("/v1/checkout/sessions");
    expect(form.customer_creation).toBe("always");
    expect(form.payment_intent_data).toMatchObject({ setup_future_usage: "off_session" });
  });

  test("makes one, however often and at once it is asked for", async () => {
    const order = fixture.order();
    const made = await Promise.all(Array.from({ length: 5 }, () => account.start(order)));
    expect(new Set(made.map(({ reference }) => reference)).size).toBe(1);
  });

  test("finds the earlier one when the same payment is asked for in other words", async () => {
    const { order, id } = await started();
    const again = await account.start({ ...order, language: "zh", description: "5,000,000 点" });
    expect(again.reference).toBe(id);
    expect(again.action).toStrictEqual({ kind: "redirect", url: `${stripe.url}/c/pay/${id}` });
    stripe.pay(id);
    // There is no page any more: ours says that it was paid.
    expect((await account.start({ ...order, language: "zh" })).action).toStrictEqual({
      kind: "redirect",
      url: order.returnUrl,
    });
  });

  test("survives an answer that was lost on the way", async () => {
    const order = fixture.order();
    stripe.fail("lose");
    const { reference } = await account.start(order);
    const keys = stripe.requests.slice(-2).map(({ headers }) => headers["idempotency-key"]);
    expect(keys).toStrictEqual([`tokenbill:${order.paymentId}:start`, `tokenbill:${order.paymentId}:start`]);
    expect((await account.start(order)).reference).toBe(reference);
  });

  test.each([
    ["USD", 49n, "amount_too_small"],
    ["GBP", 29n, "amount_too_small"],
    ["USD", 100_000_000n, "amount_too_large"],
    ["USD", 99_999_999_999_999n, "amount_too_large"],
    ["KWD", 5001n, "amount_not_exact"],
    ["LYD", 5000n, "currency_not_supported"],
  ])("refuses %s %i: %s", async (currency, amountMinor, failure) => {
    expect(await failureOf(account.start(fixture.order({ currency, amountMinor })))).toBe(`refused ${failure}`);
  });

  test.each([
    ["JPY", 5000n, "5000"],
    ["ISK", 5000n, "500000"],
    ["KWD", 5120n, "5120"],
  ])("%s %i comes back as it was", async (currency, amountMinor, unitAmount) => {
    const { known, id } = await started({ currency, amountMinor });
    expect(stripe.requests.at(-1)!.body).toContain(`[unit_amount]=${unitAmount}&`);
    stripe.pay(id);
    expect(await account.find(known)).toMatchObject({ state: "paid", currency, amountMinor });
  });

  test("takes hosted payments only", async () => {
    const order = fixture.order({ method: PaymentMethod.WECHAT_NATIVE });
    expect(await failureOf(account.start(order))).toBe("refused method_not_supported");
    expect(fixture.processor.canSave(PaymentMethod.STRIPE_CHECKOUT)).toBe(true);
    expect(fixture.processor.canSave(PaymentMethod.STRIPE_SAVED)).toBe(false);
  });

  test.each([
    ["a minute", 60_000],
    ["a week", 168 * HOUR_MS],
  ])("moves an end in %s between Stripe's bounds", async (_name, ms) => {
    await started({ expiresAtMs: fixture.nowMs() + ms });
  });
});

test("the end of a session moves in steps, so a repeated request is the same", () => {
  const now = Date.UTC(2026, 10, 1, 12, 0, 1);
  const [soon, late] = [now + 1000, now + 72 * HOUR_MS];
  expect(expiresAtSeconds(soon, now)).toBe(Date.UTC(2026, 10, 1, 12, 35) / 1000);
  expect(expiresAtSeconds(soon, now + 60_000)).toBe(expiresAtSeconds(soon, now));
  expect(expiresAtSeconds(late, now)).toBe(Date.UTC(2026, 10, 2, 11, 55) / 1000);
  expect(expiresAtSeconds(late, now + 60_000)).toBe(expiresAtSeconds(late, now));
});

describe("find", () => {
  test("says what was paid, from the PaymentIntent", async () => {
    const { order, known, id } = await started();
    expect(await account.find(known)).toStrictEqual({ state: "pending" });
    stripe.decline(id);
    expect(await account.find(known)).toStrictEqual({ state: "pending" });
    stripe.pay(id);
    const intent = stripe.object(id).payment_intent as string;
    const charge = stripe.object(intent).latest_charge as string;
    expect(await account.find(known)).toStrictEqual({
      state: "paid",
      currency: "USD",
      amountMinor: 5000n,
      settledReference: intent,
      paymentId: order.paymentId,
      paidAtMs: (stripe.object(charge).created as number) * 1000,
      details: { charge },
      savedMethod: null,
    });
  });

  test("gives the saved method, once it is attached to its customer", async () => {
    const { known, id } = await started({ saveMethod: true });
    stripe.pay(id);
    const intent = stripe.object(stripe.object(id).payment_intent as string);
    const credentials = { customer: intent.customer, payment_method: intent.payment_method };
    expect(await account.find(known)).toMatchObject({ savedMethod: { label: "Visa 4242", credentials } });
    stripe.object(intent.payment_method as string).customer = null;
    expect(await account.find(known)).toMatchObject({ state: "paid", savedMethod: null });
  });

  test.each([
    [true, { state: "paid", amountMinor: 5000n }],
    [false, { state: "failed", failure: "payment_intent_payment_attempt_failed" }],
  ])("waits for banks that take their time: %s", async (ok, end) => {
    const { known, id } = await started();
    stripe.pay(id, "async");
    expect(await account.find(known)).toStrictEqual({ state: "pending" });
    stripe.settle(id, ok);
    expect(await account.find(known)).toMatchObject(end);
  });

  test("believes the money and not the session's word alone", async () => {
    const { known, id } = await started();
    stripe.pay(id, "async");
    stripe.object(id).payment_status = "paid";
    expect(await account.find(known)).toStrictEqual({ state: "pending" });
  });

  test("says which payment the money itself is for", async () => {
    const { known, id } = await started();
    stripe.pay(id);
    const intent = stripe.object(stripe.object(id).payment_intent as string);
    intent.metadata = { payment_id: "pmt_other" };
    expect(await account.find(known)).toMatchObject({ state: "paid", paymentId: "pmt_other" });
    intent.metadata = {};
    expect(await account.find(known)).toMatchObject({ state: "paid", paymentId: "" });
  });

  test("does not know what another account has", async () => {
    const { known, id } = await started();
    stripe.pay(id);
    const other = fixture.open(stripe.addAccount());
    expect(await other.find(known)).toStrictEqual({ state: "unknown" });
    expect(await other.close(known)).toStrictEqual({ state: "unknown" });
    expect(await other.find({ ...known, reference: null, createdAtMs: fixture.nowMs() - UNDER_WAY_MS })).toStrictEqual({
      state: "unknown",
    });
  });

  test("expired sessions are closed", async () => {
    const { known, id } = await started();
    stripe.expire(id);
    expect(await account.find(known)).toStrictEqual({ state: "closed" });
  });
});

describe("a payment whose answer was never seen", () => {
  test("is found by its id, among many", async () => {
    const { order, id } = await started();
    await Promise.all(Array.from({ length: 110 }, () => account.start(fixture.order())));
    const lost = fixture.known(order, null);
    expect(await account.find(lost)).toStrictEqual({ state: "pending" });
    const lists = stripe.requests.slice(-3).filter(({ path }) => path.includes("limit=100"));
    expect(lists).toHaveLength(2);
    stripe.pay(id);
    expect(await account.find(lost)).toMatchObject({ state: "paid", paymentId: order.paymentId });
  });

  test("is shown not to exist, but not while it may be under way", async () => {
    const order = fixture.order();
    const at = (ageMs: number): KnownPayment => fixture.known(order, null, { createdAtMs: fixture.nowMs() - ageMs });
    expect(await account.find(at(0))).toStrictEqual({ state: "pending" });
    expect(await account.find(at(UNDER_WAY_MS))).toStrictEqual({ state: "unknown" });
    // Nobody knows its page, so nobody can pay it.
    expect(await account.close(at(0))).toStrictEqual({ state: "unknown" });
  });

  test("is closed all the same", async () => {
    const { order, id } = await started();
    expect(await account.close(fixture.known(order, null))).toStrictEqual({ state: "closed" });
    expect(stripe.object(id).status).toBe("expired");
  });
});

describe("close", () => {
  test("expires the session, once and again", async () => {
    const { known } = await started();
    expect(await account.close(known)).toStrictEqual({ state: "closed" });
    expect(await account.close(known)).toStrictEqual({ state: "closed" });
  });

  test("comes too late for what was paid", async () => {
    const { known, id } = await started();
    stripe.pay(id);
    const status = await account.close(known);
    expect(status).toMatchObject({ state: "paid", settledReference: stripe.object(id).payment_intent });
    expect((status as PaidPayment).amountMinor).toBe(5000n);
  });

  test("leaves money that is under way pending", async () => {
    const { known, id } = await started();
    stripe.pay(id, "async");
    expect(await account.close(known)).toStrictEqual({ state: "pending" });
  });

  test("is an error while the session stays open", async () => {
    const { known } = await started();
    stripe.fail(500);
    expect(await failureOf(account.close(known))).toBe("unreachable server_error");
  });
});

describe("errors", () => {
  test.each([
    [429, "unreachable rate_limited"],
    [500, "unreachable server_error"],
    [503, "unreachable server_error"],
    [409, "unreachable server_error"],
    ["garbage", "unreachable server_error"],
    ["empty", "unreachable bad_answer"],
  ] as const)("%s is %s", async (fault, failure) => {
    const { known } = await started();
    stripe.fail(fault);
    expect(await failureOf(account.find(known))).toBe(failure);
    stripe.fail(fault);
    expect(await failureOf(account.start(fixture.order()))).toBe(failure);
  });

  test("a connection that breaks every time is unreachable, after three attempts", async () => {
    const { known } = await started();
    const before = stripe.requests.length;
    stripe.fail("drop", "drop", "drop");
    expect(await failureOf(account.find(known))).toBe("unreachable no_connection");
    expect(stripe.requests.length - before).toBe(3);
  });

  test("nobody listening is unreachable", async () => {
    const gone = await startStripeImitation();
    const there = stripeFixture(gone);
    const away = there.open(gone);
    await gone.close();
    expect(await failureOf(away.find(there.known(there.order(), "cs_test_1")))).toBe("unreachable no_connection");
  });

  test("keys that are wrong or may not are the merchant's to mend, and no error shows one", async () => {
    const secretKey = "sk_test_wrongKeyThatNobodyKnows9999";
    const wrong = fixture.open({ ...stripe, secretKey });
    const error = await wrong.start(fixture.order()).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "misconfigured", failure: "bad_key" });
    const text = `${String((error as Error).stack)} ${JSON.stringify(error)}`;
    expect(text).not.toContain("wrongKey");
    expect(text).not.toContain("9999");

    const limited = await startStripeImitation();
    const there = stripeFixture(limited);
    limited.forbid("/v1/checkout");
    expect(await failureOf(there.open(limited).start(there.order()))).toBe("misconfigured no_permission");
    await limited.close();
  });
});

test("nothing of the keys is in the log", () => {
  const text = fixture.logLines.join("\n");
  expect(text).not.toContain(stripe.secretKey);
  expect(text).not.toContain(stripe.webhookSecret);
});
