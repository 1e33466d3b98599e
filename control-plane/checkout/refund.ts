/** A merchant gives money back: first the Credits are taken, then the processor is asked. */

import type { Tx } from "../db/database.ts";
import { PaymentState, RefundState } from "../domain/checkout.ts";
import { DomainError, invalidField, notFound } from "../domain/errors.ts";
import { CHECK_FIRST_MS, creditsFor, hasMoney, leftToRefund } from "../domain/fulfilment.ts";
import { formatAmount } from "../domain/money.ts";
import { ProcessorError } from "../payments/payment.ts";
import { type CheckoutSessionRow, lockCheckoutSession } from "../store/checkout_session.ts";
import { listPayments, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { findRefund, insertRefund, type RefundRow } from "../store/refund.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { CheckoutDeps } from "./deps.ts";
import { progressRefund, readRefundGround, type RefundGround } from "./refund_end.ts";
import { advance, refundData, tell } from "./story.ts";
import { recallCredits, refundable, takeCredits } from "./take_back.ts";

export interface RefundRequest {
  /** `rfd_…`: the same id is the same refund, whatever else it says. */
  readonly refundId: string;
  /** Null: all that is left. */
  readonly amountMinor: bigint | null;
  readonly reason: string;
  /** Empty: the newest payment that has enough left. */
  readonly paymentId: string;
}

const left = (payment: PaymentRow): bigint => leftToRefund(refundable(payment));

/** @throws DomainError wrong_state, not_found, invalid_field */
function choose(payments: readonly PaymentRow[], { paymentId, amountMinor }: RefundRequest): PaymentRow {
  if (amountMinor !== null && amountMinor <= 0n) throw invalidField("amount", "must be above 0", "positive");
  const paid = payments.filter((each) => hasMoney(each.state));
  if (paymentId !== "" && !payments.some(({ id }) => id === paymentId)) throw notFound("payment");
  const offered = paid.filter((each) => left(each) > 0n && (paymentId === "" || each.id === paymentId));
  if (offered.length === 0) {
    throw new DomainError("wrong_state", "there is no money left to refund", { metadata: { rule: "nothing_left" } });
  }
  const chosen = offered.findLast((each) => left(each) >= (amountMinor ?? 0n));
  if (chosen !== undefined) return chosen;
  const most = offered.reduce((a, b) => (left(b) > left(a) ? b : a));
  const text = formatAmount({ currency: most.currency, minor: left(most) });
  throw invalidField("amount", `at most ${text} ${most.currency} can be refunded`, "refundable");
}

async function book(
  tx: Tx,
  deps: CheckoutDeps,
  of: CheckoutSessionRow,
  request: RefundRequest,
): Promise<{ readonly refund: RefundRow; readonly fresh: boolean }> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.id);
  const known = await findRefund(tx, request.refundId);
  if (known !== null) return { refund: known, fresh: false };
  const { id } = choose(await listPayments(tx, [session.id]), request);
  const before = await lockPayment(tx, id);
  const amount = request.amountMinor ?? left(before);
  const reason = request.reason === "" ? `refund ${request.refundId}` : request.reason;
  const cause = { reference: `refund:${request.refundId}`, reason };
  const took = await takeCredits(tx, deps, before, creditsFor(refundable(before), amount), cause);
  const now = new Date(deps.now());
  const changes = {
    refunded_minor: before.refunded_minor + amount,
    taken: formatCredits(parseCredits(before.taken) + parseCredits(took.taken)),
    // Of money that goes back, no Credits come any more.
    ...(before.state === PaymentState.PAID ? { check_at: null } : {}),
  };
  const payment = await updatePayment(tx, before, changes, now);
  const refund = await insertRefund(
    tx,
    {
      id: request.refundId,
      session_id: session.id,
      payment_id: payment.id,
      merchant_id: payment.merchant_id,
      account_id: payment.account_id,
      state: RefundState.PENDING,
      external: false,
      reference: null,
      amount_minor: amount,
      ...took,
      reason: request.reason,
      check_at: new Date(now.getTime() + CHECK_FIRST_MS),
    },
    now,
  );
  const next = await advance(tx, deps, session, {}, { cause: "api", detail: `${refund.id}: refund asked for` });
  await tell(tx, deps, "refund.created", next, { refund: refundData(refund, payment) });
  return { refund, fresh: true };
}

/** What is leased of the Credits that the refund will take, is asked back first. */
async function recall(deps: CheckoutDeps, session: CheckoutSessionRow, request: RefundRequest): Promise<void> {
  if ((await findRefund(deps.db, request.refundId)) !== null) return;
  const payment = choose(await listPayments(deps.db, [session.id]), request);
  const amount = request.amountMinor ?? left(payment);
  await recallCredits(deps, payment.ve_id, creditsFor(refundable(payment), amount));
}

/**
 * Takes Credits back in proportion to the amount, and then has the processor give the money back. Those that were spent
 * become debt. The refund is SUCCEEDED; FAILED when the processor refused, and the Credits are back; or PENDING while the
 * processor works on it or does not answer: it goes on by itself. Safe to repeat with the same refund id.
 * @throws DomainError wrong_state when there is nothing to refund; invalid_field `amount`; not_found
 */
export async function refundSession(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  request: RefundRequest,
): Promise<Omit<RefundGround, "payment">> {
  await recall(deps, session, request);
  const { refund, fresh } = await deps.db.tx((tx) => book(tx, deps, session, request));
  if (refund.session_id !== session.id) throw notFound("refund");
  try {
    if (refund.state === RefundState.PENDING) await progressRefund(deps, refund.id, "api", fresh);
  } catch (error) {
    // Whether the money went is not known: the poller goes on with the same refund.
    if (!(error instanceof ProcessorError)) throw error;
    deps.log.warn({ refund: refund.id, failure: error.failure }, "a refund was not answered");
  }
  return (await readRefundGround(deps.db, refund.id))!;
}
