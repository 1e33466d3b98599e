/** Stripe's webhooks: what is believed, and what they are about. */

import type { Logger } from "pino";
import { Stripe } from "stripe";
import { type Notification, NotificationRefused, ProcessorError, type RawNotification } from "./payment.ts";
import { read } from "./stripe_client.ts";
import { checkObject, disputeState, externalRefund, idOf, META, ourId } from "./stripe_wire.ts";
import { fromStripeAmount } from "./stripe_amounts.ts";

export const BODY_BYTES_MAX = 1_048_576;
const HEADER_CHARS_MAX = 4096;
/** Either way: Stripe's own default for what is old, and as much for a clock that is ahead. */
export const TOLERANCE_SECONDS = 300;
const EVENT_ID_CHARS_MAX = 128;
const KIND_CHARS_MAX = 128;

export interface NotificationContext {
  readonly client: Stripe;
  readonly webhookSecret: string;
  readonly test: boolean;
  readonly log: Logger;
}

type Json = Readonly<Record<string, unknown>>;

interface Event {
  readonly id: string;
  readonly type: string;
  readonly object: Json;
}

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The time that is signed: exactly one, or it is not Stripe's. */
function signedAt(header: string): number {
  const times = header.split(",").filter((item) => item.startsWith("t="));
  const match = times.length === 1 ? /^t=(\d{1,12})$/.exec(times[0]!) : null;
  if (match === null) throw new NotificationRefused("bad_signature", "the signature has no time");
  return Number(match[1]);
}

/** What is signed are bytes; what is not UTF-8 would be read as something else than was signed. */
function textOf(body: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw new NotificationRefused("malformed", "the body is not UTF-8");
  }
}

/** The SDK checks the signature and what is too old; what is from the future it lets pass. */
async function verified(context: NotificationContext, raw: RawNotification): Promise<unknown> {
  const header = raw.headers["stripe-signature"] ?? "";
  if (header === "") throw new NotificationRefused("bad_signature", "there is no signature");
  if (header.length > HEADER_CHARS_MAX) throw new NotificationRefused("malformed", "the signature is too long");
  const at = signedAt(header);
  const text = textOf(raw.body);
  let event: unknown;
  try {
    event = await Stripe.webhooks.constructEventAsync(
      text,
      header,
      context.webhookSecret,
      TOLERANCE_SECONDS,
      undefined,
      raw.nowMs,
    );
  } catch (error) {
    if (error instanceof SyntaxError) throw new NotificationRefused("malformed", "the body is not JSON");
    if (!(error instanceof Stripe.errors.StripeSignatureVerificationError)) {
      // The SDK throws plain errors at empty signatures, and at events of another kind whose signature is right.
      const signed = /thin event/.test((error as Error).message);
      throw new NotificationRefused(signed ? "malformed" : "bad_signature");
    }
    if (/tolerance zone/.test(error.message)) throw new NotificationRefused("stale", "it was signed too long ago");
    throw new NotificationRefused("bad_signature", "the signature is not of this webhook's secret");
  }
  if (at - raw.nowMs / 1000 > TOLERANCE_SECONDS) throw new NotificationRefused("future", "it was signed in the future");
  return event;
}

function eventOf(context: NotificationContext, event: unknown): Event {
  if (!isJson(event) || event.object !== "event" || !isJson(event.data) || !isJson(event.data.object)) {
    throw new NotificationRefused("malformed", "it is not an event");
  }
  const { id, type, livemode, account } = event;
  if (typeof id !== "string" || id === "" || id.length > EVENT_ID_CHARS_MAX) {
    throw new NotificationRefused("malformed", "the event has no id");
  }
  if (typeof type !== "string" || !/^[a-z0-9_.]+$/.test(type) || type.length > KIND_CHARS_MAX) {
    throw new NotificationRefused("malformed", "the event has no type");
  }
  // Of an account that is connected to the merchant's, whose key does not see it.
  if (account !== undefined && account !== null) throw new NotificationRefused("other_account");
  if (livemode !== !context.test) throw new NotificationRefused("wrong_mode", "test and live mode differ");
  return { id, type, object: event.data.object };
}

function references(...values: readonly unknown[]): string[] {
  return values.map(idOf).filter((id) => id !== null);
}

type About = Notification["about"];

const NOTHING: About = { kind: "nothing" };

function aboutSession(session: Json): About {
  if (session.mode !== "payment") return NOTHING;
  const found = references(session, session.payment_intent);
  return { kind: "payment", paymentId: ourId(session.metadata, META.payment), references: found };
}

function aboutIntent(intent: Json): About {
  return { kind: "payment", paymentId: ourId(intent.metadata, META.payment), references: references(intent) };
}

/** A charge tells how much went back and not by which refund; the events of the refunds do. */
function aboutCharge(charge: Json): About {
  const found = references(charge.payment_intent, charge);
  return { kind: "payment", paymentId: ourId(charge.metadata, META.payment), references: found };
}

/**
 * The present state, whatever the event says: events come late and in any order. Where the key may not read it, what the event
 * says has to do.
 */
async function present<T extends { object: string }>(
  context: NotificationContext,
  event: Event,
  object: T["object"],
  reading: () => Promise<T>,
): Promise<T | Json> {
  let found: T | null;
  try {
    found = await read(reading());
    if (found !== null) checkObject(found, object);
  } catch (error) {
    if (!(error instanceof ProcessorError) || error.code === "unreachable") {
      throw new NotificationRefused("unreachable", "Stripe could not be asked about it");
    }
    context.log.warn({ kind: event.type, failure: error.failure }, "the key may not read what Stripe told of");
    return event.object;
  }
  // Signed with the secret of this account's webhook, and not there for its key: they are of two accounts.
  if (found === null) throw new NotificationRefused("other_account", "the secret key does not see it");
  return found;
}

async function aboutRefund(context: NotificationContext, event: Event): Promise<About> {
  const id = idOf(event.object);
  if (id === null) throw new NotificationRefused("malformed", "the refund has no id");
  const refund = (await present(context, event, "refund", () => context.client.refunds.retrieve(id))) as Stripe.Refund;
  const external = externalRefund(refund);
  if (external === null) return NOTHING;
  return {
    kind: "refund",
    paymentId: ourId(refund.metadata, META.payment),
    references: references(refund.payment_intent, refund.charge),
    refundId: ourId(refund.metadata, META.refund),
    refund: external,
  };
}

async function aboutDispute(context: NotificationContext, event: Event): Promise<About> {
  const id = idOf(event.object);
  if (id === null) throw new NotificationRefused("malformed", "the dispute has no id");
  const dispute = (await present(context, event, "dispute", () =>
    context.client.disputes.retrieve(id),
  )) as Stripe.Dispute;
  const money = fromStripeAmount(dispute.currency, dispute.amount);
  if (money === null || typeof dispute.status !== "string") return NOTHING;
  return {
    kind: "dispute",
    paymentId: ourId(dispute.metadata, META.payment),
    references: references(dispute.payment_intent, dispute.charge),
    reference: dispute.id,
    state: disputeState(dispute.status),
    amountMinor: money.minor,
    reason: typeof dispute.reason === "string" ? dispute.reason : "",
  };
}

const SESSION_EVENTS = new Set([
  "checkout.session.completed",
  "checkout.session.async_payment_succeeded",
  "checkout.session.async_payment_failed",
  "checkout.session.expired",
]);
const INTENT_EVENTS = new Set([
  "payment_intent.succeeded",
  "payment_intent.payment_failed",
  "payment_intent.processing",
  "payment_intent.canceled",
]);
const REFUND_EVENTS = new Set(["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"]);
const DISPUTE_EVENTS = new Set([
  "charge.dispute.created",
  "charge.dispute.updated",
  "charge.dispute.closed",
  "charge.dispute.funds_withdrawn",
  "charge.dispute.funds_reinstated",
]);

async function about(context: NotificationContext, event: Event): Promise<About> {
  const { type, object } = event;
  if (SESSION_EVENTS.has(type)) return aboutSession(object);
  if (INTENT_EVENTS.has(type)) return aboutIntent(object);
  if (type === "charge.refunded") return aboutCharge(object);
  if (REFUND_EVENTS.has(type)) return aboutRefund(context, event);
  return DISPUTE_EVENTS.has(type) ? aboutDispute(context, event) : NOTHING;
}

/**
 * Reasons: `not_set_up`, `too_large`, `malformed`, `bad_signature`, `stale`, `future`, `wrong_mode`, `other_account`,
 * `unreachable`.
 * @throws NotificationRefused
 */
export async function readStripeNotification(
  context: NotificationContext,
  raw: RawNotification,
): Promise<Notification> {
  if (context.webhookSecret === "") {
    throw new NotificationRefused("not_set_up", "this account has no webhook_secret");
  }
  if (raw.body.length > BODY_BYTES_MAX) throw new NotificationRefused("too_large");
  if (raw.method !== "POST" || raw.body.length === 0) throw new NotificationRefused("malformed", "it has no body");
  const event = eventOf(context, await verified(context, raw));
  return { eventId: event.id, kind: event.type, about: await about(context, event) };
}
