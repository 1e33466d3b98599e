/** PURE: money, Credits and counts as people read them, exact to the last digit. */

import { parseDecimal, trimDecimal } from "./decimal.ts";
import { type Language, LOCALES } from "./i18n/language.ts";

/** The fields of `tokenbill.v1.Money` that matter here. */
export interface MoneyText {
  readonly currency: string;
  readonly amount: string;
}

/**
 * Digits behind the point. The server writes amounts with all digits of their currency, so an amount tells more than what
 * the browser knows of the currency.
 */
export function currencyDigits(currency: string, ...amounts: readonly string[]): number {
  const written = amounts.map((amount) => amount.split(".")[1]?.length ?? 0);
  let known = 2;
  try {
    known = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits ?? 2;
  } catch {
    // A name that is no currency is shown as it is written.
  }
  return Math.max(known, ...written);
}

/** In the currency's own form. Only whole units go through Intl, as BigInt: older browsers would make a float of a text. */
export function formatMoney(money: MoneyText, language: Language): string {
  const { currency, amount } = money;
  const digits = currencyDigits(currency, amount);
  if (parseDecimal(amount, digits) === null || !/^[A-Z]{3}$/.test(currency)) return `${amount} ${currency}`.trim();
  const [whole = "0", fraction = ""] = amount.split(".");
  const format = new Intl.NumberFormat(LOCALES[language], {
    style: "currency",
    currency,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return format
    .formatToParts(BigInt(whole))
    .map(({ type, value }) => (type === "fraction" ? fraction.padEnd(digits, "0") : value))
    .join("");
}

/** Credits in groups, apart from what is behind the point: `["4,821,337", ".482913"]`. */
export function splitCredits(text: string, language: Language): readonly [whole: string, fraction: string] {
  if (!/^-?\d+(\.\d+)?$/.test(text)) return [text, ""];
  const [whole = "0", fraction = ""] = trimDecimal(text).split(".");
  const grouped = new Intl.NumberFormat(LOCALES[language]).format(BigInt(whole));
  // BigInt knows no -0.
  const sign = whole === "-0" ? "-" : "";
  return [sign + grouped, fraction === "" ? "" : `.${fraction}`];
}

export function formatCredits(text: string, language: Language): string {
  return splitCredits(text, language).join("");
}

export function formatCount(count: bigint, language: Language): string {
  return new Intl.NumberFormat(LOCALES[language]).format(count);
}

/** The time of day, with the date where it is another day than `nowMs`. */
export function formatTime(atMs: number, nowMs: number, language: Language): string {
  const sameDay = new Date(atMs).toDateString() === new Date(nowMs).toDateString();
  return new Intl.DateTimeFormat(LOCALES[language], {
    timeStyle: "short",
    ...(sameDay ? {} : { dateStyle: "medium" }),
  }).format(atMs);
}
