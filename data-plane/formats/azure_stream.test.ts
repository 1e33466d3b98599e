/** Azure's content-filter chunks through OpenAI's reader: they are passed on, count as no content, and usage is exact. */

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CHAT } from "../endpoints.ts";
import { unitsFromUsage } from "../meter.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../sse.ts";
import { FrameKind } from "./format.ts";
import { OpenAiStream } from "./openai_stream.ts";

const fixture = (name: string) => readFileSync(new URL(`../../test/fixtures/azure/${name}`, import.meta.url));
const FILTERED = fixture("chat_filtered.sse.txt");
const ASYNC = fixture("chat_async_filter.sse.txt");

interface Read {
  readonly kinds: FrameKind[];
  readonly out: string;
  readonly reader: OpenAiStream;
}

/** As the pipeline does it: frames are checked exactly until the first content. */
function read(bytes: Buffer, cuts: readonly number[], stripUsage: boolean, exactly = false): Read {
  const splitter = new SseSplitter();
  const reader = new OpenAiStream(CHAT, stripUsage);
  const event: SseEvent = { event: "", data: null };
  const kinds: FrameKind[] = [];
  let out = "";
  const ends = [...cuts.map((cut) => cut % bytes.length).toSorted((a, b) => a - b), bytes.length];
  let from = 0;
  for (const end of ends) {
    splitter.push(Buffer.from(bytes.subarray(from, end)), (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      const kind = reader.read(event, exactly || !kinds.includes(FrameKind.CONTENT));
      kinds.push(kind);
      if (kind === FrameKind.USAGE_ONLY) return;
      out += (reader.replacement(buffer, start, stop) ?? buffer.subarray(start, stop)).toString();
    });
    from = end;
  }
  return { kinds, out, reader };
}

const { EMPTY, CONTENT, DONE, USAGE_ONLY } = FrameKind;
const units = (reader: OpenAiStream) =>
  unitsFromUsage(reader.usage, true, true)!.map(({ meter, quantity }) => [meter, quantity]);

describe.each([true, false])("exactly %s", (exactly) => {
  test("an output that is blocked, with usage that the client asked for", () => {
    const { kinds, out, reader } = read(FILTERED, [], false, exactly);
    expect(kinds).toEqual([EMPTY, EMPTY, CONTENT, CONTENT, EMPTY, DONE]);
    expect(out).toBe(FILTERED.toString());
    expect([reader.pieces, reader.textBytes, reader.finished]).toEqual([1, 5, true]);
    const fresh = unitsFromUsage(
      { prompt_tokens: 12, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 4 } },
      true,
      true,
    );
    expect(units(reader)).toEqual(fresh!.map(({ meter, quantity }) => [meter, quantity]));
    // Input without what was cached, the cached part, output, one request.
    expect(units(reader).map(([, quantity]) => quantity)).toEqual([8, 4, 7, 1]);
  });

  test("usage that the client did not ask for goes, the filter's words stay", () => {
    const { kinds, out, reader } = read(FILTERED, [], true, exactly);
    expect(kinds).toEqual([EMPTY, EMPTY, CONTENT, CONTENT, USAGE_ONLY, DONE]);
    expect(out).not.toContain('"usage"');
    expect(out).toContain('"prompt_filter_results"');
    expect(out).toContain('"finish_reason":"content_filter"');
    expect(reader.usage).toMatchObject({ prompt_tokens: 12, completion_tokens: 7 });
  });

  test("an asynchronous filter: chunks without a delta, one of them after the end, are neither errors nor content", () => {
    const { kinds, out, reader } = read(ASYNC, [], false, exactly);
    expect(kinds).toEqual([EMPTY, CONTENT, EMPTY, CONTENT, CONTENT, EMPTY, EMPTY, DONE]);
    expect(out).toBe(ASYNC.toString());
    expect([reader.pieces, reader.textBytes, reader.finished]).toEqual([2, 9, true]);
    expect(units(reader).map(([, quantity]) => quantity)).toEqual([20, 3, 1]);
  });
});

test("cut anywhere, the same is read and sent", () => {
  const streams = [FILTERED, ASYNC];
  fc.assert(
    fc.property(
      fc.constantFrom(...streams),
      fc.array(fc.nat(), { maxLength: 12 }),
      fc.boolean(),
      (bytes, cuts, strip) => {
        const whole = read(bytes, [], strip);
        const cut = read(bytes, cuts, strip);
        expect([cut.kinds, cut.out, cut.reader.usage]).toEqual([whole.kinds, whole.out, whole.reader.usage]);
      },
    ),
    { numRuns: 100 },
  );
});
