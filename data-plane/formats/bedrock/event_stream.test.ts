import { crc32 } from "node:zlib";
import { EventStreamCodec } from "@smithy/eventstream-codec";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SseEvent } from "../../sse.ts";
import { encodeEventFrame, EventStreamSplitter, EventFrameError, parseEventFrame } from "./event_stream.ts";

/** reference/UPSTREAM-FORMATS.md D7. */
const MESSAGE_START = Buffer.from(
  "000000800000005251a15f230b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b2270223a22616263222c22726f6c65223a22617373697374616e74227df29ed8da",
  "hex",
);
const THROTTLED = Buffer.from(
  "00000090000000618e91a9b70f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d657373616765223a22546f6f206d616e79207265717565737473227de67f8005",
  "hex",
);
const EVENTS: readonly [string, string][] = [
  ["messageStart", '{"p":"abc","role":"assistant"}'],
  ["exception:throttlingException", '{"message":"Too many requests"}'],
];

function read(chunks: readonly Buffer[], frameBytesMax?: number): [string, string | null][] {
  const splitter = new EventStreamSplitter(frameBytesMax);
  const found: [string, string | null][] = [];
  const event: SseEvent = { event: "", data: null };
  for (const chunk of chunks) {
    splitter.push(chunk, (buffer, start, end) => {
      parseEventFrame(buffer, start, end, event);
      found.push([event.event, event.data?.toString() ?? null]);
    });
  }
  return found;
}

function cut(bytes: Buffer, ...at: number[]): Buffer[] {
  const edges = [0, ...at.toSorted((a, b) => a - b), bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

function failure(run: () => unknown): EventFrameError {
  try {
    run();
  } catch (error) {
    if (error instanceof EventFrameError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes).toString("utf8"),
  (text) => Buffer.from(text),
);

describe("frames", () => {
  const both = Buffer.concat([MESSAGE_START, THROTTLED]);

  test("of the vectors, at every cut", () => {
    for (let at = 0; at <= both.length; at++) expect(read(cut(both, at))).toEqual(EVENTS);
    expect(read([...both].map((byte) => Buffer.from([byte])))).toEqual(EVENTS);
  });

  test("what is left over is the beginning of a frame", () => {
    const splitter = new EventStreamSplitter();
    splitter.push(both.subarray(0, 150), () => {});
    expect(splitter.remainder()).toEqual(both.subarray(128, 150));
    splitter.push(both.subarray(150), () => {});
    expect(splitter.remainder()).toHaveLength(0);
  });

  test("our encoder makes the vectors", () => {
    const json = { ":content-type": "application/json" };
    expect(
      encodeEventFrame({ ":event-type": "messageStart", ...json, ":message-type": "event" }, EVENTS[0]![1]),
    ).toEqual(MESSAGE_START);
    expect(
      encodeEventFrame(
        { ":exception-type": "throttlingException", ...json, ":message-type": "exception" },
        EVENTS[1]![1],
      ),
    ).toEqual(THROTTLED);
  });

  test("errors have their words in a header", () => {
    const frame = encodeEventFrame(
      { ":message-type": "error", ":error-code": "InternalError", ":error-message": 'a "b"' },
      "",
    );
    expect(read([frame])).toEqual([["error:InternalError", '{"message":"a \\"b\\""}']]);
  });

  const unknown: Record<string, string>[] = [{ ":message-type": "news", ":event-type": "x" }, {}];
  test.each(unknown)("of unknown kinds say nothing: %j", (headers) => {
    expect(read([encodeEventFrame(headers, "{}")])).toEqual([["", null]]);
  });

  test("headers of all types are passed over", () => {
    const frame = codec.encode({
      headers: {
        yes: { type: "boolean", value: true },
        no: { type: "boolean", value: false },
        one: { type: "byte", value: 1 },
        two: { type: "short", value: 2 },
        four: { type: "integer", value: 4 },
        bytes: { type: "binary", value: Buffer.from("abc") },
        at: { type: "timestamp", value: new Date(1_700_000_000_000) },
        id: { type: "uuid", value: "01234567-89ab-cdef-0123-456789abcdef" },
        ":event-type": { type: "string", value: "metadata" },
        ":message-type": { type: "string", value: "event" },
      },
      body: Buffer.from("{}"),
    });
    expect(read([Buffer.from(frame)])).toEqual([["metadata", "{}"]]);
  });

  test("equal those of smithy's codec, cut anywhere", () => {
    const name = fc.stringMatching(/^[a-z-]{1,20}$/);
    const frames = fc.array(fc.tuple(name, fc.uint8Array({ maxLength: 9000 }), fc.dictionary(name, fc.string())), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(frames, fc.array(fc.nat(30_000), { maxLength: 5 }), (made, cuts) => {
        const encoded = made.map(([type, body, headers]) => {
          const all = { ...headers, ":event-type": type, ":message-type": "event" };
          const frame = encodeEventFrame(all, body);
          const decoded = codec.decode(frame);
          expect(Buffer.from(decoded.body)).toEqual(Buffer.from(body));
          for (const [header, value] of Object.entries(all)) expect(decoded.headers[header]?.value).toBe(value);
          expect(Buffer.from(codec.encode(decoded))).toEqual(frame);
          return frame;
        });
        const bytes = Buffer.concat(encoded);
        const edges = cuts.map((each) => each % (bytes.length + 1));
        expect(read(cut(bytes, ...edges))).toEqual(made.map(([type, body]) => [type, Buffer.from(body).toString()]));
      }),
      { numRuns: 60 },
    );
  });
});

describe("what is broken", () => {
  test.each([
    ["a byte of its length", 3],
    ["its prelude's checksum", 9],
    ["a header", 20],
    ["the payload", 100],
    ["its checksum", 127],
  ])("%s", (_, at) => {
    const bytes = Buffer.from(MESSAGE_START);
    bytes[at]! ^= 1;
    expect(failure(() => read([bytes])).code).toBe("event_frame_corrupt");
    expect(failure(() => read([...bytes].map((byte) => Buffer.from([byte])))).code).toBe("event_frame_corrupt");
  });

  test("a frame that is too large, before it is read whole", () => {
    const bytes = encodeEventFrame({ ":message-type": "event" }, Buffer.alloc(2000));
    expect(failure(() => read([bytes.subarray(0, 12)], 1000)).code).toBe("event_frame_too_large");
    expect(read([bytes], bytes.length)).toHaveLength(1);
  });

  test("stays broken", () => {
    const splitter = new EventStreamSplitter();
    const bytes = Buffer.from(MESSAGE_START);
    bytes[9]! ^= 1;
    const first = failure(() => splitter.push(bytes, () => {}));
    expect(failure(() => splitter.push(MESSAGE_START, () => {}))).toBe(first);
    expect(splitter.remainder()).toHaveLength(0);
  });

  test("never fails in another way and never holds more than a frame", () => {
    const bytesMax = 512;
    const mutation = fc.record({ at: fc.nat(271), value: fc.nat(255) });
    const valid = Buffer.concat([MESSAGE_START, THROTTLED]);
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 600 }),
      fc.array(mutation, { maxLength: 3 }).map((changes) => {
        const bytes = Buffer.from(valid);
        for (const { at, value } of changes) bytes[at] = value;
        return bytes;
      }),
      // Checksums that are right around headers that are not.
      fc.uint8Array({ maxLength: 40 }).map((bytes) => withHeaders(encodeEventFrame({}, bytes), bytes.length)),
    );
    fc.assert(
      fc.property(fc.array(garbage, { maxLength: 4 }), fc.integer({ min: 1, max: 50 }), (parts, step) => {
        const bytes = Buffer.concat(parts);
        const splitter = new EventStreamSplitter(bytesMax);
        const event: SseEvent = { event: "", data: null };
        try {
          for (let at = 0; at < bytes.length; at += step) {
            splitter.push(bytes.subarray(at, at + step), (buffer, start, end) =>
              parseEventFrame(buffer, start, end, event),
            );
            expect(splitter.remainder().length).toBeLessThan(bytesMax);
          }
        } catch (error) {
          if (!(error instanceof EventFrameError)) throw error;
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** Says that the first bytes of the payload are headers. */
function withHeaders(frame: Buffer, headersBytes: number): Buffer {
  frame.writeUInt32BE(headersBytes, 4);
  frame.writeUInt32BE(crc32(frame.subarray(0, 8)), 8);
  frame.writeUInt32BE(crc32(frame.subarray(0, frame.length - 4)), frame.length - 4);
  return frame;
}
