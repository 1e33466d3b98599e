/** PURE. What a request is expected to use of limits of tokens, before anything is known of its answer. */

import { STREAM_OUTPUT_TOKENS, type RequestSize } from "../budget/estimate.ts";
import { BYTES_PER_TOKEN } from "../meter.ts";
import type { Media } from "../tokenizer/media.ts";

/** Tokens that a request is expected to use, and how many of them are its input. */
export interface ExpectedTokens {
  readonly all: number;
  readonly input: number;
}

/** The input by its bytes, but for media, and as long an answer as is expected. */
export function expectedTokens(body: Buffer, media: Media, size: RequestSize): ExpectedTokens {
  const { hasOutput, outputTokensMax, answers, mediaInputTokens, mediaOutputTokens } = size;
  const text = Math.ceil(Math.max(0, body.length - media.bytes) / BYTES_PER_TOKEN);
  const input = text + media.tokens + mediaInputTokens;
  const output = hasOutput ? (outputTokensMax || STREAM_OUTPUT_TOKENS) * answers : mediaOutputTokens;
  return { input, all: input + output };
}
