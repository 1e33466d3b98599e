/** PURE. Tokens of media that no upstream reported, where a price knows nothing else of them. */

import { Meter, type UnitQuantity, UnitSource } from "../core/meters.ts";
import type { RequestSize } from "./budget/estimate.ts";
import { BYTES_PER_TOKEN } from "./meter.ts";
import type { Delivered } from "./relay.ts";

/** As OpenAI counts: what is heard, what is spoken, and an image of medium quality. */
const HEARD_TOKENS_PER_S = 10;
const SPOKEN_TOKENS_PER_S = 20;
const IMAGE_TOKENS = 1_056;

function amountOf(units: readonly UnitQuantity[], meter: Meter): number {
  let sum = 0;
  for (const unit of units) if (unit.meter === meter) sum += unit.quantity;
  return sum;
}

/**
 * What speech, recordings and images come to in tokens, within what was held for them. Speech in bytes says nothing of
 * what it used, although it may be priced by tokens alone.
 */
export function unreportedTokens(size: RequestSize, { counted, outputTokens }: Delivered): UnitQuantity[] {
  const { characters, mediaInputTokens, mediaOutputTokens } = size;
  const units: UnitQuantity[] = [];
  const add = (meter: Meter, quantity: number, most: number): void => {
    const bounded = Math.min(Math.ceil(quantity), most);
    if (bounded > 0) units.push({ meter, quantity: bounded, source: UnitSource.ESTIMATED });
  };
  const seconds = amountOf(counted, Meter.SECONDS) / 1000;
  if (characters > 0) {
    add(Meter.INPUT_TOKENS, characters / BYTES_PER_TOKEN, size.inputTokens);
    add(Meter.AUDIO_OUTPUT_TOKENS, seconds * SPOKEN_TOKENS_PER_S, mediaOutputTokens);
  } else if (seconds > 0) {
    add(Meter.AUDIO_INPUT_TOKENS, seconds * HEARD_TOKENS_PER_S, mediaInputTokens);
    add(Meter.OUTPUT_TOKENS, outputTokens, mediaOutputTokens);
  }
  add(Meter.IMAGE_OUTPUT_TOKENS, amountOf(counted, Meter.IMAGES) * IMAGE_TOKENS, mediaOutputTokens);
  return units;
}
