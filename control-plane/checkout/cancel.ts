/** A session is given up. */

import { CheckoutState, moved, requireMove } from "../domain/checkout.ts";
import { isLive } from "../domain/fulfilment.ts";
import {
  type CheckoutCause,
  type CheckoutSessionRow,
  lockCheckoutSession,
  readCheckoutSession,
} from "../store/checkout_session.ts";
import { listPayments, type PaymentRow } from "../store/payment.ts";
import { closePayments } from "./close.ts";
import type { CheckoutDeps } from "./deps.ts";
import { unavailable } from "./processor.ts";
import { advance, tell } from "./story.ts";

/** Rounds of closing payments: each may find one that was begun meanwhile. */
const ROUNDS_MAX = 5;

/** Null: it is canceled. Otherwise what has to be closed first: payments that were begun since. */
function finish(
  deps: CheckoutDeps,
  of: CheckoutSessionRow,
  cause: CheckoutCause,
  closed: ReadonlySet<string>,
): Promise<PaymentRow[] | null> {
  return deps.db.tx(async (tx) => {
    const session = await lockCheckoutSession(tx, of.merchant_id, of.id);
    const to = moved(session.state, "cancel");
    if (to === null) return null;
    const payments = await listPayments(tx, [session.id]);
    const fresh = payments.filter(({ id, state }) => isLive(state) && !closed.has(id));
    if (fresh.length > 0) return fresh;
    const next = await advance(tx, deps, session, { state: to }, { cause, detail: "canceled" });
    // Strangers make sessions by the dozen; those in which nothing happened are no news.
    if (payments.length > 0 || cause === "api") await tell(tx, deps, "checkout.canceled", next);
    return null;
  });
}

/**
 * Closes the session's payments at their processors, and cancels it. One that was paid meanwhile is fulfilled instead; one
 * that a processor is still working on is fulfilled if it is paid in the end. Safe to repeat.
 * @throws DomainError wrong_state: it was paid, or its time is over; unavailable; not_found
 */
export async function cancelSession(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  cause: CheckoutCause,
): Promise<CheckoutSessionRow> {
  const before = await readCheckoutSession(deps.db, session.merchant_id, session.id);
  if (before.state === CheckoutState.CANCELED) return before;
  requireMove(before.state, "cancel");
  const closed = new Set<string>();
  for (let rounds = 0; rounds < ROUNDS_MAX; rounds += 1) {
    const fresh = await finish(deps, session, cause, closed);
    if (fresh === null) return readCheckoutSession(deps.db, session.merchant_id, session.id);
    const { unanswered } = await closePayments(deps, before, fresh, cause);
    if (unanswered.length > 0) throw unavailable();
    for (const { id } of fresh) closed.add(id);
  }
  throw unavailable();
}
