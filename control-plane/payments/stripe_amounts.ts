/** PURE: amounts as Stripe counts them, which is not always how ISO 4217 does (docs.stripe.com/currencies, "special cases"). */

import { currencyDigits, type Money } from "../domain/money.ts";

/** Where Stripe's digits are others than those of ISO 4217. */
const STRIPE_DIGITS: Readonly<Record<string, number>> = { ISK: 2, UGX: 2, MGA: 0 };

/** Amounts must be multiples of these: whole krónur and shillings, and no last digit of a thousandth. */
const STEPS: Readonly<Record<string, bigint>> = {
  ISK: 100n,
  UGX: 100n,
  BHD: 10n,
  JOD: 10n,
  KWD: 10n,
  OMR: 10n,
  TND: 10n,
};

/** Currencies of thousandths that Stripe does not list: guessing would move the point. */
const NOT_AT_STRIPE = new Set(["IQD", "LYD"]);

/** Stripe takes eight digits of most currencies and twelve of some; it says itself which are too many. */
export const STRIPE_AMOUNT_MAX = 999_999_999_999n;

export type StripeAmount =
  | { readonly ok: true; readonly currency: string; readonly amount: number }
  | { readonly ok: false; readonly failure: "currency_not_supported" | "amount_not_exact" | "amount_too_large" };

function stripeDigits(currency: string): number {
  return STRIPE_DIGITS[currency] ?? currencyDigits(currency);
}

/** The currency in lower case and the amount in Stripe's smallest unit, or in a word why there is none. */
export function toStripeAmount({ currency, minor }: Money): StripeAmount {
  if (NOT_AT_STRIPE.has(currency)) return { ok: false, failure: "currency_not_supported" };
  const shift = stripeDigits(currency) - currencyDigits(currency);
  const divisor = shift < 0 ? 10n ** BigInt(-shift) : 1n;
  if (minor % divisor !== 0n) return { ok: false, failure: "amount_not_exact" };
  const amount = (minor / divisor) * (shift > 0 ? 10n ** BigInt(shift) : 1n);
  if (amount % (STEPS[currency] ?? 1n) !== 0n) return { ok: false, failure: "amount_not_exact" };
  if (amount > STRIPE_AMOUNT_MAX) return { ok: false, failure: "amount_too_large" };
  return { ok: true, currency: currency.toLowerCase(), amount: Number(amount) };
}

/** The way back. Null: not an amount that ISO 4217 can say. */
export function fromStripeAmount(currency: string, amount: number): Money | null {
  if (!/^[a-z]{3}$/.test(currency) || !Number.isSafeInteger(amount) || amount < 0) return null;
  const name = currency.toUpperCase();
  if (NOT_AT_STRIPE.has(name)) return null;
  const shift = stripeDigits(name) - currencyDigits(name);
  const divisor = shift > 0 ? 10n ** BigInt(shift) : 1n;
  const minor = BigInt(amount);
  if (minor % divisor !== 0n) return null;
  return { currency: name, minor: (minor / divisor) * (shift < 0 ? 10n ** BigInt(-shift) : 1n) };
}
