/**
 * PURE: a file of prices -> entries of ImportPrices. The file is JSON, either the entries themselves (`{"entries": [...]}`,
 * as the call takes them), or a catalogue in a currency (`{"currency": ..., "models": [...]}`), which is turned into
 * Credits here. Nothing is rounded: what is not exact is refused.
 */

import { create, fromJson, type JsonObject } from "@bufbuild/protobuf";
import { type Credits, formatCredits } from "../../core/credits.ts";
import { Meter, METERS_OF_KIND, UnitKind } from "../../core/meters.ts";
import { DetailedPriceSchema, type Meter as WireMeter } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import {
  ImportPricesRequestSchema,
  type PriceEntry,
  PriceEntrySchema,
} from "../../proto/gen/tokenbill/v1/price_import_pb.ts";
import { type Decimal, exactUnits, markupFactor, parseDecimal, times } from "./decimal.ts";
import { fieldAt, type Fields, listAt, objectAt, parseJson, PriceFileError, textAt, wholeAt } from "./json_fields.ts";

export interface PriceFile {
  readonly entries: readonly PriceEntry[];
  /** For each entry, the id or name of its Provider as the file has it; empty: whichever. */
  readonly providers: readonly string[];
  /** What the list is called in the file. */
  readonly list: "entries" | "models";
}

const MAX_OUTPUT_TOKENS_MAX = 100_000_000;
const THRESHOLD_MAX = 1_000_000_000;
const DECIMALS = 12;
const MILLION = 1_000_000n;
const SECONDS_PER_MINUTE = 60n;
/** As the schema has it. */
const CREDITS_MAX: Credits = 1_000_000_000n * 10n ** 12n;
/** Seconds are metered in thousandths, so that the price of one must have so many zeros at its end. */
const THOUSANDTHS = 1000n;

const TOKEN_NAMES: Readonly<Record<string, Meter>> = {
  input: Meter.INPUT_TOKENS,
  cached_input: Meter.CACHED_INPUT_TOKENS,
  cache_write: Meter.CACHE_WRITE_TOKENS,
  cache_write_long: Meter.CACHE_WRITE_LONG_TOKENS,
  output: Meter.OUTPUT_TOKENS,
  reasoning: Meter.REASONING_TOKENS,
  audio_input: Meter.AUDIO_INPUT_TOKENS,
  audio_output: Meter.AUDIO_OUTPUT_TOKENS,
  image_input: Meter.IMAGE_INPUT_TOKENS,
  image_output: Meter.IMAGE_OUTPUT_TOKENS,
};

/** Prices of one amount of one Unit. `units` is what the amount has, `perUnits` what the entry says it in. */
const PLAIN: Readonly<Record<string, { meter: Meter; units: bigint; perUnits: bigint }>> = {
  per_minute: { meter: Meter.SECONDS, units: SECONDS_PER_MINUTE, perUnits: 1n },
  per_second: { meter: Meter.SECONDS, units: 1n, perUnits: 1n },
  per_million_characters: { meter: Meter.CHARACTERS, units: MILLION, perUnits: MILLION },
  per_request: { meter: Meter.REQUESTS, units: 1n, perUnits: 1n },
  per_tool_call: { meter: Meter.TOOL_CALLS, units: 1n, perUnits: 1n },
};

const FILE_FIELDS = ["currency", "credits_per_currency", "markup_percent", "models"];
const MODEL_FIELDS = [
  "upstream_name",
  "provider",
  "per_million_tokens",
  "above_input_tokens",
  "per_image",
  ...Object.keys(PLAIN),
  "max_output_tokens",
];

interface MeterPriceText {
  readonly meter: number;
  readonly creditPerUnit: string;
  readonly perUnits: bigint;
  readonly size?: string;
  readonly quality?: string;
  readonly aboveInputTokens?: bigint;
}

/** Credits for one of the currency, markup included. */
interface Rate {
  readonly factor: Decimal;
}

function decimalAt(fields: Fields, name: string, at: string): Decimal | undefined {
  const text = textAt(fields, name, at);
  if (text === undefined) return undefined;
  const value = parseDecimal(text);
  if (value === null) throw new PriceFileError(`${fieldAt(at, name)}: "${text}" is no decimal such as "2.50"`);
  return value;
}

/** What `units` Units cost in the currency, as Credits for `perUnits`. */
function creditsOf(price: Decimal, rate: Rate, kind: (typeof PLAIN)[string], at: string) {
  const step = kind.meter === Meter.SECONDS ? THOUSANDTHS : 1n;
  const perUnit = exactUnits(times(price, rate.factor), kind.units, DECIMALS);
  if (perUnit === null || perUnit % step !== 0n)
    throw new PriceFileError(
      `${at}: is not exact in Credits: use fewer digits, or another credits_per_currency or markup_percent${
        kind.units === SECONDS_PER_MINUTE ? ", or per_second" : ""
      }`,
    );
  // Written for as many Units as people think in, unless that is more than a price can say.
  const perUnits = perUnit * kind.perUnits < CREDITS_MAX ? kind.perUnits : 1n;
  const credits = perUnit * perUnits;
  if (credits >= CREDITS_MAX) throw new PriceFileError(`${at}: is more Credits than a price can be`);
  return { meter: kind.meter, creditPerUnit: formatCredits(credits), perUnits };
}

/** Prices of tokens, in the order of the meters. */
function tokenPrices(fields: Fields, at: string, rate: Rate, aboveInputTokens: bigint): MeterPriceText[] {
  return Object.entries(TOKEN_NAMES).flatMap(([name, meter]) => {
    const price = decimalAt(fields, name, at);
    if (price === undefined) return [];
    const credits = creditsOf(price, rate, { meter, units: MILLION, perUnits: MILLION }, fieldAt(at, name));
    return [{ ...credits, ...(aboveInputTokens === 0n ? {} : { aboveInputTokens }) }];
  });
}

function thresholdPrices(value: unknown, at: string, rate: Rate): MeterPriceText[] {
  const fields = objectAt(value, at, ["threshold", ...Object.keys(TOKEN_NAMES)]);
  const threshold = wholeAt(fields, "threshold", at, THRESHOLD_MAX);
  if (threshold === undefined) throw new PriceFileError(`${at}.threshold: is missing`);
  return tokenPrices(fields, at, rate, BigInt(threshold));
}

function imagePrice(value: unknown, at: string, rate: Rate): MeterPriceText {
  const fields = objectAt(value, at, ["size", "quality", "price"]);
  const price = decimalAt(fields, "price", at);
  if (price === undefined) throw new PriceFileError(`${at}.price: is missing`);
  const credits = creditsOf(price, rate, { meter: Meter.IMAGES, units: 1n, perUnits: 1n }, `${at}.price`);
  return { ...credits, size: textAt(fields, "size", at) ?? "", quality: textAt(fields, "quality", at) ?? "" };
}

/** Images that fit no size and quality of the list cost what the dearest of it does: never nothing by accident. */
function withOtherImages(images: readonly MeterPriceText[], credits: readonly bigint[]): MeterPriceText[] {
  const hasPlain = images.some(({ size, quality }) => size === "" && quality === "");
  if (images.length === 0 || hasPlain) return [...images];
  const dearest = credits.reduce((max, each) => (each > max ? each : max), 0n);
  return [{ meter: Meter.IMAGES, creditPerUnit: formatCredits(dearest), perUnits: 1n }, ...images];
}

function imagePrices(list: readonly unknown[], at: string, rate: Rate): MeterPriceText[] {
  const images = list.map((value, index) => imagePrice(value, `${at}[${index}]`, rate));
  const pico = images.map(({ creditPerUnit }) => exactUnits(parseDecimal(creditPerUnit)!, 1n, DECIMALS)!);
  return withOtherImages(images, pico);
}

function modelEntry(model: unknown, at: string, rate: Rate): { entry: PriceEntry; provider: string } {
  const fields = objectAt(model, at, MODEL_FIELDS);
  const upstreamName = textAt(fields, "upstream_name", at) ?? "";
  if (upstreamName === "") throw new PriceFileError(`${at}.upstream_name: is missing`);
  const tokens = fields["per_million_tokens"];
  const tokensAt = `${at}.per_million_tokens`;
  const thresholds = listAt(fields, "above_input_tokens", at) ?? [];
  const meters: MeterPriceText[] = [
    ...(tokens === undefined
      ? []
      : tokenPrices(objectAt(tokens, tokensAt, Object.keys(TOKEN_NAMES)), tokensAt, rate, 0n)),
    ...thresholds.flatMap((each, index) => thresholdPrices(each, `${at}.above_input_tokens[${index}]`, rate)),
    ...imagePrices(listAt(fields, "per_image", at) ?? [], `${at}.per_image`, rate),
    ...Object.entries(PLAIN).flatMap(([name, kind]) => {
      const price = decimalAt(fields, name, at);
      return price === undefined ? [] : [creditsOf(price, rate, kind, fieldAt(at, name))];
    }),
  ];
  if (meters.length === 0) throw new PriceFileError(`${at}: has no price, such as per_million_tokens`);
  const tokenMeters: readonly number[] = METERS_OF_KIND[UnitKind.TOKENS];
  for (const [name, meter] of [["input", Meter.INPUT_TOKENS] as const, ["output", Meter.OUTPUT_TOKENS] as const]) {
    const isNamed = meters.some((price) => price.meter === meter && price.aboveInputTokens === undefined);
    if (!isNamed && meters.some((price) => tokenMeters.includes(price.meter)))
      throw new PriceFileError(`${tokensAt}.${name}: is missing; "0" is allowed`);
  }
  const value = create(DetailedPriceSchema, {
    meters: meters.map((price) => ({ ...price, meter: price.meter as number as WireMeter })),
  });
  const entry = create(PriceEntrySchema, {
    upstreamName,
    price: { case: "detailedPrice", value },
    maxOutputTokens: BigInt(wholeAt(fields, "max_output_tokens", at, MAX_OUTPUT_TOKENS_MAX) ?? 0),
  });
  return { entry, provider: textAt(fields, "provider", at) ?? "" };
}

function readCatalogue(value: unknown): PriceFile {
  const fields = objectAt(value, "", FILE_FIELDS);
  if ((textAt(fields, "currency", "") ?? "") === "") throw new PriceFileError('currency: is missing, such as "USD"');
  const credits = decimalAt(fields, "credits_per_currency", "");
  if (credits === undefined || credits.digits === 0n)
    throw new PriceFileError("credits_per_currency: is missing: how many Credits one of the currency is, above 0");
  const markup = decimalAt(fields, "markup_percent", "") ?? { digits: 0n, scale: 0 };
  const rate = { factor: times(credits, markupFactor(markup)) };
  const models = listAt(fields, "models", "")!.map((model, index) => modelEntry(model, `models[${index}]`, rate));
  return {
    entries: models.map(({ entry }) => entry),
    providers: models.map(({ provider }) => provider),
    list: "models",
  };
}

/** As the call takes them; each by itself, so that an error can say which. */
function readEntries(value: unknown): PriceFile {
  const list = listAt(objectAt(value, "", ["entries"]), "entries", "")!;
  const entries = list.map((entry, index) => {
    try {
      return fromJson(ImportPricesRequestSchema, { entries: [entry] } as JsonObject).entries[0]!;
    } catch (error) {
      const reason = (error as Error).message.replace(/^.*?:\s*/, "");
      throw new PriceFileError(`entries[${index}]: ${reason}`);
    }
  });
  return { entries, providers: entries.map(({ providerId }) => providerId), list: "entries" };
}

/** @throws PriceFileError, naming the line or the field */
export function readPriceFile(text: string): PriceFile {
  const value = parseJson(text);
  const fields = objectAt(value, "", ["entries", ...FILE_FIELDS]);
  const file =
    fields["entries"] === undefined
      ? fields["models"] === undefined
        ? null
        : readCatalogue(value)
      : readEntries(value);
  if (file === null) throw new PriceFileError("models: is missing; or entries, as ImportPrices takes them");
  if (file.entries.length === 0) throw new PriceFileError(`${file.list}: is empty`);
  return file;
}
