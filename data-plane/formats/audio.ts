/** PURE. Answers of audio/transcriptions and audio/translations: JSON of every kind, text, subtitles, and streams. */

import { UnitSource } from "../../core/meters.ts";
import type { SseEvent } from "../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../tokenizer/tokens.ts";
import { type AudioRead, type AudioSeconds, audioUsage, estimatedSeconds, reportedSeconds } from "./audio_usage.ts";
import type { AnswerReading, StreamReader } from "./format.ts";
import { FrameKind } from "./format.ts";
import type { Json } from "./hub.ts";
import { objectOf, parseObject, textOf } from "./json.ts";
import { TopLevel } from "./top_level.ts";

/** The last cue of subtitles is looked for in so many bytes. */
const TAIL_BYTES = 16 * 1024;
const KEYS = new Set(["usage", "duration", "error", "text"]);

/**
 * An answer that comes in pieces. Push every chunk, also those that were sent on already; nothing grows with it.
 */
export class TranscriptionCounter implements AudioRead {
  private readonly top: TopLevel | null;
  private tail: Buffer = NOTHING;

  /** `contentType` of the answer: it decides, since servers do not all know every `response_format`. */
  constructor(contentType: string) {
    this.top = contentType.includes("json") ? new TopLevel(KEYS, "segments") : null;
  }

  push(chunk: Buffer): void {
    if (this.top !== null) return this.top.push(chunk);
    const both = chunk.length >= TAIL_BYTES ? chunk : Buffer.concat([this.tail, chunk]);
    this.tail = Buffer.from(both.subarray(Math.max(0, both.length - TAIL_BYTES)));
  }

  /** It is an answer. A text may be empty: there was nothing to hear. */
  get valid(): boolean {
    const { top } = this;
    if (top === null) return true;
    return top.complete && !top.value("error") && ["text", "usage", "duration"].some((key) => top.has(key));
  }

  get usage(): Json | null {
    return this.top === null ? null : audioUsage(this.top.value("usage"), "input").usage;
  }

  get seconds(): AudioSeconds | null {
    const { top } = this;
    if (top === null) return estimatedSeconds(lastCueEnd(this.tail.toString("latin1")));
    return audioUsage(top.value("usage"), "input").seconds ?? reportedSeconds(top.value("duration"));
  }
}

const CUE = /--> *(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})/g;

/** When the last cue of SRT or VTT subtitles ends, in seconds; null: there is none. */
export function lastCueEnd(text: string): number | null {
  let last: RegExpExecArray | null = null;
  for (const match of text.matchAll(CUE)) last = match;
  if (last === null) return null;
  const [, hours = "0", minutes, seconds, fraction] = last;
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds) + Number(`0.${fraction}`);
}

/** A whole answer. */
export class TranscriptionAnswer extends TranscriptionCounter implements AnswerReading {
  private readonly body: Buffer;
  private readonly isJson: boolean;

  constructor(body: Buffer, contentType: string) {
    super(contentType);
    this.body = body;
    this.isJson = contentType.includes("json");
    this.push(body);
  }

  textBytes(): number {
    return this.text().length;
  }

  sample(): TextSample {
    const bytes = this.text();
    return { bytes: bytes.subarray(0, OUTPUT_SAMPLE_BYTES_MAX), textBytes: bytes.length, tokens: 0 };
  }

  /** A recording was heard to its end, whatever was in it. */
  hasContent(): boolean {
    return true;
  }

  private text(): Buffer {
    return this.isJson ? Buffer.from(textOf(objectOf(parseObject(this.body))["text"])) : this.body;
  }
}

const DONE = "[DONE]";
const NOTHING = Buffer.alloc(0);

/** Frames of `transcript.text.*`. The last one is `transcript.text.done`; some servers send `[DONE]` too. */
export class TranscriptionStream implements StreamReader, AudioRead {
  usage: Json | null = null;
  seconds: AudioSeconds | null = null;
  pieces = 0;
  finished = false;
  private readonly sampler = new Sampler(OUTPUT_SAMPLE_BYTES_MAX);
  /** Segments repeat what deltas said. */
  private hasDeltas = false;
  private endS = 0;

  get textBytes(): number {
    return this.sampler.textBytes;
  }

  sample(): TextSample {
    return this.sampler.sample();
  }

  read({ event, data }: SseEvent): FrameKind {
    if (event === "error") return FrameKind.ERROR;
    if (data === null) return FrameKind.COMMENT;
    if (data.length < 16 && data.toString("latin1").trim() === DONE) {
      this.finished = true;
      return FrameKind.DONE;
    }
    const frame = parseObject(data);
    if (frame === null) return FrameKind.BROKEN;
    const type = textOf(frame["type"]) || event;
    if (frame["error"] || type === "error") return FrameKind.ERROR;
    switch (type) {
      case "transcript.text.delta":
        this.hasDeltas = true;
        return this.piece(textOf(frame["delta"]));
      case "transcript.text.segment":
        return this.segment(frame);
      case "transcript.text.done":
        return this.done(frame);
      default:
        return FrameKind.EMPTY;
    }
  }

  replacement(): null {
    return null;
  }

  /** A transcript has no reason why it ended: what follows is the error alone. */
  lengthFrame(): Buffer {
    return NOTHING;
  }

  private piece(text: string): FrameKind {
    if (text === "") return FrameKind.EMPTY;
    this.sampler.addText(text);
    this.pieces++;
    return FrameKind.CONTENT;
  }

  private segment(frame: Json): FrameKind {
    const end = frame["end"];
    if (typeof end === "number" && end > this.endS) this.endS = end;
    if (this.seconds === null || this.seconds.source !== UnitSource.REPORTED)
      this.seconds = estimatedSeconds(this.endS);
    const text = textOf(frame["text"]);
    if (!this.hasDeltas) return this.piece(text);
    return text === "" ? FrameKind.EMPTY : FrameKind.CONTENT;
  }

  private done(frame: Json): FrameKind {
    const read = audioUsage(frame["usage"], "input");
    this.usage = read.usage ?? this.usage;
    this.seconds = read.seconds ?? reportedSeconds(frame["duration"]) ?? this.seconds;
    this.finished = true;
    if (this.pieces === 0) this.piece(textOf(frame["text"]));
    return FrameKind.CONTENT;
  }
}
