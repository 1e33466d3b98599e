/** PURE: money as payment processors count it. An amount is a BigInt of the currency's smallest unit (ISO 4217): cents. */

import type { Credits } from "../../core/credits.ts";

/** The currency's name is three capitals, its amount is above or equal 0. */
export interface Money {
  readonly currency: string;
  readonly minor: bigint;
}

/** What processors and `bigint` columns take for sure. */
export const AMOUNT_MINOR_MAX = 99_999_999_999_999n;

/** Currencies whose smallest unit is not a hundredth (ISO 4217, list one). */
const DIGITS: Readonly<Record<string, number>> = {
  BIF: 0,
  CLP: 0,
  DJF: 0,
  GNF: 0,
  ISK: 0,
  JPY: 0,
  KMF: 0,
  KRW: 0,
  PYG: 0,
  RWF: 0,
  UGX: 0,
  VND: 0,
  VUV: 0,
  XAF: 0,
  XOF: 0,
  XPF: 0,
  BHD: 3,
  IQD: 3,
  JOD: 3,
  KWD: 3,
  LYD: 3,
  OMR: 3,
  TND: 3,
};

const KNOWN = new Set(Intl.supportedValuesOf("currency"));

export function isCurrency(text: string): boolean {
  return KNOWN.has(text);
}

/** Digits behind the point. */
export function currencyDigits(currency: string): number {
  return DIGITS[currency] ?? 2;
}

/** `10`, `10.5` and `10.50` are the same. Null: not an amount of this currency, or more than AMOUNT_MINOR_MAX. */
export function parseAmount(currency: string, text: string): bigint | null {
  const match = /^(0|[1-9]\d{0,13})(?:\.(\d{1,3}))?$/.exec(text);
  if (match === null || !isCurrency(currency)) return null;
  const digits = currencyDigits(currency);
  const fraction = match[2] ?? "";
  if (fraction.length > digits && /[1-9]/.test(fraction.slice(digits))) return null;
  const minor = BigInt(match[1]! + fraction.padEnd(digits, "0").slice(0, digits));
  return minor > AMOUNT_MINOR_MAX ? null : minor;
}

/** With all its digits: `10.00`. */
export function formatAmount({ currency, minor }: Money): string {
  const digits = currencyDigits(currency);
  if (digits === 0) return String(minor);
  const text = String(minor).padStart(digits + 1, "0");
  return `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** `part` of `whole` of these Credits, rounded down at 12 decimals. `whole` is above 0. */
export function proportion(credits: Credits, part: bigint, whole: bigint): Credits {
  return (credits * part) / whole;
}
