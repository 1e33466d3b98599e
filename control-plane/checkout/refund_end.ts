/** How refunds end: the money went back, or it did not and the Credits come back. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { PaymentState, RefundState } from "../domain/checkout.ts";
import { CHECK_FIRST_MS, creditsFor, hasMoney, movedAlong, nextCheckMs } from "../domain/fulfilment.ts";
import { ProcessorError, type RefundStatus } from "../payments/payment.ts";
import {
  type CheckoutCause,
  type CheckoutSessionFields,
  type CheckoutSessionRow,
  lockCheckoutSession,
  readCheckoutSession,
} from "../store/checkout_session.ts";
import { findPayment, listPayments, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { listLostDisputes, updateDispute } from "../store/dispute.ts";
import { findRefund, updateRefund, listRefunds, type RefundRow } from "../store/refund.ts";
import type { CheckoutDeps } from "./deps.ts";
import { refundsTotal } from "./metrics.ts";
import { accountOf, refundOrderOf } from "./processor.ts";
import { advance, refundData, tell } from "./story.ts";
import { giveCreditsBack, refundable, takeCredits } from "./take_back.ts";

/** A refund that takes longer is asked about by the hour. */
const REFUND_LATE_MS = 86_400_000;
/** After so much more nobody is asked any more; banks can take weeks. */
const REFUND_STOP_MS = 30 * 86_400_000;

const sum = (numbers: readonly bigint[]): bigint => numbers.reduce((a, b) => a + b, 0n);

/** Where the session is once this much more of its money went back. A dispute that is lost counts as well. */
export async function refundedFields(
  tx: Tx,
  session: CheckoutSessionRow,
  payment: PaymentRow,
  amountMinor: bigint,
): Promise<Partial<CheckoutSessionFields>> {
  const payments = (await listPayments(tx, [session.id])).filter(({ state }) => hasMoney(state));
  const waiting = (await listRefunds(tx, [session.id])).some(({ state }) => state === RefundState.PENDING);
  const all = !waiting && payments.every((each) => each.refunded_minor >= each.amount_minor);
  // The session's sum is in one currency; a payment in another one is seen in its refund.
  const counted = payment.currency === session.currency ? amountMinor : 0n;
  return {
    ...movedAlong(session, all ? "refund_all" : "refund_part"),
    refunded_minor: session.refunded_minor + counted,
  };
}

export interface RefundGround {
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
  readonly refund: RefundRow;
}

/** Everything that is there of a refund, at this moment. Null: there is no such refund. */
export async function readRefundGround(tx: Tx, refundId: string): Promise<RefundGround | null> {
  const refund = await findRefund(tx, refundId);
  if (refund === null) return null;
  const session = await readCheckoutSession(tx, refund.merchant_id, refund.session_id);
  return { session, payment: (await findPayment(tx, refund.payment_id))!, refund };
}

/** Locks session and payment, and reads the refund again. */
async function lock(tx: Tx, of: RefundRow): Promise<RefundGround> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
  const payment = await lockPayment(tx, of.payment_id);
  return { session, payment, refund: (await findRefund(tx, of.id))! };
}

async function succeed(
  tx: Tx,
  deps: CheckoutDeps,
  { session, payment, refund: before }: RefundGround,
  reference: string,
  cause: CheckoutCause,
): Promise<RefundGround> {
  const changes = { state: RefundState.SUCCEEDED, reference, check_at: null };
  const refund = await updateRefund(tx, before, changes, new Date(deps.now()));
  const fields = await refundedFields(tx, session, payment, refund.amount_minor);
  const next = await advance(tx, deps, session, fields, { cause, detail: `${refund.id}: refunded` });
  await tell(tx, deps, "refund.succeeded", next, { refund: refundData(refund, payment) });
  return { session: next, payment, refund };
}

/**
 * What a bank took is not to be had again because a refund of the same money failed: of the lost disputes that found it gone
 * already, they take their part now.
 */
async function takeForDisputes(
  tx: Tx,
  deps: CheckoutDeps,
  payment: PaymentRow,
  refund: RefundRow,
): Promise<PaymentRow> {
  const lost = await listLostDisputes(tx, payment.id);
  const dispute = lost.at(-1);
  if (dispute === undefined) return payment;
  const refunds = (await listRefunds(tx, [payment.session_id])).filter(
    (each) => each.payment_id === payment.id && each.state !== RefundState.FAILED,
  );
  const went = sum(lost.map((each) => each.amount_minor)) + sum(refunds.map((each) => each.amount_minor));
  const gone = went < payment.amount_minor ? went : payment.amount_minor;
  const amount = gone - payment.refunded_minor;
  if (amount <= 0n) return payment;
  const reference = `dispute:${dispute.id}:${refund.id}`;
  const cause = { reference, reason: `dispute ${dispute.id} lost, refund ${refund.id} failed` };
  const took = await takeCredits(tx, deps, payment, creditsFor(refundable(payment), amount), cause);
  const plus = (a: string, b: string): string => formatCredits(parseCredits(a) + parseCredits(b));
  const now = new Date(deps.now());
  const all = { taken: plus(dispute.taken, took.taken), became_debt: plus(dispute.became_debt, took.became_debt) };
  await updateDispute(tx, dispute, all, now);
  const changes = { refunded_minor: gone, taken: plus(payment.taken, took.taken), check_at: null };
  return updatePayment(tx, payment, changes, now);
}

async function giveUp(
  tx: Tx,
  deps: CheckoutDeps,
  { session, payment: before, refund: pending }: RefundGround,
  { reference, failure }: Pick<RefundStatus, "failure"> & { readonly reference: string | null },
  cause: CheckoutCause,
): Promise<RefundGround> {
  const now = new Date(deps.now());
  const refund = await updateRefund(tx, pending, { state: RefundState.FAILED, reference, check_at: null }, now);
  const taken = parseCredits(refund.taken);
  await giveCreditsBack(tx, deps, before, taken, {
    reference: `refund_back:${refund.id}`,
    reason: `refund ${refund.id} failed`,
  });
  const refunded = before.refunded_minor - refund.amount_minor;
  // Money that stays can become Credits again, where it had not yet.
  const held = before.state === PaymentState.PAID && refunded === 0n ? { check_at: now } : {};
  const changes = {
    refunded_minor: refunded,
    taken: formatCredits(parseCredits(before.taken) - taken),
    ...held,
  };
  const back = await updatePayment(tx, before, changes, now);
  const payment = await takeForDisputes(tx, deps, back, refund);
  const gone = payment.refunded_minor - back.refunded_minor;
  const fields = gone === 0n ? {} : await refundedFields(tx, session, payment, gone);
  const next = await advance(tx, deps, session, fields, { cause, detail: `${refund.id}: refund failed: ${failure}` });
  await tell(tx, deps, "refund.failed", next, { refund: refundData(refund, payment), failure });
  return { session: next, payment, refund };
}

async function wait(tx: Tx, deps: CheckoutDeps, ground: RefundGround, reference: string): Promise<RefundGround> {
  const now = deps.now();
  if (ground.refund.reference === reference) return ground;
  const changes = { reference, check_at: ground.refund.external ? null : new Date(now + CHECK_FIRST_MS) };
  return { ...ground, refund: await updateRefund(tx, ground.refund, changes, new Date(now)) };
}

/** A refund that had succeeded came back: nothing can be undone by itself, so that a person has to look. */
async function bounce(tx: Tx, deps: CheckoutDeps, ground: RefundGround, cause: CheckoutCause): Promise<RefundGround> {
  const { session, payment, refund } = ground;
  if (session.problem === "refund_returned") return ground;
  const detail = `${refund.id}: the money came back after the refund had succeeded`;
  const next = await advance(tx, deps, session, { problem: "refund_returned" }, { cause, detail });
  await tell(tx, deps, "checkout.problem", next, { refund: refundData(refund, payment) });
  return { ...ground, session: next };
}

/** Does what a processor's answer about a refund asks for, once. `reference` is null if the processor has none. */
export async function concludeRefund(
  deps: CheckoutDeps,
  of: RefundRow,
  status: Omit<RefundStatus, "reference"> & { readonly reference: string | null },
  cause: CheckoutCause,
): Promise<RefundGround> {
  let result = "";
  const after = await deps.db.tx(async (tx): Promise<RefundGround> => {
    const ground = await lock(tx, of);
    result = "";
    const reference = status.reference ?? ground.refund.reference;
    if (ground.refund.state === RefundState.SUCCEEDED && status.state === "failed") {
      return bounce(tx, deps, ground, cause);
    }
    if (ground.refund.state !== RefundState.PENDING) return ground;
    if (status.state === "pending") return reference === null ? ground : wait(tx, deps, ground, reference);
    result = ground.refund.external ? "external" : status.state;
    if (status.state === "succeeded") return succeed(tx, deps, ground, reference!, cause);
    return giveUp(tx, deps, ground, { reference, failure: status.failure }, cause);
  });
  if (result === "") return after;
  refundsTotal.inc({ result });
  deps.log.info({ refund: of.id, payment: of.payment_id, result: status.state, cause }, "a refund ended");
  return after;
}

/**
 * Asks the processor about a refund of ours, or for it, and does what follows. `first`: it was never asked for before, so
 * that nothing can have happened when the processor says that it cannot.
 * @throws ProcessorError when the processor does not say; the refund goes on later
 */
export async function progressRefund(
  deps: CheckoutDeps,
  refundId: string,
  cause: CheckoutCause,
  first = false,
): Promise<RefundGround | null> {
  const ground = await readRefundGround(deps.db, refundId);
  if (ground === null || ground.refund.external) return ground;
  const { session, payment, refund } = ground;
  if (refund.state === RefundState.FAILED) return ground;
  const order = refundOrderOf(deps, session, payment, refund);
  try {
    const account = await accountOf(deps, deps.db, refund.account_id);
    const status = await (first ? account.refund(order) : account.findRefund(order));
    return await concludeRefund(deps, refund, status, cause);
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    const definite = error.code === "refused" || (error.code === "misconfigured" && first);
    if (!definite || refund.state !== RefundState.PENDING) throw error;
    return concludeRefund(deps, refund, { state: "failed", reference: null, failure: error.failure }, cause);
  }
}

/** When the processor is asked about a refund next, in milliseconds since 1970; null: never again. */
export function nextRefundCheckMs({ checks, created_at: createdAt }: RefundRow, nowMs: number): number | null {
  return nextCheckMs({ checks, nowMs, expiresAtMs: createdAt.getTime() + REFUND_LATE_MS, stopMs: REFUND_STOP_MS });
}
