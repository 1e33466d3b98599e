/** Images: usage, counts and sizes, of whole answers, of those that are too long to keep, and of streams. */

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Meter } from "../../core/meters.ts";
import { unitsFromUsage } from "../meter.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../sse.ts";
import { FrameKind } from "./format.ts";
import { ImageAnswer, ImageCounter, imageQuantity, ImageStream, imageUsage } from "./images.ts";
import { TopLevel } from "./top_level.ts";

function fixture(name: string): Buffer {
  return readFileSync(new URL(`../../test/fixtures/media/images/${name}`, import.meta.url));
}

const USAGE = {
  prompt_tokens: 50,
  completion_tokens: 6240,
  total_tokens: 6290,
  prompt_tokens_details: { image_tokens: 10, cached_tokens: 0 },
  completion_tokens_details: { image_tokens: 6208 },
};

describe("whole answers", () => {
  test("usage, count and size", () => {
    const answer = new ImageAnswer(fixture("generation.json"));
    expect(answer).toMatchObject({ valid: true, images: 2, size: "1024x1536", quality: "high", outputFormat: "png" });
    expect(answer.usage).toEqual(USAGE);
    expect(answer.svgUsage).toBeNull();
    expect(answer.hasContent()).toBe(true);
    expect(unitsFromUsage(answer.usage, true, true)).not.toBeNull();
  });

  test("servers without usage are counted", () => {
    const answer = new ImageAnswer(fixture("url.json"));
    expect(answer).toMatchObject({ valid: true, images: 1, size: "", quality: "", usage: null });
    expect(imageQuantity(answer, { size: "512x512", quality: "auto" })).toEqual({
      meter: Meter.IMAGES,
      quantity: 1,
      source: 1,
      size: "512x512",
    });
  });

  test.each([
    ["an error in place of an answer", '{"error":{"message":"no"}}'],
    ["an error beside data", '{"data":[],"error":"no"}'],
    ["no data", '{"created":1}'],
    ["data that is no array", '{"data":{}}'],
    ["cut", '{"data":[{"b64_json":"AA'],
    ["more after it", '{"data":[]}{}'],
    ["an array", "[]"],
    ["nothing", ""],
  ])("%s is no answer", (_, body) => expect(new ImageAnswer(Buffer.from(body)).valid).toBe(false));

  test("words of the answer inside other things do not count", () => {
    const body = {
      data: [{ data: [{}, {}], usage: { input_tokens: 9 }, b64_json: '\\"usage\\":' }],
      nested: { data: [{}] },
      error: null,
    };
    const answer = new ImageAnswer(Buffer.from(JSON.stringify(body)));
    expect(answer).toMatchObject({ valid: true, images: 1, usage: null });
  });

  test("tokens of SVG stand apart", () => {
    const svg_usage = { input_tokens: 5, output_tokens: 6, reasoning_tokens: 1, total_tokens: 11, model: "x" };
    const answer = new ImageAnswer(Buffer.from(JSON.stringify({ data: [{}], svg_usage })));
    expect([answer.usage, answer.svgUsage]).toEqual([null, svg_usage]);
  });
});

describe("usage", () => {
  test.each([
    [null, null],
    [{}, null],
    [{ input_tokens: "5", output_tokens: 1 }, null],
    [{ input_tokens: -1, output_tokens: 1 }, null],
  ])("%j is none", (value, usage) => expect(imageUsage(value)).toEqual(usage));

  test("without details all output is image", () => {
    expect(imageUsage({ input_tokens: 1, output_tokens: 272, total_tokens: 273 })).toMatchObject({
      completion_tokens_details: { image_tokens: 272 },
    });
  });

  test("a total stands in for the input", () => {
    expect(imageUsage({ output_tokens: 100, total_tokens: 120, generated_images: 1 })).toMatchObject({
      prompt_tokens: 20,
    });
    expect(imageUsage({ output_tokens: 100, total_tokens: 90 })).toBeNull();
  });

  test("details are never more than the whole", () => {
    const usage = imageUsage({
      input_tokens: 5,
      input_tokens_details: { image_tokens: 50 },
      output_tokens: 7,
      output_tokens_details: { image_tokens: 70 },
    });
    expect(usage).toMatchObject({
      prompt_tokens_details: { image_tokens: 5 },
      completion_tokens_details: { image_tokens: 7 },
    });
  });
});

describe("pieces", () => {
  test("any cuts say the same", () => {
    const body = Buffer.from(
      JSON.stringify({ ...JSON.parse(fixture("generation.json").toString()), 'a"\\': 'x\\"', "\u0075sage2": {} }),
    );
    fc.assert(
      fc.property(fc.array(fc.nat(body.length), { maxLength: 30 }), (where) => {
        const counter = new ImageCounter();
        let from = 0;
        for (const cut of [...where.sort((a, b) => a - b), body.length]) {
          counter.push(body.subarray(from, cut));
          from = cut;
        }
        expect(counter).toMatchObject({ valid: true, images: 2, size: "1024x1536", quality: "high" });
        expect(counter.usage).toEqual(USAGE);
      }),
      { numRuns: 300 },
    );
  });

  test("any JSON: the top level as JSON.parse has it", () => {
    fc.assert(
      fc.property(
        // No key of a backslash alone: after one, JSON.parse of this Node takes a key of a quote for it.
        fc.dictionary(fc.constantFrom("a", "b", "data", "é", '"', "\\n"), fc.jsonValue()),
        fc.nat(),
        (object, cut) => {
          const body = Buffer.from(JSON.stringify(object, null, cut % 3));
          const top = new TopLevel(new Set(["a", "é", '"']), "data");
          top.push(body.subarray(0, cut % (body.length + 1)));
          top.push(body.subarray(cut % (body.length + 1)));
          const parsed = JSON.parse(body.toString()) as Record<string, unknown>;
          const { a, data } = parsed;
          expect(top.complete).toBe(true);
          expect(top.value("a")).toEqual(a);
          for (const key of ["é", '"']) expect(top.value(key)).toEqual(parsed[key]);
          expect(top.hasArray).toBe(Array.isArray(data));
          const objects = Array.isArray(data)
            ? data.filter((each) => typeof each === "object" && each !== null && !Array.isArray(each)).length
            : 0;
          expect(top.counted).toBe(objects);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("garbage keeps nothing", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 30 }), { maxLength: 30 }), (pieces) => {
        const counter = new ImageCounter();
        for (const piece of pieces) counter.push(Buffer.from(piece));
        return counter.images >= 0;
      }),
    );
    const top = new TopLevel(new Set(["usage"]));
    top.push(Buffer.from('{"usage":"'));
    for (let i = 0; i < 100; i++) top.push(Buffer.alloc(10_000, "x"));
    top.push(Buffer.from('"}'));
    expect([top.complete, top.value("usage"), top.has("usage")]).toEqual([true, undefined, true]);
  });

  test("32 MB of base64 take no time", () => {
    const counter = new ImageCounter();
    counter.push(Buffer.from('{"data":[{"b64_json":"'));
    const chunk = Buffer.alloc(64 * 1024, "A");
    const begun = performance.now();
    for (let i = 0; i < 512; i++) counter.push(chunk);
    // Some 3 ms.
    expect(performance.now() - begun).toBeLessThan(300);
    counter.push(Buffer.from('"}],"usage":{"input_tokens":1,"output_tokens":2}}'));
    expect(counter).toMatchObject({ valid: true, images: 1, usage: { completion_tokens: 2 } });
  });
});

function readStream(bytes: Buffer, cuts: readonly number[] = []): { kinds: FrameKind[]; reader: ImageStream } {
  const reader = new ImageStream();
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const kinds: FrameKind[] = [];
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    splitter.push(bytes.subarray(from, cut), (buffer, start, end) => {
      parseFrame(buffer, start, end, event);
      kinds.push(reader.read(event));
    });
    from = cut;
  }
  return { kinds, reader };
}

const frame = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;

describe("streams", () => {
  const { CONTENT, COMMENT, ERROR, BROKEN, EMPTY, DONE } = FrameKind;

  test("partial images, then the whole one with usage", () => {
    const bytes = fixture("stream.txt");
    for (let cut = 0; cut < bytes.length; cut += 7) {
      const { kinds, reader } = readStream(bytes, [cut]);
      expect(kinds).toEqual([CONTENT, COMMENT, CONTENT]);
      expect(reader).toMatchObject({ images: 1, partials: 1, pieces: 2, finished: true, size: "1024x1024" });
      expect(reader).toMatchObject({ quality: "low", outputFormat: "webp" });
      expect(reader.usage).toEqual({
        prompt_tokens: 15,
        completion_tokens: 372,
        total_tokens: 387,
        prompt_tokens_details: { image_tokens: 0, cached_tokens: 0 },
        completion_tokens_details: { image_tokens: 372 },
      });
    }
  });

  test("several images: each adds its own", () => {
    const done = {
      type: "image_edit.completed",
      b64_json: "A",
      usage: { input_tokens: 10, output_tokens: 100, total_tokens: 110 },
    };
    const { reader } = readStream(Buffer.from(frame(done) + frame(done)));
    expect(reader.images).toBe(2);
    expect(reader.usage).toMatchObject({
      prompt_tokens: 20,
      completion_tokens: 200,
      total_tokens: 220,
      completion_tokens_details: { image_tokens: 200 },
    });
  });

  test("servers that complete all images at once", () => {
    const text =
      frame({ type: "image_generation.partial_succeeded", url: "u", size: "2048x2048" }) +
      frame({ type: "image_generation.partial_succeeded", url: "v", size: "2048x2048" }) +
      frame({ type: "image_generation.completed", usage: { generated_images: 2, output_tokens: 9, total_tokens: 9 } }) +
      "data: [DONE]\n\n";
    const { kinds, reader } = readStream(Buffer.from(text));
    expect(kinds).toEqual([CONTENT, CONTENT, CONTENT, DONE]);
    expect(reader).toMatchObject({ images: 2, size: "2048x2048", usage: { prompt_tokens: 0, completion_tokens: 9 } });
  });

  test.each([
    ["an event", "event: error\ndata: {}\n\n", ERROR],
    ["a type", frame({ type: "error", message: "no" }), ERROR],
    ["an error object", frame({ error: { message: "no" } }), ERROR],
    ["no JSON", "data: hello\n\n", BROKEN],
    ["cut JSON", 'data: {"type":"x"\n\n', BROKEN],
    ["an unknown type", frame({ type: "image_generation.in_progress" }), EMPTY],
  ])("%s", (_, text, kind) => {
    const { kinds, reader } = readStream(Buffer.from(text));
    expect(kinds).toEqual([kind]);
    expect(reader).toMatchObject({ finished: false, images: 0, usage: null });
  });
});
