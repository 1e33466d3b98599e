/**
 * PURE. How many Credits a request holds at admission, and how long its answer may be with what was held. The node
 * does not know yet which target will serve, so the dearest one counts.
 *
 * Input counts one token per byte, which no tokenizer exceeds, but for images, which have bounds of their own. BALANCED holds that and the output that is expected: a
 * stream grows slice by slice, and a wallet with less lets a request begin as long as it covers the input, and overdraw
 * by one slice. STRICT holds the worst case.
 */

import { type Credits, maxCredits } from "../../core/credits.ts";
import type { AdmissionRates } from "../route_types.ts";

/** Output tokens that a BALANCED stream is expected to have, unless the client asks for fewer. */
export const STREAM_OUTPUT_TOKENS = 1024;
/** Output tokens by which the reservation of a stream grows, and by which a BALANCED request may overdraw. */
export const SLICE_TOKENS = 256;
/**
 * The longest answer to hold for when neither the client nor the Physical Model names one. STRICT limits the answer to
 * it; BALANCED does not.
 */
export const UNNAMED_OUTPUT_TOKENS = 4096;
/** An empty wallet begins nothing, even where only output costs. */
const SMALLEST: Credits = 1n;
/** A wallet with so many times what a request holds limits no answer. */
export const AMPLE_TIMES = 64n;
/** A stream asks for its next slice when this share of its reservation is used, in percent. */
export const GROW_AT_PERCENT = 80n;

/** What is known of a request at admission. */
export interface RequestSize {
  /** The most tokens that its input can have. */
  readonly inputTokens: number;
  /** Images to be made, characters to be spoken, and thousandths of seconds to be heard, as far as they are known. */
  readonly images: number;
  readonly characters: number;
  readonly seconds: number;
  /** Tokens of recordings and images, in and out, where they are counted so. */
  readonly mediaInputTokens: number;
  readonly mediaOutputTokens: number;
  /** False for embeddings. */
  readonly hasOutput: boolean;
  readonly stream: boolean;
  /** The client's limit of output tokens per answer, 0 if none. */
  readonly outputTokensMax: number;
  /** Answers asked for: `n`, times prompts. At least 1. */
  readonly answers: number;
}

export interface TargetCost {
  readonly rates: AdmissionRates;
  /** 0: not known. */
  readonly maxOutputTokens: number;
}

export interface Admission {
  /** What to hold. */
  readonly amount: Credits;
  /** What is enough to begin. */
  readonly minimum: Credits;
}

/** What a request costs besides its output tokens. */
export function inputCost(size: RequestSize, rates: AdmissionRates, strict: boolean): Credits {
  const cost = BigInt(size.inputTokens) * (strict ? rates.dearInput : rates.input) + rates.request;
  return size.images + size.characters + size.seconds === 0 ? cost : cost + mediaCost(size, rates);
}

function mediaCost(size: RequestSize, rates: AdmissionRates): Credits {
  return (
    BigInt(size.images) * rates.image +
    BigInt(size.characters) * rates.character +
    BigInt(size.seconds) * rates.second +
    BigInt(size.mediaInputTokens) * rates.dearInput +
    BigInt(size.mediaOutputTokens) * rates.dearOutput
  );
}

/** What one more token in each answer costs. */
function rateOfAnswers(size: RequestSize, rates: AdmissionRates, strict: boolean): bigint {
  const rate = strict ? rates.dearOutput : rates.output;
  return size.answers === 1 ? rate : rate * BigInt(size.answers);
}

/** The longest answer that a request may have at this target, per answer. */
function longestOutput(size: RequestSize, target: TargetCost): number {
  return size.outputTokensMax || target.maxOutputTokens || UNNAMED_OUTPUT_TOKENS;
}

/** Only streams can be given more on the way. */
function expectedOutput(size: RequestSize, target: TargetCost, strict: boolean): number {
  const longest = longestOutput(size, target);
  return strict || !size.stream ? longest : Math.min(longest, STREAM_OUTPUT_TOKENS);
}

/** What a request must hold, over all targets that might serve it. */
export function admissionOf(size: RequestSize, targets: Iterable<TargetCost>, strict: boolean): Admission {
  let amount = 0n;
  let minimum = 0n;
  let output = -1;
  let outputTokens = 0n;
  for (const target of targets) {
    const input = inputCost(size, target.rates, strict);
    if (!size.hasOutput) {
      amount = maxCredits(amount, input);
      minimum = amount;
      continue;
    }
    const rate = rateOfAnswers(size, target.rates, strict);
    const expected = expectedOutput(size, target, strict);
    // Mostly the same for all targets.
    if (expected !== output) outputTokens = BigInt((output = expected));
    const least = strict ? input + rate : maxCredits(input, rate === 0n ? 0n : SMALLEST);
    amount = maxCredits(amount, input + rate * outputTokens);
    minimum = maxCredits(minimum, least);
  }
  return { amount, minimum };
}

/**
 * The most output tokens per answer that `held` covers at every target, with BALANCED's one slice on top; null if nothing
 * limits them. STRICT always has a limit where output costs anything, since without one the upstream's own, unknown
 * limit would hold.
 */
export function outputTokensCovered(
  size: RequestSize,
  targets: Iterable<TargetCost>,
  strict: boolean,
  held: Credits,
): number | null {
  let least: number | null = null;
  for (const target of targets) {
    const rate = rateOfAnswers(size, target.rates, strict);
    if (rate === 0n) continue;
    const left = held - inputCost(size, target.rates, strict);
    let tokens = left <= 0n ? 0 : Number(left / rate);
    tokens = strict ? Math.min(tokens, longestOutput(size, target)) : tokens + Math.floor(SLICE_TOKENS / size.answers);
    if (least === null || tokens < least) least = tokens;
  }
  return least === null ? null : Math.max(1, least);
}

/** The longest answer that no target refuses to be limited to, per answer. */
export function outputTokensAccepted(size: RequestSize, targets: Iterable<TargetCost>): number {
  let least = Number.MAX_SAFE_INTEGER;
  for (const target of targets) least = Math.min(least, longestOutput(size, target));
  return least;
}

/** What one more slice of a stream costs at the target that serves it. */
export function sliceCost(rates: AdmissionRates, strict: boolean): Credits {
  return BigInt(SLICE_TOKENS) * (strict ? rates.dearOutput : rates.output);
}

/** Output tokens after which `percent` of what is held is used up, given what the input costs. */
export function outputTokensAt(held: Credits, inputCredits: Credits, rate: bigint, percent: bigint): number {
  if (rate === 0n) return Number.MAX_SAFE_INTEGER;
  const left = (held * percent) / 100n - inputCredits;
  return left <= 0n ? 0 : Number(left / rate);
}
