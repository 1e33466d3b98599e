/** PURE. Whole answers of a Responses upstream to Responses clients. Facts: reference/UPSTREAM-FORMATS.md A4 and A5. */

import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../../tokenizer/tokens.ts";
import type { AnswerReading } from "../format.ts";
import type { Json } from "../hub.ts";
import { listOf, objectOf, parseObject } from "../json.ts";
import { lastUsage } from "../openai.ts";
import { measureValue, type TextMeasure } from "../openai_text.ts";
import { hubTokens, hubUsage } from "./usage.ts";

/**
 * What an item holds beyond its bytes: text, or a call of a tool. A message without text and reasoning that nobody shows say
 * nothing.
 */
export function saysSomething(item: Json): boolean {
  if (item["type"] !== "message" && item["type"] !== "reasoning") return item["type"] !== undefined;
  const measure: TextMeasure = { bytes: 0, content: false, sampler: new Sampler(0) };
  measureValue(item, measure);
  return measure.bytes > 0;
}

class ResponsesAnswer implements AnswerReading {
  readonly valid: boolean;
  readonly usage: Json | null;
  private readonly output: readonly unknown[];
  private measured: TextMeasure | null = null;

  constructor(body: Buffer) {
    const response = parseObject(body) ?? {};
    // One that failed says why in `error`. One that runs in the background has no usage yet, and is an answer all the same.
    this.valid = Array.isArray(response["output"]) && !response["error"] && response["status"] !== "failed";
    this.usage = hubUsage(response);
    this.output = listOf(response["output"]);
  }

  private measure(): TextMeasure {
    if (this.measured !== null) return this.measured;
    this.measured = { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) };
    for (const item of this.output) measureValue(item, this.measured);
    return this.measured;
  }

  textBytes(): number {
    return this.measure().bytes;
  }

  sample(): TextSample {
    return this.measure().sampler.sample();
  }

  hasContent(): boolean {
    return this.output.some((item) => saysSomething(objectOf(item)));
  }
}

/**
 * Reads a whole answer. Its usage has the hub's shape, with what hosted tools used: see `hubUsage`. It is there for a failed
 * answer too, which is not valid.
 */
export function readResponse(body: Buffer): AnswerReading {
  return new ResponsesAnswer(body);
}

/** The tokens in the last bytes of an answer that was too long to keep; null if they are not there. */
export function readResponseTail(tail: Buffer): Json | null {
  return hubTokens(lastUsage(tail));
}
