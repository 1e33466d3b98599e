/** PURE. How long generated speech lasts, from its bytes as they pass. Keeps a head and a tail at most. */

import { FrameWalker } from "./frames.ts";
import { flacSeconds, oggSeconds, pcmSeconds, wavSeconds } from "./heads.ts";

const HEAD_BYTES = 64 * 1024;
/** An Ogg page is at most 65 307 bytes long: a whole one is in here. */
const TAIL_BYTES = 128 * 1024;

/** A measured duration. */
export interface SpokenSeconds {
  readonly thousandths: number;
  /** Counted from samples or frames, and not guessed from a bitrate. */
  readonly exact: boolean;
}

/** kbit/s where nothing better is known: what OpenAI's voices have. */
const GUESSED_KBITS: Readonly<Record<string, number>> = { mp3: 160, opus: 64, aac: 128, flac: 256 };

export class SpeechMeter {
  bytes = 0;
  private readonly format: string;
  private readonly walker = new FrameWalker();
  private head: Buffer = NOTHING;
  private tail: Buffer[] = [];
  private tailBytes = 0;

  /** `format`: `mp3`, `opus`, `aac`, `flac`, `wav` or `pcm`, as the request says. */
  constructor(format: string) {
    this.format = format;
  }

  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.format === "pcm") return;
    if (this.head.length < HEAD_BYTES)
      this.head = Buffer.concat([this.head, chunk.subarray(0, HEAD_BYTES - this.head.length)]);
    if (this.format === "mp3" || this.format === "aac") return this.walker.push(chunk);
    this.keepTail(chunk);
  }

  /** How long what has passed by now lasts; null: nobody knows. */
  seconds(): SpokenSeconds | null {
    const { bytes, head, format } = this;
    const thousandths =
      format === "pcm"
        ? pcmSeconds(bytes)
        : (wavSeconds(head, bytes) ??
          flacSeconds(head) ??
          oggSeconds(head, Buffer.concat(this.tail)) ??
          this.walker.thousandths);
    if (thousandths !== null) return { thousandths, exact: true };
    const kbits = GUESSED_KBITS[format];
    return kbits === undefined || bytes === 0 ? null : { thousandths: Math.round((bytes * 8) / kbits), exact: false };
  }

  private keepTail(chunk: Buffer): void {
    // The chunk is the socket's, and a view would keep all of its buffer.
    this.tail.push(Buffer.from(chunk.subarray(Math.max(0, chunk.length - TAIL_BYTES))));
    this.tailBytes += this.tail.at(-1)!.length;
    while (this.tailBytes - this.tail[0]!.length >= TAIL_BYTES) this.tailBytes -= this.tail.shift()!.length;
    if (this.tail.length > TAIL_PIECES_MAX) this.tail = [Buffer.concat(this.tail)];
  }
}

const TAIL_PIECES_MAX = 64;
const NOTHING = Buffer.alloc(0);
