/** Asks processors about what they have not told: notifications can be lost, and processes can die. */

import { PaymentState, RefundState } from "../domain/checkout.ts";
import { isLive, nextCheckMs } from "../domain/fulfilment.ts";
import { ProcessorError } from "../payments/payment.ts";
import { type CheckoutSessionRow, readCheckoutSession } from "../store/checkout_session.ts";
import { claimDuePayments, claimDueRefunds, scheduleCheck } from "../store/due.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { RefundRow } from "../store/refund.ts";
import { closePayment } from "./close.ts";
import type { CheckoutDeps } from "./deps.ts";
import { fulfil } from "./fulfil.ts";
import { pollsTotal } from "./metrics.ts";
import { nextRefundCheckMs, progressRefund } from "./refund_end.ts";
import { settle } from "./settle.ts";

/** Payments, and refunds, of one run at most; the next goes on. */
export const POLL_ROWS_MAX = 100;
/** Asked at the same time. */
const POLL_CONCURRENT_MAX = 8;
/** What a poller claimed and did not come to is due again after this long. */
export const POLL_CLAIM_MS = 120_000;
/** A payment that the processor never heard of is given up after this long: the call that made it is long dead. */
export const STARTING_UNKNOWN_MS = 300_000;

/**
 * Whether the processor is asked to close it, and why, rather than how it stands: its time is over, it was given up while
 * it was being made, or nobody was ever told how to pay it. In the last case its choice can be made again.
 */
function closingOf(payment: PaymentRow, nowMs: number, expiresAtMs: number): "replaced" | "failed" | null {
  if (payment.state === PaymentState.CLOSED || payment.state === PaymentState.FAILED) return "replaced";
  if (!isLive(payment.state)) return null;
  if (nowMs >= expiresAtMs) return "replaced";
  const old = nowMs - payment.created_at.getTime() >= STARTING_UNKNOWN_MS;
  return old && payment.state === PaymentState.STARTING ? "failed" : null;
}

/** Null: never again. */
function nextCheck(deps: CheckoutDeps, { checks }: PaymentRow, expiresAtMs: number): Date | null {
  const next = nextCheckMs({ checks, nowMs: deps.now(), expiresAtMs });
  return next === null ? null : new Date(next);
}

async function ask(deps: CheckoutDeps, payment: PaymentRow, session: CheckoutSessionRow): Promise<Date | null> {
  const expiresAtMs = session.expires_at.getTime();
  const closing = closingOf(payment, deps.now(), expiresAtMs);
  const asked = await (closing === null
    ? fulfil(deps, payment.id, "poll")
    : closePayment(deps, session, payment, "poll", closing));
  const state = asked?.payment.state;
  if (state === PaymentState.CLOSED || state === PaymentState.FAILED) return null;
  // Money that waits for room in a wallet is not waited for by a payer.
  return nextCheck(deps, payment, state === PaymentState.PAID ? Math.min(deps.now(), expiresAtMs) : expiresAtMs);
}

/**
 * Nobody is asked any more, so the payment ends here: what never ends would hold up the automatic top-ups of its VE for ever.
 * Money that is told of later is fulfilled all the same.
 */
async function giveUp(deps: CheckoutDeps, payment: PaymentRow): Promise<void> {
  const status = { state: "failed", failure: "never_answered" } as const;
  const { payment: after } = await settle(deps, payment, { status, cause: "poll" });
  if (after.failure === status.failure)
    deps.log.error({ payment: payment.id }, "a payment never ended: look at the payment processor");
}

async function pollPayment(deps: CheckoutDeps, payment: PaymentRow): Promise<void> {
  const session = await readCheckoutSession(deps.db, payment.merchant_id, payment.session_id);
  let next: Date | null;
  try {
    next = await ask(deps, payment, session);
    pollsTotal.inc({ result: "answered" });
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    pollsTotal.inc({ result: error.code });
    next = nextCheck(deps, payment, session.expires_at.getTime());
  }
  // One that has ended already stays as it is.
  if (next === null) await giveUp(deps, payment);
  await scheduleCheck(deps.db, "payment", payment, next);
}

async function pollRefund(deps: CheckoutDeps, refund: RefundRow): Promise<void> {
  try {
    const ground = await progressRefund(deps, refund.id, "poll");
    pollsTotal.inc({ result: "answered" });
    if (ground?.refund.state !== RefundState.PENDING) return;
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    pollsTotal.inc({ result: error.code });
  }
  const next = nextRefundCheckMs(refund, deps.now());
  if (next === null) deps.log.error({ refund: refund.id }, "a refund never ended: look at the payment processor");
  await scheduleCheck(deps.db, "refund", refund, next === null ? null : new Date(next));
}

/** Runs `jobs`, a few at a time. One that fails does not stop the others; its error is logged. */
async function runAll(deps: CheckoutDeps, jobs: readonly (() => Promise<void>)[]): Promise<void> {
  const queue = jobs.values();
  const worker = async (): Promise<void> => {
    for (const job of queue) {
      await job().catch((error: unknown) => {
        pollsTotal.inc({ result: "failed" });
        deps.log.error({ reason: (error as Error).message }, "a payment could not be polled");
      });
    }
  };
  await Promise.all(Array.from({ length: POLL_CONCURRENT_MAX }, worker));
}

/** Asks about the payments and refunds that are due, on whichever replica; how many there were. */
export async function pollPayments(deps: CheckoutDeps): Promise<number> {
  const now = deps.now();
  const claim = { now: new Date(now), again: new Date(now + POLL_CLAIM_MS), limit: POLL_ROWS_MAX };
  const payments = await claimDuePayments(deps.db, claim);
  const refunds = await claimDueRefunds(deps.db, claim);
  await runAll(deps, [
    ...payments.map((payment) => () => pollPayment(deps, payment)),
    ...refunds.map((refund) => () => pollRefund(deps, refund)),
  ]);
  return payments.length + refunds.length;
}
