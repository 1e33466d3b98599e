/** The one way from a payment to Credits, for notifications, the page that a payer lands on, and the poller alike. */

import { PaymentState } from "../domain/checkout.ts";
import { isLive } from "../domain/fulfilment.ts";
import { type CheckoutCause, type CheckoutSessionRow, readCheckoutSession } from "../store/checkout_session.ts";
import { findPayment, listPayments, type PaymentRow } from "../store/payment.ts";
import type { CheckoutDeps } from "./deps.ts";
import { accountOf, knownPayment, toDomainError } from "./processor.ts";
import { type Settled, settle } from "./settle.ts";

/**
 * Asks the processor how a payment stands, outside of any transaction, and does what follows from it: Credits exactly
 * once, whatever the session's state. Null: there is no such payment.
 * @throws ProcessorError when the processor does not say; nothing has changed then
 */
export async function fulfil(deps: CheckoutDeps, paymentId: string, cause: CheckoutCause): Promise<Settled | null> {
  const payment = await findPayment(deps.db, paymentId);
  if (payment === null) return null;
  const session = await readCheckoutSession(deps.db, payment.merchant_id, payment.session_id);
  if (isOver(payment)) return { session, payment, problem: null, credited: false };
  const account = await accountOf(deps, deps.db, payment.account_id);
  const status = await account.find(knownPayment(payment, session));
  return settle(deps, payment, { status, cause });
}

/** Whether nothing that a processor says can change it any more. */
function isOver({ state, refunded_minor: refunded }: PaymentRow): boolean {
  return state === PaymentState.FULFILLED || (state === PaymentState.PAID && refunded > 0n);
}

/**
 * Asks about every payment of the session that may still bring Credits. The session afterwards.
 * @throws DomainError unavailable when a processor does not answer and nothing was fulfilled; not_found
 */
export async function checkSession(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  cause: CheckoutCause,
): Promise<CheckoutSessionRow> {
  let credited = false;
  let failure: unknown = null;
  for (const payment of await listPayments(deps.db, [session.id])) {
    if (!isLive(payment.state) && payment.state !== PaymentState.PAID) continue;
    try {
      const settled = await fulfil(deps, payment.id, cause);
      credited ||= settled?.payment.state === PaymentState.FULFILLED;
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== null && !credited) throw toDomainError(failure);
  return readCheckoutSession(deps.db, session.merchant_id, session.id);
}
