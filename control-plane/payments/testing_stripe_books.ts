/**
 * An imitation of Stripe for tests: what one account there holds, and what happens to it. Objects have the fields of API
 * version 2026-10-28 that the SDK's types name and somebody here reads.
 */

export type StripeObject = Record<string, unknown> & { id: string; object: string };
export type Form = { [name: string]: string | Form };

export interface StripeEvent {
  readonly id: string;
  readonly type: string;
  /** As Stripe would send it: what is signed. */
  readonly body: string;
}

/** What Stripe answers instead of an object. */
export class StripeFault extends Error {
  readonly status: number;
  readonly error: Record<string, unknown>;
  constructor(status: number, error: Record<string, unknown>) {
    super(String(error.message));
    this.status = status;
    this.error = error;
  }
}

export function invalid(message: string, extra: Record<string, unknown> = {}): StripeFault {
  return new StripeFault(400, { type: "invalid_request_error", message, ...extra });
}

export function missing(kind: string, id: string, param = "id"): StripeFault {
  const message = `No such ${kind}: '${id}'`;
  return new StripeFault(404, { type: "invalid_request_error", code: "resource_missing", message, param });
}

/** Everything one account holds. `declines`: what the next charges without the payer are declined with. */
export interface StripeBooks {
  readonly account: string;
  readonly secretKey: string;
  readonly webhookSecret: string;
  readonly live: boolean;
  readonly objects: Map<string, StripeObject>;
  readonly events: StripeEvent[];
  readonly declines: string[];
  readonly newId: (prefix: string) => string;
  readonly seconds: () => number;
}

export function lookUp(books: StripeBooks, object: string, id: string, param?: string): StripeObject {
  const found = books.objects.get(id);
  if (found === undefined || found.object !== object) throw missing(object.replace("checkout.", ""), id, param);
  return found;
}

export function emit(books: StripeBooks, type: string, object: StripeObject): StripeEvent {
  const id = books.newId("evt_");
  const body = JSON.stringify({
    id,
    object: "event",
    api_version: "2026-10-28.endive",
    created: books.seconds(),
    data: { object },
    livemode: books.live,
    pending_webhooks: 1,
    request: { id: null, idempotency_key: null },
    type,
  });
  const event = { id, type, body };
  books.events.push(event);
  return event;
}

function add(books: StripeBooks, prefix: string, object: string, fields: Record<string, unknown>): StripeObject {
  const id = books.newId(prefix);
  const made = { id, object, created: books.seconds(), livemode: books.live, ...fields };
  books.objects.set(id, made);
  return made;
}

export interface SessionOrder {
  readonly amount: number;
  readonly currency: string;
  readonly name: string;
  readonly reference: string | null;
  readonly metadata: Form;
  readonly intentMetadata: Form;
  readonly intentDescription: string | null;
  readonly save: boolean;
  readonly expiresAt: number;
  readonly successUrl: string;
  readonly cancelUrl: string;
  readonly locale: string;
}

export function makeSession(books: StripeBooks, url: string, order: SessionOrder): StripeObject {
  const session = add(books, books.live ? "cs_live_" : "cs_test_", "checkout.session", {
    amount_subtotal: order.amount,
    amount_total: order.amount,
    cancel_url: order.cancelUrl,
    client_reference_id: order.reference,
    currency: order.currency,
    customer: null,
    customer_creation: order.save ? "always" : "if_required",
    expires_at: order.expiresAt,
    locale: order.locale,
    metadata: order.metadata,
    mode: "payment",
    payment_intent: null,
    payment_method_types: ["card"],
    payment_status: "unpaid",
    status: "open",
    success_url: order.successUrl,
    ui_mode: "hosted_page",
  });
  session.url = `${url}/c/pay/${session.id}`;
  // Not Stripe's: what the PaymentIntent will be made of, when the payer pays.
  Object.defineProperty(session, "order", { value: order, enumerable: false });
  return session;
}

export function orderOf(session: StripeObject): SessionOrder {
  return (session as unknown as { order: SessionOrder }).order;
}

export function makeMethod(books: StripeBooks, customer: string | null, type = "card"): StripeObject {
  const card = { brand: "visa", display_brand: "visa", last4: "4242", exp_month: 12, exp_year: 2040 };
  const details = type === "card" ? { card } : { [type]: { last4: "3000" } };
  return add(books, "pm_", "payment_method", { type, customer, customer_account: null, metadata: {}, ...details });
}

export interface IntentOrder {
  readonly amount: number;
  readonly currency: string;
  readonly customer: string | null;
  readonly metadata: Form;
  readonly description: string | null;
  readonly save: boolean;
}

export function makeIntent(books: StripeBooks, order: IntentOrder): StripeObject {
  return add(books, "pi_", "payment_intent", {
    amount: order.amount,
    amount_received: 0,
    capture_method: "automatic_async",
    currency: order.currency,
    customer: order.customer,
    description: order.description,
    last_payment_error: null,
    latest_charge: null,
    metadata: order.metadata,
    payment_method: null,
    setup_future_usage: order.save ? "off_session" : null,
    status: "requires_payment_method",
  });
}

function makeCharge(books: StripeBooks, intent: StripeObject, status: string): StripeObject {
  return add(books, "ch_", "charge", {
    amount: intent.amount,
    amount_refunded: 0,
    currency: intent.currency,
    metadata: intent.metadata,
    payment_intent: intent.id,
    refunded: false,
    status,
  });
}

/** The money is there. */
export function succeed(books: StripeBooks, intent: StripeObject): void {
  const charge = intent.latest_charge === null ? makeCharge(books, intent, "succeeded") : null;
  if (charge !== null) intent.latest_charge = charge.id;
  intent.status = "succeeded";
  intent.amount_received = intent.amount;
  intent.last_payment_error = null;
  emit(books, "payment_intent.succeeded", intent);
}

/** A bank said no. */
export function refuse(books: StripeBooks, intent: StripeObject, code: string, declineCode = code): void {
  intent.status = "requires_payment_method";
  intent.last_payment_error = {
    type: "card_error",
    code,
    decline_code: declineCode,
    message: "Your card was declined.",
  };
  emit(books, "payment_intent.payment_failed", intent);
}

/** The PaymentIntent of a session's payer, made when they first press pay. */
export function intentOfSession(books: StripeBooks, session: StripeObject): StripeObject {
  if (typeof session.payment_intent === "string") return lookUp(books, "payment_intent", session.payment_intent);
  const order = orderOf(session);
  const intent = makeIntent(books, {
    amount: order.amount,
    currency: order.currency,
    customer: null,
    metadata: order.intentMetadata,
    description: order.intentDescription,
    save: order.save,
  });
  session.payment_intent = intent.id;
  return intent;
}

export function expireSession(books: StripeBooks, session: StripeObject): void {
  if (session.status !== "open") {
    throw invalid(
      `Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of \`${String(session.status)}\`.`,
    );
  }
  session.status = "expired";
  session.url = null;
  emit(books, "checkout.session.expired", session);
}

export interface RefundRequest {
  readonly intent: StripeObject;
  readonly amount: number;
  readonly reason: string | null;
  readonly metadata: Form;
  readonly status: string;
}

export function makeRefund(books: StripeBooks, request: RefundRequest): StripeObject {
  const { intent, amount } = request;
  if (intent.status !== "succeeded") throw invalid("This PaymentIntent does not have a successful charge to refund.");
  const charge = lookUp(books, "charge", String(intent.latest_charge));
  const left = Number(charge.amount) - Number(charge.amount_refunded);
  if (left === 0) throw invalid("Charge has already been refunded.", { code: "charge_already_refunded" });
  if (amount > left) throw invalid(`Refund amount (${amount}) is greater than unrefunded amount on charge (${left})`);
  charge.amount_refunded = Number(charge.amount_refunded) + amount;
  charge.refunded = charge.amount_refunded === charge.amount;
  const refund = add(books, "re_", "refund", {
    amount,
    charge: charge.id,
    currency: intent.currency,
    metadata: request.metadata,
    payment_intent: intent.id,
    reason: request.reason,
    status: request.status,
  });
  emit(books, "charge.refunded", charge);
  emit(books, "refund.created", refund);
  return refund;
}

/** A refund under way ends. */
export function endRefund(books: StripeBooks, refund: StripeObject, ok: boolean): void {
  refund.status = ok ? "succeeded" : "failed";
  if (ok) {
    emit(books, "refund.updated", refund);
    return;
  }
  refund.failure_reason = "expired_or_canceled_card";
  const charge = lookUp(books, "charge", String(refund.charge));
  charge.amount_refunded = Number(charge.amount_refunded) - Number(refund.amount);
  charge.refunded = false;
  emit(books, "refund.failed", refund);
}

export function openDispute(books: StripeBooks, intent: StripeObject, reason: string): StripeObject {
  const dispute = add(books, "du_", "dispute", {
    amount: intent.amount,
    charge: intent.latest_charge,
    currency: intent.currency,
    metadata: {},
    payment_intent: intent.id,
    reason,
    status: "needs_response",
  });
  emit(books, "charge.dispute.created", dispute);
  emit(books, "charge.dispute.funds_withdrawn", dispute);
  return dispute;
}

export function endDispute(books: StripeBooks, dispute: StripeObject, status: string): void {
  dispute.status = status;
  emit(books, "charge.dispute.closed", dispute);
}
