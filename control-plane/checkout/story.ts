/** How sessions change: the row, a line of its story, and what the merchant's webhooks say. */

import type { Deps } from "../api/context.ts";
import { canonicalCredits } from "../api/convert.ts";
import type { Tx } from "../db/database.ts";
import { stateName } from "../domain/checkout.ts";
import { PROCESSOR_WORDS } from "../domain/fulfilment.ts";
import { formatAmount } from "../domain/money.ts";
import {
  addCheckoutEvent,
  type CheckoutCause,
  type CheckoutSessionFields,
  type CheckoutSessionRow,
  updateCheckoutSession,
} from "../store/checkout_session.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { RefundRow } from "../store/refund.ts";
import { emitWebhookEvents, type WebhookEventType } from "../store/webhook_event.ts";

export interface Line {
  readonly cause: CheckoutCause;
  /** For people. */
  readonly detail: string;
}

/** Writes a locked session and a line of its story. */
export async function advance(
  tx: Tx,
  deps: Deps,
  session: CheckoutSessionRow,
  changes: Partial<CheckoutSessionFields>,
  { cause, detail }: Line,
): Promise<CheckoutSessionRow> {
  const now = new Date(deps.now());
  const next = await updateCheckoutSession(tx, session, changes, now);
  await addCheckoutEvent(tx, session.id, {
    at: now,
    from_state: session.state,
    to_state: next.state,
    cause,
    detail,
  });
  return next;
}

export function priceOf({ currency, amount_minor: minor }: Pick<PaymentRow, "currency" | "amount_minor">): {
  currency: string;
  amount: string;
} {
  return { currency, amount: formatAmount({ currency, minor }) };
}

export function paymentData(payment: PaymentRow): Record<string, unknown> {
  return {
    id: payment.id,
    processor: PROCESSOR_WORDS[payment.processor],
    payment_account_id: payment.account_id,
    price: priceOf(payment),
    credits: canonicalCredits(payment.credits),
    bonus_credits: canonicalCredits(payment.bonus),
    credits_granted: canonicalCredits(payment.granted),
    processor_reference: payment.settled_reference ?? payment.reference ?? "",
    failure: payment.failure,
  };
}

export function refundData(refund: RefundRow, payment: PaymentRow): Record<string, unknown> {
  return {
    id: refund.id,
    payment_id: refund.payment_id,
    amount: priceOf({ currency: payment.currency, amount_minor: refund.amount_minor }),
    credits_taken: canonicalCredits(refund.taken),
    credits_debt: canonicalCredits(refund.became_debt),
    reason: refund.reason,
    external: refund.external,
  };
}

/** Tells the merchant's webhooks, when this transaction commits. `more` is what it is about besides the session. */
export async function tell(
  tx: Tx,
  deps: Deps,
  type: WebhookEventType,
  session: CheckoutSessionRow,
  more: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const data = {
    checkout_session: {
      id: session.id,
      ve_id: session.ve_id,
      state: stateName(session.state),
      automatic: session.automatic,
      credits_granted: canonicalCredits(session.granted),
      failure: session.failure,
      problem: session.problem,
      metadata: session.metadata,
    },
    ...more,
  };
  const event = {
    id: deps.newId("evt_"),
    merchantId: session.merchant_id,
    type,
    veId: session.ve_id,
    sessionId: session.id,
    data,
  };
  await emitWebhookEvents(tx, deps.now(), [event]);
}
