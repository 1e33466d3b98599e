/**
 * PURE. Binary event streams (`application/vnd.amazon.eventstream`) as bytes: splits a stream into frames and reads them.
 * The same use as `SseSplitter` and `parseFrame`. Framing is from reference/UPSTREAM-FORMATS.md D7; all integers are
 * big-endian.
 */

import { crc32 } from "node:zlib";
import { FrameError, type OnFrame, type SseEvent } from "../../sse.ts";

/** A longer frame is an error, as with server-sent events. The format allows more, but no delta comes near. */
export const EVENT_FRAME_BYTES_MAX = 4 * 1024 * 1024;
/** As the format has it. */
export const EVENT_HEADERS_BYTES_MAX = 128 * 1024;
/** What is set aside for a frame before more of it has come: its length is only a claim. */
const HELD_BYTES_MIN = 4096;

/** Total length, length of the headers, and their checksum. */
const PRELUDE_BYTES = 12;
const CRC_BYTES = 4;
const FRAME_BYTES_MIN = PRELUDE_BYTES + CRC_BYTES;

/** The stream cannot be read any further. */
export class EventFrameError extends FrameError {
  override readonly code: "event_frame_too_large" | "event_frame_corrupt";
  constructor(code: EventFrameError["code"], message: string) {
    super(code, message);
    this.code = code;
  }
}

function corrupt(what: string): EventFrameError {
  return new EventFrameError("event_frame_corrupt", `an event stream frame is corrupt: ${what}`);
}

const EMPTY = Buffer.alloc(0);

/**
 * Cuts a stream into frames, whose checksums are right. Chunks may be cut anywhere. Never holds more than one frame.
 * After an error every further push fails with it.
 */
export class EventStreamSplitter {
  /** Holds the beginning of a frame in its first `heldBytes` bytes; grows as they come. */
  private held: Buffer = EMPTY;
  private heldBytes = 0;
  /** The length of the frame that is held, 0: not known yet. */
  private frameBytes = 0;
  private failure: EventFrameError | null = null;
  private readonly frameBytesMax: number;

  constructor(frameBytesMax: number = EVENT_FRAME_BYTES_MAX) {
    this.frameBytesMax = frameBytesMax;
  }

  /** @throws EventFrameError */
  push(chunk: Buffer, onFrame: OnFrame): void {
    if (this.failure !== null) throw this.failure;
    try {
      this.split(chunk, onFrame);
    } catch (error) {
      if (error instanceof EventFrameError) {
        this.failure = error;
        this.held = EMPTY;
        this.heldBytes = 0;
      }
      throw error;
    }
  }

  private split(chunk: Buffer, onFrame: OnFrame): void {
    let at = 0;
    while (this.heldBytes > 0 && at < chunk.length) {
      at = this.take(chunk, at);
      if (this.frameBytes === 0 || this.heldBytes < this.frameBytes) continue;
      const { held, frameBytes } = this;
      this.held = EMPTY;
      this.heldBytes = this.frameBytes = 0;
      checkFrame(held, 0, frameBytes);
      onFrame(held, 0, frameBytes);
    }
    while (chunk.length - at >= PRELUDE_BYTES) {
      const frameBytes = readPrelude(chunk, at, this.frameBytesMax);
      if (chunk.length - at < frameBytes) {
        this.frameBytes = frameBytes;
        break;
      }
      checkFrame(chunk, at, at + frameBytes);
      onFrame(chunk, at, at + frameBytes);
      at += frameBytes;
    }
    if (at < chunk.length) this.hold(chunk, at, chunk.length);
  }

  /** Adds what is missing to the frame that is held; returns where in the chunk it stopped. */
  private take(chunk: Buffer, at: number): number {
    const wanted = (this.frameBytes === 0 ? PRELUDE_BYTES : this.frameBytes) - this.heldBytes;
    const end = Math.min(at + wanted, chunk.length);
    this.hold(chunk, at, end);
    if (this.frameBytes === 0 && this.heldBytes >= PRELUDE_BYTES)
      this.frameBytes = readPrelude(this.held, 0, this.frameBytesMax);
    return end;
  }

  private hold(chunk: Buffer, at: number, end: number): void {
    const needed = this.heldBytes + end - at;
    if (needed > this.held.length) {
      const most = this.frameBytes === 0 ? HELD_BYTES_MIN : this.frameBytes;
      const grown = Buffer.allocUnsafe(Math.max(needed, Math.min(most, Math.max(HELD_BYTES_MIN, 2 * needed))));
      this.held.copy(grown, 0, 0, this.heldBytes);
      this.held = grown;
    }
    chunk.copy(this.held, this.heldBytes, at, end);
    this.heldBytes = needed;
  }

  /** What came after the last whole frame. */
  remainder(): Buffer {
    return this.held.subarray(0, this.heldBytes);
  }
}

/** The length of the frame that begins at `at`. @throws EventFrameError */
function readPrelude(buffer: Buffer, at: number, frameBytesMax: number): number {
  if (crc32(buffer.subarray(at, at + 8)) !== buffer.readUInt32BE(at + 8)) throw corrupt("checksum of its prelude");
  const frameBytes = buffer.readUInt32BE(at);
  const headersBytes = buffer.readUInt32BE(at + 4);
  if (frameBytes > frameBytesMax || headersBytes > EVENT_HEADERS_BYTES_MAX)
    throw new EventFrameError("event_frame_too_large", "an event stream frame is too large");
  if (frameBytes < FRAME_BYTES_MIN + headersBytes) throw corrupt("its lengths do not fit");
  return frameBytes;
}

function checkFrame(buffer: Buffer, start: number, end: number): void {
  const sum = buffer.readUInt32BE(end - CRC_BYTES);
  if (crc32(buffer.subarray(start, end - CRC_BYTES)) !== sum) throw corrupt("checksum");
}

/** Bytes of the value of a header by its type; -1: a length of two bytes stands before it. */
const VALUE_BYTES = [0, 0, 1, 2, 4, 8, -1, -1, 8, 16] as const;
const STRING = 7;

/** The headers that say what a frame is. */
interface Kind {
  messageType: string;
  eventType: string;
  exceptionType: string;
  errorCode: string;
  errorMessage: string;
}

const KIND_OF_HEADER: ReadonlyMap<string, keyof Kind> = new Map<string, keyof Kind>([
  [":message-type", "messageType"],
  [":event-type", "eventType"],
  [":exception-type", "exceptionType"],
  [":error-code", "errorCode"],
  [":error-message", "errorMessage"],
]);

/** @throws EventFrameError */
function readHeaders(buffer: Buffer, start: number, end: number): Kind {
  const kind: Kind = { messageType: "", eventType: "", exceptionType: "", errorCode: "", errorMessage: "" };
  let at = start;
  while (at < end) {
    const type = at + 1 + buffer[at]!;
    if (type >= end) throw corrupt("a header is cut");
    let bytes: number | undefined = VALUE_BYTES[buffer[type]!];
    if (bytes === undefined) throw corrupt("a header of an unknown type");
    let value = type + 1;
    if (bytes === -1) {
      if (value + 2 > end) throw corrupt("a header is cut");
      bytes = buffer.readUInt16BE(value);
      value += 2;
    }
    if (value + bytes > end) throw corrupt("a header is cut");
    if (buffer[type] === STRING) {
      const field = KIND_OF_HEADER.get(buffer.toString("latin1", at + 1, type));
      if (field !== undefined) kind[field] = buffer.toString("utf8", value, value + bytes);
    }
    at = value + bytes;
  }
  return kind;
}

/**
 * Reads a frame that the splitter gave into `out`. `out.event` is the type of an event, `exception:<type>` or
 * `error:<code>`; "" for messages of kinds that are not known, which then have no data. `out.data` is the payload; errors
 * have none, so their words are made into one of the shape that exceptions have.
 * @throws EventFrameError
 */
export function parseEventFrame(buffer: Buffer, start: number, end: number, out: SseEvent): void {
  const headersEnd = start + PRELUDE_BYTES + buffer.readUInt32BE(start + 4);
  const kind = readHeaders(buffer, start + PRELUDE_BYTES, headersEnd);
  out.data = buffer.subarray(headersEnd, end - CRC_BYTES);
  if (kind.messageType === "event") out.event = kind.eventType;
  else if (kind.messageType === "exception") out.event = `exception:${kind.exceptionType}`;
  else if (kind.messageType === "error") {
    out.event = `error:${kind.errorCode}`;
    if (out.data.length === 0) out.data = Buffer.from(JSON.stringify({ message: kind.errorMessage }));
  } else {
    out.event = "";
    out.data = null;
  }
}

/** A frame with string headers, as an upstream sends it: for tests and imitations. */
export function encodeEventFrame(headers: Readonly<Record<string, string>>, payload: Uint8Array | string): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of Object.entries(headers)) {
    const nameBytes = Buffer.from(name);
    const valueBytes = Buffer.from(value);
    const lengths = Buffer.from([STRING, valueBytes.length >> 8, valueBytes.length & 0xff]);
    parts.push(Buffer.from([nameBytes.length]), nameBytes, lengths, valueBytes);
  }
  const head = Buffer.concat(parts);
  const body = Buffer.from(payload);
  const frame = Buffer.alloc(FRAME_BYTES_MIN + head.length + body.length);
  frame.writeUInt32BE(frame.length, 0);
  frame.writeUInt32BE(head.length, 4);
  frame.writeUInt32BE(crc32(frame.subarray(0, 8)), 8);
  head.copy(frame, PRELUDE_BYTES);
  body.copy(frame, PRELUDE_BYTES + head.length);
  frame.writeUInt32BE(crc32(frame.subarray(0, frame.length - CRC_BYTES)), frame.length - CRC_BYTES);
  return frame;
}
