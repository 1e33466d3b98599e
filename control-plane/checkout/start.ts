/** A payer's choice becomes a payment at a processor: one, however often it is asked for. */

import { setTimeout as delay } from "node:timers/promises";
import type { Tx } from "../db/database.ts";
import { isPayable, moved, PaymentState, requireMove, stateName } from "../domain/checkout.ts";
import { DomainError, limitReached } from "../domain/errors.ts";
import { CHECK_FIRST_MS, isLive } from "../domain/fulfilment.ts";
import { type PaymentAction, ProcessorError, type StartedPayment } from "../payments/payment.ts";
import { type CheckoutCause, type CheckoutSessionRow, lockCheckoutSession } from "../store/checkout_session.ts";
import { listPayments, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { beginPayment, START_CHECK_MS } from "./begin.ts";
import { closePayments } from "./close.ts";
import { type CheckoutDeps, type Choice, choiceKey } from "./deps.ts";
import { isUnreachable, openAccount, orderOf, paymentRefused, unavailable } from "./processor.ts";
import { advance, paymentData, tell } from "./story.ts";

/** Payments of one session at most: each is one at a processor as well. */
export const PAYMENTS_MAX = 50;
/** How long a second call waits for what the first one is told; then it asks the processor itself, for the same payment. */
export const START_WAIT_MS = 3_000;
const START_LOOK_EVERY_MS = 100;
/** Whoever began longer ago than this is not waited for. */
const START_BUSY_MS = 30_000;
/** A payment that could not be made, because a processor did not answer. */
const UNANSWERED = "unreachable";
/** Rounds of closing what was there before: each may find what another call has begun meanwhile. */
const ROUNDS_MAX = 5;

export interface StartResult {
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
  /** Null: there is nothing to do, since it turned out to be paid. */
  readonly action: PaymentAction | null;
}

type Step =
  | { readonly kind: "answer"; readonly session: CheckoutSessionRow; readonly payment: PaymentRow }
  | { readonly kind: "wait" }
  | { readonly kind: "make"; readonly session: CheckoutSessionRow; readonly payment: PaymentRow }
  | { readonly kind: "close"; readonly session: CheckoutSessionRow; readonly payments: readonly PaymentRow[] };

interface Start {
  readonly deps: CheckoutDeps;
  readonly choice: Choice;
  readonly key: string;
  readonly cause: CheckoutCause;
  /** Payments that cannot be closed, since the merchant's account is not what it was: they keep nobody from paying anew. */
  readonly stuck: Set<string>;
}

/** @throws DomainError wrong_state */
function checkPayable({ deps }: Start, session: CheckoutSessionRow): void {
  if (!isPayable(session.state)) requireMove(session.state, "start");
  if (deps.now() < session.expires_at.getTime()) return;
  throw new DomainError("wrong_state", "the time to pay this Checkout Session is over: open a new one", {
    metadata: { state: stateName(session.state) },
  });
}

/** The same choice is being made already: by somebody who is at it, or by somebody who gave up. */
async function join(
  tx: Tx,
  { deps }: Start,
  session: CheckoutSessionRow,
  payment: PaymentRow,
  patient: boolean,
): Promise<Step> {
  if (payment.state === PaymentState.PENDING) return { kind: "answer", session, payment };
  const age = Math.abs(deps.now() - payment.updated_at.getTime());
  if (patient && payment.failure !== UNANSWERED && age < START_BUSY_MS) return { kind: "wait" };
  const now = new Date(deps.now());
  const again = { failure: "", check_at: new Date(now.getTime() + START_CHECK_MS) };
  return { kind: "make", session, payment: await updatePayment(tx, await lockPayment(tx, payment.id), again, now) };
}

/** Decides what is to be done, under the session's lock. */
function plan(start: Start, of: CheckoutSessionRow, patient: boolean): Promise<Step> {
  return start.deps.db.tx(async (tx) => {
    const session = await lockCheckoutSession(tx, of.merchant_id, of.id);
    checkPayable(start, session);
    const payments = await listPayments(tx, [session.id]);
    const live = payments.filter(({ state }) => isLive(state));
    const same = live.find(({ choice }) => choice === start.key);
    const others = live.filter(({ id }) => id !== same?.id && !start.stuck.has(id));
    if (others.length > 0) return { kind: "close", session, payments: others };
    if (same !== undefined) return join(tx, start, session, same, patient);
    if (payments.length >= PAYMENTS_MAX) {
      throw limitReached("payments", PAYMENTS_MAX, "too many payments were started in this Checkout Session");
    }
    return { kind: "make", ...(await beginPayment(tx, start.deps, session, start.choice, start.cause)) };
  });
}

/** The processor has made it. */
function keep({ deps }: Start, of: PaymentRow, started: StartedPayment): Promise<Omit<StartResult, "action">> {
  return deps.db.tx(async (tx) => {
    const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
    const payment = await lockPayment(tx, of.id);
    const now = new Date(deps.now());
    const { reference, details, action } = started;
    if (payment.state === PaymentState.STARTING) {
      const check_at = new Date(now.getTime() + CHECK_FIRST_MS);
      const changes = { state: PaymentState.PENDING, reference, details, action, failure: "", checks: 0, check_at };
      return { session, payment: await updatePayment(tx, payment, changes, now) };
    }
    if (payment.state !== PaymentState.CLOSED && payment.state !== PaymentState.FAILED) return { session, payment };
    // It was given up meanwhile: it has to be closed once more, now that it is there.
    return { session, payment: await updatePayment(tx, payment, { reference, details, check_at: now }, now) };
  });
}

/** The processor refused. Null: another call got further with the same payment. */
function fail({ deps, cause }: Start, of: PaymentRow, failure: string): Promise<true | null> {
  return deps.db.tx(async (tx) => {
    const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
    const current = await lockPayment(tx, of.id);
    if (current.state !== PaymentState.STARTING) return null;
    const changes = { state: PaymentState.FAILED, failure, check_at: null };
    const payment = await updatePayment(tx, current, changes, new Date(deps.now()));
    const to = moved(session.state, "decline");
    if (to === null) return true;
    const detail = `${payment.id}: ${failure}`;
    const next = await advance(tx, deps, session, { state: to, failure }, { cause, detail });
    await tell(tx, deps, "checkout.failed", next, { payment: paymentData(payment) });
    return true;
  });
}

/** It may have been made, or not: the same call, or the poller, finds out. */
function postpone({ deps }: Start, of: PaymentRow): Promise<void> {
  return deps.db.tx(async (tx) => {
    await lockCheckoutSession(tx, of.merchant_id, of.session_id);
    const payment = await lockPayment(tx, of.id);
    if (payment.state !== PaymentState.STARTING) return;
    await updatePayment(tx, payment, { failure: UNANSWERED }, new Date(deps.now()));
  });
}

function resultOf({ session, payment }: Omit<StartResult, "action">): StartResult {
  return { session, payment, action: payment.action as PaymentAction | null };
}

/** Null: things have changed meanwhile; look again. @throws DomainError payment_refused, unavailable */
async function make(start: Start, session: CheckoutSessionRow, payment: PaymentRow): Promise<StartResult | null> {
  const { deps, choice, cause } = start;
  try {
    const order = orderOf(deps, session, payment, choice.wechatCode);
    const started = await openAccount(deps, choice.account).start(order);
    const kept = await keep(start, payment, started);
    if (kept.payment.state !== PaymentState.CLOSED && kept.payment.state !== PaymentState.FAILED) return resultOf(kept);
    const { paid } = await closePayments(deps, kept.session, [kept.payment], cause);
    return paid === null ? null : { ...resultOf(paid), action: null };
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    deps.log.warn({ payment: payment.id, failure: error.failure }, "a payment could not be started");
    if (isUnreachable(error)) {
      await postpone(start, payment);
      throw unavailable();
    }
    if ((await fail(start, payment, error.failure)) === null) return null;
    throw paymentRefused(error.failure);
  }
}

/** Null: they are closed. @throws DomainError unavailable, wrong_state */
async function makeRoom(
  start: Start,
  session: CheckoutSessionRow,
  payments: readonly PaymentRow[],
): Promise<StartResult | null> {
  const { paid, pending, unanswered, stuck } = await closePayments(start.deps, session, payments, start.cause);
  if (paid !== null) return { ...resultOf(paid), action: null };
  if (unanswered.length > 0) throw unavailable();
  if (pending.length > 0) {
    throw new DomainError("wrong_state", "a payment of this Checkout Session is being processed: wait for its result", {
      metadata: { state: stateName(session.state) },
    });
  }
  for (const { id } of stuck) start.stuck.add(id);
  return null;
}

/**
 * Makes a payment at the processor of `choice`, or answers the one that is waiting for the same choice. Payments for other
 * choices are closed first; if one of them was paid meanwhile it is fulfilled, and `action` is null. The caller has
 * checked the choice, and that the VE can be topped up.
 * @throws DomainError wrong_state, not_found; payment_refused (metadata `failure`): this payment has ended, another choice
 * may do; unavailable: the same call again goes on with the same payment; limit_reached
 */
export async function startPayment(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  choice: Choice,
  cause: CheckoutCause,
): Promise<StartResult> {
  const start: Start = { deps, choice, key: choiceKey(choice), cause, stuck: new Set() };
  let waits = START_WAIT_MS / START_LOOK_EVERY_MS;
  for (let rounds = ROUNDS_MAX; rounds > 0;) {
    const step = await plan(start, session, waits > 0);
    if (step.kind === "answer") return resultOf(step);
    if (step.kind === "wait") {
      waits -= 1;
      await delay(START_LOOK_EVERY_MS);
      continue;
    }
    rounds -= 1;
    const { kind, session: current } = step;
    const result = await (kind === "make"
      ? make(start, current, step.payment)
      : makeRoom(start, current, step.payments));
    if (result !== null) return result;
  }
  throw unavailable();
}
