/** PURE. Reads OpenAI chat and completion streams: first content, usage, errors, the end; and leaves out added usage. */

import { decodeString, JsonScanError, scanObject, skipSpace } from "../json_scan.ts";
import type { SseEvent } from "../sse.ts";
import type { EndpointSpec, StreamReader } from "./format.ts";
import { FrameKind } from "./format.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../tokenizer/tokens.ts";
import { measureObject, type TextMeasure, measureValue } from "./openai_text.ts";

const DONE = "[DONE]";
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const COLON = 0x3a;
const QUOTE = 0x22;
const LOWER_N = 0x6e;

/**
 * Keys without their opening quote. JSON is full of quotes, and the engine searches for the first character of what it
 * looks for: without the quote it stops at far fewer places.
 */
const USAGE_KEY = 'usage"';
const ERROR_KEY = 'error"';
const FINISH_KEY = 'finish_reason"';
const DELTA_KEY = 'delta"';
const TEXT_KEY = 'text"';
const USAGE_NULL_END = Buffer.from(',"usage":null}');

type Fields = Readonly<Record<string, unknown>>;

/** Where a key stands, after its quote; -1: nowhere. */
export function indexOfKey(text: string, key: string, from: number): number {
  for (let at = text.indexOf(key, from); at !== -1; at = text.indexOf(key, at + key.length)) {
    if (text.charCodeAt(at - 1) === QUOTE) return at;
  }
  return -1;
}

/** The first byte of the value of the key at `at`, -1 if what stands there is no key. */
export function valueAfter(bytes: Buffer, at: number, key: string): number {
  const colon = skipSpace(bytes, at + key.length);
  return bytes[colon] === COLON ? skipSpace(bytes, colon + 1) : -1;
}

export class OpenAiStream implements StreamReader {
  usage: unknown = null;
  pieces = 0;
  finished = false;
  private readonly measure: TextMeasure = {
    bytes: 0,
    content: false,
    sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX),
  };
  private readonly endpoint: EndpointSpec;
  private readonly stripUsage: boolean;
  /** `usage` stands in the last frame and has to go. */
  private usageShown = false;
  private data: Buffer = DONE_BYTES;
  /** The first chunk with content, to answer in its name. */
  private firstChunk: Buffer | null = null;

  constructor(endpoint: EndpointSpec, stripUsage: boolean) {
    this.endpoint = endpoint;
    this.stripUsage = stripUsage;
  }

  get textBytes(): number {
    return this.measure.bytes;
  }

  sample(): TextSample {
    return this.measure.sampler.sample();
  }

  read(event: SseEvent, exact: boolean): FrameKind {
    this.usageShown = false;
    const data = event.data;
    if (event.event === "error") return FrameKind.ERROR;
    if (data === null) return FrameKind.COMMENT;
    if (data.length < 16 && data.toString("latin1").trim() === DONE) {
      this.finished = true;
      return FrameKind.DONE;
    }
    const first = skipSpace(data, 0);
    if (first >= data.length) return FrameKind.COMMENT;
    if (data[first] !== OBJECT) return FrameKind.BROKEN;
    this.data = data;
    if (exact) return this.readExactly(data);
    try {
      return this.readFast(data);
    } catch (error) {
      if (error instanceof JsonScanError) return this.readExactly(data);
      throw error;
    }
  }

  /** Looks for the few words that matter and walks the deltas only; anything unusual is parsed. */
  private readFast(data: Buffer): FrameKind {
    // One latin1 string, whose positions are those of the bytes: searching it costs a third of searching the buffer.
    const text = data.toString("latin1");
    if (indexOfKey(text, ERROR_KEY, 0) !== -1) return this.readExactly(data);
    const usage = indexOfKey(text, USAGE_KEY, 0);
    if (usage !== -1) {
      const value = valueAfter(data, usage, USAGE_KEY);
      if (value === -1 || data[value] !== LOWER_N) return this.readExactly(data);
      this.usageShown = this.stripUsage;
    }
    const { measure } = this;
    measure.content = false;
    const chat = this.endpoint.chat;
    const key = chat ? DELTA_KEY : TEXT_KEY;
    for (let at = indexOfKey(text, key, 0); at !== -1; at = indexOfKey(text, key, at + key.length)) {
      const value = valueAfter(data, at, key);
      if (value === -1) continue;
      if (chat) {
        if (data[value] === OBJECT) measureObject(data, value, measure);
      } else if (data[value] === QUOTE) {
        this.measureText(data, value);
      }
    }
    return this.verdict(sawFinish(data, text));
  }

  private measureText(data: Buffer, at: number): void {
    let end = at + 1;
    while (end < data.length && data[end] !== QUOTE) end += data[end] === 0x5c ? 2 : 1;
    if (end === at + 1) return;
    this.measure.bytes += end - at - 1;
    this.measure.sampler.add(data, at + 1, end);
    this.measure.content = true;
  }

  private readExactly(data: Buffer): FrameKind {
    let parsed: unknown;
    try {
      parsed = JSON.parse(data.toString("utf8"));
    } catch {
      return FrameKind.BROKEN;
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return FrameKind.BROKEN;
    const chunk = parsed as Fields;
    if (chunk["error"]) return FrameKind.ERROR;
    const choices: readonly unknown[] = Array.isArray(chunk["choices"]) ? (chunk["choices"] as unknown[]) : [];
    const usage = chunk["usage"];
    this.usageShown = usage !== undefined && this.stripUsage;
    if (typeof usage === "object" && usage !== null) {
      this.usage = usage;
      if (choices.length === 0 && this.stripUsage) return FrameKind.USAGE_ONLY;
    }
    this.measure.content = false;
    let finish = false;
    for (const each of choices) {
      const choice = (typeof each === "object" && each !== null ? each : {}) as Fields;
      if (this.endpoint.chat) measureValue(choice["delta"], this.measure);
      else measureValue({ text: choice["text"] }, this.measure);
      const reason = choice["finish_reason"];
      if (typeof reason === "string" && reason !== "") finish = true;
    }
    return this.verdict(finish);
  }

  private verdict(finish: boolean): FrameKind {
    if (finish) this.finished = true;
    if (this.measure.content && this.pieces++ === 0) {
      // The chunk lives in a socket's read buffer, and what is said in its name comes later. Azure's first is nameless.
      this.firstChunk = Buffer.from(this.data);
    }
    return this.measure.content || finish ? FrameKind.CONTENT : FrameKind.EMPTY;
  }

  replacement(buffer: Buffer, start: number, end: number): Buffer | null {
    if (!this.usageShown) return null;
    const { data } = this;
    const range = usageRange(data);
    if (range === null) return null;
    const offset = data.buffer === buffer.buffer ? data.byteOffset - buffer.byteOffset : -1;
    if (offset >= start && offset + data.length <= end) {
      return Buffer.concat([buffer.subarray(start, offset + range[0]), buffer.subarray(offset + range[1], end)]);
    }
    // The data stood on several lines: JSON has no line breaks inside strings, so one line says the same.
    const text = data.toString("utf8", 0, range[0]) + data.toString("utf8", range[1]);
    return Buffer.from(`data: ${text.replaceAll("\n", " ")}\n\n`);
  }

  lengthFrame(choices: number): Buffer {
    const chunk: Record<string, unknown> = {};
    const first = parseFields(this.firstChunk);
    for (const key of ["id", "object", "created", "model"]) if (first[key] !== undefined) chunk[key] = first[key];
    const ending = this.endpoint.chat ? { delta: {} } : { text: "" };
    chunk["choices"] = Array.from({ length: choices }, (_, index) => ({
      index,
      ...ending,
      logprobs: null,
      finish_reason: "length",
    }));
    return Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`);
  }
}

function sawFinish(data: Buffer, text: string): boolean {
  for (let at = indexOfKey(text, FINISH_KEY, 0); at !== -1; at = indexOfKey(text, FINISH_KEY, at + FINISH_KEY.length)) {
    const value = valueAfter(data, at, FINISH_KEY);
    if (value !== -1 && data[value] === QUOTE && data[value + 1] !== QUOTE) return true;
  }
  return false;
}

const DONE_BYTES = Buffer.from(DONE);

function parseFields(data: Buffer | null): Fields {
  try {
    return data === null ? {} : (JSON.parse(data.toString("utf8")) as Fields);
  } catch {
    return {};
  }
}

/** Where the top-level member `usage` stands, one comma included; null if it does not. */
function usageRange(data: Buffer): [number, number] | null {
  const length = data.length;
  // The end of the object is the end of the frame's JSON, so what stands right before it is a top-level member.
  if (data[length - 1] === OBJECT_END && data.subarray(length - USAGE_NULL_END.length).equals(USAGE_NULL_END)) {
    return [length - USAGE_NULL_END.length, length - 1];
  }
  let range: [number, number] | null = null;
  let previousEnd = -1;
  try {
    scanObject(data, skipSpace(data, 0), 0, (member, keyEnd, _value, end) => {
      if (decodeString(data, member, keyEnd) === "usage")
        range = previousEnd === -1 ? [member, afterComma(data, end)] : [previousEnd, end];
      previousEnd = end;
    });
  } catch {
    return null;
  }
  return range;
}

function afterComma(data: Buffer, end: number): number {
  const comma = skipSpace(data, end);
  return data[comma] === 0x2c ? skipSpace(data, comma + 1) : end;
}
