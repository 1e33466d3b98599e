/**
 * PURE. A Settlement as the bytes of `tokenbill.node.v1.UsageRecord`, written by hand because the generated codec costs
 * many times as much on the hot path. A property test keeps the two equal in meaning. The same message, partly filled,
 * is the payload of INTENT and PROGRESS frames.
 */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { UnitQuantity } from "../../core/meters.ts";
import type { AttemptEntry, Intent, Progress, Settlement } from "./journal.ts";

const VARINT = 0;
const BYTES = 2;
const RECORD_NO_TAG = (1 << 3) | VARINT;
const ID_TAG = (2 << 3) | BYTES;
/** A string this short is under 128 bytes in UTF-8, so its length takes one byte. */
const SHORT_CHARS = 42;
const FIXED_BYTES_MAX = 400;
const UNIT_BYTES_MAX = 40;
const ATTEMPT_BYTES_MAX = 200;

function stringBytesMax(text: string): number {
  return text.length * 3 + 6;
}

function unitsBytesMax(units: readonly UnitQuantity[]): number {
  let bytes = units.length * UNIT_BYTES_MAX;
  for (const { size, quality } of units) {
    if (size !== undefined) bytes += stringBytesMax(size);
    if (quality !== undefined) bytes += stringBytesMax(quality);
  }
  return bytes;
}

/** No encoding of this settlement is longer. */
export function settlementBytesMax(settlement: Settlement): number {
  const s = settlement;
  let bytes = FIXED_BYTES_MAX + unitsBytesMax(s.units);
  bytes +=
    stringBytesMax(s.id) + stringBytesMax(s.veId) + stringBytesMax(s.accessKeyId) + stringBytesMax(s.logicalModelId);
  bytes += stringBytesMax(s.logicalModel) + stringBytesMax(s.physicalModelId) + stringBytesMax(s.priceId);
  bytes += stringBytesMax(s.upstreamRequestId) + stringBytesMax(s.errorCode);
  if (s.hedgeOf !== undefined) bytes += stringBytesMax(s.hedgeOf);
  for (const { physicalModelId, detail } of s.attempts)
    bytes += ATTEMPT_BYTES_MAX + stringBytesMax(physicalModelId) + stringBytesMax(detail);
  return bytes;
}

export function intentBytesMax(intent: Intent): number {
  const { id, veId, accessKeyId, logicalModelId, logicalModel } = intent;
  return (
    FIXED_BYTES_MAX +
    [id, veId, accessKeyId, logicalModelId, logicalModel].reduce((sum, text) => sum + stringBytesMax(text), 0)
  );
}

export function progressBytesMax(progress: Progress): number {
  const { id, physicalModelId, priceId, units } = progress;
  return (
    FIXED_BYTES_MAX +
    unitsBytesMax(units) +
    stringBytesMax(id) +
    stringBytesMax(physicalModelId) +
    stringBytesMax(priceId)
  );
}

/** Appends fields to a buffer that the caller has made large enough. One for the process: encoding never waits. */
class Writer {
  buffer: Buffer = Buffer.alloc(0);
  at = 0;

  /** `value`: a safe non-negative integer. */
  varint(value: number): void {
    const { buffer } = this;
    let rest = value;
    while (rest > 0x7fffffff) {
      buffer[this.at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    while (rest > 127) {
      buffer[this.at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    buffer[this.at++] = rest;
  }

  tag(field: number, wireType: number): void {
    const tag = (field << 3) | wireType;
    if (tag > 127) {
      this.buffer[this.at++] = (tag & 127) | 128;
      this.buffer[this.at++] = tag >> 7;
    } else {
      this.buffer[this.at++] = tag;
    }
  }

  number(field: number, value: number): void {
    if (value === 0) return;
    this.tag(field, VARINT);
    this.varint(value);
  }

  string(field: number, text: string): void {
    if (text === "") return;
    this.tag(field, BYTES);
    if (text.length <= SHORT_CHARS) {
      const bytes = this.buffer.write(text, this.at + 1);
      this.buffer[this.at] = bytes;
      this.at += 1 + bytes;
    } else {
      this.varint(Buffer.byteLength(text));
      this.at += this.buffer.write(text, this.at);
    }
  }

  /** Opens a nested message; `close` needs what this returns. */
  open(field: number): number {
    this.tag(field, BYTES);
    return this.at++;
  }

  /** Writes the length of the nested message into the one byte kept for it, or moves the message if it needs more. */
  close(start: number): void {
    const length = this.at - start - 1;
    if (length < 128) {
      this.buffer[start] = length;
      return;
    }
    let extra = 0;
    for (let rest = length; rest > 127; rest = Math.floor(rest / 128)) extra++;
    this.buffer.copyWithin(start + 1 + extra, start + 1, this.at);
    this.at = start;
    this.varint(length);
    this.at += length;
  }
}

const writer = new Writer();

function begin(buffer: Buffer, at: number): void {
  writer.buffer = buffer;
  writer.at = at;
}

function writeUnits(units: readonly UnitQuantity[]): void {
  for (const unit of units) {
    const start = writer.open(11);
    writer.number(1, unit.meter);
    writer.number(2, unit.quantity);
    writer.number(3, unit.source);
    if (unit.size !== undefined) writer.string(4, unit.size);
    if (unit.quality !== undefined) writer.string(5, unit.quality);
    writer.close(start);
  }
}

function writeAttempts(attempts: readonly AttemptEntry[]): void {
  for (const attempt of attempts) {
    const start = writer.open(15);
    writer.string(1, attempt.physicalModelId);
    writer.number(2, attempt.tier);
    writer.number(3, attempt.result);
    writer.number(4, attempt.httpStatus);
    writer.number(5, whole(attempt.startUs));
    writer.number(6, whole(attempt.durationUs));
    writer.number(7, attempt.kind);
    writer.number(8, whole(attempt.firstByteUs));
    writer.number(9, whole(attempt.firstContentUs));
    writer.string(10, attempt.detail);
    if (attempt.credits > 0n) writer.string(11, formatCredits(attempt.credits));
    writer.close(start);
  }
}

/** Clocks may have fractions and, when set back, give negative durations; the schema has neither. */
function whole(value: number): number {
  return value > 0 ? Math.floor(value) : 0;
}

/** Writes the record at `at`, where `settlementBytesMax` bytes are free. Returns where it ends. */
export function encodeSettlement(buffer: Buffer, at: number, recordNo: number, settlement: Settlement): number {
  const s = settlement;
  begin(buffer, at);
  writer.number(1, recordNo);
  writer.string(2, s.id);
  writer.string(3, s.veId);
  writer.string(4, s.accessKeyId);
  writer.string(5, s.logicalModelId);
  writer.string(6, s.logicalModel);
  writer.number(7, s.endpoint);
  writer.number(8, s.stream ? 1 : 0);
  writer.string(9, s.physicalModelId);
  writer.string(10, s.priceId);
  writeUnits(s.units);
  writer.string(12, formatCredits(s.credits));
  writer.number(13, s.outcome);
  writer.number(14, s.httpStatus);
  writeAttempts(s.attempts);
  writer.number(16, whole(s.arriveUnixUs));
  writer.number(17, whole(s.firstByteUs));
  writer.number(18, whole(s.firstContentUs));
  writer.number(19, whole(s.durationUs));
  writer.string(20, s.upstreamRequestId);
  writer.string(21, s.errorCode);
  if (s.hedgeOf !== undefined) writer.string(22, s.hedgeOf);
  return writer.at;
}

/** As `encodeSettlement`, with `intentBytesMax` bytes free. */
export function encodeIntent(buffer: Buffer, at: number, intent: Intent): number {
  begin(buffer, at);
  writer.string(2, intent.id);
  writer.string(3, intent.veId);
  writer.string(4, intent.accessKeyId);
  writer.string(5, intent.logicalModelId);
  writer.string(6, intent.logicalModel);
  writer.number(7, intent.endpoint);
  writer.number(16, whole(intent.arriveUnixUs));
  return writer.at;
}

/** As `encodeSettlement`, with `progressBytesMax` bytes free. */
export function encodeProgress(buffer: Buffer, at: number, progress: Progress): number {
  begin(buffer, at);
  writer.string(2, progress.id);
  writer.string(9, progress.physicalModelId);
  writer.string(10, progress.priceId);
  writeUnits(progress.units);
  writer.string(12, formatCredits(progress.credits));
  return writer.at;
}

/** What the reporter must know of a record without decoding all of it. */
export interface RecordHead {
  readonly recordNo: number;
  readonly id: string;
  readonly veId: string;
  readonly credits: Credits;
}

/** Reads the head of an encoded record; null if the bytes are no such message. */
export function readRecordHead(bytes: Buffer): RecordHead | null {
  let [recordNo, id, veId, credits] = [0, "", "", "0"];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return Number.NaN;
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = tag >> 3;
    const value = varint();
    if (Number.isNaN(value) || (tag & 7) > BYTES || (tag & 7) === 1) return null;
    if (field === 1) recordNo = value;
    if ((tag & 7) !== BYTES) continue;
    const end = at + value;
    if (end > bytes.length) return null;
    if (field === 2) id = bytes.toString("utf8", at, end);
    else if (field === 3) veId = bytes.toString("utf8", at, end);
    else if (field === 12) credits = bytes.toString("latin1", at, end);
    at = end;
  }
  try {
    return { recordNo, id, veId, credits: parseCredits(credits) };
  } catch {
    return null;
  }
}

/**
 * The number (0 if it is no settlement) and the id of an encoded record; null if the bytes are no such message. Of records
 * as they are written above only the beginning is read: there may be millions.
 */
export function readRecordKey(bytes: Buffer): Pick<RecordHead, "recordNo" | "id"> | null {
  let [recordNo, at] = [0, 0];
  if (bytes[0] === RECORD_NO_TAG) {
    let byte = 128;
    for (let scale = 1; byte > 127; scale *= 128) {
      byte = bytes[++at] ?? 0;
      recordNo += (byte & 127) * scale;
    }
    at++;
  }
  const length = bytes[at + 1] ?? 128;
  const end = at + 2 + length;
  if (bytes[at] !== ID_TAG || length > 127 || end > bytes.length) return readRecordHead(bytes);
  return { recordNo, id: bytes.toString("utf8", at + 2, end) };
}
