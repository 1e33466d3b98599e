/** Durations of recordings whose length is known, in every container, and of what is no recording at all. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SpoolView } from "../spool/spool.ts";
import { FrameWalker } from "./frames.ts";
import { flacSeconds, oggSeconds, pcmSeconds, wavSeconds, webmSeconds } from "./heads.ts";
import { measureSeconds } from "./seconds.ts";
import { SpeechMeter } from "./speech.ts";
import { adts, flac, id3, m4a, MP3_FRAME_MS, mp3, opus, wav, webm, xing } from "./testing_media.ts";

function viewOf(bytes: Buffer): SpoolView {
  return {
    size: bytes.length,
    async read(start, end) {
      return bytes.subarray(start, end);
    },
  };
}

const now = (): number => performance.now();
const measure = (bytes: Buffer, filename = "", contentType = ""): Promise<number | null> =>
  measureSeconds(viewOf(bytes), { filename, contentType, now });

const VBR = [9, 10, 11, 12, 13, 5];
const ms = (frames: number): number => Math.round(frames * MP3_FRAME_MS);
const CASES: [string, Buffer, string, number | null][] = [
  ["wav", wav(48_000), "a.wav", 1500],
  ["wav that was streamed", wav(48_000, 0xffff_ffff), "a.wav", 1500],
  ["mp3 of one bitrate", mp3(1000, [9]), "a.mp3", ms(1000)],
  ["mp3 of many bitrates", mp3(1000, VBR), "a.mp3", ms(1000)],
  ["mp3 of many bitrates with a tag", Buffer.concat([id3(5000), mp3(500, VBR)]), "a.mp3", ms(500)],
  ["mp3 that says how many frames it has", Buffer.concat([xing(1000), mp3(1000, VBR)]), "a.mpga", ms(1000)],
  ["mp3 that lies about it", Buffer.concat([xing(3), mp3(1000, VBR)]), "a.mp3", ms(1000)],
  ["mp3 with a tag behind it", Buffer.concat([mp3(50, [9]), Buffer.alloc(128, "TAG")]), "a.mp3", ms(50)],
  ["aac", adts(300), "a.aac", 12_800],
  ["flac", flac(480_480), "a.flac", 10_010],
  ["opus", opus(96_000), "a.ogg", 2000],
  ["m4a", m4a(80_000, 5000), "a.m4a", 5000],
  ["webm", webm(2500, [[0, 20], [1000]]), "a.webm", 2500],
  [
    "webm of a browser",
    webm(null, [
      [0, 20],
      [1000, 1020, 1480],
    ]),
    "a.webm",
    1480,
  ],
  ["nothing", Buffer.alloc(0), "a.mp3", null],
  ["text", Buffer.from("hello ".repeat(100)), "a.mp3", null],
  ["zeros", Buffer.alloc(100_000), "a.wav", null],
  ["half a wav", wav(48_000).subarray(0, 40), "a.wav", null],
  ["a head alone", Buffer.from("fLaC"), "a.flac", null],
];

describe("recordings", () => {
  test.each(CASES)("%s", async (_, bytes, filename, expected) => {
    expect(await measure(bytes, filename)).toBe(expected);
  });

  test.each(CASES.filter(([, , , expected]) => expected !== null))(
    "%s without a name",
    async (_, bytes, __, expected) => {
      expect(await measure(bytes, "", "application/octet-stream")).toBe(expected);
    },
  );

  test("a name or type that is wrong does no harm", async () => {
    expect(await measure(wav(48_000), "a.mp3", "audio/mpeg")).toBe(1500);
    expect(await measure(mp3(1000, VBR), "a.xyz", "application/pdf")).toBe(ms(1000));
  });

  test("any bytes end in a number or null", async () => {
    const starts = CASES.map(([, bytes]) => bytes.subarray(0, 2000));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...starts),
        fc.nat(2000),
        fc.uint8Array({ maxLength: 300 }),
        async (bytes, at, other) => {
          const broken = Buffer.concat([bytes.subarray(0, at), other, bytes.subarray(at)]);
          const found = await measure(broken, "");
          expect(found === null || (Number.isSafeInteger(found) && found >= 0)).toBe(true);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("a disk that fails is told", async () => {
    const broken: SpoolView = { size: 100, read: () => Promise.reject(new Error("disk")) };
    await expect(measureSeconds(broken, { filename: "", contentType: "", now })).rejects.toThrow("disk");
  });

  test("25 MB are measured without standing in the way", async () => {
    const bytes = mp3(40_000, VBR);
    await measure(mp3(10, [9]));
    let turns = 0;
    let longest = 0;
    let last = now();
    const ticking = setInterval(() => {
      turns++;
      longest = Math.max(longest, now() - last);
      last = now();
    }, 0);
    const found = await measure(bytes, "a.mp3");
    clearInterval(ticking);
    expect(found).toBe(ms(40_000));
    expect(turns).toBeGreaterThan(3);
    expect(longest).toBeLessThan(250);
  });

  test("the library's work is bounded", async () => {
    const clock = { value: 0 };
    const options = { filename: "a.m4a", contentType: "", now: () => (clock.value += 6000) };
    expect(await measureSeconds(viewOf(m4a(80_000, 5000)), options)).toBeNull();
    // A table that says it is as long as the file.
    const bytes = m4a(80_000, 20_000_000);
    bytes.writeUInt32BE(19_000_000, bytes.indexOf("stsz") - 4);
    let most = 0;
    const view: SpoolView = {
      size: bytes.length,
      async read(start, end) {
        most = Math.max(most, end - start);
        return bytes.subarray(start, end);
      },
    };
    expect(await measureSeconds(view, { filename: "a.m4a", contentType: "", now })).toBeNull();
    expect(most).toBeLessThanOrEqual(1024 * 1024);
  });
});

describe("speech", () => {
  const cases: [string, string, Buffer, number, boolean][] = [
    ["pcm", "pcm", Buffer.alloc(48_000), 1000, true],
    ["wav", "wav", wav(48_000, 0xffff_ffff), 1500, true],
    ["mp3", "mp3", mp3(100, VBR), ms(100), true],
    ["aac", "aac", adts(300), 12_800, true],
    ["opus", "opus", opus(48_000 * 60, 500), 60_000, true],
    ["flac", "flac", flac(48_000), 1000, true],
    ["flac that was streamed", "flac", Buffer.concat([flac(0), Buffer.alloc(31_000)]), 1001, false],
    ["mp3 that is none", "mp3", Buffer.alloc(20_000), 1000, false],
  ];
  test.each(cases)("%s, in any pieces", (_, format, bytes, thousandths, exact) => {
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 8 }), (where) => {
        const meter = new SpeechMeter(format);
        let from = 0;
        for (const cut of [...where.sort((a, b) => a - b), bytes.length]) {
          meter.push(bytes.subarray(from, cut));
          from = cut;
        }
        expect(meter.seconds()).toEqual({ thousandths, exact });
      }),
      { numRuns: 20 },
    );
  });

  test("nothing", () => {
    expect(new SpeechMeter("mp3").seconds()).toBeNull();
    expect(new SpeechMeter("pcm").seconds()).toEqual({ thousandths: 0, exact: true });
    expect(new SpeechMeter("unknown").seconds()).toBeNull();
  });

  test("keeps little of a long answer", () => {
    const meter = new SpeechMeter("opus");
    for (let i = 0; i < 500; i++) meter.push(Buffer.alloc(10_000));
    expect((meter as unknown as { tailBytes: number }).tailBytes).toBeLessThan(300_000);
  });
});

describe("heads", () => {
  test("pcm is exact", () => expect([pcmSeconds(0), pcmSeconds(48), pcmSeconds(72_000)]).toEqual([0, 1, 1500]));

  test("other bytes are none of them", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom("RIFF\0\0\0\0WAVE", "fLaC\0", "OggS", "\x1aE\xdf\xa3", ""),
        (bytes, start) => {
          const head = Buffer.concat([Buffer.from(start, "latin1"), bytes]);
          for (const found of [
            wavSeconds(head, 1e9),
            flacSeconds(head),
            oggSeconds(head, head),
            webmSeconds(head, head),
          ])
            expect(found === null || found >= 0).toBe(true);
        },
      ),
    );
  });

  test("noise has no frames for long", () => {
    const walker = new FrameWalker();
    for (let i = 0; i < 20; i++) walker.push(Buffer.alloc(20_000, 0x55));
    expect([walker.failed, walker.thousandths]).toEqual([true, null]);
  });
});
