/** Refunds that were made at the processor: the Credits follow the money. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { PaymentState, RefundState } from "../domain/checkout.ts";
import { creditsFor, hasMoney } from "../domain/fulfilment.ts";
import { type Notification, ProcessorError } from "../payments/payment.ts";
import { lockCheckoutSession } from "../store/checkout_session.ts";
import { findPayment, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import {
  findRefund,
  findRefundByReference,
  insertRefund,
  listUnsettledRefunds,
  updateRefund,
  type RefundRow,
} from "../store/refund.ts";
import type { CheckoutDeps } from "./deps.ts";
import { fulfil } from "./fulfil.ts";
import { concludeRefund, progressRefund } from "./refund_end.ts";
import { advance, refundData, tell } from "./story.ts";
import { recallCredits, refundable, takeCredits } from "./take_back.ts";

export type RefundNews = Extract<Notification["about"], { readonly kind: "refund" }>;

/** What became of a notification: `accepted`, `ignored`, or why it was rejected. */
export type Verdict = "accepted" | "ignored" | (string & {});

/**
 * A refund of ours that counts as failed, with its Credits given back. If it succeeded after all, it is one that was made
 * without us.
 */
function hadFailed({ state, external }: RefundRow): boolean {
  return state === RefundState.FAILED && !external;
}

/** Writes a refund that was not known, with the Credits that go with it. Null: somebody else has written it. */
async function book(tx: Tx, deps: CheckoutDeps, of: PaymentRow, { refund }: RefundNews): Promise<RefundRow | null> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
  const before = await lockPayment(tx, of.id);
  const known = await findRefundByReference(tx, of.account_id, refund.reference);
  if (known !== null && !hadFailed(known)) return null;
  // The name goes to the row that tells the truth.
  if (known !== null) await updateRefund(tx, known, { reference: null }, new Date(deps.now()));
  const id = deps.newId("rfd_");
  const reason = refund.reason === "" ? "refunded at the payment processor" : refund.reason;
  const credits = creditsFor(refundable(before), refund.amountMinor);
  const took = await takeCredits(tx, deps, before, credits, { reference: `refund:${id}`, reason });
  const now = new Date(deps.now());
  const changes = {
    refunded_minor: before.refunded_minor + refund.amountMinor,
    taken: formatCredits(parseCredits(before.taken) + parseCredits(took.taken)),
    ...(before.state === PaymentState.PAID ? { check_at: null } : {}),
  };
  const payment = await updatePayment(tx, before, changes, now);
  const row = {
    id,
    session_id: session.id,
    payment_id: payment.id,
    merchant_id: payment.merchant_id,
    account_id: payment.account_id,
    state: RefundState.PENDING,
    external: true,
    reference: refund.reference,
    amount_minor: refund.amountMinor,
    ...took,
    reason: refund.reason,
    check_at: null,
  };
  const stored = await insertRefund(tx, row, now);
  const next = await advance(tx, deps, session, {}, { cause: "webhook", detail: `${id}: refunded at the processor` });
  await tell(tx, deps, "refund.created", next, { refund: refundData(stored, payment) });
  return stored;
}

/** A refund that we know: one of ours is asked about, of another one the notification is all there is. */
async function goOn(deps: CheckoutDeps, known: RefundRow, { refund }: RefundNews): Promise<Verdict> {
  if (known.external) {
    await concludeRefund(deps, known, { state: refund.state, reference: refund.reference, failure: "" }, "webhook");
    return "accepted";
  }
  const asked = known.state === RefundState.PENDING || refund.state === "failed";
  if (asked) await progressRefund(deps, known.id, "webhook");
  return "accepted";
}

/**
 * A refund that may be one of ours whose answer was never seen. @throws ProcessorError unreachable while that cannot be
 * told: the processor repeats the notification
 */
async function isOurs(deps: CheckoutDeps, payment: PaymentRow, { refund }: RefundNews): Promise<RefundRow | null> {
  for (const pending of await listUnsettledRefunds(deps.db, payment.id)) {
    if (pending.reference === null) await progressRefund(deps, pending.id, "webhook");
  }
  const unnamed = (await listUnsettledRefunds(deps.db, payment.id)).some(({ reference }) => reference === null);
  if (unnamed) throw new ProcessorError("unreachable", "refund_unknown", "a refund of ours is not known yet");
  return findRefundByReference(deps.db, payment.account_id, refund.reference);
}

async function paidFor(deps: CheckoutDeps, payment: PaymentRow): Promise<PaymentRow | null> {
  if (hasMoney(payment.state)) return payment;
  await fulfil(deps, payment.id, "webhook");
  const now = await findPayment(deps.db, payment.id);
  return now !== null && hasMoney(now.state) ? now : null;
}

/**
 * Takes back the Credits of a refund that the processor tells of; each one once. `payment` is the one it is about, of the
 * account that tells it; null: none is known.
 * @throws ProcessorError when the processor has to be asked and does not answer
 */
export async function receiveRefund(
  deps: CheckoutDeps,
  accountId: string,
  payment: PaymentRow | null,
  news: RefundNews,
): Promise<Verdict> {
  const byId = news.refundId === null ? null : await findRefund(deps.db, news.refundId);
  const { refund } = news;
  const wrong = (row: RefundRow): boolean => refund.state === "succeeded" && hadFailed(row);
  if (byId !== null && byId.account_id === accountId && !wrong(byId)) return goOn(deps, byId, news);
  const known = await findRefundByReference(deps.db, accountId, refund.reference);
  if (known !== null && !wrong(known)) return goOn(deps, known, news);
  if (payment === null) return "ignored";
  const ours = await isOurs(deps, payment, news);
  if (ours !== null && !wrong(ours)) return goOn(deps, ours, news);
  if (refund.state === "failed") return "ignored";
  const paid = await paidFor(deps, payment);
  if (paid === null) return "ignored";
  if (refund.currency !== paid.currency) return "wrong_currency";
  if (refund.amountMinor <= 0n) return "wrong_amount";
  await recallCredits(deps, paid.ve_id, creditsFor(refundable(paid), refund.amountMinor));
  const booked = await deps.db.tx((tx) => book(tx, deps, paid, news));
  const row = booked ?? (await findRefundByReference(deps.db, accountId, refund.reference));
  return row === null ? "ignored" : goOn(deps, row, news);
}
