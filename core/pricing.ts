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

/** What token meters cost in requests with more input tokens than `above`. */
export interface PriceTier {
  readonly above: number;
  readonly rates: Rates;
}

/** By meter: picocredits per quantity; `undefined` means the meter is not priced. */
export type Rates = readonly (bigint | undefined)[];

/**
 * A Price ready for arithmetic. `rates` are those of every request, unless a tier replaces them, and of images whose size
 * and quality have no price of their own.
 */
export interface CompiledPrice {
  readonly id: string;
  readonly rates: Rates;
  /** By `imageKey`. Null: images cost the same whatever their size and quality. */
  readonly images: ReadonlyMap<string, bigint> | null;
  /** Ascending. Null: tokens cost the same however many there are. */
  readonly tiers: readonly PriceTier[] | null;
}

/** Credits for `perUnits` Units; `perUnits` is a power of ten, 0 counts as 1. */
export interface MeterPrice {
  readonly meter: Meter;
  readonly creditPerUnit: string;
  readonly perUnits: bigint;
  /** Of IMAGES alone; empty: every size that has no price itself. */
  readonly size?: string;
  /** Of IMAGES alone; empty: every quality that has no price itself. */
  readonly quality?: string;
  /** Of token meters alone: for requests with more input tokens than this. 0: for the others. */
  readonly aboveInputTokens?: number;
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
  return { id, rates, images: null, tiers: null };
}

const TOKEN_METERS: ReadonlySet<Meter> = new Set(METERS_OF_KIND[UnitKind.TOKENS]);

/** What counts as input of a request, for the thresholds of prices. */
export const INPUT_METERS: readonly Meter[] = [
  Meter.INPUT_TOKENS,
  Meter.CACHED_INPUT_TOKENS,
  Meter.CACHE_WRITE_TOKENS,
  Meter.CACHE_WRITE_LONG_TOKENS,
  Meter.AUDIO_INPUT_TOKENS,
  Meter.IMAGE_INPUT_TOKENS,
];
const IS_INPUT: readonly boolean[] = Array.from({ length: METER_SLOTS }, (_, meter) =>
  INPUT_METERS.includes(meter as Meter),
);

/** Neither part can hold a line break, nor be told apart from an absent one when it is empty. */
function imageKey(size: string, quality: string): string {
  return `${size}\n${quality}`;
}

function invalid(field: string, message: string): PriceError {
  return new PriceError("price_invalid", field, message);
}

/** Whether its members may go together. @throws PriceError */
function checkMeterPrice({ meter, size, quality, aboveInputTokens = 0 }: MeterPrice, at: string): void {
  if (!(meter >= 1 && meter < METER_SLOTS)) throw invalid(`${at}.meter`, "unknown meter");
  if (meter !== Meter.IMAGES && size !== undefined && size !== "")
    throw invalid(`${at}.size`, "only METER_IMAGES is priced by size");
  if (meter !== Meter.IMAGES && quality !== undefined && quality !== "")
    throw invalid(`${at}.quality`, "only METER_IMAGES is priced by quality");
  if (aboveInputTokens === 0) return;
  if (!TOKEN_METERS.has(meter))
    throw invalid(`${at}.above_input_tokens`, "only meters of tokens can cost something else above a threshold");
  if (!Number.isSafeInteger(aboveInputTokens) || aboveInputTokens < 0)
    throw invalid(`${at}.above_input_tokens`, "must be a whole number of tokens");
}

function rateOf({ creditPerUnit, perUnits, meter }: MeterPrice, at: string): bigint {
  try {
    return compileRate(creditPerUnit, perUnits, meter);
  } catch (error) {
    throw error instanceof PriceError ? new PriceError(error.code, `${at}.${error.field}`, error.message) : error;
  }
}

/** What is named for token meters below every threshold goes to their children too. @throws PriceError */
function inherit(rates: (bigint | undefined)[], tokensNamed: boolean): void {
  if (!tokensNamed) return;
  if (rates[Meter.INPUT_TOKENS] === undefined || rates[Meter.OUTPUT_TOKENS] === undefined) {
    throw invalid(
      "meters",
      "name both METER_INPUT_TOKENS and METER_OUTPUT_TOKENS, without a threshold; a price of 0 is allowed",
    );
  }
  for (const meter of METERS_OF_KIND[UnitKind.TOKENS]) rates[meter] ??= rates[PARENT_METER[meter]!];
}

/** Each tier begins with what holds below it. */
function compileTiers(base: Rates, named: ReadonlyMap<number, ReadonlyMap<Meter, bigint>>): readonly PriceTier[] {
  let below = base;
  const ascending = [...named].toSorted(([a], [b]) => a - b);
  return ascending.map(([above, changes]) => {
    const rates = below.slice();
    for (const [meter, rate] of changes) rates[meter] = rate;
    below = rates;
    return { above, rates };
  });
}

/** `field` of an error is as in the schema: `meters[2].size`. @throws PriceError, CreditsFormatError */
export function compileDetailedPrice(id: string, prices: readonly MeterPrice[]): CompiledPrice {
  const rates: (bigint | undefined)[] = Array.from({ length: METER_SLOTS });
  const images = new Map<string, bigint>();
  const tiers = new Map<number, Map<Meter, bigint>>();
  for (const [index, price] of prices.entries()) {
    const at = `meters[${index}]`;
    checkMeterPrice(price, at);
    const { meter, size = "", quality = "", aboveInputTokens = 0 } = price;
    const rate = rateOf(price, at);
    const key = imageKey(size, quality);
    const tier = tiers.get(aboveInputTokens);
    const isVariant = size !== "" || quality !== "";
    const before = isVariant ? images.get(key) : aboveInputTokens > 0 ? tier?.get(meter) : rates[meter];
    if (before !== undefined)
      throw invalid(`${at}.meter`, "each meter can be named once with the same size, quality and threshold");
    if (isVariant) images.set(key, rate);
    else if (aboveInputTokens === 0) rates[meter] = rate;
    else if (tier === undefined) tiers.set(aboveInputTokens, new Map([[meter, rate]]));
    else tier.set(meter, rate);
  }
  if (images.size > 0 && rates[Meter.IMAGES] === undefined)
    throw invalid("meters", "name METER_IMAGES once without size and quality: what images cost that fit nothing else");
  inherit(
    rates,
    prices.some(({ meter }) => TOKEN_METERS.has(meter)),
  );
  return {
    id,
    rates,
    images: images.size === 0 ? null : images,
    tiers: tiers.size === 0 ? null : compileTiers(rates, tiers),
  };
}

/** The input tokens of a request, cached ones and those written into a cache included. */
export function inputTokens(units: readonly UnitQuantity[]): number {
  let sum = 0;
  for (const { meter, quantity } of units) if (IS_INPUT[meter] === true && quantity > 0) sum += quantity;
  return sum;
}

/** The highest threshold below the input decides. */
function tierRates(price: CompiledPrice, tiers: readonly PriceTier[], units: readonly UnitQuantity[]): Rates {
  const input = inputTokens(units);
  let rates = price.rates;
  for (const tier of tiers) if (tier.above < input) ({ rates } = tier);
  return rates;
}

/** The most precise price: of size and quality, of the size, of the quality, of images. */
function imageRate(images: ReadonlyMap<string, bigint>, { size = "", quality = "" }: UnitQuantity): bigint | undefined {
  return images.get(imageKey(size, quality)) ?? images.get(imageKey(size, "")) ?? images.get(imageKey("", quality));
}

/**
 * What the usage of one request costs. Meters without a price cost nothing; an exact zero price is a price. Where a price
 * has thresholds, the units of a request must come together: its input decides what all of it costs.
 */
export function priceUsage(price: CompiledPrice, units: readonly UnitQuantity[]): Credits {
  const { images, tiers } = price;
  const rates = tiers === null ? price.rates : tierRates(price, tiers, units);
  let sum = 0n;
  for (const unit of units) {
    const { meter, quantity } = unit;
    let rate = rates[meter];
    if (images !== null && meter === Meter.IMAGES) rate = imageRate(images, unit) ?? rate;
    if (rate !== undefined && quantity > 0) sum += rate * BigInt(quantity);
  }
  return sum;
}

/** The dearest that one of these meters can be, whatever the size, the quality and the threshold; 0 if none is priced. */
export function dearestRate(price: CompiledPrice, meters: readonly Meter[]): bigint {
  let max = 0n;
  const look = (rate: bigint | undefined): void => {
    if (rate !== undefined && rate > max) max = rate;
  };
  for (const meter of meters) {
    look(price.rates[meter]);
    for (const { rates } of price.tiers ?? []) look(rates[meter]);
    if (meter === Meter.IMAGES) for (const rate of price.images?.values() ?? []) look(rate);
  }
  return max;
}

function sameRates(a: Rates, b: Rates): boolean {
  return a.every((rate, meter) => rate === b[meter]);
}

/** True when both say the same of every usage, in whatever form they were given; their ids do not count. */
export function samePrice(a: CompiledPrice, b: CompiledPrice): boolean {
  const [imagesA, imagesB] = [a.images ?? new Map<string, bigint>(), b.images ?? new Map<string, bigint>()];
  const [tiersA, tiersB] = [a.tiers ?? [], b.tiers ?? []];
  return (
    sameRates(a.rates, b.rates) &&
    imagesA.size === imagesB.size &&
    [...imagesA].every(([key, rate]) => imagesB.get(key) === rate) &&
    tiersA.length === tiersB.length &&
    tiersA.every(({ above, rates }, i) => above === tiersB[i]!.above && sameRates(rates, tiersB[i]!.rates))
  );
}

/** True when usage of this kind costs something or is deliberately priced 0, so that routing to it is no accident. */
export function pricesKind(price: CompiledPrice, kind: UnitKind): boolean {
  return (
    METERS_OF_KIND[kind].some((meter) => price.rates[meter] !== undefined) || price.rates[Meter.REQUESTS] !== undefined
  );
}
