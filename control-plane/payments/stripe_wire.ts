/** PURE: what Stripe's objects mean. They are read with care: an answer may come from something that is not Stripe. */

import type { Stripe } from "stripe";
import type { Money } from "../domain/money.ts";
import {
  type DisputeState,
  type ExternalRefund,
  type PaymentStatus,
  ProcessorError,
  type RefundStatus,
  type SavedMethod,
} from "./payment.ts";
import { fromStripeAmount } from "./stripe_amounts.ts";

/** The names under which our ids stand in Stripe's metadata. */
export const META = {
  payment: "payment_id",
  session: "session_id",
  ve: "ve_id",
  refund: "refund_id",
} as const;

const ID = /^[a-z]{2,8}_[A-Za-z0-9_-]{1,120}$/;

export function badAnswer(what: string): ProcessorError {
  return new ProcessorError("unreachable", "bad_answer", `Stripe's answer could not be understood: ${what}`);
}

/** What can be a word for programs, else the other. */
export function word(text: string | null | undefined, otherwise: string): string {
  return typeof text === "string" && /^[a-z][a-z0-9_]{0,63}$/.test(text) ? text : otherwise;
}

/** Why a card was declined, in a word. Most of the bank's own reasons are not for payers' eyes, so only one is told apart. */
export function declineWord(
  error: { code?: string | null; decline_code?: string | null } | null,
  otherwise: string,
): string {
  return error?.decline_code === "insufficient_funds" ? "insufficient_funds" : word(error?.code, otherwise);
}

/** The id of what may be expanded; null: there is none. */
export function idOf(value: unknown): string | null {
  if (typeof value === "string") return value === "" ? null : value;
  if (typeof value !== "object" || value === null) return null;
  const id = (value as { id?: unknown }).id;
  return typeof id === "string" && id !== "" ? id : null;
}

/** One of our ids out of metadata; null: it is not there, or is not of our form. */
export function ourId(metadata: unknown, name: string): string | null {
  if (typeof metadata !== "object" || metadata === null || !Object.hasOwn(metadata, name)) return null;
  const value = (metadata as Record<string, unknown>)[name];
  return typeof value === "string" && ID.test(value) ? value : null;
}

/** @throws ProcessorError unreachable when it is something else */
export function checkObject<T extends { object: string; id?: string }>(value: T, object: T["object"]): T {
  if (typeof value !== "object" || value === null || value.object !== object || idOf(value) === null) {
    throw badAnswer(`not a ${object}`);
  }
  return value;
}

function moneyOf(currency: string, amount: number): Money {
  const money = fromStripeAmount(currency, amount);
  if (money === null) throw badAnswer("not an amount");
  return money;
}

const BRANDS: Readonly<Record<string, string>> = {
  amex: "American Express",
  cartes_bancaires: "Cartes Bancaires",
  diners: "Diners Club",
  discover: "Discover",
  eftpos_au: "eftpos",
  jcb: "JCB",
  mastercard: "Mastercard",
  unionpay: "UnionPay",
  visa: "Visa",
};

function titled(name: string): string {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** `Visa 4242`, or what kind it is. */
export function methodLabel(method: Stripe.PaymentMethod): string {
  const brand = method.card?.display_brand ?? method.card?.brand;
  if (brand !== undefined) {
    const name = BRANDS[brand] ?? titled(brand);
    return `${name} ${method.card!.last4}`;
  }
  const last4 = method.sepa_debit?.last4 ?? method.us_bank_account?.last4 ?? method.bacs_debit?.last4;
  return typeof last4 === "string" ? `${titled(method.type)} ${last4}` : titled(method.type);
}

/** What was saved, if that was asked for and worked. A method that is not attached to the customer cannot be charged again. */
function savedMethodOf(intent: Stripe.PaymentIntent): SavedMethod | null {
  const customer = idOf(intent.customer);
  const method = intent.payment_method;
  if (intent.setup_future_usage !== "off_session" || customer === null) return null;
  if (typeof method !== "object" || method === null || idOf(method.customer) !== customer) return null;
  return { label: methodLabel(method), credentials: { customer, payment_method: method.id } };
}

function paidAtMs(intent: Stripe.PaymentIntent): number {
  const charge = intent.latest_charge;
  const seconds = typeof charge === "object" && charge !== null ? charge.created : intent.created;
  if (!Number.isSafeInteger(seconds) || seconds < 0) throw badAnswer("not a time");
  return seconds * 1000;
}

/** `payment_method` and `latest_charge` are expanded. @throws ProcessorError unreachable */
function paid(intent: Stripe.PaymentIntent): PaymentStatus {
  const { currency, minor } = moneyOf(intent.currency, intent.amount_received);
  const charge = idOf(intent.latest_charge);
  return {
    state: "paid",
    currency,
    amountMinor: minor,
    settledReference: intent.id,
    paymentId: ourId(intent.metadata, META.payment) ?? "",
    paidAtMs: paidAtMs(intent),
    details: charge === null ? {} : { charge },
    savedMethod: savedMethodOf(intent),
  };
}

/** A hosted session's payer left, and what they left behind: money under way, a voucher to be paid, or a failure. */
function completeUnpaid(intent: Stripe.PaymentIntent): PaymentStatus {
  if (intent.status === "requires_payment_method") {
    return { state: "failed", failure: declineWord(intent.last_payment_error, "payment_failed") };
  }
  if (intent.status === "canceled") {
    return { state: "failed", failure: declineWord(intent.last_payment_error, "canceled") };
  }
  return { state: "pending" };
}

/**
 * How a hosted session stands; its `payment_intent` is expanded, with its `payment_method` and `latest_charge`. Paid only if
 * the session says so and the money is there.
 * @throws ProcessorError unreachable
 */
export function statusOfSession(session: Stripe.Checkout.Session): PaymentStatus {
  const intent = session.payment_intent;
  if (typeof intent === "string") throw badAnswer("the PaymentIntent was not expanded");
  if (intent !== null && intent !== undefined) checkObject(intent, "payment_intent");
  if (session.payment_status === "paid" && intent?.status === "succeeded") return paid(intent);
  if (session.status === "expired") return { state: "closed" };
  if (session.status === "open") return { state: "pending" };
  if (session.status !== "complete") throw badAnswer("a session of no known status");
  if (session.payment_status === "no_payment_required") return { state: "failed", failure: "nothing_to_pay" };
  return intent === null || intent === undefined ? { state: "pending" } : completeUnpaid(intent);
}

/**
 * How a charge without the payer stands. What waits for the payer failed: nobody will come. With the same fields expanded.
 * @throws ProcessorError unreachable
 */
export function statusOfIntent(intent: Stripe.PaymentIntent): PaymentStatus {
  switch (intent.status) {
    case "succeeded":
      return paid(intent);
    case "processing":
    case "requires_capture":
      return { state: "pending" };
    case "requires_action":
    case "requires_confirmation":
      return { state: "failed", failure: "authentication_required" };
    case "requires_payment_method":
      return { state: "failed", failure: declineWord(intent.last_payment_error, "card_declined") };
    case "canceled":
      return intent.last_payment_error === null || intent.last_payment_error === undefined
        ? { state: "closed" }
        : { state: "failed", failure: declineWord(intent.last_payment_error, "card_declined") };
    default:
      throw badAnswer("a PaymentIntent of no known status");
  }
}

/** `canceled` is a refund that failed: the money stayed. Others, `requires_action` among them, are under way. */
export function refundState(status: string | null): RefundStatus["state"] {
  if (status === "succeeded") return "succeeded";
  return status === "failed" || status === "canceled" ? "failed" : "pending";
}

export function refundStatus(refund: Stripe.Refund): RefundStatus {
  const state = refundState(refund.status);
  const failure = state === "failed" ? (refund.failure_reason ?? refund.status ?? "failed") : "";
  return { state, reference: refund.id, failure };
}

/** Null: not an amount that can be said here, so not one of ours. */
export function externalRefund(refund: Stripe.Refund): ExternalRefund | null {
  const money = fromStripeAmount(refund.currency, refund.amount);
  if (money === null) return null;
  return {
    reference: refund.id,
    amountMinor: money.minor,
    currency: money.currency,
    reason: typeof refund.reason === "string" ? refund.reason : "",
    state: refundState(refund.status),
  };
}

/**
 * Inquiries (`warning_…`) count as disputes until they are closed; one that was `prevented` ended with a refund, which is
 * told of by itself.
 */
export function disputeState(status: string): DisputeState {
  if (status === "lost") return "lost";
  return status === "won" || status === "warning_closed" || status === "prevented" ? "won" : "open";
}
