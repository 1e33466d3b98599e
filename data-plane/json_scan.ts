/**
 * PURE. A validating JSON scanner on bytes that builds nothing: it finds where values end. Long strings are skipped with
 * native searches. Inside strings it checks only what it needs to find their ends; bad escapes there are left to whoever
 * reads the string.
 */

/** Deeper nesting is refused. */
export const JSON_DEPTH_MAX = 256;

export class JsonScanError extends Error {
  readonly code = "json_invalid";
  /** Byte offset. */
  readonly at: number;
  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const ARRAY = 0x5b;
const ARRAY_END = 0x5d;
/** Strings up to this length are walked byte by byte; a native search costs more than that. */
const SHORT_STRING_BYTES = 24;

function fail(at: number): never {
  throw new JsonScanError("this is not valid JSON", at);
}

/** The first byte at or after `at` that is no white space. */
export function skipSpace(bytes: Buffer, at: number): number {
  let pos = at;
  for (;;) {
    const byte = bytes[pos]!;
    if (byte > 0x20 || (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09)) return pos;
    pos++;
  }
}

/** From the opening quote at `at` to after the closing one. */
export function skipString(bytes: Buffer, at: number): number {
  if (bytes[at] !== QUOTE) fail(at);
  let pos = at + 1;
  const near = pos + SHORT_STRING_BYTES;
  while (pos < near) {
    const byte = bytes[pos];
    if (byte === QUOTE) return pos + 1;
    if (byte === undefined || byte < 0x20) fail(pos);
    pos += byte === BACKSLASH ? 2 : 1;
  }
  for (;;) {
    const quote = bytes.indexOf(QUOTE, pos);
    if (quote === -1) fail(bytes.length);
    let before = quote - 1;
    while (before >= pos && bytes[before] === BACKSLASH) before--;
    if (((quote - 1 - before) & 1) === 0) return quote + 1;
    pos = quote + 1;
  }
}

function skipWord(bytes: Buffer, at: number, word: string): number {
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word.charCodeAt(i)) fail(at);
  return at + word.length;
}

function skipDigits(bytes: Buffer, at: number): number {
  let pos = at;
  while (bytes[pos]! >= 0x30 && bytes[pos]! <= 0x39) pos++;
  if (pos === at) fail(at);
  return pos;
}

function skipNumber(bytes: Buffer, at: number): number {
  let pos = bytes[at] === 0x2d ? at + 1 : at;
  pos = bytes[pos] === 0x30 ? pos + 1 : skipDigits(bytes, pos);
  if (bytes[pos] === 0x2e) pos = skipDigits(bytes, pos + 1);
  if (bytes[pos] === 0x65 || bytes[pos] === 0x45) {
    pos++;
    if (bytes[pos] === 0x2b || bytes[pos] === 0x2d) pos++;
    pos = skipDigits(bytes, pos);
  }
  return pos;
}

function skipScalar(bytes: Buffer, at: number): number {
  switch (bytes[at]) {
    case QUOTE:
      return skipString(bytes, at);
    case 0x74:
      return skipWord(bytes, at, "true");
    case 0x66:
      return skipWord(bytes, at, "false");
    case 0x6e:
      return skipWord(bytes, at, "null");
    default:
      return skipNumber(bytes, at);
  }
}

/** Skips a key and its colon; returns where the value begins. */
function skipKey(bytes: Buffer, at: number): number {
  const colon = skipSpace(bytes, skipString(bytes, at));
  if (bytes[colon] !== COLON) fail(colon);
  return skipSpace(bytes, colon + 1);
}

/** Containers that are open; shared, since scanning never yields. */
const open = new Uint8Array(JSON_DEPTH_MAX + 1);

/**
 * From the first byte of a value to after its last.
 * @param depth how deep the value itself stands
 * @throws JsonScanError when it is no JSON value, or nested too deep
 */
export function skipValue(bytes: Buffer, at: number, depth = 0): number {
  let pos = at;
  let level = depth;
  for (;;) {
    const first = bytes[pos];
    if (first === OBJECT || first === ARRAY) {
      if (level === JSON_DEPTH_MAX)
        throw new JsonScanError(`this JSON is nested deeper than ${JSON_DEPTH_MAX} levels`, pos);
      pos = skipSpace(bytes, pos + 1);
      if (bytes[pos] !== (first === OBJECT ? OBJECT_END : ARRAY_END)) {
        open[level++] = first;
        if (first === OBJECT) pos = skipKey(bytes, pos);
        continue;
      }
      pos++;
    } else {
      pos = skipScalar(bytes, pos);
    }
    // A value ended: close what ends with it, or go on to the next one.
    for (;;) {
      if (level === depth) return pos;
      pos = skipSpace(bytes, pos);
      const byte = bytes[pos];
      const container = open[level - 1];
      if (byte === COMMA) {
        pos = skipSpace(bytes, pos + 1);
        if (container === OBJECT) pos = skipKey(bytes, pos);
        break;
      }
      if (byte !== (container === OBJECT ? OBJECT_END : ARRAY_END)) fail(pos);
      level--;
      pos++;
    }
  }
}

/** Called with where the member begins (with its key), its key ends, its value begins and ends. */
export type OnMember = (memberStart: number, keyEnd: number, valueStart: number, valueEnd: number) => void;

/** Walks the members of the object that begins at `at`; returns the end of the object. @throws JsonScanError */
export function scanObject(bytes: Buffer, at: number, depth: number, onMember: OnMember): number {
  if (bytes[at] !== OBJECT) fail(at);
  let pos = skipSpace(bytes, at + 1);
  if (bytes[pos] === OBJECT_END) return pos + 1;
  for (;;) {
    const member = pos;
    const keyEnd = skipString(bytes, member);
    const colon = skipSpace(bytes, keyEnd);
    if (bytes[colon] !== COLON) fail(colon);
    const value = skipSpace(bytes, colon + 1);
    const end = skipValue(bytes, value, depth + 1);
    onMember(member, keyEnd, value, end);
    pos = skipSpace(bytes, end);
    if (bytes[pos] === OBJECT_END) return pos + 1;
    if (bytes[pos] !== COMMA) fail(pos);
    pos = skipSpace(bytes, pos + 1);
  }
}

/** Walks the elements of the array that begins at `at`. @throws JsonScanError */
export function scanArray(
  bytes: Buffer,
  at: number,
  depth: number,
  onElement: (start: number, end: number) => void,
): void {
  let pos = skipSpace(bytes, at + 1);
  if (bytes[at] !== ARRAY) fail(at);
  if (bytes[pos] === ARRAY_END) return;
  for (;;) {
    const end = skipValue(bytes, pos, depth + 1);
    onElement(pos, end);
    pos = skipSpace(bytes, end);
    if (bytes[pos] === ARRAY_END) return;
    if (bytes[pos] !== COMMA) fail(pos);
    pos = skipSpace(bytes, pos + 1);
  }
}

/** The text of the string literal at `start..end`, quotes included. @throws JsonScanError on a bad escape */
export function decodeString(bytes: Buffer, start: number, end: number): string {
  const raw = bytes.toString("utf8", start + 1, end - 1);
  if (!raw.includes("\\")) return raw;
  try {
    return JSON.parse(bytes.toString("utf8", start, end)) as string;
  } catch {
    return fail(start);
  }
}
