/**
 * Finding at Stripe what has our id, when its answer was lost. Stripe's search lags behind and not every country has it, and
 * an idempotency key tells only that something was made (and is forgotten after a day). Lists are complete, so what was made
 * about the time in question is listed and looked through.
 */

import type { Stripe } from "stripe";
import { ProcessorError } from "./payment.ts";
import { call } from "./stripe_client.ts";
import { badAnswer, META, ourId } from "./stripe_wire.ts";

/** Stripe's own maximum. */
const PAGE_SIZE = 100;
const PAGES_MAX = 20;

/** Seconds since 1970, both included. */
export interface Window {
  readonly gte: number;
  readonly lte: number;
}

/** How far Stripe's clock and ours may be apart, and how long a request may have been under way. */
const BEFORE_MS = 5 * 60_000;
const AFTER_MS = 10 * 60_000;
/** As long as Stripe keeps an idempotency key at least. */
const DAY_MS = 24 * 3_600_000;

/** When something can have been made whose row is as old as this. */
export function windowAround(createdAtMs: number): Window {
  return { gte: Math.floor((createdAtMs - BEFORE_MS) / 1000), lte: Math.ceil((createdAtMs + AFTER_MS) / 1000) };
}

/** When something can have been made whose idempotency key Stripe still knows. */
export function windowOfKey(nowMs: number): Window {
  return { gte: Math.floor((nowMs - DAY_MS - BEFORE_MS) / 1000), lte: Math.ceil((nowMs + AFTER_MS) / 1000) };
}

interface Listed {
  readonly id: string;
}

/**
 * Newest first.
 * @throws ProcessorError unreachable, `too_many` when it was not among the first `PAGES_MAX` pages and there are more
 */
async function search<T extends Listed>(
  page: (after: { starting_after?: string; limit: number }) => Promise<Stripe.ApiList<T>>,
  wanted: (item: T) => boolean,
): Promise<T | null> {
  let last: string | undefined;
  for (let pages = 0; pages < PAGES_MAX; pages++) {
    const list = await call(
      page(last === undefined ? { limit: PAGE_SIZE } : { limit: PAGE_SIZE, starting_after: last }),
    );
    if (list?.object !== "list" || !Array.isArray(list.data)) throw badAnswer("not a list");
    const found = list.data.find(wanted);
    if (found !== undefined) return found;
    last = list.data.at(-1)?.id;
    if (list.has_more !== true || last === undefined) return null;
  }
  throw new ProcessorError("unreachable", "too_many", "there is too much at Stripe to find one payment in");
}

/** By our payment id. Without what is expanded. */
export function findSessionByPayment(
  client: Stripe,
  paymentId: string,
  created: Window,
): Promise<Stripe.Checkout.Session | null> {
  return search(
    (after) => client.checkout.sessions.list({ created, ...after }),
    (session) => session.client_reference_id === paymentId,
  );
}

/** By our payment id; of one customer where that is known. Without what is expanded. */
export function findIntentByPayment(
  client: Stripe,
  paymentId: string,
  created: Window,
  customer: string | null,
): Promise<Stripe.PaymentIntent | null> {
  return search(
    (after) => client.paymentIntents.list({ created, ...after, ...(customer === null ? {} : { customer }) }),
    (intent) => ourId(intent.metadata, META.payment) === paymentId,
  );
}

/** By our refund id, whenever it was made. */
export function findRefundById(client: Stripe, intentId: string, refundId: string): Promise<Stripe.Refund | null> {
  return search(
    (after) => client.refunds.list({ payment_intent: intentId, ...after }),
    (refund) => ourId(refund.metadata, META.refund) === refundId,
  );
}
