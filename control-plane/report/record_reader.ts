/**
 * PURE. What the ledger needs of a UsageRecord, read by hand because the generated codec costs many times as much and there
 * are thousands of records in a second. It reads what nodes write; whatever is out of the ordinary, sound or not, is left to
 * the generated codec, so that the two cannot differ. A property test compares them.
 */

import type { Meter, UnitQuantity, UnitSource } from "../../core/meters.ts";
import type { Usage } from "../domain/report.ts";

const VARINT = 0;
const BYTES = 2;
const INT32_MAX = 0x7fffffff;
/** As many bytes of a varint as always fit a safe integer. */
const VARINT_BYTES_MAX = 7;
/** Their last byte may go as far, beyond it is the eighth byte's part of a safe integer. */
const EIGHTH_BYTE_MAX = 0x0f;

/** Reads fields one after the other. `odd`: something is out of the ordinary, what was read since then means nothing. */
class Reader {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  end = 0;
  odd = false;

  varint(): number {
    const { bytes, end } = this;
    let value = 0;
    let scale = 1;
    for (let read = 0; this.at < end && read <= VARINT_BYTES_MAX; read++) {
      const byte = bytes[this.at++]!;
      if (read === VARINT_BYTES_MAX && byte > EIGHTH_BYTE_MAX) break;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
    this.odd = true;
    return 0;
  }

  int32(): number {
    const value = this.varint();
    if (value > INT32_MAX) this.odd = true;
    return value;
  }

  /** Goes past a text or message and returns where it began; its end is `at`. */
  block(): number {
    const length = this.varint();
    const start = this.at;
    if (length > this.end - start) this.odd = true;
    else this.at += length;
    return start;
  }

  /** Goes past a text that is plain ASCII. */
  skipText(): number {
    const start = this.block();
    const { bytes, at } = this;
    for (let i = start; i < at; i++) {
      if (bytes[i]! > 127) {
        this.odd = true;
        break;
      }
    }
    return start;
  }

  text(): string {
    const start = this.skipText();
    return this.odd ? "" : this.bytes.toString("latin1", start, this.at);
  }
}

const reader = new Reader();

function readUnit(): UnitQuantity {
  const stop = reader.end;
  const start = reader.block();
  const end = reader.at;
  let meter = 0;
  let quantity = 0;
  let source = 0;
  let size = "";
  let quality = "";
  reader.at = start;
  reader.end = end;
  while (reader.at < end && !reader.odd) {
    switch (reader.varint()) {
      case (1 << 3) | VARINT:
        meter = reader.int32();
        break;
      case (2 << 3) | VARINT:
        quantity = reader.varint();
        break;
      case (3 << 3) | VARINT:
        source = reader.int32();
        break;
      case (4 << 3) | BYTES:
        size = reader.text();
        break;
      case (5 << 3) | BYTES:
        quality = reader.text();
        break;
      default:
        reader.odd = true;
    }
  }
  reader.end = stop;
  const unit = { meter: meter as Meter, quantity, source: source as UnitSource };
  if (size === "" && quality === "") return unit;
  return { ...unit, ...(size === "" ? {} : { size }), ...(quality === "" ? {} : { quality }) };
}

/** Only that it is in order: the request log reads it from the bytes. */
function skipAttempt(): void {
  const stop = reader.end;
  const start = reader.block();
  const end = reader.at;
  reader.at = start;
  reader.end = end;
  while (reader.at < end && !reader.odd) {
    const tag = reader.varint();
    if (tag === ((1 << 3) | BYTES) || tag === ((10 << 3) | BYTES) || tag === ((11 << 3) | BYTES)) reader.skipText();
    else if (tag >= 2 << 3 && tag <= ((9 << 3) | VARINT) && (tag & 7) === VARINT) reader.varint();
    else reader.odd = true;
  }
  reader.end = stop;
}

type Fields = { -readonly [Name in keyof Usage]: Usage[Name] } & { units: UnitQuantity[] };

/** One field that only has to be in order. */
function skipField(tag: number): void {
  switch (tag) {
    case (7 << 3) | VARINT:
    case (8 << 3) | VARINT:
    case (13 << 3) | VARINT:
    case (14 << 3) | VARINT:
    case (17 << 3) | VARINT:
    case (18 << 3) | VARINT:
    case (19 << 3) | VARINT:
      reader.varint();
      break;
    case (5 << 3) | BYTES:
    case (20 << 3) | BYTES:
    case (21 << 3) | BYTES:
    case (22 << 3) | BYTES:
      reader.skipText();
      break;
    case (15 << 3) | BYTES:
      skipAttempt();
      break;
    default:
      reader.odd = true;
  }
}

function readField(tag: number, fields: Fields): void {
  switch (tag) {
    case (1 << 3) | VARINT:
      fields.recordNo = BigInt(reader.varint());
      break;
    case (2 << 3) | BYTES:
      fields.id = reader.text();
      break;
    case (3 << 3) | BYTES:
      fields.veId = reader.text();
      break;
    case (4 << 3) | BYTES:
      fields.accessKeyId = reader.text();
      break;
    case (6 << 3) | BYTES:
      fields.logicalModel = reader.text();
      break;
    case (9 << 3) | BYTES:
      fields.physicalModelId = reader.text();
      break;
    case (10 << 3) | BYTES:
      fields.priceId = reader.text();
      break;
    case (11 << 3) | BYTES:
      fields.units.push(readUnit());
      break;
    case (12 << 3) | BYTES:
      fields.nodeCredits = reader.text();
      break;
    case (16 << 3) | VARINT:
      fields.arriveUs = reader.varint();
      break;
    default:
      skipField(tag);
  }
}

/** Null: it is for the generated codec to say what it means, or that it means nothing. */
export function readUsage(body: Uint8Array): Usage | null {
  reader.bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  reader.at = 0;
  reader.end = body.byteLength;
  reader.odd = false;
  const fields: Fields = {
    recordNo: 0n,
    id: "",
    veId: "",
    accessKeyId: "",
    logicalModel: "",
    physicalModelId: "",
    priceId: "",
    units: [],
    nodeCredits: "",
    arriveUs: 0,
  };
  while (reader.at < reader.end && !reader.odd) readField(reader.varint(), fields);
  return reader.odd ? null : fields;
}
