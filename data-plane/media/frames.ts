/**
 * PURE. How long MPEG audio (mp3) and ADTS (aac) last, from the heads of their frames, of which each says how long it is:
 * exact whatever the bitrate. Bytes come in pieces and none are kept.
 */

/** Bytes that are no frames, in all: tags, and what a cut left over. More: this is something else. */
export const LOST_BYTES_MAX = 256 * 1024;

const HEAD_BYTES = 7;
const ID3_BYTES = 10;
const ADTS_RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
const MPEG1_RATES = [44100, 48000, 32000];
/** kbit/s by MPEG version 1 or 2 and layer. */
const BITRATES: Readonly<Record<string, readonly number[]>> = {
  "1.1": [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
  "1.2": [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  "1.3": [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  "2.1": [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  "2.2": [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
  "2.3": [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};

/** Behind the first frame's head and side information. */
const INFO_BYTES = 36;
const INFO = /Xing|Info|VBRI/;
const NOTHING = Buffer.alloc(0);

interface Frame {
  readonly bytes: number;
  readonly samples: number;
  readonly rate: number;
}

/** What a frame's head says; null: this is none. Sources: ISO/IEC 11172-3, 13818-3, 13818-7. */
function frameOf(head: Uint8Array): Frame | null {
  const [b0, b1, b2, b3, b4, b5, b6] = head as unknown as number[] as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (b0 !== 0xff || (b1 & 0xe0) !== 0xe0) return null;
  const layerBits = (b1 >> 1) & 3;
  if (layerBits === 0) {
    const rate = ADTS_RATES[(b2 >> 2) & 15];
    const bytes = ((b3 & 3) << 11) | (b4 << 3) | (b5 >> 5);
    if ((b1 & 0xf0) !== 0xf0 || rate === undefined || bytes <= HEAD_BYTES) return null;
    return { bytes, samples: 1024 * ((b6 & 3) + 1), rate };
  }
  const version = (b1 >> 3) & 3;
  const layer = 4 - layerBits;
  const base = MPEG1_RATES[(b2 >> 2) & 3];
  const kbits = BITRATES[`${version === 3 ? 1 : 2}.${layer}`]![b2 >> 4];
  // Free formats say no length, and version 1 is none.
  if (version === 1 || base === undefined || kbits === undefined || kbits === 0) return null;
  const rate = version === 3 ? base : version === 2 ? base / 2 : base / 4;
  const samples = layer === 1 ? 384 : layer === 3 && version !== 3 ? 576 : 1152;
  const padding = (b2 >> 1) & 1;
  const bytes =
    layer === 1
      ? (Math.floor((12 * kbits * 1000) / rate) + padding) * 4
      : Math.floor((samples * kbits * 125) / rate) + padding;
  return { bytes, samples, rate };
}

export class FrameWalker {
  frames = 0;
  /** Too much of it is no frames. */
  failed = false;
  private samples = 0;
  private rate = 0;
  /** Bytes to pass over. */
  private skip = 0;
  private lost = 0;
  private begun = false;
  /** What was read of the next head. */
  private head: Buffer = Buffer.alloc(ID3_BYTES);
  private have = 0;
  /** The beginning of the first frame's content: an encoder may say there what follows, in place of sound. */
  private first: Buffer | null = null;

  /** How long the frames last, in thousandths of a second; null: there were none. */
  get thousandths(): number | null {
    return this.frames === 0 || this.failed ? null : Math.round((this.samples * 1000) / this.rate);
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.failed) {
      if (this.skip > 0) {
        const passed = Math.min(this.skip, chunk.length - at);
        if (this.first !== null) this.lookInside(chunk.subarray(at, at + passed));
        this.skip -= passed;
        at += passed;
        continue;
      }
      this.head[this.have++] = chunk[at++]!;
      if (this.have >= (this.begun ? HEAD_BYTES : ID3_BYTES)) this.look();
    }
  }

  private look(): void {
    const { head, have } = this;
    if (!this.begun && head.toString("latin1", 0, 3) === "ID3") {
      const size = ((head[6]! & 127) << 21) | ((head[7]! & 127) << 14) | ((head[8]! & 127) << 7) | (head[9]! & 127);
      this.skip = size;
      this.have = 0;
      this.begun = true;
      return;
    }
    this.begun = true;
    const frame = frameOf(head);
    if (frame === null || frame.bytes < have || (this.rate > 0 && frame.rate !== this.rate)) return this.lose();
    if (this.frames++ === 0) this.first = NOTHING;
    this.rate = frame.rate;
    this.samples += frame.samples;
    this.skip = frame.bytes - have;
    this.have = 0;
  }

  private lookInside(content: Uint8Array): void {
    const first = Buffer.concat([this.first!, content.subarray(0, INFO_BYTES - this.first!.length)]);
    this.first = first.length < INFO_BYTES && content.length < this.skip ? first : null;
    if (this.first !== null || !INFO.test(first.toString("latin1"))) return;
    this.frames--;
    this.samples = 0;
  }

  /** One byte on. */
  private lose(): void {
    if (++this.lost > LOST_BYTES_MAX) this.failed = true;
    this.head.copyWithin(0, 1, this.have);
    this.have--;
    if (this.have >= HEAD_BYTES) this.look();
  }
}
