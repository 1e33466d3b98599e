/**
 * How long an uploaded recording lasts. Frames of mp3 and aac are counted; wav, flac, ogg and webm say it in their first or
 * last bytes; the library knows the other containers. Counting costs less than what it does for mp3 of many bitrates (0.6 s
 * for 25 MB, all of it in one go), and does not believe what a client wrote into a head. Work is bounded, and gives way to
 * requests; call it after the answer.
 */

import type { SpoolView } from "../spool/spool.ts";
import { flacSeconds, oggSeconds, wavSeconds, webmSeconds } from "./heads.ts";
import { FrameWalker } from "./frames.ts";

/** Of the beginning, and of the end. */
const HEAD_BYTES = 64 * 1024;
const TAIL_BYTES = 1024 * 1024;
const BLOCK_BYTES = 64 * 1024;
/** Walked frame by frame; nobody takes larger uploads. */
export const WALK_BYTES_MAX = 512 * 1024 * 1024;
/** Reads that the library may make, and how many of them before others get their turn. */
export const PARSE_READS_MAX = 50_000;
const READS_PER_TURN = 64;
/** Blocks that it may have read for it: it jumps about. */
export const PARSE_BLOCKS_MAX = 4096;
/** Of one read of the library: the longest table of a recording of half a day has fewer. */
export const PARSE_READ_BYTES_MAX = 8 * 1024 * 1024;
export const MEASURE_MS_MAX = 10_000;
/** No recording is longer; what says so is wrong. */
const THOUSANDTHS_MAX = 7 * 24 * 3600 * 1000;

/** The bound was reached. */
class TooMuchWork extends Error {
  readonly code = "too_much_work";
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What the library takes for a file. */
class BoundedBlob {
  readonly size: number;
  readonly type: string;
  private readonly view: SpoolView;
  private readonly until: number;
  private readonly now: () => number;
  private reads = 0;
  private blocks = 0;
  private base = -1;
  private block: Uint8Array = new Uint8Array(0);

  constructor(view: SpoolView, type: string, now: () => number) {
    this.view = view;
    this.size = view.size;
    this.type = type;
    this.now = now;
    this.until = now() + MEASURE_MS_MAX;
  }

  slice(start: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> } {
    return { arrayBuffer: () => this.read(start, Math.min(end, this.size)) };
  }

  private async read(start: number, end: number): Promise<ArrayBuffer> {
    const tooMany = ++this.reads > PARSE_READS_MAX || this.blocks > PARSE_BLOCKS_MAX;
    if (tooMany || end - start > PARSE_READ_BYTES_MAX || this.now() > this.until) throw new TooMuchWork();
    // It reads a few bytes at a time without ever waiting, and nothing else would run meanwhile.
    if (this.reads % READS_PER_TURN === 0) await turn();
    const out = new Uint8Array(Math.max(0, end - start));
    for (let at = start; at < end;) {
      const base = at - (at % BLOCK_BYTES);
      if (base !== this.base) {
        this.blocks++;
        this.block = await this.view.read(base, base + BLOCK_BYTES);
        this.base = base;
      }
      const piece = this.block.subarray(at - base, Math.min(end - base, this.block.length));
      if (piece.length === 0) break;
      out.set(piece, at - start);
      at += piece.length;
    }
    return out.buffer;
  }
}

export interface MeasureOptions {
  /** As the client said, "" if it did not. */
  readonly filename: string;
  readonly contentType: string;
  /** Milliseconds that do not go back. */
  now(): number;
}

/**
 * Thousandths of a second; null: it cannot be told, or that would be too much work.
 * @throws SpoolError when the bytes cannot be read
 */
export async function measureSeconds(view: SpoolView, options: MeasureOptions): Promise<number | null> {
  if (view.size === 0) return null;
  const head = Buffer.from(await view.read(0, HEAD_BYTES));
  const tail = Buffer.from(await view.read(Math.max(0, view.size - TAIL_BYTES), view.size));
  const found =
    wavSeconds(head, view.size) ??
    flacSeconds(head) ??
    oggSeconds(head, tail) ??
    webmSeconds(head, tail) ??
    (isFrames(head) ? await walk(view, options) : null) ??
    (await parse(view, options));
  return found !== null && found <= THOUSANDTHS_MAX ? found : null;
}

function isFrames(head: Buffer): boolean {
  return head.toString("latin1", 0, 3) === "ID3" || (head[0] === 0xff && (head[1]! & 0xe0) === 0xe0);
}

/** What the library makes of it. It throws whatever it likes at what it does not know. */
async function parse(view: SpoolView, { filename, contentType, now }: MeasureOptions): Promise<number | null> {
  // Loaded when it is first needed: most nodes never measure anything.
  const { parseBlob } = await import("music-metadata");
  const type = contentType === "" || contentType === "application/octet-stream" ? typeOf(filename) : contentType;
  let failure: unknown = null;
  const watched: SpoolView = {
    size: view.size,
    read: (start, end) =>
      view.read(start, end).catch((error: unknown) => {
        failure = error;
        throw error;
      }),
  };
  try {
    const { format } = await parseBlob(new BoundedBlob(watched, type, now) as unknown as Blob, {
      duration: false,
      skipCovers: true,
      skipPostHeaders: true,
    });
    const { duration } = format;
    return duration !== undefined && duration > 0 && Number.isFinite(duration) ? Math.round(duration * 1000) : null;
  } catch {
    // No such container, or a broken one: the length stays unknown. A disk that fails is something else.
    if (failure !== null) throw failure;
    return null;
  }
}

const TYPES: Readonly<Record<string, string>> = {
  mp3: "audio/mpeg",
  mpga: "audio/mpeg",
  mpeg: "audio/mpeg",
  m4a: "audio/mp4",
  mp4: "video/mp4",
  aac: "audio/aac",
  webm: "video/webm",
  mkv: "video/matroska",
  flac: "audio/flac",
  wav: "audio/wav",
  ogg: "audio/ogg",
  oga: "audio/ogg",
  opus: "audio/ogg",
};

/** By the extension, as OpenAI does. */
function typeOf(filename: string): string {
  return TYPES[filename.slice(filename.lastIndexOf(".") + 1).toLowerCase()] ?? "";
}

async function walk(view: SpoolView, { now }: MeasureOptions): Promise<number | null> {
  if (view.size > WALK_BYTES_MAX) return null;
  const walker = new FrameWalker();
  const until = now() + MEASURE_MS_MAX;
  for (let at = 0; at < view.size && !walker.failed; at += BLOCK_BYTES) {
    if (now() > until) return null;
    walker.push(await view.read(at, at + BLOCK_BYTES));
    // What is in memory comes without waiting.
    if ((at / BLOCK_BYTES) % 16 === 15) await turn();
  }
  return walker.thousandths;
}
