/**
 * Credits are exact decimals with at most 12 fractional digits, held as a BigInt of picocredits (1e-12 Credit).
 * On the wire and in SQL they are decimal strings and `numeric`. Nothing is ever rounded.
 */

/** An amount of Credits in picocredits. */
export type Credits = bigint;

export const CREDIT_DECIMALS = 12;
export const PICO_PER_CREDIT: bigint = 10n ** BigInt(CREDIT_DECIMALS);

const DECIMAL = /^(-?)(\d{1,26})(?:\.(\d{1,12}))?$/;

export class CreditsFormatError extends Error {
  readonly code = "credits_format";
  constructor(text: string) {
    super(`"${text.slice(0, 64)}" is not a decimal with at most ${CREDIT_DECIMALS} fractional digits`);
    this.name = "CreditsFormatError";
  }
}

const DECIMALS_SCALE = 10 ** CREDIT_DECIMALS;
/** This many digits are exact in a number. */
const EXACT_DIGITS = 15;
const POINT = 46;
const ZERO = 48;

/** The number that the digits from `start` to `end` are, at most EXACT_DIGITS of them; -1: they are no digits, or too many. */
function digitsAt(text: string, start: number, end: number): number {
  if (end <= start || end - start > EXACT_DIGITS) return -1;
  let value = 0;
  for (let i = start; i < end; i++) {
    const digit = text.charCodeAt(i) - ZERO;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/** Parses what is common fast, without a sign and with few digits; -1n: it is something else. */
function parseShort(text: string): Credits {
  const { length } = text;
  let point = 0;
  while (point < length && text.charCodeAt(point) !== POINT) point++;
  const whole = digitsAt(text, 0, point);
  if (whole < 0) return -1n;
  if (point === length) return BigInt(whole) * PICO_PER_CREDIT;
  const decimals = length - point - 1;
  if (decimals > CREDIT_DECIMALS) return -1n;
  const fraction = digitsAt(text, point + 1, length);
  if (fraction < 0) return -1n;
  const pico = fraction * 10 ** (CREDIT_DECIMALS - decimals);
  return whole === 0 ? BigInt(pico) : BigInt(whole) * PICO_PER_CREDIT + BigInt(pico);
}

/** Parses a decimal string. @throws CreditsFormatError when it is not one, or has more than 12 fractional digits. */
export function parseCredits(text: string): Credits {
  const short = parseShort(text);
  if (short >= 0n) return short;
  const match = DECIMAL.exec(text);
  if (match === null) throw new CreditsFormatError(text);
  const [, sign, whole, fraction = ""] = match;
  const pico = BigInt(whole! + fraction.padEnd(CREDIT_DECIMALS, "0"));
  return sign === "-" ? -pico : pico;
}

/** The canonical decimal string: no exponent, no trailing zeros, no `-0`. */
export function formatCredits(credits: Credits): string {
  if (credits < 0n) return `-${formatCredits(-credits)}`;
  const fraction = Number(credits % PICO_PER_CREDIT);
  const whole = String(credits / PICO_PER_CREDIT);
  if (fraction === 0) return whole;
  // The digit before them keeps the zeros that they begin with.
  const digits = String(DECIMALS_SCALE + fraction);
  let end = digits.length;
  while (digits.charCodeAt(end - 1) === ZERO) end--;
  return `${whole}.${digits.slice(1, end)}`;
}

export function minCredits(a: Credits, b: Credits): Credits {
  return a < b ? a : b;
}

export function maxCredits(a: Credits, b: Credits): Credits {
  return a > b ? a : b;
}
