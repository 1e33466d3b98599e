/**
 * The disjoint meters of consumption. Numbers equal those of `tokenbill.v1.Meter`, `UnitKind` and `UnitSource`; a test
 * keeps them equal, since core imports no generated code.
 */

export const Meter = {
  INPUT_TOKENS: 1,
  CACHED_INPUT_TOKENS: 2,
  CACHE_WRITE_TOKENS: 3,
  OUTPUT_TOKENS: 4,
  REASONING_TOKENS: 5,
  AUDIO_INPUT_TOKENS: 6,
  AUDIO_OUTPUT_TOKENS: 7,
  IMAGES: 8,
  SECONDS: 9,
  CHARACTERS: 10,
  REQUESTS: 11,
  CACHE_WRITE_LONG_TOKENS: 12,
  IMAGE_INPUT_TOKENS: 13,
  IMAGE_OUTPUT_TOKENS: 14,
  TOOL_CALLS: 15,
} as const;
export type Meter = (typeof Meter)[keyof typeof Meter];

/** One past the largest meter number: the length of arrays indexed by meter. */
export const METER_SLOTS = 16;

export const UnitKind = { TOKENS: 1, IMAGES: 2, SECONDS: 3, CHARACTERS: 4, REQUESTS: 5 } as const;
export type UnitKind = (typeof UnitKind)[keyof typeof UnitKind];

export const UnitSource = { REPORTED: 1, ESTIMATED: 2, ABSENT: 3 } as const;
export type UnitSource = (typeof UnitSource)[keyof typeof UnitSource];

/** How much of one meter was consumed. `quantity` is a safe non-negative integer; SECONDS are in thousandths. */
export interface UnitQuantity {
  readonly meter: Meter;
  readonly quantity: number;
  readonly source: UnitSource;
  /** Of IMAGES, where it is known. */
  readonly size?: string;
  readonly quality?: string;
}

/** Quantities of SECONDS are in thousandths, so that measured durations stay integers. */
export const SECONDS_SCALE = 1000n;

export const METERS_OF_KIND: Readonly<Record<UnitKind, readonly Meter[]>> = {
  [UnitKind.TOKENS]: [
    Meter.INPUT_TOKENS,
    Meter.CACHED_INPUT_TOKENS,
    Meter.CACHE_WRITE_TOKENS,
    Meter.OUTPUT_TOKENS,
    Meter.REASONING_TOKENS,
    Meter.AUDIO_INPUT_TOKENS,
    Meter.AUDIO_OUTPUT_TOKENS,
    Meter.CACHE_WRITE_LONG_TOKENS,
    Meter.IMAGE_INPUT_TOKENS,
    Meter.IMAGE_OUTPUT_TOKENS,
  ],
  [UnitKind.IMAGES]: [Meter.IMAGES],
  [UnitKind.SECONDS]: [Meter.SECONDS],
  [UnitKind.CHARACTERS]: [Meter.CHARACTERS],
  [UnitKind.REQUESTS]: [Meter.REQUESTS, Meter.TOOL_CALLS],
};

/** Amounts of Units have 12 decimals like Credits, so that both kinds of limits are counted alike. */
const PICO_PER_UNIT: bigint = 10n ** 12n;

/** What these quantities come to in Units of one kind, in picounits (1e-12 Unit). Exact. */
export function unitsOfKind(units: readonly UnitQuantity[], kind: UnitKind): bigint {
  const meters = METERS_OF_KIND[kind];
  let sum = 0n;
  for (const { meter, quantity } of units) if (meters.includes(meter)) sum += BigInt(quantity);
  return sum * (kind === UnitKind.SECONDS ? PICO_PER_UNIT / SECONDS_SCALE : PICO_PER_UNIT);
}

/** The meter whose price applies to a token meter that a detailed Price does not name. */
export const PARENT_METER: Readonly<Partial<Record<Meter, Meter>>> = {
  [Meter.CACHED_INPUT_TOKENS]: Meter.INPUT_TOKENS,
  [Meter.CACHE_WRITE_TOKENS]: Meter.INPUT_TOKENS,
  [Meter.AUDIO_INPUT_TOKENS]: Meter.INPUT_TOKENS,
  [Meter.REASONING_TOKENS]: Meter.OUTPUT_TOKENS,
  [Meter.AUDIO_OUTPUT_TOKENS]: Meter.OUTPUT_TOKENS,
  [Meter.CACHE_WRITE_LONG_TOKENS]: Meter.CACHE_WRITE_TOKENS,
  [Meter.IMAGE_INPUT_TOKENS]: Meter.INPUT_TOKENS,
  [Meter.IMAGE_OUTPUT_TOKENS]: Meter.OUTPUT_TOKENS,
};
