/**
 * PURE. An incremental reader of multipart/form-data. It tells where parts begin and end as offsets in the body, keeps the
 * text of small fields, and holds no more than its limits whatever arrives.
 */

import { BOUNDARY_CHARS_MAX, malformed, MultipartError, type PartHead, parsePartHead } from "./multipart_head.ts";

export interface MultipartLimits {
  readonly parts_max: number;
  /** Of the header lines of one part. */
  readonly part_headers_bytes_max: number;
  /** Of one field's text; a longer one is passed through, its text is not known. */
  readonly field_bytes_max: number;
  /** Of the text of all fields together. */
  readonly fields_bytes_max: number;
}

export const MULTIPART_LIMITS: MultipartLimits = {
  parts_max: 256,
  part_headers_bytes_max: 8 * 1024,
  field_bytes_max: 128 * 1024,
  fields_bytes_max: 256 * 1024,
};

/** `[start, end)` of its value in the body; `end` is -1 until it is known. */
export interface MultipartPart extends PartHead {
  readonly start: number;
  end: number;
  /** Of fields: the text, null where it was too long to be kept or the part has not ended. Files: null. */
  text: string | null;
}

export interface MultipartSink {
  onPartBegin?(part: MultipartPart): void;
  onPartEnd?(part: MultipartPart): void;
}

const State = {
  /** Before the first boundary. */
  PREAMBLE: 0,
  /** After a boundary: the end of its line, or the two dashes of the last one. */
  BOUNDARY_END: 1,
  HEADERS: 2,
  VALUE: 3,
  /** After the dashes of the last boundary: the end of its line, or of the body. */
  LAST_LINE: 4,
  EPILOGUE: 5,
} as const;
type State = (typeof State)[keyof typeof State];

const CR = 0x0d;
const LF = 0x0a;
const DASH = 0x2d;
const HEADERS_END = Buffer.from("\r\n\r\n");
/** Blanks after a boundary are allowed; nobody sends more of them. */
const PADDING_BYTES_MAX = 16;
/** Bytes of a chunk that are joined to what the one before left over: more than any boundary needs. */
const SEAM_BYTES = 2 * (BOUNDARY_CHARS_MAX + PADDING_BYTES_MAX + 8);

export class MultipartReader {
  /** Bytes pushed so far. */
  bytes = 0;
  /** In the order in which they came. */
  readonly parts: MultipartPart[] = [];
  private readonly limits: MultipartLimits;
  private readonly sink: MultipartSink;
  /** `\n--boundary`. Lines end with CR LF: a lone LF before it is refused, since some readers would take it. */
  private readonly delimiter: Buffer;
  private state: State = State.PREAMBLE;
  /** A copy of what could not be decided yet. */
  private carry: Buffer = NOTHING;
  /** Where in the body the bytes at hand begin. */
  private base = 0;
  private part: MultipartPart | null = null;
  private text: Buffer[] | null = null;
  private textBytes = 0;
  /** Bytes of text of all fields that ended. */
  private keptBytes = 0;

  constructor(boundary: string, sink: MultipartSink = {}, limits: MultipartLimits = MULTIPART_LIMITS) {
    this.delimiter = Buffer.from(`\n--${boundary}`, "latin1");
    this.sink = sink;
    this.limits = limits;
  }

  /** The last boundary came: no part follows. */
  get complete(): boolean {
    return this.state >= State.LAST_LINE;
  }

  /** Takes the next bytes of the body; keeps copies only. @throws MultipartError, after which nothing may be pushed */
  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    let from = 0;
    while (this.carry.length > 0 && from < chunk.length) {
      const before = this.carry.length;
      const taken = Math.min(chunk.length - from, SEAM_BYTES);
      const joined = Buffer.concat([this.carry, chunk.subarray(from, from + taken)]);
      const done = this.consume(joined);
      from += taken;
      this.base += done;
      this.carry = NOTHING;
      // What is left stands in the chunk itself: no need to copy it.
      if (done >= before) from -= joined.length - done;
      else this.carry = joined.subarray(done);
    }
    if (this.carry.length > 0 || from === chunk.length) return;
    const rest = from === 0 ? chunk : chunk.subarray(from);
    const done = this.consume(rest);
    this.base += done;
    this.carry = done === rest.length ? NOTHING : Buffer.from(rest.subarray(done));
  }

  /** The body is whole. @throws MultipartError when its last boundary is missing */
  end(): void {
    if (this.complete) return;
    throw malformed(
      this.state === State.PREAMBLE ? "it does not begin with its boundary" : "it ends before its last boundary",
    );
  }

  /** Returns how many bytes are done with. */
  private consume(bytes: Buffer): number {
    let at = 0;
    for (;;) {
      const next = this.step(bytes, at);
      if (next === at || next === bytes.length) return next;
      at = next;
    }
  }

  /** Where to go on; `at`: more bytes are needed. */
  private step(bytes: Buffer, at: number): number {
    switch (this.state) {
      case State.PREAMBLE:
      case State.VALUE:
        return this.value(bytes, at);
      case State.BOUNDARY_END:
        return this.boundaryEnd(bytes, at);
      case State.HEADERS:
        return this.headers(bytes, at);
      case State.LAST_LINE:
        return this.lastLine(bytes, at);
      default:
        return bytes.length;
    }
  }

  private value(bytes: Buffer, at: number): number {
    const { delimiter } = this;
    if (this.base + at === (this.part?.start ?? 0)) {
      const length = delimiter.length - 1;
      if (bytes.length - at < length) return at;
      if (bytes.compare(delimiter, 1, delimiter.length, at, at + length) === 0) {
        // Some readers take it for an empty value, others for the beginning of one.
        if (this.part !== null) throw malformed("lines around a boundary must end with CR LF");
        // The very first boundary has no line before it.
        return this.boundary(at + length);
      }
    }
    const found = bytes.indexOf(delimiter, at);
    // There are readers that find parts in what stands before the first boundary. Nobody sends more than a line end there.
    const before = found === -1 ? bytes.length - delimiter.length : found;
    if (this.part === null && this.base + before > 1) throw malformed("it does not begin with its boundary");
    if (found === -1) {
      // The boundary may have begun in the last bytes, its CR included.
      const decided = Math.max(at, bytes.length - delimiter.length);
      this.collect(bytes, at, decided);
      return decided;
    }
    const end = found - 1;
    if (end < at || bytes[end] !== CR) throw malformed("lines around a boundary must end with CR LF");
    this.collect(bytes, at, end);
    this.partEnds(this.base + end);
    return this.boundary(found + delimiter.length);
  }

  private boundary(next: number): number {
    this.state = State.BOUNDARY_END;
    return next;
  }

  private boundaryEnd(bytes: Buffer, at: number): number {
    if (bytes.length - at < 2) return at;
    if (bytes[at] === DASH && bytes[at + 1] === DASH) {
      this.state = State.LAST_LINE;
      return at + 2;
    }
    const end = skipPadding(bytes, at);
    if (bytes.length - end < 2) return at;
    if (bytes[end] !== CR || bytes[end + 1] !== LF) throw malformed("there is more after a boundary");
    this.state = State.HEADERS;
    return end + 2;
  }

  private lastLine(bytes: Buffer, at: number): number {
    const end = skipPadding(bytes, at);
    if (bytes.length - end < 2) return at;
    if (bytes[end] !== CR || bytes[end + 1] !== LF) throw malformed("there is more after the last boundary");
    this.state = State.EPILOGUE;
    return end + 2;
  }

  private headers(bytes: Buffer, at: number): number {
    const { parts_max, part_headers_bytes_max } = this.limits;
    const end = bytes.indexOf(HEADERS_END, at);
    if ((end === -1 ? bytes.length : end) - at > part_headers_bytes_max)
      throw new MultipartError(
        "part_headers_too_large",
        null,
        `A part's headers are larger than ${part_headers_bytes_max} bytes.`,
      );
    if (end === -1) return at;
    if (this.parts.length === parts_max)
      throw new MultipartError("too_many_parts", null, `The form has more than ${parts_max} parts.`);
    const next = end + HEADERS_END.length;
    const part = { ...parsePartHead(bytes.subarray(at, end)), start: this.base + next, end: -1, text: null };
    this.parts.push(part);
    this.part = part;
    this.text = part.filename === null ? [] : null;
    this.textBytes = 0;
    this.state = State.VALUE;
    this.sink.onPartBegin?.(part);
    return next;
  }

  /** Bytes of the present value. */
  private collect(bytes: Buffer, from: number, to: number): void {
    if (this.text === null || to === from) return;
    const { field_bytes_max, fields_bytes_max } = this.limits;
    this.textBytes += to - from;
    if (this.textBytes > field_bytes_max || this.keptBytes + this.textBytes > fields_bytes_max) this.text = null;
    else this.text.push(Buffer.from(bytes.subarray(from, to)));
    // Pieces may be tiny, and each has a cost of its own.
    if (this.text !== null && this.text.length >= PIECES_MAX) this.text = [Buffer.concat(this.text)];
  }

  private partEnds(end: number): void {
    const { part } = this;
    if (part === null) return;
    part.end = end;
    if (this.text !== null) {
      part.text = Buffer.concat(this.text).toString("utf8");
      this.keptBytes += this.textBytes;
    }
    this.part = this.text = null;
    this.sink.onPartEnd?.(part);
  }
}

/** Blanks between a boundary and the end of its line. */
function skipPadding(bytes: Buffer, at: number): number {
  let end = at;
  while (bytes[end] === 0x20 || bytes[end] === 0x09) end++;
  if (end - at > PADDING_BYTES_MAX) throw malformed("there is more after a boundary");
  return end;
}

const NOTHING = Buffer.alloc(0);
const PIECES_MAX = 256;
