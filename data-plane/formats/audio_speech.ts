/** PURE. audio/speech: what is spoken, and streams of `speech.audio.*`. A binary answer says nothing of what it used. */

import type { SseEvent } from "../sse.ts";
import type { TextSample } from "../tokenizer/tokens.ts";
import { type AudioRead, type AudioSeconds, audioUsage } from "./audio_usage.ts";
import type { StreamReader } from "./format.ts";
import { FrameKind } from "./format.ts";
import type { Json } from "./hub.ts";
import { parseObject, textOf } from "./json.ts";

/** Unicode code points of a text. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++) {
    const isLow = (text.charCodeAt(i) & 0xfc00) === 0xdc00;
    // A pair is one; halves that stand alone count as they are.
    if (!isLow || (text.charCodeAt(i - 1) & 0xfc00) !== 0xd800) continue;
    count--;
    i++;
  }
  return count;
}

/** What a request for speech asks for. */
export interface SpeechRequest {
  /** Code points of `input`, which is what is billed by characters; null: there is no such text. */
  readonly characters: number | null;
  /** `mp3` if the body does not say, as at OpenAI. */
  readonly responseFormat: string;
  /** `stream_format` is `sse`. */
  readonly sse: boolean;
}

export function readSpeechRequest(body: Buffer): SpeechRequest {
  const fields = parseObject(body) ?? {};
  const { input } = fields as { input?: unknown };
  return {
    characters: typeof input === "string" ? codePoints(input) : null,
    responseFormat: textOf(fields["response_format"]) || "mp3",
    sse: fields["stream_format"] === "sse",
  };
}

const DONE = "[DONE]";
const NOTHING = Buffer.alloc(0);
const NO_TEXT: TextSample = { bytes: NOTHING, textBytes: 0, tokens: 0 };

/** The frames of a streamed answer. */
export class SpeechStream implements StreamReader, AudioRead {
  usage: Json | null = null;
  seconds: AudioSeconds | null = null;
  readonly textBytes = 0;
  pieces = 0;
  finished = false;
  private readonly onAudio: (bytes: Buffer) => void;

  /** `onAudio` gets the audio of each frame, decoded. */
  constructor(onAudio: (bytes: Buffer) => void = () => undefined) {
    this.onAudio = onAudio;
  }

  sample(): TextSample {
    return NO_TEXT;
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
    if (type === "speech.audio.delta") return this.delta(textOf(frame["audio"]) || textOf(frame["delta"]));
    if (type !== "speech.audio.done") return FrameKind.EMPTY;
    const read = audioUsage(frame["usage"], "output");
    this.usage = read.usage ?? this.usage;
    this.seconds = read.seconds ?? this.seconds;
    this.finished = true;
    return FrameKind.CONTENT;
  }

  replacement(): null {
    return null;
  }

  /** Audio has no reason why it ended: what follows is the error alone. */
  lengthFrame(): Buffer {
    return NOTHING;
  }

  private delta(base64: string): FrameKind {
    if (base64 === "") return FrameKind.EMPTY;
    this.onAudio(Buffer.from(base64, "base64"));
    this.pieces++;
    return FrameKind.CONTENT;
  }
}
