/** For tests only: recordings of known length, made from their formats' descriptions. They hold no sound. */

const MPEG_KBITS = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];

/** MPEG 1 layer 3 at 44.1 kHz, mono; each frame has the next of these indices of bitrates. */
export function mp3(frames: number, indices: readonly number[]): Buffer {
  return Buffer.concat(
    Array.from({ length: frames }, (_, i) => {
      const index = indices[i % indices.length]!;
      const frame = Buffer.alloc(Math.floor((144_000 * MPEG_KBITS[index]!) / 44_100));
      frame.set([0xff, 0xfb, index << 4, 0xc0]);
      return frame;
    }),
  );
}

export const MP3_FRAME_MS = (1152 * 1000) / 44_100;

/** The frame that an encoder puts before others, to say how many there are. */
export function xing(frames: number): Buffer {
  const frame = mp3(1, [9]);
  frame.write("Xing", 21, "latin1");
  frame.writeUInt32BE(1, 25);
  frame.writeUInt32BE(frames, 29);
  return frame;
}

export function id3(bytes: number): Buffer {
  const tag = Buffer.alloc(10 + bytes);
  tag.write("ID3\x03", "latin1");
  for (let i = 0; i < 4; i++) tag[6 + i] = (bytes >> (7 * (3 - i))) & 127;
  return tag;
}

/** AAC at 24 kHz. */
export function adts(frames: number): Buffer {
  const bytes = 200;
  const frame = Buffer.alloc(bytes);
  frame.set([0xff, 0xf1, (1 << 6) | (6 << 2), 0x40 | (bytes >> 11), (bytes >> 3) & 255, ((bytes & 7) << 5) | 31, 0xfc]);
  return Buffer.concat(Array.from({ length: frames }, () => frame));
}

/** 16 kHz, 16 bits, mono. `announced`: the length in its head. */
export function wav(dataBytes: number, announced = dataBytes): Buffer {
  const head = Buffer.alloc(58);
  head.write("RIFF\0\0\0\0WAVELIST\x05\0\0\0", "latin1");
  head.write("fmt ", 26, "latin1");
  head.writeUInt32LE(16, 30);
  head.writeUInt16LE(1, 34);
  head.writeUInt16LE(1, 36);
  head.writeUInt32LE(16_000, 38);
  head.writeUInt32LE(32_000, 42);
  head.writeUInt16LE(2, 46);
  head.writeUInt16LE(16, 48);
  head.write("data", 50, "latin1");
  head.writeUInt32LE(announced, 54);
  return Buffer.concat([head, Buffer.alloc(dataBytes)]);
}

export function flac(samples: number): Buffer {
  const head = Buffer.alloc(42 + 1000);
  head.write("fLaC", "latin1");
  head[4] = 0x80;
  head.writeUIntBE(34, 5, 3);
  head.writeUInt32BE(4096 * 65_537, 8);
  head.set(
    [48_000 >> 12, (48_000 >> 4) & 255, ((48_000 & 15) << 4) | 0, (15 << 4) | Math.floor(samples / 2 ** 32)],
    18,
  );
  head.writeUInt32BE(samples % 2 ** 32, 22);
  return head;
}

function page(position: bigint, packet: Buffer, type: number): Buffer {
  const head = Buffer.alloc(28);
  head.write("OggS", "latin1");
  head[5] = type;
  head.writeBigUInt64LE(position, 6);
  head[26] = 1;
  head[27] = packet.length;
  return Buffer.concat([head, packet]);
}

/** Opus with 312 samples that are not heard; `samples` are at 48 kHz. */
export function opus(samples: number, pages = 3): Buffer {
  const first = Buffer.alloc(19);
  first.write("OpusHead\x01\x01", "latin1");
  first.writeUInt16LE(312, 10);
  first.writeUInt32LE(24_000, 12);
  const last = BigInt(samples + 312);
  return Buffer.concat([
    page(0n, first, 2),
    page(0n, Buffer.from("OpusTags\0\0\0\0\0\0\0\0", "latin1"), 0),
    ...Array.from({ length: pages }, (_, i) =>
      page((last * BigInt(i + 1)) / BigInt(pages), Buffer.alloc(200), i === pages - 1 ? 4 : 0),
    ),
  ]);
}

function box(name: string, ...content: Buffer[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(8 + content.reduce((sum, { length }) => sum + length, 0));
  head.write(name, 4, "latin1");
  return Buffer.concat([head, ...content]);
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, i * 4);
  return bytes;
}

/** MPEG 4 audio; `units` are of 1/16000 s. Its description stands behind the data, as many recorders put it. */
export function m4a(units: number, dataBytes: number): Buffer {
  const sample = Buffer.concat([Buffer.alloc(6), Buffer.from([0, 1]), words(0, 0, 0x0001_0010, 0, 16_000 << 16)]);
  const table = box(
    "stbl",
    box("stsd", words(0, 1), box("mp4a", sample)),
    box("stts", words(0, 1, units / 1000, 1000)),
    box("stsc", words(0, 1, 1, units / 1000, 1)),
    box("stsz", words(0, 10, units / 1000)),
    box("stco", words(0, 1, 32)),
  );
  const handler = box("hdlr", words(0, 0), Buffer.from("soun"), words(0, 0, 0), Buffer.from([0]));
  const media = box("mdia", box("mdhd", words(0, 0, 0, 16_000, units, 0x55c4_0000)), handler, box("minf", table));
  const head = box("tkhd", words(0, 0, 0, 1, 0, units, 0, 0, 0, 0, ...Array.from({ length: 11 }, () => 0)));
  const movie = box("mvhd", words(0, 0, 0, 16_000, units, ...Array.from({ length: 20 }, () => 0)));
  return Buffer.concat([
    box("ftyp", Buffer.from("M4A \0\0\0\0isom", "latin1")),
    box("mdat", Buffer.alloc(dataBytes)),
    box("moov", movie, box("trak", head, media)),
  ]);
}

function element(id: number[], ...content: Buffer[]): Buffer {
  const size = content.reduce((sum, { length }) => sum + length, 0);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(size, 4);
  head[0] = 1;
  return Buffer.concat([Buffer.from(id), head, ...content]);
}

/** WebM with blocks at these times; `durationMs` null: its head does not say, as in a browser's recording. */
export function webm(durationMs: number | null, clusters: readonly (readonly number[])[]): Buffer {
  const duration = Buffer.alloc(8);
  duration.writeDoubleBE(durationMs ?? 0);
  const text = (id: number[], value: string): Buffer => element(id, Buffer.from(value, "latin1"));
  const uint = (id: number[], value: number): Buffer => element(id, words(value));
  const info = element(
    [0x15, 0x49, 0xa9, 0x66],
    uint([0x2a, 0xd7, 0xb1], 1_000_000),
    ...(durationMs === null ? [] : [element([0x44, 0x89], duration)]),
  );
  const audio = element([0xe1], uint([0x9f], 1));
  const track = element([0xae], uint([0xd7], 1), uint([0x73, 0xc5], 1), uint([0x83], 2), text([0x86], "A_OPUS"), audio);
  const body = clusters.map(([first, ...others]) =>
    element(
      [0x1f, 0x43, 0xb6, 0x75],
      uint([0xe7], first!),
      ...[first!, ...others].map((time) => {
        const block = Buffer.alloc(30);
        block[0] = 0x81;
        block.writeInt16BE(time - first!, 1);
        return element([0xa3], block);
      }),
    ),
  );
  const ebml = element([0x1a, 0x45, 0xdf, 0xa3], text([0x42, 0x82], "webm"));
  return Buffer.concat([
    ebml,
    element([0x18, 0x53, 0x80, 0x67], info, element([0x16, 0x54, 0xae, 0x6b], track), ...body),
  ]);
}
