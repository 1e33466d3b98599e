/** Ids and secrets: a prefix and random bits in lower-case base32, usable in host names, URLs and file names. */

const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

const ID_BYTES = 16;
const SECRET_BYTES = 32;

/** How much of a secret is stored and shown, to recognise it by. */
export const SECRET_PREFIX_CHARS = 12;

export type RandomBytes = (count: number) => Uint8Array;

const POOL_BYTES = 4096;

/** Random bytes for ids, of which a report needs thousands: drawn many at a time, which costs little more than a few. */
export function pooledRandom(random: RandomBytes): RandomBytes {
  let pool: Uint8Array = new Uint8Array(0);
  let used = 0;
  return (count) => {
    if (used + count > pool.length) {
      pool = random(Math.max(POOL_BYTES, count));
      used = 0;
    }
    used += count;
    return pool.subarray(used - count, used);
  };
}

/** RFC 4648 base32 in lower case, without padding. */
export function base32(bytes: Uint8Array): string {
  let out = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = ((buffer << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += ALPHABET[(buffer >> bits) & 31];
    }
  }
  if (bits > 0) out += ALPHABET[(buffer << (5 - bits)) & 31];
  return out;
}

/** `prefix` with its underscore: `ve_`. 128 random bits. */
export function newId(prefix: string, random: RandomBytes): string {
  return prefix + base32(random(ID_BYTES));
}

/** `prefix` with its underscore: `tbk_` access key, `tbt_` merchant, `tbo_` operator, `tbn_` node. 256 random bits. */
export function newSecret(prefix: string, random: RandomBytes): string {
  return prefix + base32(random(SECRET_BYTES));
}

export function secretPrefix(secret: string): string {
  return secret.slice(0, SECRET_PREFIX_CHARS);
}
