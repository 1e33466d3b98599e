/**
 * PURE. How a segment of the journal is laid out: frames one after the other, each
 *
 *     magic u8 = 0xA9 | CRC-32C of what follows u32 | type u8 | payload length u32 | payload
 *
 * with little-endian numbers. A frame that was cut by a crash is the torn tail; bytes that are wrong with good frames
 * after them are corrupt, and are stepped over.
 */

import { crc32c } from "./crc32c.ts";

export const FrameType = { INTENT: 1, PROGRESS: 2, SETTLE: 3 } as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const FRAME_HEADER_BYTES = 10;
/** No payload is larger: a larger length is a broken header. */
export const FRAME_PAYLOAD_BYTES_MAX = 1 << 20;

const MAGIC = 0xa9;
const CRC_AT = 1;
const TYPE_AT = 5;
const LENGTH_AT = 6;

/**
 * Fills in the header of a frame whose payload is already at `start + FRAME_HEADER_BYTES`, `length` bytes long.
 * Returns where the frame ends.
 */
export function sealFrame(buffer: Buffer, start: number, type: FrameType, length: number): number {
  buffer[start] = MAGIC;
  buffer[start + TYPE_AT] = type;
  buffer.writeUInt32LE(length, start + LENGTH_AT);
  const end = start + FRAME_HEADER_BYTES + length;
  buffer.writeUInt32LE(crc32c(buffer, start + TYPE_AT, end), start + CRC_AT);
  return end;
}

export interface Frame {
  readonly type: FrameType;
  /** Where the frame begins and ends in the buffer. */
  readonly start: number;
  readonly end: number;
  /** A view into the buffer. */
  readonly payload: Buffer;
}

/** The whole, sound frame at `at`, or null. */
export function frameAt(buffer: Buffer, at: number): Frame | null {
  if (at + FRAME_HEADER_BYTES > buffer.length || buffer[at] !== MAGIC) return null;
  const type = buffer[at + TYPE_AT]!;
  if (type < FrameType.INTENT || type > FrameType.SETTLE) return null;
  const length = buffer.readUInt32LE(at + LENGTH_AT);
  const end = at + FRAME_HEADER_BYTES + length;
  if (length > FRAME_PAYLOAD_BYTES_MAX || end > buffer.length) return null;
  if (buffer.readUInt32LE(at + CRC_AT) !== crc32c(buffer, at + TYPE_AT, end)) return null;
  return { type: type as FrameType, start: at, end, payload: buffer.subarray(at + FRAME_HEADER_BYTES, end) };
}

/** Bytes of a segment that are no frame, with good frames after them. */
export interface CorruptRange {
  readonly start: number;
  readonly end: number;
}

export interface ScanResult {
  /** Where the last good frame ends: what follows is the torn tail, if anything does. */
  readonly goodBytes: number;
  readonly corrupt: readonly CorruptRange[];
}

/** The first sound frame at `at` or after it, or null. */
export function nextFrame(buffer: Buffer, at: number): Frame | null {
  for (let from = at; from >= 0 && from < buffer.length; from = buffer.indexOf(MAGIC, from + 1)) {
    const frame = frameAt(buffer, from);
    if (frame !== null) return frame;
  }
  return null;
}

/** Calls `onFrame` for every good frame of a whole segment, in order. */
export function scanSegment(buffer: Buffer, onFrame: (frame: Frame) => void): ScanResult {
  const corrupt: CorruptRange[] = [];
  let goodBytes = 0;
  for (;;) {
    const frame = nextFrame(buffer, goodBytes);
    if (frame === null) return { goodBytes, corrupt };
    if (frame.start > goodBytes) corrupt.push({ start: goodBytes, end: frame.start });
    onFrame(frame);
    goodBytes = frame.end;
  }
}
