/** Ids of the data plane: a prefix and 16 random bytes in lower-case base32. */

import { randomFillSync } from "node:crypto";

const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";
/** Two letters at a time: 1,024 pairs of five bits each. */
const PAIRS: readonly string[] = Array.from({ length: 1024 }, (_, n) => ALPHABET[n >> 5]! + ALPHABET[n & 31]!);
const ID_BYTES = 16;
const POOL_BYTES = 8192;
const PREFIX_CHARS_MAX = 32;

/** The unpadded lower-case base32 form of bytes (RFC 4648 alphabet). */
export function base32(bytes: Uint8Array, start = 0, end = bytes.length): string {
  let text = "";
  let bits = 0;
  let held = 0;
  for (let i = start; i < end; i++) {
    held = ((held << 8) | bytes[i]!) & 0x3ffff;
    bits += 8;
    if (bits >= 10) {
      bits -= 10;
      text += PAIRS[(held >>> bits) & 1023]!;
    }
  }
  if (bits === 0) return text;
  // Pad with zero bits on the right to whole letters.
  const letters = Math.ceil(bits / 5);
  const rest = (held << (letters * 5 - bits)) & ((1 << (letters * 5)) - 1);
  for (let i = letters - 1; i >= 0; i--) text += ALPHABET[(rest >>> (i * 5)) & 31]!;
  return text;
}

const pool = Buffer.allocUnsafeSlow(POOL_BYTES);
let used = POOL_BYTES;

/** Ids are put together in bytes: strings that are made letter by letter cost more when they are first used. */
const text = Buffer.allocUnsafeSlow(64);
const LETTERS = Buffer.from(ALPHABET, "latin1");

/** A new id, such as `usg_` and 26 letters. Random bytes are drawn in bulk: one system call for 512 ids. */
export function newId(prefix: string): string {
  if (used === POOL_BYTES) {
    randomFillSync(pool);
    used = 0;
  }
  const start = used;
  used += ID_BYTES;
  if (prefix.length > PREFIX_CHARS_MAX) return prefix + base32(pool, start, used);
  let at = 0;
  for (; at < prefix.length; at++) text[at] = prefix.charCodeAt(at);
  let held = 0;
  let bits = 0;
  for (let i = start; i < used; i++) {
    held = ((held << 8) | pool[i]!) & 0xfff;
    for (bits += 8; bits >= 5; at++) {
      bits -= 5;
      text[at] = LETTERS[(held >>> bits) & 31]!;
    }
  }
  // 128 bits are 25 letters and three bits more.
  text[at++] = LETTERS[(held << (5 - bits)) & 31]!;
  return text.toString("latin1", 0, at);
}
