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

/** Parses a decimal string. @throws CreditsFormatError when it is not one, or has more than 12 fractional digits. */
export function parseCredits(text: string): Credits {
  const match = DECIMAL.exec(text);
  if (match === null) throw new CreditsFormatError(text);
  const [, sign, whole, fraction = ""] = match;
  const pico = BigInt(whole! + fraction.padEnd(CREDIT_DECIMALS, "0"));
  return sign === "-" ? -pico : pico;
}

/** The canonical decimal string: no exponent, no trailing zeros, no `-0`. */
export function formatCredits(credits: Credits): string {
  const negative = credits < 0n;
  const digits = (negative ? -credits : credits).toString().padStart(CREDIT_DECIMALS + 1, "0");
  const whole = digits.slice(0, -CREDIT_DECIMALS);
  const fraction = digits.slice(-CREDIT_DECIMALS).replace(/0+$/, "");
  return (negative ? "-" : "") + whole + (fraction === "" ? "" : `.${fraction}`);
}

export function minCredits(a: Credits, b: Credits): Credits {
  return a < b ? a : b;
}

export function maxCredits(a: Credits, b: Credits): Credits {
  return a > b ? a : b;
}
