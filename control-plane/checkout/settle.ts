/**
 * What becomes of a payment once its processor has said how it stands. Whoever asked, it ends here: in one transaction
 * that locks session, payment, VE and wallet, so that money is credited once however many ask at the same time.
 */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { moved, PaymentState } from "../domain/checkout.ts";
import { DomainError } from "../domain/errors.ts";
import {
  hasMoney,
  isLive,
  mismatch,
  type Mismatch,
  movedAlong,
  nextCheckMs,
  payReference,
} from "../domain/fulfilment.ts";
import { planTopUp, type WalletPlan } from "../domain/wallet.ts";
import type { PaidPayment, PaymentStatus } from "../payments/payment.ts";
import { postedReferences } from "../store/budget_reset.ts";
import { type CheckoutCause, type CheckoutSessionRow, lockCheckoutSession } from "../store/checkout_session.ts";
import { keepVe } from "../store/dispute.ts";
import { notifyWallet } from "../store/feed_state.ts";
import { postTransfers } from "../store/ledger.ts";
import { isSettledElsewhere, listPayments, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { lockWallets, writeWallets } from "../store/wallet.ts";
import { type CheckoutDeps, packOf } from "./deps.ts";
import { fulfilmentsTotal, problemsTotal } from "./metrics.ts";
import { advance, paymentData, tell } from "./story.ts";

/** Another payment can claim the same money at the same moment; the second look finds it. */
const TRIES_MAX = 3;

/** Why money brings no Credits. The last two can still become Credits, or be refunded. */
export type Problem = Mismatch | "settled_elsewhere" | "ve_deleted" | "wallet_full";

export interface Settled {
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
  /** What this look at it found wrong; null: nothing. */
  readonly problem: Problem | null;
  /** True: this look at it brought the Credits. */
  readonly credited: boolean;
}

export interface Asked {
  readonly status: PaymentStatus;
  readonly cause: CheckoutCause;
  /**
   * We closed it, so that one that the processor never heard of is closed as well. `replaced`: in favour of something else,
   * which is no failure of the session; `failed`: because nothing came of it.
   */
  readonly closing?: "replaced" | "failed";
}

const NOTHING = { problem: null, credited: false } as const;

interface Ground {
  readonly deps: CheckoutDeps;
  readonly tx: Tx;
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
  readonly cause: CheckoutCause;
}

/** Whether the session has another payment that satisfies `wanted`. */
async function anyOther({ tx, session, payment }: Ground, wanted: (other: PaymentRow) => boolean): Promise<boolean> {
  return (await listPayments(tx, [session.id])).some((other) => other.id !== payment.id && wanted(other));
}

/** The payment ends without money; so does the session, if nothing else is under way in it. */
async function end(ground: Ground, state: PaymentState, failure: string, quiet: boolean): Promise<Settled> {
  const { deps, tx, session, cause } = ground;
  const now = new Date(deps.now());
  const why = state === PaymentState.FAILED ? failure : "";
  const changes = { state, failure: why, check_at: null, action: null };
  const payment = await updatePayment(tx, ground.payment, changes, now);
  const to = quiet ? null : moved(session.state, "decline");
  if (to === null || (await anyOther(ground, (other) => isLive(other.state)))) {
    return { session, payment, ...NOTHING };
  }
  const detail = `${payment.id}: ${failure}`;
  const next = await advance(tx, deps, session, { state: to, failure }, { cause, detail });
  await tell(tx, deps, "checkout.failed", next, { payment: paymentData(payment) });
  return { session: next, payment, ...NOTHING };
}

/** Money that is not what was asked for brings nothing, and is not asked about again. */
async function refuse(ground: Ground, paid: PaidPayment, problem: Problem): Promise<Settled> {
  const { deps, tx, session, cause } = ground;
  if (ground.payment.failure === problem) return { session, payment: ground.payment, problem, credited: false };
  const state = hasMoney(ground.payment.state) ? ground.payment.state : PaymentState.FAILED;
  const changes = { state, failure: problem, check_at: null, action: null };
  const payment = await updatePayment(tx, ground.payment, changes, new Date(deps.now()));
  const to = moved(session.state, "decline") ?? session.state;
  const detail = `${payment.id}: ${problem}: ${paid.currency} ${paid.amountMinor} for ${paid.paymentId}`.slice(0, 500);
  const next = await advance(tx, deps, session, { state: to, failure: problem, problem }, { cause, detail });
  await tell(tx, deps, "checkout.problem", next, { payment: paymentData(payment) });
  return { session: next, payment, problem, credited: false };
}

/** The money is here and is right, and cannot become Credits now. A full wallet may have room later. */
async function hold(ground: Ground, paid: PaidPayment, problem: Problem): Promise<Settled> {
  const { deps, tx, session, cause } = ground;
  const nowMs = deps.now();
  const late = Math.min(session.expires_at.getTime(), nowMs);
  const again = problem === "wallet_full" ? nextCheckMs({ checks: 0, nowMs, expiresAtMs: late }) : null;
  const changes = {
    state: PaymentState.PAID,
    settled_reference: paid.settledReference,
    details: { ...ground.payment.details, ...paid.details },
    action: null,
    failure: problem,
    check_at: again === null ? null : new Date(again),
  };
  const { state, failure } = ground.payment;
  if (state === PaymentState.PAID && failure === problem) {
    return { session, payment: ground.payment, problem, credited: false };
  }
  const payment = await updatePayment(tx, ground.payment, changes, new Date(nowMs));
  const next = await advance(
    tx,
    deps,
    session,
    { ...movedAlong(session, "paid"), problem, failure: "", paid_at: session.paid_at ?? new Date(paid.paidAtMs) },
    { cause, detail: `${payment.id}: ${problem}` },
  );
  await tell(tx, deps, "checkout.problem", next, { payment: paymentData(payment) });
  return { session: next, payment, problem, credited: false };
}

/** The Credits of a payment, if the wallet has room for them. */
async function planCredit({ deps, tx, payment }: Ground, reference: string): Promise<WalletPlan | "wallet_full"> {
  const wallet = (await lockWallets(tx, [payment.ve_id])).get(payment.ve_id);
  if (wallet === undefined) throw new Error(`the VE ${payment.ve_id} has no wallet`);
  const transfer = {
    veId: payment.ve_id,
    merchantId: payment.merchant_id,
    reference,
    reason: `payment ${payment.id}`,
    transferId: deps.newId("tr_"),
  };
  try {
    return planTopUp(wallet, parseCredits(payment.credits) + parseCredits(payment.bonus), transfer);
  } catch (error) {
    if (error instanceof DomainError && error.code === "limit_reached") return "wallet_full";
    throw error;
  }
}

/** What the session shows once a payment of it is fulfilled: what was paid for, if it is the first. */
function fulfilledFields({ deps, session, payment }: Ground, paid: PaidPayment, granted: string) {
  const first = parseCredits(session.granted) === 0n;
  const packId = packOf(payment.choice);
  const { currency, amount_minor, credits, bonus } = payment;
  const label = packId === session.pack_id ? session.label : "";
  return {
    ...movedAlong(session, "paid", "fulfil"),
    ...(first ? { pack_id: packId, label, currency, amount_minor, credits, bonus } : {}),
    granted: formatCredits(parseCredits(session.granted) + parseCredits(granted)),
    failure: "",
    paid_at: session.paid_at ?? new Date(paid.paidAtMs),
    fulfilled_at: session.fulfilled_at ?? new Date(deps.now()),
  };
}

async function credit(ground: Ground, paid: PaidPayment, { wallet, transfers }: WalletPlan): Promise<Settled> {
  const { deps, tx, session, cause } = ground;
  const nowMs = deps.now();
  const granted = formatCredits(transfers[0]!.credits);
  const changes = {
    state: PaymentState.FULFILLED,
    settled_reference: paid.settledReference,
    details: { ...ground.payment.details, ...paid.details },
    action: null,
    failure: "",
    transfer_id: transfers[0]!.id,
    granted,
    check_at: null,
  };
  const payment = await updatePayment(tx, ground.payment, changes, new Date(nowMs));
  await writeWallets(tx, nowMs, new Map([[payment.ve_id, wallet]]));
  await postTransfers(tx, nowMs, transfers);
  // Only the problem that this payment had is over; what another one's money waits for, or a refund, stays to be seen.
  const solved =
    session.problem === ground.payment.failure &&
    !(await anyOther(ground, (other) => other.failure === session.problem && session.problem !== ""));
  const fields = { ...fulfilledFields(ground, paid, granted), problem: solved ? "" : session.problem };
  const detail = `${payment.id}: ${granted} Credits`;
  const next = await advance(tx, deps, session, fields, { cause, detail });
  await tell(tx, deps, "checkout.fulfilled", next, { payment: paymentData(payment) });
  if (payment.auto_top_up && paid.savedMethod !== null) await deps.saveMethod?.(tx, payment, next, paid.savedMethod);
  await notifyWallet(tx, payment.ve_id, "topped_up");
  return { session: next, payment, problem: null, credited: true };
}

async function arrive(ground: Ground, paid: PaidPayment): Promise<Settled> {
  const { tx, session, payment } = ground;
  const wrong = mismatch(
    { paymentId: payment.id, currency: payment.currency, amountMinor: payment.amount_minor },
    paid,
  );
  if (wrong !== null) return refuse(ground, paid, wrong);
  const reference = payReference(payment.processor, payment.account_id, paid.settledReference);
  const elsewhere =
    (await isSettledElsewhere(tx, payment, paid.settledReference)) ||
    (await postedReferences(tx, [reference])).size > 0;
  if (elsewhere) return refuse(ground, paid, "settled_elsewhere");
  // Money that goes back, if only in part, brings nothing any more.
  if (payment.refunded_minor > 0n) return { session, payment, ...NOTHING };
  if (!(await keepVe(tx, payment.ve_id))) return hold(ground, paid, "ve_deleted");
  const plan = await planCredit(ground, reference);
  return plan === "wallet_full" ? hold(ground, paid, plan) : credit(ground, paid, plan);
}

async function settleIn(deps: CheckoutDeps, tx: Tx, of: PaymentRow, asked: Asked): Promise<Settled> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
  const payment = await lockPayment(tx, of.id);
  const { status, cause, closing } = asked;
  const quiet = closing === "replaced";
  const ground: Ground = { deps, tx, session, payment, cause };
  const same = { session, payment, ...NOTHING };
  if (payment.state === PaymentState.FULFILLED) return same;
  if (status.state === "paid") return arrive(ground, status);
  if (!isLive(payment.state)) return same;
  if (status.state === "failed") return end(ground, PaymentState.FAILED, status.failure, quiet);
  if (status.state === "closed" || (status.state === "unknown" && closing !== undefined)) {
    return end(ground, PaymentState.CLOSED, "closed", quiet);
  }
  return same;
}

function clashes(error: unknown): boolean {
  return isUniqueViolation(error, "payment_settled_key") || isUniqueViolation(error, "transfer_reference_key");
}

/** Once, and not in the transaction: that may run again. */
function note(deps: CheckoutDeps, before: PaymentRow, settled: Settled, cause: CheckoutCause): void {
  const { payment, session, problem, credited } = settled;
  const facts = { payment: payment.id, session: session.id, cause };
  if (credited) {
    fulfilmentsTotal.inc({ cause });
    deps.log.info({ ...facts, transfer: payment.transfer_id }, "a payment was fulfilled");
  }
  if (problem === null || before.failure === problem) return;
  problemsTotal.inc({ problem });
  deps.log.warn({ ...facts, problem }, "money arrived and brought no Credits");
}

/**
 * Does what the processor's answer asks for: credits the payment, ends it, or leaves it as it is. Safe to repeat and to
 * run many times at once.
 */
export async function settle(deps: CheckoutDeps, of: PaymentRow, asked: Asked): Promise<Settled> {
  for (let tries = 1; ; tries += 1) {
    try {
      const settled = await deps.db.tx((tx) => settleIn(deps, tx, of, asked));
      note(deps, of, settled, asked.cause);
      return settled;
    } catch (error) {
      if (tries >= TRIES_MAX || !clashes(error)) throw error;
    }
  }
}
