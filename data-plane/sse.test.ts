import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FrameTooLargeError, parseFrame, type SseEvent, SseSplitter } from "./sse.ts";

/** Splits `bytes` at `cuts`, feeds the parts, and returns the frames' bytes, the events, and what remains. */
function run(bytes: Buffer, cuts: readonly number[] = []) {
  const splitter = new SseSplitter();
  const frames: Buffer[] = [];
  const events: { event: string; data: string | null }[] = [];
  const event: SseEvent = { event: "", data: null };
  const points = [0, ...[...cuts].map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < points.length; i++) {
    splitter.push(Buffer.from(bytes.subarray(points[i - 1], points[i])), (buffer, start, end) => {
      frames.push(Buffer.from(buffer.subarray(start, end)));
      parseFrame(buffer, start, end, event);
      if (event.event !== "" || event.data !== null)
        events.push({ event: event.event, data: event.data?.toString() ?? null });
    });
  }
  return { frames, events, rest: splitter.remainder() };
}

const data = (...lines: string[]) => ({ event: "", data: lines.join("\n") });

describe("frames", () => {
  test.each(["\n", "\r", "\r\n"])("end with an empty line, lines with %j", (eol) => {
    const text = ["data: a", "", "event: error", "data: b", "data:c", "", ": comment", "", "data", ""].join(eol) + eol;
    const { events, frames, rest } = run(Buffer.from(text));
    expect(events).toEqual([data("a"), { event: "error", data: "b\nc" }, data("")]);
    expect(Buffer.concat([...frames, rest]).toString()).toBe(text);
    expect(rest.length).toBe(0);
  });

  test("line endings can be mixed, even within the blank line", () => {
    const { events } = run(Buffer.from("data: a\r\n\ndata: b\n\r\ndata: c\r\rdata: d\n\n"));
    expect(events).toEqual([data("a"), data("b"), data("c"), data("d")]);
  });

  test("a byte order mark, fields without a space, and unknown fields are no trouble", () => {
    const { events } = run(Buffer.from("\ufeffdata:a\nid: 7\nretry: 10\nfoo: bar\ndatax: no\n\n"));
    expect(events).toEqual([data("a")]);
  });

  test("what is not whole remains", () => {
    const { events, rest } = run(Buffer.from("data: a\n\ndata: half"));
    expect(events).toEqual([data("a")]);
    expect(rest.toString()).toBe("data: half");
  });

  test("a frame leaves with the CR that ends it, before a LF that may follow", () => {
    const splitter = new SseSplitter();
    const seen: string[] = [];
    const onFrame = (buffer: Buffer, start: number, end: number) => void seen.push(buffer.toString("utf8", start, end));
    splitter.push(Buffer.from("data: a\r\n\r"), onFrame);
    expect(seen).toEqual(["data: a\r\n\r"]);
    splitter.push(Buffer.from("\ndata: b\r\n\r\n"), onFrame);
    expect(seen[1]).toBe("\ndata: b\r\n\r\n");
  });

  test("the largest frame is named and enforced, however it arrives", () => {
    const big = Buffer.from(`data: ${"x".repeat(100)}\n\n`);
    const push = (parts: Buffer[], max: number) => {
      const splitter = new SseSplitter(max);
      for (const part of parts) splitter.push(part, () => undefined);
    };
    expect(() => push([big], big.length)).not.toThrow();
    expect(() => push([big], big.length - 1)).toThrow(FrameTooLargeError);
    expect(() =>
      push(
        [...big].map((byte) => Buffer.from([byte])),
        50,
      ),
    ).toThrow(FrameTooLargeError);
  });
});

test("property: cuts change nothing, and no byte is lost", () => {
  const line = fc.constantFrom(
    'data: {"a":1}',
    "data:ü€🙂",
    "event: ping",
    ": hm",
    "",
    "",
    "data",
    "id: 4",
    "data: \ud83d\ude42x",
  );
  const eol = fc.constantFrom("\n", "\r", "\r\n");
  const stream = fc
    .array(fc.tuple(line, eol), { maxLength: 30 })
    .map((lines) => Buffer.from(lines.map(([a, b]) => a + b).join("")));
  fc.assert(
    fc.property(stream, fc.array(fc.nat(), { maxLength: 40 }), (bytes, cuts) => {
      const whole = run(bytes);
      const split = run(bytes, cuts);
      expect(split.events).toEqual(whole.events);
      expect(Buffer.concat([...split.frames, split.rest]).equals(bytes)).toBe(true);
    }),
    { numRuns: 500 },
  );
});
