/**
 * PURE. Server-sent events as bytes: splits a stream into frames whose bytes together are exactly the stream, so that
 * what is not touched can be forwarded as it came.
 */

/** A longer frame is an error: one delta with base64 audio stays well below. */
export const SSE_FRAME_BYTES_MAX = 4 * 1024 * 1024;

/** A stream that cannot be read on. `detail` is a word for the request log. */
export class FrameError extends Error {
  readonly code: string = "frame_broken";
  readonly detail: string;
  constructor(detail: string, message: string) {
    super(message);
    this.detail = detail;
  }
}

export class FrameTooLargeError extends FrameError {
  override readonly code = "sse_frame_too_large";
  constructor() {
    super("frame_too_large", "an SSE frame is too large");
  }
}

const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;
const SPACE = 0x20;
const EMPTY = Buffer.alloc(0);

/**
 * Called with each whole frame: `buffer[start..end)`, the blank line that ends it included. A line feed left over from
 * the frame before (CR LF split between two chunks) stands at its beginning.
 */
export type OnFrame = (buffer: Buffer, start: number, end: number) => void;

/** Lines end with LF, CR or CR LF; a frame ends with an empty line. Chunks may be cut anywhere. */
export class SseSplitter {
  /** Bytes of a frame that is not whole yet. */
  private rest: Buffer = EMPTY;
  /** What `rest` begins, if it was made here and no frame came from it: there may be room behind. */
  private room: Buffer = EMPTY;
  /** Where in `rest` the line begins that was not whole. */
  private lineStart = 0;
  /** The frame before ended with CR at the end of its chunk: a LF now belongs to that. */
  private skipLf = false;
  private readonly frameBytesMax: number;

  constructor(frameBytesMax: number = SSE_FRAME_BYTES_MAX) {
    this.frameBytesMax = frameBytesMax;
  }

  /** @throws FrameTooLargeError */
  push(chunk: Buffer, onFrame: OnFrame): void {
    const buffer = this.rest.length === 0 ? chunk : this.append(chunk);
    let frame = 0;
    let line = this.lineStart;
    let searchFrom = this.rest.length;
    if (this.skipLf && buffer.length > 0) {
      this.skipLf = false;
      if (buffer[0] === LF) line = searchFrom = 1;
    }
    // A CR at the very end of the chunk before was left undecided.
    if (searchFrom > line && buffer[searchFrom - 1] === CR) searchFrom--;
    let lf = buffer.indexOf(LF, searchFrom);
    let cr = buffer.indexOf(CR, searchFrom);
    while (lf !== -1 || cr !== -1) {
      const end = cr === -1 || (lf !== -1 && lf < cr) ? lf : cr;
      let next = end + 1;
      if (end === cr) {
        if (next < buffer.length) {
          if (buffer[next] === LF) next++;
        } else if (end > line) {
          break;
        } else {
          this.skipLf = true;
        }
      }
      if (end === line) {
        if (next - frame > this.frameBytesMax) throw new FrameTooLargeError();
        onFrame(buffer, frame, next);
        frame = next;
      }
      line = next;
      if (lf !== -1 && lf < next) lf = buffer.indexOf(LF, next);
      if (cr !== -1 && cr < next) cr = buffer.indexOf(CR, next);
    }
    this.rest = frame === buffer.length ? EMPTY : buffer.subarray(frame);
    // Frames that were told may still be on their way to a client: what they stand in is not written to again.
    if (frame > 0) this.room = EMPTY;
    this.lineStart = line - frame;
    if (this.rest.length > this.frameBytesMax) throw new FrameTooLargeError();
  }

  /** Most frames are whole with the second chunk. Where more come, room is doubled, so that a long one is copied twice. */
  private append(chunk: Buffer): Buffer {
    const { rest } = this;
    const bytes = rest.length + chunk.length;
    if (bytes > this.room.length) {
      const size = this.room.length === 0 ? bytes : Math.max(bytes, Math.min(2 * bytes, this.frameBytesMax));
      const room = Buffer.allocUnsafe(size);
      rest.copy(room);
      this.room = room;
    }
    chunk.copy(this.room, rest.length);
    return this.room.length === bytes ? this.room : this.room.subarray(0, bytes);
  }

  /** What came after the last whole frame. */
  remainder(): Buffer {
    return this.rest;
  }

  /** Some servers leave out the last blank line. */
  finish(onFrame: OnFrame): void {
    const { rest } = this;
    if (rest.length === 0 || rest.toString("latin1").trim() === "") return;
    this.rest = this.room = EMPTY;
    const last = Buffer.concat([rest, LINE_BREAKS]);
    onFrame(last, 0, last.length);
  }

  parse(buffer: Buffer, start: number, end: number, out: SseEvent): void {
    parseFrame(buffer, start, end, out);
  }
}

/** What a frame says. Reused from frame to frame, so copy what you keep. */
export interface SseEvent {
  /** The `event:` field, "" if absent. */
  event: string;
  /** The bytes of the `data:` lines, joined by LF; null if there is none (a comment, a bare `event:` or `retry:`). */
  data: Buffer | null;
}

function isField(buffer: Buffer, start: number, colon: number, name: string): boolean {
  if (colon - start !== name.length) return false;
  for (let i = 0; i < name.length; i++) if (buffer[start + i] !== name.charCodeAt(i)) return false;
  return true;
}

/** Reads the fields of a frame into `out`. The usual frame, one `data:` line, costs no copy. */
export function parseFrame(buffer: Buffer, start: number, end: number, out: SseEvent): void {
  out.event = "";
  out.data = null;
  let at = start;
  if (buffer[at] === 0xef && buffer[at + 1] === 0xbb && buffer[at + 2] === 0xbf) at += 3;
  while (at < end) {
    let stop = at;
    while (stop < end && buffer[stop] !== LF && buffer[stop] !== CR) stop = nextBreak(buffer, stop, end);
    if (stop > at) readLine(buffer, at, stop, out);
    at = stop + 1;
  }
}

/** The next LF or CR at or after `from`, at most `end`; native searches, for long lines. */
function nextBreak(buffer: Buffer, from: number, end: number): number {
  const lf = buffer.indexOf(LF, from);
  const stop = lf === -1 || lf > end ? end : lf;
  // The byte before LF is CR in streams that use it at all; a lone CR further back needs the search.
  if (buffer.length - stop > SHORT_BYTES) {
    const cr = buffer.subarray(from, stop).indexOf(CR);
    return cr === -1 ? stop : from + cr;
  }
  // Little follows, and a view costs more than searching that too.
  const cr = buffer.indexOf(CR, from);
  return cr === -1 || cr > stop ? stop : cr;
}

function readLine(buffer: Buffer, start: number, end: number, out: SseEvent): void {
  let colon = start;
  // No field name is longer than "event" or "retry": a colon further on belongs to none that matters.
  while (colon < end && colon - start <= 5 && buffer[colon] !== COLON) colon++;
  let value = buffer[colon] === COLON ? colon + 1 : end;
  if (value < end && buffer[value] === SPACE) value++;
  if (isField(buffer, start, colon, "data")) {
    const line = buffer.subarray(value, end);
    out.data = out.data === null ? line : Buffer.concat([out.data, NEWLINE, line]);
  } else if (isField(buffer, start, colon, "event")) {
    out.event = buffer.toString("utf8", value, end);
  }
}

const NEWLINE = Buffer.from("\n");
const LINE_BREAKS = Buffer.from("\n\n");
const SHORT_BYTES = 64;
