/**
 * PURE. `/v1/messages/count_tokens`, counted here. Nobody but Anthropic has Claude's tokenizer: its models are counted with
 * OpenAI's and a factor. Facts: reference/UPSTREAM-FORMATS.md C1, C8, G1.
 */

import { readInput } from "../../tokenizer/input.ts";
import { type CountJob, NO_TEXT, type TokenCounts } from "../../tokenizer/tokens.ts";
import { type Json, RefusedFieldError } from "../hub.ts";

/** Claude up to 4.6 (sonnet, haiku 4.5), and the newer ones with their newer tokenizer. */
export const CLAUDE_FACTOR = 1.25;
export const NEW_CLAUDE_FACTOR = 1.5;
/** Llama, Qwen, DeepSeek, Mistral. */
export const OPEN_FACTOR = 1.1;
/** When nothing can be counted: about so many bytes are a token. */
export const BYTES_PER_TOKEN = 4;

/** Opus 4.7 and later, everything of version 5 and later. */
const NEW_CLAUDE = /claude-(?:opus-4-[7-9]|(?:opus|sonnet|haiku|fable|mythos)-(?:[5-9]|\d\d)(?:\D|$))/;
const OPEN = /llama|qwen|deepseek|mistral|mixtral|magistral|codestral/;

/**
 * How many tokens of a model one token of OpenAI's encodings is.
 * @param model its name at the upstream
 * @param family what model it is, where the merchant said so; else ""
 */
export function tokenFactor(model: string, family: string): number {
  const name = (family === "" ? model : family).toLowerCase();
  if (name.includes("claude") || name.includes("anthropic"))
    return NEW_CLAUDE.test(name) ? NEW_CLAUDE_FACTOR : CLAUDE_FACTOR;
  return OPEN.test(name) ? OPEN_FACTOR : 1;
}

/**
 * Whether there is something to count. Nothing else matters: tools that only Anthropic runs are text as well, and
 * `max_tokens` need not be there.
 * @throws RefusedFieldError
 */
export function checkCountTokens({ messages }: Json): void {
  if (messages === undefined || messages === null)
    throw new RefusedFieldError("missing_required_parameter", "messages", "messages: this field is required.");
  if (!Array.isArray(messages)) throw new RefusedFieldError("invalid_type", "messages", "messages: expected a list.");
}

/** What `TokenCounter.count` needs. @param bytes the client's body, sound JSON */
export function countTokensJob(bytes: Buffer, model: string): CountJob {
  return { model, input: readInput(bytes), output: NO_TEXT };
}

/**
 * The answer. The factor is for text alone: images and the like have their own figures.
 * @param counts null: they could not be counted; bytes tell then
 */
export function countTokensAnswer(job: CountJob, counts: TokenCounts | null, factor: number): Json {
  const { tokens, textBytes } = job.input;
  const text = counts === null ? textBytes / BYTES_PER_TOKEN : counts.input - tokens;
  return { input_tokens: Math.max(1, tokens + Math.ceil(Math.max(0, text) * factor)) };
}
