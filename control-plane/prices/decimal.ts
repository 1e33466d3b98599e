/** PURE: exact decimals of any length, for the arithmetic between a currency and Credits. */

/** `digits` * 10^-`scale`. */
export interface Decimal {
  readonly digits: bigint;
  readonly scale: number;
}

/** Integer digits and fractional digits, each. */
const DIGITS_MAX = 18;
const DECIMAL = new RegExp(`^(?:0|[1-9][0-9]{0,${DIGITS_MAX - 1}})(?:\\.[0-9]{1,${DIGITS_MAX}})?$`);

/** Null when it is no plain decimal: no sign, no exponent, no spaces. */
export function parseDecimal(text: string): Decimal | null {
  if (!DECIMAL.test(text)) return null;
  const [whole = "", fraction = ""] = text.split(".");
  return { digits: BigInt(whole + fraction), scale: fraction.length };
}

export function times(a: Decimal, b: Decimal): Decimal {
  return { digits: a.digits * b.digits, scale: a.scale + b.scale };
}

/** 1 + `percent` / 100. */
export function markupFactor(percent: Decimal): Decimal {
  const scale = percent.scale + 2;
  return { digits: 10n ** BigInt(scale) + percent.digits, scale };
}

/** `value` / `divisor` in units of 10^-`decimals`; null when that is not exact. */
export function exactUnits(value: Decimal, divisor: bigint, decimals: number): bigint | null {
  const up = value.digits * 10n ** BigInt(decimals);
  const down = divisor * 10n ** BigInt(value.scale);
  return up % down === 0n ? up / down : null;
}
