/** PURE: exact decimals as BigInt of their smallest digit. Nothing of money or Credits is ever a float. */

const DECIMAL = /^(-?)(\d{1,30})(?:\.(\d{1,18}))?$/;

/** Digits behind the point of Credits. */
export const CREDIT_DIGITS = 12;

/** `12.5` with 2 digits is `1250n`. Null: no decimal, or one with more digits that are not 0. */
export function parseDecimal(text: string, digits: number): bigint | null {
  const match = DECIMAL.exec(text);
  if (match === null) return null;
  const fraction = match[3] ?? "";
  if (/[1-9]/.test(fraction.slice(digits))) return null;
  const value = BigInt(match[2]! + fraction.slice(0, digits).padEnd(digits, "0"));
  return match[1] === "-" ? -value : value;
}

/** With all its digits: `1250n` with 2 digits is `12.50`. */
export function formatDecimal(value: bigint, digits: number): string {
  if (value < 0n) return `-${formatDecimal(-value, digits)}`;
  if (digits === 0) return String(value);
  const text = String(value).padStart(digits + 1, "0");
  return `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** Without zeros at the end: `12.50` is `12.5`, `12.00` is `12`. */
export function trimDecimal(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** The sum of Credits, such as pack and bonus; what is no decimal counts as 0. */
export function addCredits(...texts: readonly string[]): string {
  const sum = texts.reduce((total, text) => total + (parseDecimal(text, CREDIT_DIGITS) ?? 0n), 0n);
  return trimDecimal(formatDecimal(sum, CREDIT_DIGITS));
}

/** Whether it is a decimal above 0. */
export function isPositive(text: string): boolean {
  return (parseDecimal(text, CREDIT_DIGITS) ?? 0n) > 0n;
}

/** How much `part` is of `whole`, in thousandths from 0 to 1000: for bars, not for reading. */
export function permille(part: string, whole: string): number {
  const of = parseDecimal(whole, CREDIT_DIGITS) ?? 0n;
  const is = parseDecimal(part, CREDIT_DIGITS) ?? 0n;
  if (of <= 0n || is <= 0n) return 0;
  return is >= of ? 1000 : Number((is * 1000n) / of);
}
