/** PURE: what can be decided about a payment of the sandbox, as it stands. */

import type { SandboxPaymentRow } from "../store/sandbox.ts";

/** While it can be paid. */
export const PAYING_CHOICES = [
  "approve",
  "decline",
  "approve_later",
  "approve_repeatedly",
  "approve_silently",
  "cancel",
] as const;
export type PayingChoice = (typeof PAYING_CHOICES)[number];

/** Once it is paid: what happens at a processor's dashboard, or at a payer's bank. */
export const PAID_CHOICES = ["refund", "refund_half", "dispute", "win_dispute", "lose_dispute"] as const;
export type PaidChoice = (typeof PAID_CHOICES)[number];
export type SandboxChoice = PayingChoice | PaidChoice;

export function parseChoice(text: string): SandboxChoice | null {
  return [...PAYING_CHOICES, ...PAID_CHOICES].find((choice) => choice === text) ?? null;
}

export function isPayingChoice(choice: SandboxChoice): choice is PayingChoice {
  return PAYING_CHOICES.some((each) => each === choice);
}

/** Neither given back nor in dispute: what can still be given back. */
export function refundable(payment: SandboxPaymentRow): bigint {
  const isDisputed = payment.dispute_state === "open" || payment.dispute_state === "lost";
  return payment.state === "paid" && !isDisputed ? payment.amount_minor - payment.refunded_minor : 0n;
}

/** Whether the payer can still decide. */
export function isPayable(payment: SandboxPaymentRow, now: Date): boolean {
  return payment.state === "pending" && payment.pay_at === null && payment.expires_at > now;
}

/** What `refund_half` gives back; 0: too little is left. */
export function half(payment: SandboxPaymentRow): bigint {
  return refundable(payment) / 2n;
}

/** What makes sense for a paid payment at the moment. */
export function paidChoices(payment: SandboxPaymentRow): PaidChoice[] {
  if (payment.state !== "paid") return [];
  if (payment.dispute_state === "open") return ["win_dispute", "lose_dispute"];
  const choices: PaidChoice[] = [];
  if (refundable(payment) > 0n) choices.push("refund");
  if (half(payment) > 0n) choices.push("refund_half");
  if (payment.dispute_state === null && refundable(payment) > 0n) choices.push("dispute");
  return choices;
}

/** How the payment stands, in a word that changes with everything that is decided about it once it is paid. */
export function versionOf(payment: SandboxPaymentRow): string {
  return `${payment.refunded_minor}.${payment.dispute_state ?? "none"}`;
}
