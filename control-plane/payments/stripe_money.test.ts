import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PaymentMethod } from "../domain/checkout.ts";
import type { Details, KnownPayment, PaidPayment, PaymentOrder, ProcessorAccount } from "./payment.ts";
import { UNDER_WAY_MS } from "./stripe.ts";
import { startStripeImitation, type StripeImitation } from "./testing_stripe.ts";
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

async function paid(changes: Partial<PaymentOrder> = {}): Promise<{ known: KnownPayment; status: PaidPayment }> {
  const order = fixture.order(changes);
  const { reference } = await account.start(order);
  stripe.pay(reference);
  const known = fixture.known(order, reference);
  return { known, status: (await account.find(known)) as PaidPayment };
}

function refundsOf(intent: string): number {
  const charge = stripe.object(stripe.object(intent).latest_charge as string);
  return charge.amount_refunded as number;
}

describe("refunds", () => {
  test("go back once, however often they are asked for", async () => {
    const { known, status } = await paid();
    const order = fixture.refundOrder(known, status.settledReference, { amountMinor: 2000n });
    const first = await account.refund(order);
    expect(first).toStrictEqual({ state: "succeeded", reference: expect.stringMatching(/^re_/), failure: "" });
    const refund = stripe.object(first.reference);
    expect(refund).toMatchObject({
      amount: 2000,
      payment_intent: status.settledReference,
      reason: "requested_by_customer",
    });
    expect({ ...(refund.metadata as object) }).toStrictEqual({
      refund_id: order.refundId,
      payment_id: known.paymentId,
    });
    expect(await account.refund(order)).toStrictEqual(first);
    expect(await account.findRefund(order)).toStrictEqual(first);
    expect(await account.findRefund({ ...order, reference: first.reference })).toStrictEqual(first);
    expect(refundsOf(status.settledReference)).toBe(2000);
  });

  test("are found after Stripe has forgotten the key", async () => {
    const { known, status } = await paid();
    const order = fixture.refundOrder(known, status.settledReference, { amountMinor: 1000n });
    const first = await account.refund(order);
    stripe.clock.offsetMs += 48 * HOUR_MS;
    expect(await account.refund(order)).toStrictEqual(first);
    expect(refundsOf(status.settledReference)).toBe(1000);
  });

  test("whose answer was lost are asked for again with the same key", async () => {
    const { known, status } = await paid();
    const order = fixture.refundOrder(known, status.settledReference);
    stripe.fail(500);
    expect(await failureOf(account.refund(order))).toBe("unreachable server_error");
    expect(await account.findRefund(order)).toMatchObject({ state: "succeeded" });
    const asked = stripe.requests.filter(({ path, method }) => method === "POST" && path === "/v1/refunds");
    expect(asked.at(-1)!.headers["idempotency-key"]).toBe(`tokenbill:${order.refundId}:refund`);
    expect(refundsOf(status.settledReference)).toBe(5000);
  });

  test("that cannot be are refused", async () => {
    const { known, status } = await paid();
    const order = fixture.refundOrder(known, status.settledReference);
    expect(await failureOf(account.refund({ ...order, amountMinor: 5001n }))).toBe("refused invalid_request");
    await account.refund({ ...order, refundId: "rfd_all" });
    expect(await failureOf(account.refund({ ...order, refundId: "rfd_more" }))).toBe("refused charge_already_refunded");
    expect(await failureOf(account.findRefund({ ...order, reference: "re_none" }))).toBe(
      "misconfigured unknown_refund",
    );
    const other = fixture.open(stripe.addAccount());
    expect(await failureOf(other.refund(order))).toBe("refused resource_missing");
  });

  test("may take their time, and fail", async () => {
    const { known, status } = await paid();
    const order = fixture.refundOrder(known, status.settledReference);
    const reference = stripe.refundAtDashboard(status.settledReference, 5000, "pending");
    const find = (): Promise<unknown> => account.findRefund({ ...order, reference });
    expect(await find()).toStrictEqual({ state: "pending", reference, failure: "" });
    stripe.endRefund(reference, false);
    expect(await find()).toStrictEqual({ state: "failed", reference, failure: "expired_or_canceled_card" });
    stripe.object(reference).status = "canceled";
    expect(await find()).toMatchObject({ state: "failed" });
    stripe.object(reference).status = "requires_action";
    expect(await find()).toMatchObject({ state: "pending" });
  });

  test("in currencies that Stripe counts otherwise", async () => {
    const { known, status } = await paid({ currency: "ISK", amountMinor: 5000n });
    const order = fixture.refundOrder(known, status.settledReference, { amountMinor: 10n });
    const { reference } = await account.refund(order);
    expect(stripe.object(reference).amount).toBe(1000);
    const fils = await paid({ currency: "KWD", amountMinor: 5120n });
    const uneven = fixture.refundOrder(fils.known, fils.status.settledReference, { amountMinor: 5119n });
    expect(await failureOf(account.refund(uneven))).toBe("refused amount_not_exact");
  });
});

describe("saved methods", () => {
  let saved: Details;
  beforeAll(async () => {
    const { status } = await paid({ saveMethod: true });
    saved = status.savedMethod!.credentials;
  });

  const charge = (changes: Partial<PaymentOrder> = {}): PaymentOrder =>
    fixture.order({ method: PaymentMethod.STRIPE_SAVED, ...changes });

  test("are charged once, however often it is asked for", async () => {
    const order = charge();
    const first = await account.chargeSaved!(order, saved);
    expect(first).toMatchObject({
      reference: expect.stringMatching(/^pi_/),
      status: { state: "paid", currency: "USD", amountMinor: 5000n, paymentId: order.paymentId, savedMethod: null },
    });
    expect((first.status as PaidPayment).settledReference).toBe(first.reference);
    const sent = stripe.requests.at(-1)!;
    expect(sent.body).toContain("off_session=true&confirm=true");
    expect(sent.headers["idempotency-key"]).toBe(`tokenbill:${order.paymentId}:charge`);
    expect((await account.chargeSaved!(order, saved)).reference).toBe(first.reference);
    // In other words it is found and not made again.
    expect((await account.chargeSaved!({ ...order, description: "Credits" }, saved)).reference).toBe(first.reference);
    expect(await account.find(fixture.known(order, first.reference))).toStrictEqual(first.status);
  });

  test.each([
    ["card_declined", "card_declined"],
    ["insufficient_funds", "insufficient_funds"],
    ["authentication_required", "authentication_required"],
    ["expired_card", "expired_card"],
    ["requires_action", "authentication_required"],
  ])("that are declined (%s) failed for good", async (decline, failure) => {
    const order = charge();
    stripe.declineCharges(decline);
    const made = await account.chargeSaved!(order, saved);
    expect(made.status).toStrictEqual({ state: "failed", failure });
    expect(stripe.object(made.reference).status).toBe("canceled");
    // Asked again, it is still the same one.
    expect((await account.chargeSaved!(order, saved)).reference).toBe(made.reference);
    expect(await account.find(fixture.known(order, made.reference))).toMatchObject(
      decline === "requires_action" ? { state: "closed" } : { state: "failed", failure },
    );
  });

  test("may take their time", async () => {
    const order = charge();
    stripe.declineCharges("processing");
    const made = await account.chargeSaved!(order, saved);
    expect(made.status).toStrictEqual({ state: "pending" });
    const known = fixture.known(order, made.reference);
    expect(await account.close(known)).toStrictEqual({ state: "pending" });
    stripe.object(made.reference).status = "requires_payment_method";
    expect(await account.close(known)).toStrictEqual({ state: "closed" });
  });

  test("whose answer was lost are found, and never twice", async () => {
    const order = charge();
    stripe.fail("lose", "lose", "lose");
    expect(await failureOf(account.chargeSaved!(order, saved))).toBe("unreachable no_connection");
    const lost = fixture.known(order, null);
    expect(await account.find(lost)).toMatchObject({ state: "paid", paymentId: order.paymentId });
    expect(await account.close(lost)).toMatchObject({ state: "paid" });
    const never = charge();
    expect(await account.find(fixture.known(never, null))).toStrictEqual({ state: "pending" });
    // It may be on its way, and needs no page: unlike a hosted one it is not given up at once.
    expect(await account.close(fixture.known(never, null))).toStrictEqual({ state: "pending" });
    const old = { createdAtMs: fixture.nowMs() - UNDER_WAY_MS };
    expect(await account.find(fixture.known(never, null, old))).toStrictEqual({ state: "unknown" });
  });

  test("that are not whole, or are asked for otherwise, are refused", async () => {
    expect(await failureOf(account.chargeSaved!(charge(), {}))).toBe("refused method_gone");
    const hosted = fixture.order();
    expect(await failureOf(account.chargeSaved!(hosted, saved))).toBe("refused method_not_supported");
    expect(await failureOf(account.chargeSaved!(charge({ amountMinor: 10n }), saved))).toBe("refused amount_too_small");
    const other = fixture.open(stripe.addAccount());
    expect(await failureOf(other.chargeSaved!(charge(), saved))).toBe("refused resource_missing");
  });

  test("are forgotten, and again without an error", async () => {
    await account.forgetSaved!(saved);
    expect(stripe.object(saved.payment_method!).customer).toBeNull();
    await account.forgetSaved!(saved);
    await account.forgetSaved!({ customer: "cus_none", payment_method: "pm_none" });
    await account.forgetSaved!({});
    expect(await failureOf(account.chargeSaved!(charge(), saved))).toBe("refused invalid_request");
    stripe.fail(500);
    expect(await failureOf(account.forgetSaved!(saved))).toBe("unreachable server_error");
  });
});
