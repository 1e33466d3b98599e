/**
 * PURE. Responses clients at an upstream that has the Responses API: nothing is translated, what the stream says is read, and
 * the ids of stored responses are renamed. Facts: reference/UPSTREAM-FORMATS.md 1, A4 and A5.
 */

import { Meter, type UnitQuantity, UnitSource } from "../../../core/meters.ts";
import type { ErrorFields } from "../../errors.ts";
import { skipSpace } from "../../json_scan.ts";
import { type RenameId, renameInEvent } from "../../pins.ts";
import type { SseEvent } from "../../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../../tokenizer/tokens.ts";
import { FrameKind, type StreamReader } from "../format.ts";
import type { Json, UpstreamError } from "../hub.ts";
import { objectOf, parseObject, textOf } from "../json.ts";
import { indexOfKey, valueAfter } from "../openai_stream.ts";
import { measureValue, type TextMeasure } from "../openai_text.ts";
import { responseError } from "./upstream_errors.ts";
import { hubUsage, isMadeImage } from "./usage.ts";

const DONE = "[DONE]";
const DELTA_KEY = 'delta"';
const TYPE_START = '{"type":"';
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OBJECT = 0x7b;

/** What an event is to the gateway. */
const EventKind = { TEXT: 0, BEGIN: 1, END: 2, FAILED: 3, ADDED: 4, ENDED_ITEM: 5, WORK: 6, OTHER: 7 } as const;
type EventKind = (typeof EventKind)[keyof typeof EventKind];

const KINDS: ReadonlyMap<string, EventKind> = new Map([
  ["response.output_text.delta", EventKind.TEXT],
  ["response.reasoning_text.delta", EventKind.TEXT],
  ["response.reasoning_summary_text.delta", EventKind.TEXT],
  ["response.refusal.delta", EventKind.TEXT],
  ["response.function_call_arguments.delta", EventKind.TEXT],
  ["response.custom_tool_call_input.delta", EventKind.TEXT],
  ["response.mcp_call_arguments.delta", EventKind.TEXT],
  ["response.code_interpreter_call_code.delta", EventKind.TEXT],
  ["response.audio.transcript.delta", EventKind.TEXT],
  ["response.audio.delta", EventKind.WORK],
  ["response.created", EventKind.BEGIN],
  ["response.queued", EventKind.BEGIN],
  ["response.in_progress", EventKind.BEGIN],
  ["response.completed", EventKind.END],
  ["response.incomplete", EventKind.END],
  ["response.failed", EventKind.FAILED],
  ["response.output_item.added", EventKind.ADDED],
  ["response.output_item.done", EventKind.ENDED_ITEM],
]);

/** Hosted tools at work: nothing was written, but it costs, and the client sees it. */
const WORK = /^response\.(?:web_search|file_search|code_interpreter|image_generation|mcp|shell)_(?:call|list_tools)/;

function kindOf(type: string): EventKind {
  return KINDS.get(type) ?? (WORK.test(type) ? EventKind.WORK : EventKind.OTHER);
}

export class ResponsesStream implements StreamReader {
  /** In the hub's shape, with what hosted tools used: see `hubUsage`. */
  usage: Json | null = null;
  /** The error of the last frame that was one. */
  error: UpstreamError | null = null;
  /** Counted as they come, for a stream that breaks off before its usage. */
  readonly hosted = { images: 0, tool_calls: 0 };
  pieces = 0;
  finished = false;
  private readonly measure: TextMeasure = {
    bytes: 0,
    content: false,
    sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX),
  };
  private readonly rename: RenameId | null;
  /** The last frame holds the whole response. */
  private holdsResponse = false;
  private type = "";
  private data: Buffer = EMPTY;
  /** The first response object, to end it in its name. */
  private first: Buffer | null = null;
  private frames = 0;

  /** @param rename the client's id of a stored response; null: ids stay as they are */
  constructor(rename: RenameId | null) {
    this.rename = rename;
  }

  /** Of a stream that broke off before its usage, which says all of it. */
  get counted(): readonly UnitQuantity[] {
    if (this.usage !== null) return [];
    const { images, tool_calls } = this.hosted;
    const counted: UnitQuantity[] = [];
    if (images > 0) counted.push({ meter: Meter.IMAGES, quantity: images, source: UnitSource.REPORTED });
    if (tool_calls > 0) counted.push({ meter: Meter.TOOL_CALLS, quantity: tool_calls, source: UnitSource.REPORTED });
    return counted;
  }

  get textBytes(): number {
    return this.measure.bytes;
  }

  sample(): TextSample {
    return this.measure.sampler.sample();
  }

  read(event: SseEvent, exact: boolean): FrameKind {
    this.holdsResponse = false;
    const { data } = event;
    if (data === null) return event.event === "error" ? this.fail({}) : FrameKind.COMMENT;
    const start = skipSpace(data, 0);
    if (start >= data.length) return FrameKind.COMMENT;
    if (data[start] !== OBJECT) return this.readWord(data);
    this.data = data;
    this.frames++;
    if (exact || event.event === "error") return this.readExactly(event, data);
    // Most frames are text: they are told by their name, and their text is found without parsing. Work may be megabytes.
    const named = event.event === "" ? EventKind.OTHER : kindOf(event.event);
    if (named === EventKind.TEXT) return this.readText(data, data.toString("latin1"));
    if (named === EventKind.WORK) return FrameKind.CONTENT;
    if (event.event === "" && data[start + 1] === QUOTE) {
      const text = data.toString("latin1");
      if (text.startsWith(TYPE_START, start)) {
        const from = start + TYPE_START.length;
        if (kindOf(text.slice(from, text.indexOf('"', from))) === EventKind.TEXT) return this.readText(data, text);
      }
    }
    return this.readExactly(event, data);
  }

  private readWord(data: Buffer): FrameKind {
    if (data.length > 16 || data.toString("latin1").trim() !== DONE) return FrameKind.BROKEN;
    this.finished = true;
    return FrameKind.DONE;
  }

  /** Quotes inside strings are escaped, so the word in quotes is a key, or a value that no colon follows. */
  private readText(data: Buffer, text: string): FrameKind {
    for (let at = indexOfKey(text, DELTA_KEY, 0); at !== -1; at = indexOfKey(text, DELTA_KEY, at + DELTA_KEY.length)) {
      const value = valueAfter(data, at, DELTA_KEY);
      if (value === -1) continue;
      return data[value] === QUOTE ? this.measureText(data, value) : FrameKind.EMPTY;
    }
    return FrameKind.EMPTY;
  }

  private measureText(data: Buffer, at: number): FrameKind {
    let end = at + 1;
    while (end < data.length && data[end] !== QUOTE) end += data[end] === BACKSLASH ? 2 : 1;
    if (end === at + 1) return FrameKind.EMPTY;
    this.measure.bytes += end - at - 1;
    this.measure.sampler.add(data, at + 1, end);
    this.pieces++;
    return FrameKind.CONTENT;
  }

  private readExactly(event: SseEvent, data: Buffer): FrameKind {
    const body = parseObject(data);
    if (body === null) return FrameKind.BROKEN;
    const type = textOf(body["type"]) || event.event;
    this.type = type;
    if (event.event === "error" || type === "error" || body["error"]) return this.fail(body);
    switch (kindOf(type)) {
      case EventKind.TEXT:
        return this.readText(data, data.toString("latin1"));
      case EventKind.BEGIN:
        this.holdsResponse = true;
        // The frame lives in a socket's read buffer.
        this.first ??= Buffer.from(data);
        return FrameKind.EMPTY;
      case EventKind.END:
        this.holdsResponse = true;
        this.usage = hubUsage(objectOf(body["response"])) ?? this.usage;
        this.finished = true;
        return FrameKind.CONTENT;
      case EventKind.FAILED:
        this.usage = hubUsage(objectOf(body["response"])) ?? this.usage;
        return this.fail(objectOf(body["response"]));
      case EventKind.ADDED:
        return this.readAdded(objectOf(body["item"]));
      case EventKind.ENDED_ITEM:
        return this.readEnded(objectOf(body["item"]));
      case EventKind.WORK:
        return FrameKind.CONTENT;
      default:
        return FrameKind.EMPTY;
    }
  }

  private fail(body: Json): FrameKind {
    const error = body["error"];
    this.error = responseError(typeof error === "string" ? { message: error } : error ? objectOf(error) : body);
    return FrameKind.ERROR;
  }

  /** Messages and reasoning begin empty. The name of a tool is generated like its arguments. */
  private readAdded(item: Json): FrameKind {
    const { type, name } = item;
    if (type === undefined || type === "message" || type === "reasoning") return FrameKind.EMPTY;
    if (typeof name === "string") {
      measureValue({ name }, this.measure);
      this.pieces++;
    }
    return FrameKind.CONTENT;
  }

  private readEnded(item: Json): FrameKind {
    if (isMadeImage(item)) this.hosted.images++;
    if (item["type"] === "web_search_call") this.hosted.tool_calls++;
    return FrameKind.EMPTY;
  }

  replacement(buffer: Buffer, start: number, end: number): Buffer | null {
    if (!this.holdsResponse || this.rename === null) return null;
    const { data } = this;
    const renamed = renameInEvent(data, this.rename);
    if (renamed === data) return null;
    const offset = data.buffer === buffer.buffer ? data.byteOffset - buffer.byteOffset : -1;
    if (offset >= start && offset + data.length <= end) {
      return Buffer.concat([buffer.subarray(start, offset), renamed, buffer.subarray(offset + data.length, end)]);
    }
    // The data stood on several lines: JSON has no line breaks inside strings, so one line says the same.
    return frameOf(this.type, renamed.toString("utf8").replaceAll("\n", " "));
  }

  /** `response.incomplete`: the answer was as long as the wallet allowed. Its output is what came before. */
  lengthFrame(): Buffer {
    const first = this.first === null ? null : parseObject(this.first);
    const response = {
      ...objectOf(first?.["response"]),
      object: "response",
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      output: [],
    };
    const type = "response.incomplete";
    // Events are numbered from 0, and each one counts, so the number of frames is the next one.
    const data = Buffer.from(JSON.stringify({ type, sequence_number: this.frames, response }));
    return frameOf(type, (this.rename === null ? data : renameInEvent(data, this.rename)).toString("utf8"));
  }
}

const EMPTY = Buffer.alloc(0);

function frameOf(type: string, data: string): Buffer {
  return Buffer.from(`event: ${type}\ndata: ${data}\n\n`);
}

/**
 * An error after the stream began. The documented event is flat, and its `type` says `error`; `error` holds what an
 * envelope would, so that SDKs that look there find the type too.
 * @param sequence the number of the event, where it is known
 */
export function responsesErrorFrame(fields: ErrorFields, sequence = 0): Buffer {
  const { message, type, param = null, code, checkout_url } = fields;
  const error = { message, type, param, code, checkout_url };
  return frameOf("error", JSON.stringify({ type: "error", sequence_number: sequence, code, message, param, error }));
}
