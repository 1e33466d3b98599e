/** Making payments at Stripe: the hosted page, and charges without the payer. Each is made once, however often it is asked for. */

import { Stripe } from "stripe";
import type { Details, PaymentOrder, StartedPayment } from "./payment.ts";
import { ProcessorError } from "./payment.ts";
import { toStripeAmount } from "./stripe_amounts.ts";
import { call, processorError, timed } from "./stripe_client.ts";
import { findIntentByPayment, findSessionByPayment, windowOfKey } from "./stripe_lookup.ts";
import { badAnswer, checkObject, META } from "./stripe_wire.ts";

/** Stripe's bounds of a hosted session's life, from its creation. */
const LIFE_MIN_MS = 30 * 60_000;
const LIFE_MAX_MS = 24 * 3_600_000;
/** For the way there, and clocks that differ. */
const LIFE_MARGIN_MS = 2 * 60_000;
/** A life that had to be changed ends at a whole one of these, so that a request repeated soon after is the same. */
const LIFE_STEP_MS = 5 * 60_000;
const TEXT_CHARS_MAX = 250;

/** Expanded wherever a PaymentIntent is judged: `prefix` is the way to it. */
export function intentExpansion(prefix: string): string[] {
  return [`${prefix}payment_method`, `${prefix}latest_charge`];
}

/** Seconds since 1970, between Stripe's bounds. */
export function expiresAtSeconds(expiresAtMs: number, nowMs: number): number {
  const first = nowMs + LIFE_MIN_MS + LIFE_MARGIN_MS;
  const last = nowMs + LIFE_MAX_MS - LIFE_MARGIN_MS;
  if (expiresAtMs < first) return (Math.ceil(first / LIFE_STEP_MS) * LIFE_STEP_MS) / 1000;
  if (expiresAtMs > last) return (Math.floor(last / LIFE_STEP_MS) * LIFE_STEP_MS) / 1000;
  return Math.floor(expiresAtMs / 1000);
}

function shortened(text: string): string {
  return [...text].slice(0, TEXT_CHARS_MAX).join("");
}

/** @throws ProcessorError refused */
export function requireStripeAmount(currency: string, minor: bigint): { currency: string; amount: number } {
  const amount = toStripeAmount({ currency, minor });
  if (amount.ok) return amount;
  throw new ProcessorError("refused", amount.failure, `Stripe cannot take this amount of ${currency}`);
}

function metadataOf(order: PaymentOrder): Record<string, string> {
  return { [META.payment]: order.paymentId, [META.session]: order.sessionId, [META.ve]: order.veId };
}

function paymentDescription(order: PaymentOrder): string {
  return shortened(order.merchantName === "" ? order.description : `${order.merchantName}: ${order.description}`);
}

function sessionParams(order: PaymentOrder, nowMs: number): Stripe.Checkout.SessionCreateParams {
  const { currency, amount } = requireStripeAmount(order.currency, order.amountMinor);
  const metadata = metadataOf(order);
  return {
    mode: "payment",
    line_items: [
      {
        quantity: 1,
        price_data: {
          currency,
          unit_amount: amount,
          product_data: { name: shortened(order.description) || "Credits" },
        },
      },
    ],
    client_reference_id: order.paymentId,
    metadata,
    payment_intent_data: {
      metadata,
      description: paymentDescription(order),
      ...(order.saveMethod ? { setup_future_usage: "off_session" as const } : {}),
    },
    ...(order.saveMethod ? { customer_creation: "always" as const } : {}),
    success_url: order.returnUrl,
    cancel_url: order.returnUrl,
    expires_at: expiresAtSeconds(order.expiresAtMs, nowMs),
    locale: order.language,
    // What the payer chose is what is paid: no other currency on the way.
    adaptive_pricing: { enabled: false },
  };
}

/**
 * A request with this key was made already, with other parameters: another language, another time to live. What it made is
 * found by listing.
 */
async function earlierSession(client: Stripe, order: PaymentOrder, nowMs: number): Promise<Stripe.Checkout.Session> {
  const found = await findSessionByPayment(client, order.paymentId, windowOfKey(nowMs));
  if (found !== null) return found;
  throw new ProcessorError("unreachable", "idempotency", "Stripe is still busy with an earlier request");
}

/** A session that is not open any more has no page: our own says how it ended. */
function actionUrl(session: Stripe.Checkout.Session, order: PaymentOrder): string {
  if (typeof session.url !== "string") {
    if (session.status === "open") throw badAnswer("a session without its page");
    return order.returnUrl;
  }
  if (!URL.canParse(session.url) || !/^https?:$/.test(new URL(session.url).protocol)) throw badAnswer("not a URL");
  return session.url;
}

/** @throws ProcessorError */
export async function startSession(client: Stripe, order: PaymentOrder, nowMs: number): Promise<StartedPayment> {
  const params = sessionParams(order, nowMs);
  const options = { idempotencyKey: `tokenbill:${order.paymentId}:start` };
  let session: Stripe.Checkout.Session;
  try {
    session = await timed(client.checkout.sessions.create(params, options));
  } catch (error) {
    if (error instanceof ProcessorError) throw error;
    if (!(error instanceof Stripe.errors.StripeIdempotencyError)) throw processorError(error);
    session = await earlierSession(client, order, nowMs);
  }
  checkObject(session, "checkout.session");
  return {
    reference: session.id,
    action: { kind: "redirect", url: actionUrl(session, order) },
    details: {},
  };
}

/** The PaymentIntent of a declined charge, which Stripe gives with the error. Without what is expanded. */
function declinedIntent(error: unknown): Stripe.PaymentIntent | null {
  const intent = error instanceof Stripe.errors.StripeCardError ? error.payment_intent : undefined;
  return typeof intent === "object" && intent !== null ? intent : null;
}

/**
 * Charges a saved method. A declined charge is an answer too.
 * @throws ProcessorError refused when nothing was made at all
 */
export async function chargeSavedMethod(
  client: Stripe,
  order: PaymentOrder,
  saved: Details,
  nowMs: number,
): Promise<Stripe.PaymentIntent> {
  const { customer, payment_method } = saved;
  if (customer === undefined || payment_method === undefined) {
    throw new ProcessorError("refused", "method_gone", "the saved payment method is not complete");
  }
  const { currency, amount } = requireStripeAmount(order.currency, order.amountMinor);
  const params: Stripe.PaymentIntentCreateParams = {
    amount,
    currency,
    customer,
    payment_method,
    off_session: true,
    confirm: true,
    description: paymentDescription(order),
    metadata: metadataOf(order),
    expand: intentExpansion(""),
  };
  try {
    const options = { idempotencyKey: `tokenbill:${order.paymentId}:charge` };
    return checkObject(await timed(client.paymentIntents.create(params, options)), "payment_intent");
  } catch (error) {
    if (error instanceof ProcessorError) throw error;
    const declined = declinedIntent(error);
    const earlier =
      error instanceof Stripe.errors.StripeIdempotencyError
        ? await findIntentByPayment(client, order.paymentId, windowOfKey(nowMs), customer)
        : null;
    const id = declined?.id ?? earlier?.id;
    if (id === undefined) throw processorError(error);
    const expand = intentExpansion("");
    return checkObject(await call(client.paymentIntents.retrieve(id, { expand })), "payment_intent");
  }
}
