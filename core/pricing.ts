/** Units x price -> Credits, exactly. Both planes compute with this one function and compare. */

import { type Credits, parseCredits } from "./credits.ts";
import {
  METERS_OF_KIND,
  METER_SLOTS,
  Meter,
  PARENT_METER,
  SECONDS_SCALE,
  UnitKind,
  type UnitQuantity,
} from "./meters.ts";

/** A Price ready for arithmetic. `rates[meter]` is picocredits per quantity; `undefined` means the meter is not priced. */
export interface CompiledPrice {
  readonly id: string;
  readonly rates: readonly (bigint | undefined)[];
}

/** Credits for `perUnits` Units; `perUnits` is a power of ten, 0 counts as 1. */
export interface MeterPrice {
  readonly meter: Meter;
  readonly creditPerUnit: string;
  readonly perUnits: bigint;
}

export interface SimplePrice {
  readonly unit: UnitKind;
  readonly creditPerUnit: string;
  readonly perUnits: bigint;
}

/** `field` names the part of the price at fault, as in the schema. */
export class PriceError extends Error {
  readonly code: "price_not_exact" | "price_invalid";
  readonly field: string;
  constructor(code: "price_not_exact" | "price_invalid", field: string, message: string) {
    super(message);
    this.name = "PriceError";
    this.code = code;
    this.field = field;
  }
}

const PER_UNITS_MAX = 1_000_000_000n;

function compileRate(creditPerUnit: string, perUnits: bigint, meter: Meter): bigint {
  const per = perUnits === 0n ? 1n : perUnits;
  if (per < 1n || per > PER_UNITS_MAX || !/^10*$/.test(per.toString())) {
    throw new PriceError("price_invalid", "per_units", `per_units must be a power of ten from 1 to ${PER_UNITS_MAX}`);
  }
  const pico = parseCredits(creditPerUnit);
  if (pico < 0n) throw new PriceError("price_invalid", "credit_per_unit", "a price cannot be negative");
  const divisor = meter === Meter.SECONDS ? per * SECONDS_SCALE : per;
  if (pico % divisor !== 0n) {
    throw new PriceError(
      "price_not_exact",
      "credit_per_unit",
      `${creditPerUnit} Credits per ${per} Units is not exact at 12 decimals: use fewer digits, or a smaller per_units`,
    );
  }
  return pico / divisor;
}

/** @throws PriceError, CreditsFormatError */
export function compileSimplePrice(id: string, price: SimplePrice): CompiledPrice {
  const rates: (bigint | undefined)[] = Array.from({ length: METER_SLOTS });
  const meters = METERS_OF_KIND[price.unit];
  if (meters === undefined) throw new PriceError("price_invalid", "unit", "the price needs a kind of Unit");
  for (const meter of meters) rates[meter] = compileRate(price.creditPerUnit, price.perUnits, meter);
  return { id, rates };
}

/** @throws PriceError, CreditsFormatError */
export function compileDetailedPrice(id: string, prices: readonly MeterPrice[]): CompiledPrice {
  const rates: (bigint | undefined)[] = Array.from({ length: METER_SLOTS });
  for (const { meter, creditPerUnit, perUnits } of prices) {
    if (!(meter >= 1 && meter < METER_SLOTS)) throw new PriceError("price_invalid", "meters", "unknown meter");
    if (rates[meter] !== undefined) throw new PriceError("price_invalid", "meters", "each meter can be named once");
    rates[meter] = compileRate(creditPerUnit, perUnits, meter);
  }
  const tokens = METERS_OF_KIND[UnitKind.TOKENS];
  if (tokens.some((meter) => rates[meter] !== undefined)) {
    if (rates[Meter.INPUT_TOKENS] === undefined || rates[Meter.OUTPUT_TOKENS] === undefined) {
      throw new PriceError(
        "price_invalid",
        "meters",
        "name both METER_INPUT_TOKENS and METER_OUTPUT_TOKENS; a price of 0 is allowed",
      );
    }
    for (const meter of tokens) rates[meter] ??= rates[PARENT_METER[meter]!];
  }
  return { id, rates };
}

/** What a usage costs. Meters without a price cost nothing; an exact zero price is a price. */
export function priceUsage(price: CompiledPrice, units: readonly UnitQuantity[]): Credits {
  let sum = 0n;
  for (const { meter, quantity } of units) {
    const rate = price.rates[meter];
    if (rate !== undefined && quantity > 0) sum += rate * BigInt(quantity);
  }
  return sum;
}

/** True when usage of this kind costs something or is deliberately priced 0, so that routing to it is no accident. */
export function pricesKind(price: CompiledPrice, kind: UnitKind): boolean {
  return (
    METERS_OF_KIND[kind].some((meter) => price.rates[meter] !== undefined) || price.rates[Meter.REQUESTS] !== undefined
  );
}
