/**
 * PURE. What audio endpoints report, in one shape. Facts: reference/UPSTREAM-FORMATS.md A5, and the types of the openai
 * package.
 */

import { UnitSource } from "../../core/meters.ts";
import type { Json } from "./hub.ts";
import { countOf, objectOf } from "./json.ts";

/** A duration. */
export interface AudioSeconds {
  /** Of a second: the quantity of the meter SECONDS. */
  readonly thousandths: number;
  /** REPORTED: in so many words. ESTIMATED: a lower bound from what was said. */
  readonly source: typeof UnitSource.REPORTED | typeof UnitSource.ESTIMATED;
}

/** What an audio answer used. */
export interface AudioRead {
  /** In the hub's shape, null if no tokens were reported. */
  readonly usage: Json | null;
  readonly seconds: AudioSeconds | null;
}

/** No recording is longer; what says so is wrong. */
export const SECONDS_MAX = 7 * 24 * 3600;

/** A number of seconds, or the text of one, in thousandths; null if it is none. */
export function thousandthsOf(value: unknown): number | null {
  const seconds =
    typeof value === "number"
      ? value
      : typeof value === "string" && /^\d+(\.\d+)?s?$/.test(value)
        ? Number.parseFloat(value)
        : Number.NaN;
  return seconds >= 0 && seconds <= SECONDS_MAX ? Math.round(seconds * 1000) : null;
}

export function reportedSeconds(value: unknown): AudioSeconds | null {
  const thousandths = thousandthsOf(value);
  return thousandths === null ? null : { thousandths, source: UnitSource.REPORTED };
}

export function estimatedSeconds(value: unknown): AudioSeconds | null {
  const thousandths = thousandthsOf(value);
  return thousandths === null || thousandths === 0 ? null : { thousandths, source: UnitSource.ESTIMATED };
}

/** Where the audio is: in what a transcription reads, or in what speech makes. */
export type AudioSide = "input" | "output";

/**
 * A usage object of an audio endpoint: tokens, a duration, or both. The details are called `input_token_details` there, in
 * the singular. Speech reports no details: its output is audio.
 */
export function audioUsage(value: unknown, side: AudioSide): AudioRead {
  const usage = objectOf(value);
  const seconds = reportedSeconds(usage["seconds"] ?? usage["prompt_audio_seconds"] ?? usage["duration"]);
  const prompt = countOf(usage["input_tokens"]) ?? countOf(usage["prompt_tokens"]);
  const completion = countOf(usage["output_tokens"]) ?? countOf(usage["completion_tokens"]);
  const total = countOf(usage["total_tokens"]);
  if (prompt === undefined || completion === undefined) return { usage: null, seconds };
  const input = objectOf(
    usage["input_token_details"] ?? usage["input_tokens_details"] ?? usage["prompt_tokens_details"],
  );
  const output = objectOf(
    usage["output_token_details"] ?? usage["output_tokens_details"] ?? usage["completion_tokens_details"],
  );
  const audioIn = countOf(input["audio_tokens"]) ?? 0;
  const audioOut =
    countOf(output["audio_tokens"]) ?? (side === "output" ? completion - (countOf(output["text_tokens"]) ?? 0) : 0);
  return {
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: total ?? prompt + completion,
      prompt_tokens_details: {
        audio_tokens: Math.min(audioIn, prompt),
        cached_tokens: Math.min(countOf(input["cached_tokens"]) ?? 0, prompt),
      },
      completion_tokens_details: { audio_tokens: Math.min(Math.max(audioOut, 0), completion) },
    },
    seconds,
  };
}
