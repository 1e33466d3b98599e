/** What the API asks of the part that takes payments and fulfils them. */

import type { Credits } from "../../core/credits.ts";
import type { Deps } from "../api/context.ts";
import type { CreditHints } from "../api/wallet_calls.ts";
import type { PaymentMethod } from "../domain/checkout.ts";
import type { PaymentAction } from "../payments/payment.ts";
import type { Processors } from "../payments/processors.ts";
import type { CheckoutCause, CheckoutSessionRow } from "../store/checkout_session.ts";
import type { PaymentRow, RefundRow } from "../store/payment.ts";
import type { PaymentAccountRow } from "../store/payment_account.ts";

export interface CheckoutDeps extends Deps {
  readonly processors: Processors;
  readonly hints: CreditHints;
}

/** What is bought and how it is paid; checked against what is offered. */
export interface Choice {
  readonly packId: string;
  readonly label: string;
  readonly currency: string;
  /** In the currency's smallest unit. */
  readonly amountMinor: bigint;
  readonly credits: Credits;
  readonly bonus: Credits;
  readonly account: PaymentAccountRow;
  readonly method: PaymentMethod;
  /** Empty for methods that need none. */
  readonly wechatCode: string;
  /** The method is to be saved, for automatic top-ups. */
  readonly autoTopUp: boolean;
  readonly language: "en" | "zh";
  /** Of the payer; empty: not known. */
  readonly clientAddress: string;
  readonly merchantName: string;
}

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
