/** The engine's side of the seam to processors: accounts, orders, and what their errors mean to a caller. */

import { parseCredits } from "../../core/credits.ts";
import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import { creditsText } from "../domain/credits_text.ts";
import { DomainError } from "../domain/errors.ts";
import { notificationUrl } from "../domain/fulfilment.ts";
import {
  type KnownPayment,
  type PaymentOrder,
  type ProcessorAccount,
  ProcessorError,
  type RefundOrder,
} from "../payments/payment.ts";
import type { CheckoutSessionRow } from "../store/checkout_session.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { RefundRow } from "../store/refund.ts";
import { findPaymentAccount, type PaymentAccountRow } from "../store/payment_account.ts";
import type { CheckoutDeps } from "./deps.ts";

/** @throws ProcessorError misconfigured when its credentials cannot be read */
export function openAccount(deps: CheckoutDeps, row: PaymentAccountRow): ProcessorAccount {
  try {
    return deps.processors.open(row);
  } catch (error) {
    deps.log.error({ account: row.id, reason: (error as Error).message }, "a payment account cannot be opened");
    throw new ProcessorError("misconfigured", "account_unusable", "the payment account cannot be opened");
  }
}

/** The account of a payment, disabled or not: its money counts either way. @throws ProcessorError misconfigured */
export async function accountOf(deps: CheckoutDeps, tx: Tx, accountId: string): Promise<ProcessorAccount> {
  // Accounts with payments cannot be deleted.
  return openAccount(deps, (await findPaymentAccount(tx, accountId))!);
}

export function knownPayment(payment: PaymentRow, session: CheckoutSessionRow): KnownPayment {
  return {
    paymentId: payment.id,
    method: payment.method,
    reference: payment.reference,
    details: payment.details,
    currency: payment.currency,
    amountMinor: payment.amount_minor,
    createdAtMs: payment.created_at.getTime(),
    expiresAtMs: session.expires_at.getTime(),
  };
}

/** The same for the same payment, whenever it is made and whoever asks: repetitions must not differ. */
export function orderOf(
  deps: Deps,
  session: CheckoutSessionRow,
  payment: PaymentRow,
  wechatCode: string,
): PaymentOrder {
  const { terms } = payment;
  return {
    paymentId: payment.id,
    sessionId: session.id,
    veId: session.ve_id,
    method: payment.method,
    currency: payment.currency,
    amountMinor: payment.amount_minor,
    description: creditsText(parseCredits(payment.credits) + parseCredits(payment.bonus)),
    merchantName: terms["merchantName"] ?? "",
    expiresAtMs: session.expires_at.getTime(),
    returnUrl: `${deps.settings.publicUrl}/checkout/${session.id}`,
    notificationUrl: notificationUrl(deps.settings.publicUrl, payment.processor, payment.account_id),
    language: terms["language"] === "zh" ? "zh" : "en",
    saveMethod: payment.auto_top_up,
    wechatCode,
    clientAddress: terms["clientAddress"] ?? "",
  };
}

/** Of a payment whose money has arrived. */
export function refundOrderOf(
  deps: Deps,
  session: CheckoutSessionRow,
  payment: PaymentRow,
  refund: RefundRow,
): RefundOrder {
  return {
    refundId: refund.id,
    payment: knownPayment(payment, session),
    settledReference: payment.settled_reference!,
    amountMinor: refund.amount_minor,
    reason: refund.reason,
    notificationUrl: notificationUrl(deps.settings.publicUrl, payment.processor, payment.account_id),
    reference: refund.reference,
  };
}

export function isUnreachable(error: unknown): boolean {
  return error instanceof ProcessorError && error.code === "unreachable";
}

/** For whoever can try again. */
export function unavailable(): DomainError {
  return new DomainError("unavailable", "the payment processor does not answer at the moment: try again shortly");
}

export function paymentRefused(failure: string): DomainError {
  return new DomainError(
    "payment_refused",
    "the payment processor did not accept this payment: choose another way to pay, or try again later",
    { metadata: { failure } },
  );
}

/** What a processor's error means to a caller who wanted to know how things stand; others pass through. */
export function toDomainError(error: unknown): unknown {
  return error instanceof ProcessorError ? unavailable() : error;
}
