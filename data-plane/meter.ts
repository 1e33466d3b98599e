/**
 * PURE. From a usage object in OpenAI's shape, as `formats/hub.ts` gives it, to disjoint quantities, and rough estimates
 * where there is none.
 * Sources: reference/UPSTREAM-FORMATS.md A5, A11, G1. `prompt_tokens` includes cached, cache-write and audio tokens,
 * `completion_tokens` includes reasoning and audio tokens, with the exceptions handled below.
 */

import { Meter, type UnitQuantity, UnitSource } from "../core/meters.ts";

/** Bytes of text per token in estimates. English text has about four, JSON a little less. */
export const BYTES_PER_TOKEN = 4;

type Fields = Readonly<Record<string, unknown>>;

/** No answer has more; the ledger would set such a record aside, so it is estimated instead. */
export const TOKENS_MAX = 1_000_000_000;

/** Upstreams send `null`, strings, negative and absurd numbers: what is no count is as good as absent. */
function count(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= TOKENS_MAX ? value : undefined;
}

const NO_FIELDS: Fields = {};

interface Totals {
  prompt: number;
  completion: number;
  /** Undefined where the upstream said no total. */
  total: number | undefined;
}

/** Null if the object does not say what went in and what came out. */
function totalsOf(usage: Fields, hasOutput: boolean): Totals | null {
  let prompt = count(usage["prompt_tokens"]) ?? count(usage["input_tokens"]);
  let completion = count(usage["completion_tokens"]) ?? count(usage["output_tokens"]);
  const total = count(usage["total_tokens"]);
  if (!hasOutput) completion ??= 0;
  if (prompt === undefined && completion !== undefined && total !== undefined && total >= completion)
    prompt = total - completion;
  if (completion === undefined && prompt !== undefined && total !== undefined && total >= prompt)
    completion = total - prompt;
  if (prompt === undefined || completion === undefined) return null;
  return { prompt, completion, total };
}

/** The endpoints of OpenAI differ in how they call it. */
const INPUT_DETAILS = ["prompt_tokens_details", "input_tokens_details", "input_token_details"] as const;
const OUTPUT_DETAILS = ["completion_tokens_details", "output_tokens_details", "output_token_details"] as const;

function detailsOf(usage: Fields, names: readonly string[]): Fields {
  for (const name of names) if (typeof usage[name] === "object" && usage[name] !== null) return usage[name] as Fields;
  return NO_FIELDS;
}

function promptUnits(prompt: number, usage: Fields, units: UnitQuantity[]): void {
  const details = detailsOf(usage, INPUT_DETAILS);
  let rest = prompt;
  const take = (value: unknown): number => {
    const taken = Math.min(count(value) ?? 0, rest);
    rest -= taken;
    return taken;
  };
  const cached = take(count(details["cached_tokens"]) ?? usage["prompt_cache_hit_tokens"]);
  const cacheWrite = take(details["cache_write_tokens"]);
  const long = Math.min(count(details["cache_write_long_tokens"]) ?? 0, cacheWrite);
  const audio = take(details["audio_tokens"]);
  const image = take(details["image_tokens"]);
  units.push({ meter: Meter.INPUT_TOKENS, quantity: rest, source: UnitSource.REPORTED });
  add(units, Meter.CACHED_INPUT_TOKENS, cached);
  add(units, Meter.CACHE_WRITE_TOKENS, cacheWrite - long);
  add(units, Meter.CACHE_WRITE_LONG_TOKENS, long);
  add(units, Meter.AUDIO_INPUT_TOKENS, audio);
  add(units, Meter.IMAGE_INPUT_TOKENS, image);
}

function completionUnits(totals: Totals, usage: Fields, units: UnitQuantity[]): void {
  const { prompt, completion, total } = totals;
  const details = detailsOf(usage, OUTPUT_DETAILS);
  const reasoning = count(details["reasoning_tokens"]) ?? 0;
  // Some vendors count reasoning outside completion_tokens; the total, or an impossible subset, gives them away.
  const outside = reasoning > 0 && (total === prompt + completion + reasoning || completion < reasoning);
  let rest = outside ? completion : completion - reasoning;
  const audio = Math.min(count(details["audio_tokens"]) ?? 0, rest);
  rest -= audio;
  const image = Math.min(count(details["image_tokens"]) ?? 0, rest);
  rest -= image;
  units.push({ meter: Meter.OUTPUT_TOKENS, quantity: rest, source: UnitSource.REPORTED });
  add(units, Meter.REASONING_TOKENS, reasoning);
  add(units, Meter.AUDIO_OUTPUT_TOKENS, audio);
  add(units, Meter.IMAGE_OUTPUT_TOKENS, image);
}

function add(units: UnitQuantity[], meter: Meter, quantity: number): void {
  if (quantity > 0) units.push({ meter, quantity, source: UnitSource.REPORTED });
}

export const ONE_REQUEST: UnitQuantity = { meter: Meter.REQUESTS, quantity: 1, source: UnitSource.REPORTED };

/**
 * The quantities that a usage object reports. Null when it is no usage object, lacks input or output, or is all zeros
 * although there was content: then estimate. A reported zero is zero.
 *
 * @param hasOutput false for embeddings, which have no output tokens
 * @param hasContent whether the answer had content
 */
export function unitsFromUsage(usage: unknown, hasOutput: boolean, hasContent: boolean): UnitQuantity[] | null {
  if (typeof usage !== "object" || usage === null) return null;
  const fields = usage as Fields;
  const totals = totalsOf(fields, hasOutput);
  if (totals === null) return null;
  if (hasContent && totals.prompt === 0 && totals.completion === 0) return null;
  const units: UnitQuantity[] = [];
  promptUnits(totals.prompt, fields, units);
  if (hasOutput || totals.completion > 0) completionUnits(totals, fields, units);
  add(units, Meter.TOOL_CALLS, count(fields["tool_calls"]) ?? 0);
  add(units, Meter.IMAGES, count(fields["images"]) ?? 0);
  units.push(ONE_REQUEST);
  return units;
}

/** Quantities for an answer without usage, marked as estimated. */
export function estimateUnits(inputTokens: number, outputTokens: number, hasOutput: boolean): UnitQuantity[] {
  const units: UnitQuantity[] = [{ meter: Meter.INPUT_TOKENS, quantity: inputTokens, source: UnitSource.ESTIMATED }];
  if (hasOutput) units.push({ meter: Meter.OUTPUT_TOKENS, quantity: outputTokens, source: UnitSource.ESTIMATED });
  units.push(ONE_REQUEST);
  return units;
}

/**
 * Tokens in a text that came in `pieces`: a piece of a stream is at least one token, and long pieces have one in about
 * four bytes.
 */
export function estimateTokens(textBytes: number, pieces: number): number {
  return Math.max(Math.ceil(textBytes / BYTES_PER_TOKEN), pieces);
}
