/** Sees to it that payments cannot be paid any more; one that was paid meanwhile is fulfilled. */

import { PaymentState } from "../domain/checkout.ts";
import { hasMoney } from "../domain/fulfilment.ts";
import { ProcessorError } from "../payments/payment.ts";
import type { CheckoutCause, CheckoutSessionRow } from "../store/checkout_session.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { CheckoutDeps } from "./deps.ts";
import { accountOf, knownPayment } from "./processor.ts";
import { type Settled, settle } from "./settle.ts";

/**
 * Asks the processor to close a payment, and does what follows from its answer.
 * @throws ProcessorError when the processor does not say; nothing has changed then
 */
export async function closePayment(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  payment: PaymentRow,
  cause: CheckoutCause,
  closing: "replaced" | "failed" = "replaced",
): Promise<Settled> {
  const account = await accountOf(deps, deps.db, payment.account_id);
  const status = await account.close(knownPayment(payment, session));
  return settle(deps, payment, { status, cause, closing });
}

export interface Closed {
  /** The newest that was paid meanwhile. */
  readonly paid: Settled | null;
  /** Those that the processor is still working on: it cannot be stopped. */
  readonly pending: readonly PaymentRow[];
  /** Those that the processor did not answer about. */
  readonly unanswered: readonly PaymentRow[];
  /** Those that the merchant's account does not let us close any more. */
  readonly stuck: readonly PaymentRow[];
}

/** Closes payments, one after the other. */
export async function closePayments(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  payments: readonly PaymentRow[],
  cause: CheckoutCause,
): Promise<Closed> {
  let paid: Settled | null = null;
  const pending: PaymentRow[] = [];
  const unanswered: PaymentRow[] = [];
  const stuck: PaymentRow[] = [];
  for (const payment of payments) {
    try {
      const settled = await closePayment(deps, session, payment, cause);
      if (hasMoney(settled.payment.state)) paid = settled;
      else if (settled.payment.state === PaymentState.PENDING) pending.push(settled.payment);
      else if (settled.payment.state === PaymentState.STARTING) unanswered.push(settled.payment);
    } catch (error) {
      if (!(error instanceof ProcessorError)) throw error;
      (error.code === "unreachable" ? unanswered : stuck).push(payment);
      deps.log.warn({ payment: payment.id, failure: error.failure }, "a payment could not be closed");
    }
  }
  return { paid, pending, unanswered, stuck };
}
