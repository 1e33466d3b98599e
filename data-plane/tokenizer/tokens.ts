/**
 * PURE. What the pipeline needs of a tokenizer, and how counts of samples become counts of the whole. Samples hold text
 * as it stands between the quotes of JSON strings, one string a line: a raw line break cannot stand in a JSON string.
 */

/** Generated text is kept up to so many bytes; what is longer is extrapolated. */
export const OUTPUT_SAMPLE_BYTES_MAX = 32 * 1024;
/** The same for what went in. */
export const INPUT_SAMPLE_BYTES_MAX = 64 * 1024;

/** Some text, and how much of it there was in all. */
export interface TextSample {
  readonly bytes: Uint8Array;
  /** Bytes of the whole text, of which `bytes` are the first. */
  readonly textBytes: number;
  /** Tokens besides the text: what surrounds messages and calls, images and the like. */
  readonly tokens: number;
}

/** There is no text. */
export const NO_TEXT: TextSample = { bytes: new Uint8Array(0), textBytes: 0, tokens: 0 };

/** Where a sample can be had, once it is needed. */
export interface TextSource {
  sample(): TextSample;
}

/** What is to be counted. */
export interface CountJob {
  /** The upstream's name of the model: it decides about the encoding. */
  readonly model: string;
  readonly input: TextSample;
  readonly output: TextSample;
}

export interface TokenCounts {
  readonly input: number;
  readonly output: number;
}

export interface TokenCounter {
  /** `done` runs once, and never before this returns. Null: too much to do, or it went wrong. */
  count(job: CountJob, done: (counts: TokenCounts | null) => void): void;
}

/** All tokens, given those of the text that was kept. */
export function extrapolate(counted: number, { bytes, textBytes, tokens }: TextSample): number {
  return tokens + (textBytes <= bytes.length ? counted : Math.round((counted * textBytes) / bytes.length));
}

/** Collects the first bytes of a text that comes in pieces. Memory grows with the text, up to the bound. */
export class Sampler implements TextSource {
  /** Bytes of the whole text so far. */
  textBytes = 0;
  /** Tokens besides the text. */
  tokens = 0;
  private readonly max: number;
  private kept: Buffer = NOTHING;
  private used = 0;

  constructor(max: number) {
    this.max = max;
  }

  add(from: Uint8Array, start: number, end: number): void {
    this.textBytes += end - start;
    const length = Math.min(end - start, this.max - this.used);
    if (length <= 0) return;
    if (this.used + length > this.kept.length) this.grow(this.used + length);
    // Pieces of a stream are short: a loop beats a call into the runtime.
    if (length <= SHORT_BYTES) for (let at = 0; at < length; at++) this.kept[this.used + at] = from[start + at]!;
    else this.kept.set(from.subarray(start, start + length), this.used);
    this.used += length;
  }

  /** A text that was decoded already. */
  addText(text: string): void {
    if (this.used >= this.max) {
      this.textBytes += Buffer.byteLength(text);
      return;
    }
    if (text.length <= SHORT_BYTES && this.addPlain(text)) return;
    const short = text.length <= this.max ? text : text.slice(0, this.max);
    const bytes = Buffer.from(JSON.stringify(short).slice(1, -1));
    this.add(bytes, 0, bytes.length);
    if (short !== text) this.textBytes += Buffer.byteLength(text.slice(this.max));
  }

  /** Nothing to escape, and a byte for each character: as most pieces of a stream are. False: it is not so. */
  private addPlain(text: string): boolean {
    const { length } = text;
    if (this.used + length > this.max) return false;
    if (this.used + length > this.kept.length) this.grow(this.used + length);
    const { kept, used } = this;
    for (let at = 0; at < length; at++) {
      const code = text.charCodeAt(at);
      if (code < SPACE || code > TILDE || code === QUOTE || code === BACKSLASH) return false;
      kept[used + at] = code;
    }
    this.used += length;
    this.textBytes += length;
    return true;
  }

  /** The next piece is a string of its own. */
  endString(): void {
    if (this.used > 0) this.add(LINE_BREAK, 0, 1);
  }

  sample(): TextSample {
    return { bytes: this.kept.subarray(0, this.used), textBytes: this.textBytes, tokens: this.tokens };
  }

  private grow(least: number): void {
    const size = Math.min(this.max, Math.max(least, this.kept.length * 2, FIRST_BYTES));
    // Of the shared pool while it is small: most streams need no more, and memory of its own costs a microsecond.
    const next = Buffer.allocUnsafe(size);
    this.kept.copy(next, 0, 0, this.used);
    this.kept = next;
  }
}

const SHORT_BYTES = 32;
const SPACE = 0x20;
const TILDE = 0x7e;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FIRST_BYTES = 512;
const NOTHING = Buffer.alloc(0);
const LINE_BREAK = Buffer.from("\n");
