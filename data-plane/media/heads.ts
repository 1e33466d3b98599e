/** PURE. How long audio lasts, from the first and last bytes of its container. Results are thousandths of a second. */

/** What OpenAI's `pcm` is: 24 kHz, 16 bits, mono. */
const PCM_BYTES_PER_MS = 48;

/** Raw samples as speech makes them. Exact. */
export function pcmSeconds(bytes: number): number {
  return Math.round(bytes / PCM_BYTES_PER_MS);
}

/**
 * WAV: its head and its length in all. Speech that is streamed does not know its length when it writes its head, so the
 * bytes that are there count. Null: this is no WAV whose bytes say how long it is.
 */
export function wavSeconds(head: Buffer, bytes: number): number | null {
  if (head.toString("latin1", 0, 4) !== "RIFF" || head.toString("latin1", 8, 12) !== "WAVE") return null;
  let byteRate = 0;
  for (let at = 12; at + 8 <= head.length;) {
    const id = head.toString("latin1", at, at + 4);
    const size = head.readUInt32LE(at + 4);
    const start = at + 8;
    if (id === "fmt " && start + 14 <= head.length) byteRate = byteRateOf(head, start);
    if (id === "data") {
      if (byteRate === 0) return null;
      const there = Math.max(0, bytes - start);
      return Math.round((Math.min(size === 0 ? there : size, there) * 1000) / byteRate);
    }
    at = start + size + (size & 1);
  }
  return null;
}

const UNCOMPRESSED = new Set([1, 3, 6, 7, 0xfffe]);

/** Decoders go by the samples' rate and size; only where they are compressed does the head's own number count. */
function byteRateOf(head: Buffer, format: number): number {
  const samples = head.readUInt32LE(format + 4) * head.readUInt16LE(format + 12);
  return UNCOMPRESSED.has(head.readUInt16LE(format)) ? samples : head.readUInt32LE(format + 8);
}

/** FLAC: the first bytes. Null: it is none, or a stream that did not know its length. */
export function flacSeconds(head: Buffer): number | null {
  if (head.length < 26 || head.toString("latin1", 0, 4) !== "fLaC" || (head[4]! & 0x7f) !== 0) return null;
  const rate = (head[18]! << 12) | (head[19]! << 4) | (head[20]! >> 4);
  const samples = (head[21]! & 15) * 2 ** 32 + head.readUInt32BE(22);
  return rate === 0 || samples === 0 ? null : Math.round((samples * 1000) / rate);
}

const PAGE = Buffer.from("OggS");
const NO_POSITION = 0xffff_ffff_ffff_ffffn;

/** Ogg with Opus or Vorbis: the first bytes, and the last ones, which must hold a whole page's head. Null: it is none. */
export function oggSeconds(head: Buffer, tail: Buffer): number | null {
  if (!head.subarray(0, 4).equals(PAGE) || head.length < 27) return null;
  const packet = 27 + head[26]!;
  let rate = 0;
  let skip = 0;
  if (head.toString("latin1", packet, packet + 8) === "OpusHead" && head.length >= packet + 12) {
    rate = 48_000;
    skip = head.readUInt16LE(packet + 10);
  } else if (head.toString("latin1", packet, packet + 7) === "\u0001vorbis" && head.length >= packet + 16) {
    rate = head.readUInt32LE(packet + 12);
  }
  if (rate === 0) return null;
  for (let at = tail.lastIndexOf(PAGE); at !== -1; at = at === 0 ? -1 : tail.lastIndexOf(PAGE, at - 1)) {
    if (at + 14 > tail.length) continue;
    const position = tail.readBigUInt64LE(at + 6);
    if (position === NO_POSITION || position > BigInt(Number.MAX_SAFE_INTEGER)) continue;
    return Math.round((Math.max(0, Number(position) - skip) * 1000) / rate);
  }
  return null;
}

const EBML = Buffer.from([0x1a, 0x45, 0xdf, 0xa3]);
const INFO = Buffer.from([0x15, 0x49, 0xa9, 0x66]);
const DURATION = Buffer.from([0x44, 0x89]);
const CLUSTER = Buffer.from([0x1f, 0x43, 0xb6, 0x75]);
const SCALE = Buffer.from([0x2a, 0xd7, 0xb1]);
const TIME_ID = 0xe7;
const BLOCK_ID = 0xa3;

/** The value of an EBML number at `at` and where it ends; null: not there. */
function vint(bytes: Buffer, at: number): { value: number; end: number } | null {
  const first = bytes[at];
  if (first === undefined || first === 0) return null;
  const length = Math.clz32(first) - 23;
  if (length > 8 || at + length > bytes.length) return null;
  let value = first & ((1 << (8 - length)) - 1);
  for (let i = 1; i < length; i++) value = value * 256 + bytes[at + i]!;
  return { value, end: at + length };
}

/**
 * WebM and Matroska: as the head says, or, where browsers have recorded them and it does not, when the last block begins, a
 * lower bound. Null: it is none, or no cluster begins in `tail`.
 */
export function webmSeconds(head: Buffer, tail: Buffer): number | null {
  if (!head.subarray(0, 4).equals(EBML)) return null;
  const ticks = durationOf(head) ?? lastBlock(tail);
  return ticks === null || !(ticks > 0) ? null : Math.round((ticks * scaleOf(head)) / 1_000_000);
}

/** In ticks. */
function durationOf(head: Buffer): number | null {
  const info = head.indexOf(INFO);
  const at = info === -1 ? -1 : head.indexOf(DURATION, info);
  const size = at === -1 ? null : vint(head, at + DURATION.length);
  if (size === null || size.end + size.value > head.length) return null;
  return size.value === 4 ? head.readFloatBE(size.end) : size.value === 8 ? head.readDoubleBE(size.end) : null;
}

/** When the last block of the last cluster begins, in ticks. */
function lastBlock(tail: Buffer): number | null {
  const start = tail.lastIndexOf(CLUSTER);
  if (start === -1) return null;
  const size = vint(tail, start + CLUSTER.length);
  let last: number | null = null;
  let clusterTime = 0;
  for (let at = size?.end ?? tail.length; at < tail.length;) {
    const id = tail[at]!;
    const length = vint(tail, at + 1);
    if (length === null) break;
    const { value, end } = length;
    if (id === TIME_ID && value <= 6 && end + value <= tail.length)
      last = clusterTime = tail.readUIntBE(end, Math.max(1, value));
    const track = id === BLOCK_ID ? vint(tail, end) : null;
    if (track !== null && track.end + 2 <= tail.length) last = clusterTime + tail.readInt16BE(track.end);
    at = end + value;
  }
  return last;
}

/** Nanoseconds of one tick. */
function scaleOf(head: Buffer): number {
  const at = head.indexOf(SCALE);
  const size = at === -1 ? null : vint(head, at + SCALE.length);
  if (size === null || size.value < 1 || size.value > 6 || size.end + size.value > head.length) return 1_000_000;
  return head.readUIntBE(size.end, size.value);
}
