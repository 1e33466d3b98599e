/** PURE. audio/speech, audio/transcriptions and audio/translations at OpenAI and servers like it: bytes pass through. */

import { Meter, type UnitQuantity, UnitSource } from "../../core/meters.ts";
import { SpeechMeter } from "../media/speech.ts";
import { SseSplitter } from "../sse.ts";
import { TranscriptionAnswer, TranscriptionStream } from "./audio.ts";
import { readSpeechRequest, SpeechStream } from "./audio_speech.ts";
import type { AudioRead } from "./audio_usage.ts";
import type { Dialect } from "./dialects.ts";
import type { AnswerReading, Asked, Bridge, LongReading, StreamReader } from "./format.ts";
import type { Json } from "./hub.ts";
import { nativeBody, nativeCall } from "./openai.ts";

/** A frame holds a second or two of audio. */
const SPEECH_FRAME_BYTES_MAX = 16 * 1024 * 1024;

/** Nobody says more in a second: a recording with a longer text is longer than its head says. */
const TEXT_BYTES_PER_S_MAX = 100;

/** Seconds as the upstream reports them; else as they were measured in what the client sent, but not less than was said. */
function heardSeconds(
  read: Pick<AudioRead, "seconds"> & { readonly textBytes: number },
  { mediaSeconds }: Asked,
): readonly UnitQuantity[] {
  const { seconds, textBytes } = read;
  if (seconds?.source === UnitSource.REPORTED) return [secondsOf(seconds.thousandths, UnitSource.REPORTED)];
  const said = seconds?.thousandths ?? Math.ceil((textBytes * 1000) / TEXT_BYTES_PER_S_MAX);
  if (mediaSeconds === null && said === 0) return [];
  return [secondsOf(Math.max(mediaSeconds ?? 0, said), UnitSource.ESTIMATED)];
}

function secondsOf(quantity: number, source: UnitSource): UnitQuantity {
  return { meter: Meter.SECONDS, quantity, source };
}

type Counted = { readonly counted: readonly UnitQuantity[] };

/** The reader with what it has of Units that are no tokens, as it stands when it is asked. */
function counting<T extends object>(read: T, counted: () => readonly UnitQuantity[]): T & Counted {
  return Object.defineProperty(read, "counted", { get: counted }) as T & Counted;
}

export function transcriptionBridge(dialect: Dialect, error: Bridge["error"]): Bridge {
  return {
    translated: false,
    whole: true,
    mayAnswerWhole: true,
    request: (pm, asked, forwarded) => nativeCall(pm, asked, nativeBody(dialect, pm, asked), forwarded),
    error,
    readAnswer(body, asked, _pm, headers): AnswerReading {
      const type = headers["content-type"];
      const read = new TranscriptionAnswer(body, typeof type === "string" ? type : "");
      return counting(read, () => heardSeconds({ seconds: read.seconds, textBytes: read.textBytes() }, asked));
    },
    readTail: () => null,
    streamReader(asked): StreamReader {
      const read = new TranscriptionStream();
      return counting(read, () => heardSeconds(read, asked));
    },
    splitter: () => new SseSplitter(),
  };
}

/** What generated speech is: characters that were spoken, and how long that lasts. */
class Spoken implements LongReading {
  readonly usage: Json | null = null;
  private readonly characters: number;
  private readonly meter: SpeechMeter;

  constructor(asked: Asked) {
    const { characters, responseFormat } = readSpeechRequest(asked.body.bytes);
    this.characters = characters ?? 0;
    this.meter = new SpeechMeter(responseFormat);
  }

  push(chunk: Buffer): void {
    this.meter.push(chunk);
  }

  get counted(): readonly UnitQuantity[] {
    const characters = { meter: Meter.CHARACTERS, quantity: this.characters, source: UnitSource.REPORTED };
    const seconds = this.meter.seconds();
    if (seconds === null) return [characters];
    const source = seconds.exact ? UnitSource.REPORTED : UnitSource.ESTIMATED;
    return [characters, secondsOf(seconds.thousandths, source)];
  }
}

export function speechBridge(dialect: Dialect, error: Bridge["error"]): Bridge {
  return {
    translated: false,
    whole: false,
    mayAnswerWhole: true,
    request: (pm, asked, forwarded) => nativeCall(pm, asked, nativeBody(dialect, pm, asked), forwarded),
    error,
    readAnswer(): AnswerReading {
      throw new Error("speech is no JSON");
    },
    readTail: () => null,
    bytesReading: (asked) => new Spoken(asked),
    streamReader(asked): StreamReader {
      const spoken = new Spoken(asked);
      const read = new SpeechStream((bytes) => spoken.push(bytes));
      return counting(read, () => spoken.counted);
    },
    splitter: () => new SseSplitter(SPEECH_FRAME_BYTES_MAX),
  };
}
