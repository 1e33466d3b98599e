/** What the API asks of the part that takes payments and fulfils them. */

import type { PaymentAction } from "../payments/payment.ts";
import type { CheckoutCause, CheckoutSessionRow } from "../store/checkout_session.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { RefundRow } from "../store/refund.ts";
import { cancelSession } from "./cancel.ts";
import type { CheckoutDeps, Choice } from "./deps.ts";
import { checkSession } from "./fulfil.ts";
import { refundSession } from "./refund.ts";
import { startPayment } from "./start.ts";

export interface RefundChoice {
  /** Ours (`rfd_…`): a refund with this id is made once, however often it is asked for. */
  readonly refundId: string;
  /** Null: all that is left. */
  readonly amountMinor: bigint | null;
  readonly reason: string;
  /** Empty: the newest that has enough left. */
  readonly paymentId: string;
}

/** Every function may throw DomainError: wrong_state, payment_refused, unavailable. */
export interface CheckoutEngine {
  startPayment(
    deps: CheckoutDeps,
    session: CheckoutSessionRow,
    choice: Choice,
    cause: CheckoutCause,
  ): Promise<{ session: CheckoutSessionRow; payment: PaymentRow; action: PaymentAction | null }>;
  /** Asks the processor, and fulfils what was paid. */
  checkSession(deps: CheckoutDeps, session: CheckoutSessionRow, cause: CheckoutCause): Promise<CheckoutSessionRow>;
  cancelSession(deps: CheckoutDeps, session: CheckoutSessionRow, cause: CheckoutCause): Promise<CheckoutSessionRow>;
  refundSession(
    deps: CheckoutDeps,
    session: CheckoutSessionRow,
    choice: RefundChoice,
  ): Promise<{ session: CheckoutSessionRow; refund: RefundRow }>;
}

export const ENGINE: CheckoutEngine = { startPayment, checkSession, cancelSession, refundSession };
