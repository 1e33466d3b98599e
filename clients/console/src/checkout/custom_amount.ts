/** PURE: an amount that the payer types, and the Credits for it. */

import { CREDIT_DIGITS, formatDecimal, parseDecimal, trimDecimal } from "../shared/decimal.ts";
import { currencyDigits, type MoneyText } from "../shared/numbers.ts";

export interface CustomTerms {
  /** What `credits` and `bonus` stand for. */
  readonly price: MoneyText;
  readonly credits: string;
  readonly bonus: string;
  readonly min: string;
  readonly max: string;
}

export type CustomAmountProblem = "empty" | "malformed" | "too_fine" | "too_small" | "too_large";

export type CustomAmountCheck =
  | { readonly ok: true; readonly amount: string; readonly credits: string; readonly bonus: string }
  | { readonly ok: false; readonly problem: CustomAmountProblem };

const GROUPED = /^\d{1,3}(,\d{3})+(\.\d+)?$/;
const PLAIN = /^(\d{1,12})(?:\.(\d*))?$/;

/** As people type it: with full-width digits, spaces, groups, and zeros in front. Null: no amount. */
export function normalizeAmount(text: string): string | null {
  const typed = text.normalize("NFKC").replace(/\s/g, "").replace(/。/g, ".");
  const match = PLAIN.exec(GROUPED.test(typed) ? typed.replace(/,/g, "") : typed);
  if (match === null) return null;
  const whole = match[1]!.replace(/^0+(?=\d)/, "");
  const fraction = match[2] ?? "";
  return fraction === "" ? whole : `${whole}.${fraction}`;
}

/** In proportion to the price, rounded down at 12 decimals, as the server does it. */
function share(credits: string, part: bigint, whole: bigint): string {
  const value = parseDecimal(credits === "" ? "0" : credits, CREDIT_DIGITS) ?? 0n;
  return trimDecimal(formatDecimal((value * part) / whole, CREDIT_DIGITS));
}

export function checkCustomAmount(terms: CustomTerms, text: string): CustomAmountCheck {
  const no = (problem: CustomAmountProblem): CustomAmountCheck => ({ ok: false, problem });
  if (text.trim() === "") return no("empty");
  const typed = normalizeAmount(text);
  if (typed === null) return no("malformed");
  const { currency, amount } = terms.price;
  const digits = currencyDigits(currency, amount, terms.min, terms.max);
  const minor = parseDecimal(typed, digits);
  if (minor === null) return no("too_fine");
  const amounts = [amount, terms.min, terms.max].map((bound) => parseDecimal(bound, digits) ?? 0n);
  const [price, min, max] = amounts as [bigint, bigint, bigint];
  if (price <= 0n) return no("malformed");
  if (minor <= 0n || minor < min) return no("too_small");
  if (minor > max) return no("too_large");
  return {
    ok: true,
    amount: formatDecimal(minor, digits),
    credits: share(terms.credits, minor, price),
    bonus: share(terms.bonus, minor, price),
  };
}
