/**
 * PURE. What a turn holds of the wallet. BALANCED: the input as estimated, and an answer as long as is expected. STRICT:
 * a token for every byte of text that was not yet counted by the upstream, and the longest answer, all at the dearest
 * rates.
 */

import { type Credits, maxCredits } from "../../core/credits.ts";
import { Meter } from "../../core/meters.ts";
import type { CompiledPrice } from "../../core/pricing.ts";
import { type Admission, type RequestSize, STREAM_OUTPUT_TOKENS, UNNAMED_OUTPUT_TOKENS } from "../budget/estimate.ts";
import type { AdmissionRates } from "../route_types.ts";
import type { InputTokens, OutputTokens } from "./usage.ts";

export interface TurnPrice {
  readonly price: CompiledPrice;
  readonly rates: AdmissionRates;
  /** 0: not known. */
  readonly maxOutputTokens: number;
}

function rateOf({ rates }: CompiledPrice, meter: Meter): bigint {
  return rates[meter] ?? 0n;
}

/** What goes in, and the turn itself. */
export function inputCost({ price, rates }: TurnPrice, input: InputTokens, strict: boolean): Credits {
  const { text, audio, image } = input;
  if (strict) return BigInt(text + audio + image) * rates.dearInput + rates.request;
  return (
    BigInt(text) * rateOf(price, Meter.INPUT_TOKENS) +
    BigInt(audio) * rateOf(price, Meter.AUDIO_INPUT_TOKENS) +
    BigInt(image) * rateOf(price, Meter.IMAGE_INPUT_TOKENS) +
    rates.request
  );
}

export function outputCost({ price }: TurnPrice, { text, audio }: OutputTokens): Credits {
  return BigInt(text) * rateOf(price, Meter.OUTPUT_TOKENS) + BigInt(audio) * rateOf(price, Meter.AUDIO_OUTPUT_TOKENS);
}

/** The longest answer that a turn may have. `asked`: as the client limits it, 0: it does not. */
export function longestOutput({ maxOutputTokens }: TurnPrice, asked: number): number {
  const most = maxOutputTokens || UNNAMED_OUTPUT_TOKENS;
  return asked === 0 ? most : Math.min(asked, most);
}

/**
 * @param asked the client's limit of output tokens, 0: none
 * @param limitable false: the upstream began it by itself, so that it cannot be told to be shorter
 */
export function turnAdmission(
  price: TurnPrice,
  input: InputTokens,
  asked: number,
  strict: boolean,
  limitable: boolean,
): Admission {
  const { dearOutput, dearInput, request } = price.rates;
  const cost = inputCost(price, input, strict);
  const longest = longestOutput(price, asked);
  if (strict) {
    const amount = cost + BigInt(longest) * dearOutput;
    return { amount, minimum: limitable ? cost + dearOutput : amount };
  }
  const amount = cost + BigInt(Math.min(longest, STREAM_OUTPUT_TOKENS)) * dearOutput;
  // An empty wallet begins nothing that costs anything.
  const least = dearOutput + dearInput + request > 0n ? 1n : 0n;
  const minimum = maxCredits(cost, least);
  return { amount: maxCredits(amount, minimum), minimum };
}

/** STRICT: how long an answer may be with what is held. */
export function outputCovered(price: TurnPrice, input: InputTokens, asked: number, held: Credits): number {
  const longest = longestOutput(price, asked);
  const { dearOutput } = price.rates;
  if (dearOutput === 0n) return longest;
  const left = held - inputCost(price, input, true);
  return left <= 0n ? 1 : Math.max(1, Math.min(longest, Number(left / dearOutput)));
}

/** A turn as limits of Physical Models see it. */
export function turnSize(inputTokens: number, hasOutput: boolean): RequestSize {
  return {
    inputTokens,
    images: 0,
    characters: 0,
    seconds: 0,
    mediaInputTokens: 0,
    mediaOutputTokens: 0,
    hasOutput,
    stream: true,
    outputTokensMax: 0,
    answers: 1,
  };
}
