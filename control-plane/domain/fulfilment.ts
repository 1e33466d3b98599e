/** PURE: when money that arrived is believed, what goes back with it, and how often a processor is asked. */

import type { Credits } from "../../core/credits.ts";
import { CheckoutState, type CheckoutMove, moved, PaymentProcessor, PaymentState } from "./checkout.ts";
import { proportion } from "./money.ts";

/** How references of the ledger and addresses of notifications name processors. */
export const PROCESSOR_WORDS: Readonly<Record<PaymentProcessor, string>> = {
  [PaymentProcessor.STRIPE]: "stripe",
  [PaymentProcessor.WECHAT_PAY]: "wechat",
  [PaymentProcessor.SANDBOX]: "sandbox",
};

/** Where a processor sends its notifications about an account. The sandbox tells by itself, and is sent nowhere. */
export function notificationUrl(publicUrl: string, processor: PaymentProcessor, accountId: string): string {
  return `${publicUrl}/webhooks/${PROCESSOR_WORDS[processor]}/${accountId}`;
}

/** The ledger's name for money that came in: unique for ever, whichever payment claims it. */
export function payReference(processor: PaymentProcessor, accountId: string, settledReference: string): string {
  return `pay:${PROCESSOR_WORDS[processor]}:${accountId}:${settledReference}`;
}

/** Who pays what, as we asked for it or as the processor says. Currencies are three capitals. */
export interface MoneyFor {
  readonly paymentId: string;
  readonly currency: string;
  readonly amountMinor: bigint;
}

export type Mismatch = "wrong_payment" | "wrong_currency" | "wrong_amount";

/** Why money is not what was asked for; null: it is. */
export function mismatch(asked: MoneyFor, paid: MoneyFor): Mismatch | null {
  if (paid.paymentId !== asked.paymentId) return "wrong_payment";
  if (paid.currency !== asked.currency) return "wrong_currency";
  return paid.amountMinor === asked.amountMinor ? null : "wrong_amount";
}

/** Whether the processor may still say that it was paid. */
export function isLive(state: PaymentState): boolean {
  return state === PaymentState.STARTING || state === PaymentState.PENDING;
}

/** Whether its money has arrived. */
export function hasMoney(state: PaymentState): boolean {
  return state === PaymentState.PAID || state === PaymentState.FULFILLED;
}

/** What has gone back of a payment, or is about to. */
export interface Refundable {
  readonly amountMinor: bigint;
  readonly refundedMinor: bigint;
  readonly granted: Credits;
  /** Of `granted`, taken back by now. */
  readonly taken: Credits;
}

/** What can still go back; 0n at least. */
export function leftToRefund({ amountMinor, refundedMinor }: Refundable): bigint {
  return refundedMinor < amountMinor ? amountMinor - refundedMinor : 0n;
}

/** The Credits that belong to a part of the money; with the last part goes all that is left of them. */
export function creditsFor(payment: Refundable, partMinor: bigint): Credits {
  const left = payment.granted - payment.taken;
  if (partMinor >= leftToRefund(payment)) return left;
  const part = proportion(payment.granted, partMinor, payment.amountMinor);
  return part < left ? part : left;
}

/** A session's state, and the one before its dispute. */
export interface Standing {
  readonly state: CheckoutState;
  readonly undisputed_state: CheckoutState | null;
}

/** Where moves lead, one after the other; in a dispute, the state before it goes along. A move that is not allowed changes nothing. */
export function movedAlong(standing: Standing, ...moves: readonly CheckoutMove[]): Standing {
  let { state, undisputed_state: before } = standing;
  for (const move of moves) {
    const disputed = state === CheckoutState.DISPUTED;
    state = moved(state, move) ?? state;
    if (state !== CheckoutState.DISPUTED) before = null;
    else if (disputed && before !== null) before = moved(before, move) ?? before;
  }
  return { state, undisputed_state: before };
}

/** The dispute begins; another one in the same session changes nothing. */
export function disputed({ state, undisputed_state }: Standing): Standing {
  if (state === CheckoutState.DISPUTED) return { state, undisputed_state };
  const to = moved(state, "dispute");
  return to === null ? { state, undisputed_state } : { state: to, undisputed_state: state };
}

/** The last dispute is over, and what it did is done: back to where the session would be without it. */
export function undisputed({ state, undisputed_state }: Standing): Standing {
  if (state !== CheckoutState.DISPUTED) return { state, undisputed_state };
  return { state: undisputed_state ?? moved(state, "win") ?? state, undisputed_state: null };
}

/** A processor is asked after this long, then after twice as long each time, up to CHECK_LAST_MS. */
export const CHECK_FIRST_MS = 5_000;
export const CHECK_LAST_MS = 600_000;
/** After the session's time is over. */
export const CHECK_LATE_MS = 3_600_000;
/** So long after that nobody is asked any more. */
export const CHECK_STOP_MS = 7 * 86_400_000;

export interface Checked {
  /** How often it was asked. */
  readonly checks: number;
  readonly nowMs: number;
  /** When it is late. */
  readonly expiresAtMs: number;
  /** So long after that, instead of CHECK_STOP_MS. */
  readonly stopMs?: number;
}

/** When the processor is asked next, in milliseconds since 1970; null: never. */
export function nextCheckMs({ checks, nowMs, expiresAtMs, stopMs = CHECK_STOP_MS }: Checked): number | null {
  if (nowMs >= expiresAtMs + stopMs) return null;
  if (nowMs >= expiresAtMs) return nowMs + CHECK_LATE_MS;
  return nowMs + Math.min(CHECK_FIRST_MS * 2 ** Math.min(checks, 30), CHECK_LAST_MS);
}
