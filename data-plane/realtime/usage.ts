/**
 * PURE. What a realtime turn used, as disjoint meters. Source: reference/UPSTREAM-FORMATS.md A5, row realtime:
 * `input_tokens` includes text, audio and image tokens, each of which includes its cached ones; `output_tokens` includes
 * text and audio tokens. Whatever the details say, the meters of a direction add up to its total.
 */

import { Meter, type UnitQuantity, UnitSource } from "../../core/meters.ts";
import type { CompiledPrice } from "../../core/pricing.ts";
import { TOKENS_MAX } from "../meter.ts";

/** What OpenAI counts: a token for each 100 ms that a user speaks, and for each 50 ms that the model does. */
export const INPUT_AUDIO_TOKENS_PER_S = 10;
export const OUTPUT_AUDIO_TOKENS_PER_S = 20;
/** No transcription is of more. */
const SECONDS_MAX = 1_000_000;

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

/** What is no count is as good as absent. */
function count(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= TOKENS_MAX ? value : undefined;
}

function sumOf(details: Fields, names: readonly string[]): number | undefined {
  const counts = names.map((name) => count(details[name])).filter((value) => value !== undefined);
  return counts.length === 0 ? undefined : counts.reduce((sum, value) => sum + value, 0);
}

const KINDS = ["text_tokens", "audio_tokens", "image_tokens"] as const;

interface InputParts {
  text: number;
  audio: number;
  image: number;
  cached: number;
}

/** Cached tokens of any kind count as cached input, and not once more as what they are. */
function splitInput(input: number, details: Fields): InputParts {
  const audioAll = Math.min(count(details["audio_tokens"]) ?? 0, input);
  const imageAll = Math.min(count(details["image_tokens"]) ?? 0, input - audioAll);
  const textAll = input - audioAll - imageAll;
  const kinds = fieldsOf(details["cached_tokens_details"]);
  const cached = Math.min(count(details["cached_tokens"]) ?? sumOf(kinds, KINDS) ?? 0, input);
  let left = cached;
  const take = (wish: number, most: number): number => {
    const taken = Math.min(wish, most, left);
    left -= taken;
    return taken;
  };
  let audio = audioAll - take(count(kinds["audio_tokens"]) ?? 0, audioAll);
  let image = imageAll - take(count(kinds["image_tokens"]) ?? 0, imageAll);
  // Where it is not said what was cached, that was text as long as there is some.
  const text = textAll - take(left, textAll);
  audio -= take(left, audio);
  image -= take(left, image);
  return { text, audio, image, cached };
}

function add(units: UnitQuantity[], meter: Meter, quantity: number, source: UnitSource): void {
  if (quantity > 0) units.push({ meter, quantity, source });
}

const { REPORTED, ESTIMATED } = UnitSource;

/** Null: it is no usage object, or does not say what went in and what came out. */
function tokenUnits(usage: unknown): UnitQuantity[] | null {
  if (typeof usage !== "object" || usage === null) return null;
  const fields = usage as Fields;
  const inDetails = fieldsOf(fields["input_token_details"] ?? fields["input_tokens_details"]);
  const outDetails = fieldsOf(fields["output_token_details"] ?? fields["output_tokens_details"]);
  const total = count(fields["total_tokens"]);
  let input = count(fields["input_tokens"]) ?? sumOf(inDetails, KINDS);
  let output = count(fields["output_tokens"]) ?? sumOf(outDetails, KINDS);
  if (input === undefined && output !== undefined && total !== undefined && total >= output) input = total - output;
  if (output === undefined && input !== undefined && total !== undefined && total >= input) output = total - input;
  if (input === undefined || output === undefined) return null;
  const parts = splitInput(input, inDetails);
  const audioOut = Math.min(count(outDetails["audio_tokens"]) ?? 0, output);
  const reasoning = Math.min(count(outDetails["reasoning_tokens"]) ?? 0, output - audioOut);
  const units: UnitQuantity[] = [{ meter: Meter.INPUT_TOKENS, quantity: parts.text, source: REPORTED }];
  add(units, Meter.CACHED_INPUT_TOKENS, parts.cached, REPORTED);
  add(units, Meter.AUDIO_INPUT_TOKENS, parts.audio, REPORTED);
  add(units, Meter.IMAGE_INPUT_TOKENS, parts.image, REPORTED);
  units.push({ meter: Meter.OUTPUT_TOKENS, quantity: output - audioOut - reasoning, source: REPORTED });
  add(units, Meter.REASONING_TOKENS, reasoning, REPORTED);
  add(units, Meter.AUDIO_OUTPUT_TOKENS, audioOut, REPORTED);
  return units;
}

const ONE_TURN: UnitQuantity = { meter: Meter.REQUESTS, quantity: 1, source: REPORTED };

/**
 * The quantities of `response.done`'s `response.usage`, and one request. Null: it reports none, or only zeros although
 * there was content: then estimate.
 */
export function turnUnits(usage: unknown, hasContent: boolean): UnitQuantity[] | null {
  const units = tokenUnits(usage);
  if (units === null || (hasContent && units.every(({ quantity }) => quantity === 0))) return null;
  return [...units, ONE_TURN];
}

/** Tokens by kind, estimated. */
export interface InputTokens {
  readonly text: number;
  readonly audio: number;
  readonly image: number;
}

export interface OutputTokens {
  readonly text: number;
  readonly audio: number;
}

/** The same where nothing was reported. */
export function estimatedTurnUnits(input: InputTokens, output: OutputTokens): UnitQuantity[] {
  const units: UnitQuantity[] = [{ meter: Meter.INPUT_TOKENS, quantity: input.text, source: ESTIMATED }];
  add(units, Meter.AUDIO_INPUT_TOKENS, input.audio, ESTIMATED);
  add(units, Meter.IMAGE_INPUT_TOKENS, input.image, ESTIMATED);
  units.push({ meter: Meter.OUTPUT_TOKENS, quantity: output.text, source: ESTIMATED });
  add(units, Meter.AUDIO_OUTPUT_TOKENS, output.audio, ESTIMATED);
  return [...units, ONE_TURN];
}

/**
 * The quantities of a transcription's `usage`: tokens, or seconds. A price that knows no seconds has them as tokens of
 * audio, so that they are not free by accident. It is no request of its own. Null: nothing was reported.
 */
export function transcriptionUnits(usage: unknown, price: CompiledPrice): UnitQuantity[] | null {
  const { type, seconds } = fieldsOf(usage) as { type?: unknown; seconds?: unknown };
  if (type !== "duration") return tokenUnits(usage);
  if (typeof seconds !== "number" || !(seconds >= 0) || seconds > SECONDS_MAX) return null;
  if (price.rates[Meter.SECONDS] !== undefined)
    return [{ meter: Meter.SECONDS, quantity: Math.round(seconds * 1000), source: REPORTED }];
  return [
    { meter: Meter.AUDIO_INPUT_TOKENS, quantity: Math.ceil(seconds * INPUT_AUDIO_TOKENS_PER_S), source: ESTIMATED },
  ];
}
