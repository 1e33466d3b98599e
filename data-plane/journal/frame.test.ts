import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { crc32c } from "./crc32c.ts";
import { FRAME_HEADER_BYTES, type FrameType, frameAt, scanSegment, sealFrame } from "./frame.ts";

describe("crc32c", () => {
  test.each<[string, Uint8Array, number]>([
    ["the published check value", Buffer.from("123456789"), 0xe3069283],
    ["nothing", new Uint8Array(0), 0],
    ["32 zero bytes (RFC 3720, B.4)", new Uint8Array(32), 0x8a9136aa],
    ["32 bytes of ones (RFC 3720, B.4)", new Uint8Array(32).fill(255), 0x62a8ab43],
    ["0 to 31 (RFC 3720, B.4)", Uint8Array.from({ length: 32 }, (_, n) => n), 0x46dd794e],
  ])("%s", (_, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  test("a part of a buffer, at any alignment and length, as byte by byte", () => {
    const slow = (bytes: Uint8Array): number => {
      let crc = 0xffffffff;
      for (const byte of bytes) {
        crc ^= byte;
        for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
      }
      return ~crc >>> 0;
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.nat(70), fc.nat(70), (bytes, a, b) => {
        const [start, end] = [Math.min(a, b, bytes.length), Math.min(Math.max(a, b), bytes.length)];
        expect(crc32c(bytes, start, end)).toBe(slow(bytes.subarray(start, end)));
      }),
    );
  });
});

function frames(payloads: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    payloads.map((payload, n) => {
      const buffer = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
      buffer.set(payload, FRAME_HEADER_BYTES);
      sealFrame(buffer, 0, ((n % 3) + 1) as FrameType, payload.length);
      return buffer;
    }),
  );
}

function scan(buffer: Buffer) {
  const seen: { type: number; payload: string }[] = [];
  const result = scanSegment(buffer, ({ type, payload }) => seen.push({ type, payload: payload.toString("hex") }));
  return { ...result, seen };
}

const payloadsArbitrary = fc.array(fc.uint8Array({ maxLength: 60 }), { minLength: 1, maxLength: 12 });

describe("scanSegment", () => {
  test("finds every frame as it was written", () => {
    fc.assert(
      fc.property(payloadsArbitrary, (payloads) => {
        const buffer = frames(payloads);
        const { seen, goodBytes, corrupt } = scan(buffer);
        expect(seen).toEqual(
          payloads.map((payload, n) => ({ type: (n % 3) + 1, payload: Buffer.from(payload).toString("hex") })),
        );
        expect(goodBytes).toBe(buffer.length);
        expect(corrupt).toEqual([]);
      }),
    );
  });

  test("a tail cut anywhere loses the last frame only", () => {
    fc.assert(
      fc.property(payloadsArbitrary, fc.nat(), (payloads, cut) => {
        const whole = frames(payloads);
        const before = frames(payloads.slice(0, -1)).length;
        const kept = before + (cut % (whole.length - before));
        const { seen, goodBytes, corrupt } = scan(whole.subarray(0, kept));
        expect(seen).toHaveLength(payloads.length - 1);
        expect(goodBytes).toBe(before);
        expect(corrupt).toEqual([]);
      }),
    );
  });

  test("one flipped bit anywhere loses one frame only, and is told", () => {
    fc.assert(
      fc.property(payloadsArbitrary, fc.nat(), (payloads, where) => {
        const buffer = frames([...payloads, Buffer.from("the last one is sound")]);
        const damaged = frames(payloads).length;
        const bit = where % (damaged * 8);
        buffer[bit >> 3]! ^= 1 << (bit & 7);
        const { seen, corrupt, goodBytes } = scan(buffer);
        expect(seen).toHaveLength(payloads.length);
        expect(corrupt).toHaveLength(1);
        expect(goodBytes).toBe(buffer.length);
      }),
    );
  });

  test("garbage is no frame", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const { seen } = scan(Buffer.concat([Buffer.from([0xa9, 0, 0, 0, 0, 2, 5, 0, 0, 0]), Buffer.from(bytes)]));
        expect(seen).toEqual([]);
      }),
    );
  });

  test("a length beyond the limit is not believed", () => {
    const buffer = frames([Buffer.from("x")]);
    buffer.writeUInt32LE(0xffffffff, 6);
    expect(frameAt(buffer, 0)).toBeNull();
  });
});
