/**
 * Stripe: the hosted Checkout page, and saved methods for automatic top-ups. Everything is asked with the merchant's own secret
 * key, so what belongs to another account is unknown here. docs/payments/stripe.md says what merchants set up.
 */

import { Stripe } from "stripe";
import { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import type {
  Details,
  KnownPayment,
  NotificationAnswer,
  NotificationRefused,
  OpenAccount,
  PaymentOrder,
  PaymentStatus,
  Processor,
  ProcessorAccount,
  ProcessorDeps,
  RefundOrder,
  RefundStatus,
} from "./payment.ts";
import { ProcessorError } from "./payment.ts";
import { call, processorError, read, type StripeClients, stripeClients, timed } from "./stripe_client.ts";
import { checkStripeCredentials, openStripeCredentials } from "./stripe_credentials.ts";
import { findIntentByPayment, findRefundById, findSessionByPayment, windowAround } from "./stripe_lookup.ts";
import { readStripeNotification } from "./stripe_notifications.ts";
import { chargeSavedMethod, intentExpansion, requireStripeAmount, startSession } from "./stripe_start.ts";
import { checkObject, idOf, META, refundStatus, statusOfIntent, statusOfSession } from "./stripe_wire.ts";

/** A request may be under way this long after its payment was written down: until then nothing found is no proof. */
export const UNDER_WAY_MS = 2 * 60_000;

const SESSION_EXPANSION = ["payment_intent", ...intentExpansion("payment_intent.")];
const INTENT_EXPANSION = intentExpansion("");

/** The reference, or what is found by our id; null: there is nothing. */
async function referenceOf(client: Stripe, payment: KnownPayment): Promise<string | null> {
  if (payment.reference !== null) return payment.reference;
  const created = windowAround(payment.createdAtMs);
  const found =
    payment.method === PaymentMethod.STRIPE_SAVED
      ? await findIntentByPayment(client, payment.paymentId, created, null)
      : await findSessionByPayment(client, payment.paymentId, created);
  return found?.id ?? null;
}

function nothingFound(payment: KnownPayment, nowMs: number): PaymentStatus {
  const underWay = payment.reference === null && nowMs - payment.createdAtMs < UNDER_WAY_MS;
  return { state: underWay ? "pending" : "unknown" };
}

async function statusOf(client: Stripe, method: PaymentMethod, reference: string): Promise<PaymentStatus | null> {
  if (method === PaymentMethod.STRIPE_SAVED) {
    const intent = await read(client.paymentIntents.retrieve(reference, { expand: INTENT_EXPANSION }));
    return intent === null ? null : statusOfIntent(checkObject(intent, "payment_intent"));
  }
  const session = await read(client.checkout.sessions.retrieve(reference, { expand: SESSION_EXPANSION }));
  return session === null ? null : statusOfSession(checkObject(session, "checkout.session"));
}

async function find(client: Stripe, payment: KnownPayment, nowMs: number): Promise<PaymentStatus> {
  const reference = await referenceOf(client, payment);
  if (reference === null) return nothingFound(payment, nowMs);
  return (await statusOf(client, payment.method, reference)) ?? nothingFound({ ...payment, reference }, nowMs);
}

/**
 * Expires or cancels it, then looks how it stands. Stripe refuses that for what has ended, and the look says how. What it
 * refuses although it is still open is an error.
 */
async function end(client: Stripe, method: PaymentMethod, reference: string): Promise<PaymentStatus> {
  const saved = method === PaymentMethod.STRIPE_SAVED;
  let refused: ProcessorError | null = null;
  try {
    await timed<unknown>(saved ? client.paymentIntents.cancel(reference) : client.checkout.sessions.expire(reference));
  } catch (error) {
    refused = error instanceof ProcessorError ? error : processorError(error);
    if (refused.code !== "refused") throw refused;
  }
  const status = (await statusOf(client, method, reference)) ?? { state: "unknown" };
  if (status.state === "pending" && refused !== null && !saved) {
    // A session that is complete and waits for its money cannot be closed, and needs no error; an open one can.
    const session = await call(client.checkout.sessions.retrieve(reference));
    if (session.status === "open") throw refused;
  }
  return status;
}

async function close(client: Stripe, payment: KnownPayment, nowMs: number): Promise<PaymentStatus> {
  const reference = await referenceOf(client, payment);
  if (reference !== null) return end(client, payment.method, reference);
  // The page of a session whose answer was lost is known to nobody; a charge needs no page.
  return payment.method === PaymentMethod.STRIPE_SAVED ? nothingFound(payment, nowMs) : { state: "unknown" };
}

async function charge(
  client: Stripe,
  order: PaymentOrder,
  saved: Details,
  nowMs: number,
): Promise<{ reference: string; details: Details; status: PaymentStatus }> {
  if (order.method !== PaymentMethod.STRIPE_SAVED) throw notThisWay();
  const intent = await chargeSavedMethod(client, order, saved, nowMs);
  let status = statusOfIntent(intent);
  if (status.state === "failed" && intent.status !== "canceled") {
    // Nobody is to pay later what counts as failed now. An answer that Stripe repeats is as old as the first, so it is asked.
    const ended = await end(client, order.method, intent.id);
    if (ended.state === "paid" || ended.state === "pending") status = ended;
  }
  return { reference: intent.id, details: {}, status };
}

/** What was asked for already is found first: Stripe forgets idempotency keys after a day. */
async function refund(client: Stripe, order: RefundOrder): Promise<RefundStatus> {
  if (order.reference !== null) {
    const known = await read(client.refunds.retrieve(order.reference));
    // It was made, so the key is another account's by now; that says nothing of where the money is.
    if (known === null) throw new ProcessorError("misconfigured", "unknown_refund", "Stripe knows no such refund");
    return refundStatus(checkObject(known, "refund"));
  }
  const { amount } = requireStripeAmount(order.payment.currency, order.amountMinor);
  const earlier = await findRefundById(client, order.settledReference, order.refundId);
  if (earlier !== null) return refundStatus(earlier);
  const made = await call(
    client.refunds.create(
      {
        payment_intent: order.settledReference,
        amount,
        reason: "requested_by_customer",
        metadata: { [META.refund]: order.refundId, [META.payment]: order.payment.paymentId },
      },
      { idempotencyKey: `tokenbill:${order.refundId}:refund` },
    ),
  );
  return refundStatus(checkObject(made, "refund"));
}

/** Stripe refuses to detach what is detached, without a word that says so. */
async function forget(client: Stripe, saved: Details): Promise<void> {
  const id = saved.payment_method;
  if (id === undefined) return;
  try {
    await timed(client.paymentMethods.detach(id));
  } catch (error) {
    const refused = error instanceof ProcessorError ? error : processorError(error);
    if (!(error instanceof Stripe.errors.StripeInvalidRequestError)) throw refused;
    const method = await read(client.paymentMethods.retrieve(id));
    if (method !== null && idOf(method.customer) !== null) throw refused;
  }
}

/** Stripe repeats whatever is not answered with 2xx, for up to three days. */
function answer(problem: NotificationRefused | null): NotificationAnswer {
  const type = "application/json; charset=utf-8";
  if (problem === null) return { status: 200, type, body: '{"received":true}' };
  const statuses: Readonly<Record<string, number>> = { too_large: 413, unreachable: 503, unavailable: 503 };
  const status = Object.hasOwn(statuses, problem.reason) ? statuses[problem.reason]! : 400;
  return { status, type, body: JSON.stringify({ error: problem.reason }) };
}

function notThisWay(): ProcessorError {
  return new ProcessorError("refused", "method_not_supported", "Stripe does not take payments this way");
}

function openStripe(deps: ProcessorDeps, clients: StripeClients, account: OpenAccount): ProcessorAccount {
  const { secretKey, webhookSecret } = openStripeCredentials(account.credentials);
  const client = clients.of(secretKey);
  return {
    start: async (order) => {
      if (order.method !== PaymentMethod.STRIPE_CHECKOUT) throw notThisWay();
      return startSession(client, order, deps.now());
    },
    find: (payment) => find(client, payment, deps.now()),
    close: (payment) => close(client, payment, deps.now()),
    refund: (order) => refund(client, order),
    findRefund: (order) => refund(client, order),
    chargeSaved: (order, saved) => charge(client, order, saved, deps.now()),
    forgetSaved: (saved) => forget(client, saved),
    readNotification: (raw) =>
      readStripeNotification({ client, webhookSecret, test: account.test, log: deps.log }, raw),
    answerNotification: (_raw, problem) => answer(problem),
  };
}

export function stripeProcessor(deps: ProcessorDeps): Processor {
  const clients = stripeClients(deps.urls.stripe);
  return {
    processor: PaymentProcessor.STRIPE,
    currencies: () => [],
    canSave: (method) => method === PaymentMethod.STRIPE_CHECKOUT,
    authorizeUrl: () => "",
    checkCredentials: checkStripeCredentials,
    open: (account) => openStripe(deps, clients, account),
  };
}
