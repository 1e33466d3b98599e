/**
 * PURE. Reads Anthropic's answers where they go to the client as they came: usage in the hub's shape, how much was
 * generated, errors and the end. Facts are from reference/UPSTREAM-FORMATS.md C4 to C6.
 */

import { JsonScanError, skipSpace, skipString, skipValue } from "../../json_scan.ts";
import { estimateTokens } from "../../meter.ts";
import type { SseEvent } from "../../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../../tokenizer/tokens.ts";
import { type AnswerReading, FrameKind, type StreamReader } from "../format.ts";
import type { Json } from "../hub.ts";
import { listOf, objectOf, parseObject, textOf } from "../json.ts";
import { measureValue, type TextMeasure } from "../openai_text.ts";
import { isAnswer } from "./answer.ts";
import { hubUsage, laterUsage, saysOutput } from "./usage.ts";

const QUOTE = 0x22;
const COLON = 0x3a;
const COMMA = 0x2c;
const OBJECT = 0x7b;
const DELTA_KEY = '"delta"';
/** Keys of a delta whose strings the model generated. */
const GENERATED = new Set(["text", "thinking", "partial_json"]);

function newMeasure(): TextMeasure {
  return { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) };
}

/** Adds a text that was decoded. */
function measureText(text: string, into: TextMeasure): void {
  if (text === "") return;
  into.bytes += Buffer.byteLength(text);
  into.sampler.addText(text);
  into.content = true;
}

export class AnthropicStream implements StreamReader {
  /** In the hub's shape; null until an event after the start says what came out. */
  usage: unknown = null;
  pieces = 0;
  finished = false;
  private readonly measure: TextMeasure = newMeasure();
  private raw: Json = {};
  /** Indexes of blocks that have begun and not ended. */
  private readonly open = new Set<number>();

  get textBytes(): number {
    return this.measure.bytes;
  }

  sample(): TextSample {
    return this.measure.sampler.sample();
  }

  read(event: SseEvent, exact: boolean): FrameKind {
    const { data } = event;
    if (event.event === "error") return FrameKind.ERROR;
    if (data === null || data.length === 0) return FrameKind.COMMENT;
    this.measure.content = false;
    if (!exact && event.event === "content_block_delta") {
      try {
        if (this.readFast(data)) return this.verdict();
      } catch (error) {
        if (!(error instanceof JsonScanError)) throw error;
      }
    }
    const parsed = parseObject(data);
    return parsed === null ? FrameKind.BROKEN : this.readExactly(parsed, event.event);
  }

  /** Walks the members of the delta, which are few. False: there is none that can be found without parsing. */
  private readFast(data: Buffer): boolean {
    // Quotes inside strings are escaped, so the word in quotes is the key, or a value that no colon follows.
    const key = data.indexOf(DELTA_KEY, 0, "latin1");
    if (key === -1) return false;
    const colon = skipSpace(data, key + DELTA_KEY.length);
    if (data[colon] !== COLON) return false;
    const start = skipSpace(data, colon + 1);
    if (data[start] !== OBJECT) return false;
    let at = skipSpace(data, start + 1);
    while (data[at] === QUOTE) {
      const nameEnd = skipString(data, at);
      const value = skipSpace(data, skipSpace(data, nameEnd) + 1);
      let end: number;
      if (data[value] === QUOTE) {
        end = skipString(data, value);
        if (end - value > 2 && GENERATED.has(data.toString("latin1", at + 1, nameEnd - 1))) {
          this.measure.bytes += end - value - 2;
          this.measure.sampler.add(data, value + 1, end - 1);
          this.measure.content = true;
        }
      } else {
        end = skipValue(data, value);
      }
      at = skipSpace(data, end);
      if (data[at] !== COMMA) break;
      at = skipSpace(data, at + 1);
    }
    return true;
  }

  private readExactly(event: Json, name: string): FrameKind {
    switch (textOf(event["type"]) || name) {
      case "error":
        return FrameKind.ERROR;
      case "ping":
        return FrameKind.COMMENT;
      case "message_start":
        this.raw = laterUsage(this.raw, objectOf(event["message"])["usage"]);
        return FrameKind.EMPTY;
      case "content_block_start":
        if (typeof event["index"] === "number") this.open.add(event["index"]);
        measureBlock(objectOf(event["content_block"]), false, this.measure);
        return this.verdict();
      case "content_block_delta": {
        const delta = objectOf(event["delta"]);
        for (const key of GENERATED) measureText(textOf(delta[key]), this.measure);
        return this.verdict();
      }
      case "content_block_stop":
        this.open.delete(event["index"] as number);
        return FrameKind.EMPTY;
      case "message_delta":
        this.raw = laterUsage(this.raw, event["usage"]);
        if (saysOutput(event["usage"])) this.usage = hubUsage(this.raw);
        return textOf(objectOf(event["delta"])["stop_reason"]) === "" ? FrameKind.EMPTY : this.end(FrameKind.CONTENT);
      case "message_stop":
        return this.end(FrameKind.DONE);
      case "":
        return event["error"] ? FrameKind.ERROR : FrameKind.EMPTY;
      default:
        return FrameKind.EMPTY;
    }
  }

  private verdict(): FrameKind {
    if (!this.measure.content) return FrameKind.EMPTY;
    this.pieces++;
    return FrameKind.CONTENT;
  }

  private end(kind: FrameKind): FrameKind {
    this.finished = true;
    return kind;
  }

  replacement(): null {
    return null;
  }

  /** Ends the message as its own limit would. No `message_stop`: an error follows. */
  lengthFrame(): Buffer {
    const events: Json[] = [...this.open].map((index) => ({ type: "content_block_stop", index }));
    events.push({
      type: "message_delta",
      delta: { stop_reason: "max_tokens", stop_sequence: null },
      usage: { output_tokens: estimateTokens(this.textBytes, this.pieces) },
    });
    return Buffer.from(
      events.map((each) => `event: ${String(each["type"])}\ndata: ${JSON.stringify(each)}\n\n`).join(""),
    );
  }
}

/** A whole answer of Anthropic's. Its text is measured only if somebody asks. */
export class AnthropicAnswer implements AnswerReading {
  readonly valid: boolean;
  /** In the hub's shape. */
  readonly usage: unknown;
  private readonly content: readonly unknown[];
  private measured: TextMeasure | null = null;

  constructor(body: Buffer) {
    const parsed = parseObject(body);
    this.valid = parsed !== null && isAnswer(parsed);
    this.usage = this.valid ? hubUsage(parsed!["usage"]) : null;
    this.content = this.valid ? listOf(parsed!["content"]) : [];
  }

  private measure(): TextMeasure {
    if (this.measured !== null) return this.measured;
    const into = newMeasure();
    for (const each of this.content) measureBlock(objectOf(each), true, into);
    this.measured = into;
    return into;
  }

  textBytes(): number {
    return this.measure().bytes;
  }

  sample(): TextSample {
    return this.measure().sampler.sample();
  }

  hasContent(): boolean {
    return this.measure().content;
  }
}

/**
 * A block of a kind that has more than text is something that a client can use, even when it only begins.
 * @param whole its input is there, if only an empty one
 */
function measureBlock(block: Json, whole: boolean, into: TextMeasure): void {
  const type = textOf(block["type"]);
  if (type === "text" || type === "thinking") return measureText(textOf(block[type]), into);
  into.content = true;
  if (type !== "tool_use") return;
  measureValue({ name: block["name"] }, into);
  const input = objectOf(block["input"]);
  if (whole || Object.keys(input).length > 0) measureText(JSON.stringify(input), into);
}

const USAGE_KEY = Buffer.from('"usage"');

/** The usage, in the hub's shape, in the last bytes of an answer that was too long to keep; null: none was found. */
export function usageInTail(tail: Buffer): unknown {
  const key = tail.lastIndexOf(USAGE_KEY);
  if (key === -1) return null;
  const colon = skipSpace(tail, key + USAGE_KEY.length);
  const start = skipSpace(tail, colon + 1);
  if (tail[colon] !== COLON || tail[start] !== OBJECT) return null;
  try {
    return hubUsage(parseObject(tail.subarray(start, skipValue(tail, start))));
  } catch (error) {
    if (error instanceof JsonScanError) return null;
    throw error;
  }
}
