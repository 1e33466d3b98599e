import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { FrameKind } from "../format.ts";
import type { Json } from "../hub.ts";
import { AnthropicAnswer, AnthropicStream, usageInTail } from "./native.ts";

const FIXTURES = new URL("../../../test/fixtures/anthropic/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, FIXTURES), "utf8");
const KIND_NAMES = Object.fromEntries(Object.entries(FrameKind).map(([name, value]) => [value, name]));
const STREAMS = readdirSync(new URL("streams/", FIXTURES)).filter((name) => name.endsWith(".txt"));

function readStream(bytes: Buffer, cuts: readonly number[], exact: boolean) {
  const reader = new AnthropicStream();
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const kinds: string[] = [];
  let from = 0;
  for (const end of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
    const chunk = Buffer.from(bytes.subarray(from, end));
    splitter.push(chunk, (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      kinds.push(KIND_NAMES[reader.read(event, exact)]!);
      expect(reader.replacement()).toBeNull();
    });
    from = end;
  }
  return { reader, kinds };
}

interface Expected {
  readonly finished: boolean;
  readonly usage: unknown;
  readonly native: { readonly kinds: string[]; readonly textBytes: number; readonly pieces: number };
}

describe.each(STREAMS)("streams: %s", (file) => {
  const bytes = Buffer.from(read(`streams/${file}`));
  const { finished, usage, native } = JSON.parse(read(`streams/${file.replace(".txt", ".json")}`)) as Expected;
  const summary = ({ reader, kinds }: ReturnType<typeof readStream>) => ({
    finished: reader.finished,
    usage: reader.usage,
    native: { kinds, textBytes: reader.textBytes, pieces: reader.pieces },
  });

  test("the same usage as translated, and the same frames wherever it is cut", () => {
    const expected = { finished, usage, native };
    expect(summary(readStream(bytes, [], false))).toEqual(expected);
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 12 });
    fc.assert(
      fc.property(cuts, (at) => {
        expect(summary(readStream(bytes, at, false))).toEqual(expected);
      }),
      { numRuns: 25 },
    );
  });

  test("frames mean the same looked at exactly", () => {
    const [fast, exact] = [readStream(bytes, [], false), readStream(bytes, [], true)];
    expect(exact.kinds).toEqual(fast.kinds);
    expect(exact.reader.usage).toEqual(fast.reader.usage);
    expect(Buffer.from(exact.reader.sample().bytes).toString().replaceAll("é", "\\u00e9")).toBe(
      Buffer.from(fast.reader.sample().bytes).toString(),
    );
  });
});

describe("frames", () => {
  const frame = (data: string | null, event = ""): SseEvent => ({
    event,
    data: data === null ? null : Buffer.from(data),
  });
  test.each<[string, SseEvent, string]>([
    ["a comment", frame(null), "COMMENT"],
    ["no data", frame(""), "COMMENT"],
    ["an error without data", frame(null, "error"), "ERROR"],
    ["an error by its type", frame('{"type":"error","error":{}}'), "ERROR"],
    ["an error without a type", frame('{"error":{"message":"x"}}'), "ERROR"],
    ["a list", frame("[1]"), "BROKEN"],
    ["a delta without a name of the event", frame('{"type":"content_block_delta","delta":{"text":"x"}}'), "CONTENT"],
    ["a delta without delta", frame('{"type":"content_block_delta"}', "content_block_delta"), "EMPTY"],
    ["a delta that is none", frame('{"type":"content_block_delta","delta":5}', "content_block_delta"), "EMPTY"],
    ["a delta that is cut", frame('{"delta":{"text":"x', "content_block_delta"), "BROKEN"],
    ["a name in a value", frame('{"a":"delta","delta":{"text":"x"}}', "content_block_delta"), "CONTENT"],
    ["an empty delta", frame('{"delta":{"type":"text_delta","text":""}}', "content_block_delta"), "EMPTY"],
  ])("%s", (_, event, kind) => {
    for (const exact of [false, true]) expect(KIND_NAMES[new AnthropicStream().read(event, exact)]).toBe(kind);
  });

  test("a stream that the wallet cuts ends its blocks and says that its length was the reason", () => {
    const bytes = Buffer.from(read("streams/cut.txt"));
    const { reader } = readStream(bytes, [], false);
    const events = reader.lengthFrame().toString().trim().split("\n\n");
    const parsed = events.map((each) => {
      const [name, data] = each.split("\n");
      return { name, data: JSON.parse(data!.slice("data: ".length)) as Json };
    });
    expect(parsed).toEqual([
      { name: "event: content_block_stop", data: { type: "content_block_stop", index: 0 } },
      {
        name: "event: message_delta",
        data: {
          type: "message_delta",
          delta: { stop_reason: "max_tokens", stop_sequence: null },
          usage: { output_tokens: 1 },
        },
      },
    ]);
    // What follows is read by clients as an Anthropic stream.
    expect(readStream(Buffer.concat([bytes, reader.lengthFrame()]), [], true).reader.finished).toBe(true);
  });
});

describe("whole answers", () => {
  interface Pair {
    readonly name: string;
    readonly answer: Json;
    readonly chat: Json | null;
  }
  test.each(JSON.parse(read("answers/answers.json")) as Pair[])("$name", ({ answer, chat }) => {
    const bytes = Buffer.from(JSON.stringify(answer));
    const reading = new AnthropicAnswer(bytes);
    expect(reading.valid).toBe(chat !== null);
    expect(reading.usage).toEqual(chat?.["usage"] ?? null);
    if (chat !== null) expect(usageInTail(bytes.subarray(-400))).toEqual(chat["usage"] ?? null);
  });

  test("text is measured: words, thoughts and calls", () => {
    const content = [
      { type: "thinking", thinking: "12", signature: "x" },
      { type: "text", text: "äbc" },
      { type: "tool_use", id: "t", name: "fn", input: { a: 1 } },
      { type: "redacted_thinking", data: "AAAA" },
    ];
    const reading = new AnthropicAnswer(Buffer.from(JSON.stringify({ type: "message", content })));
    expect([reading.textBytes(), reading.hasContent()]).toEqual([2 + 4 + 2 + 7, true]);
    expect(Buffer.from(reading.sample().bytes).toString()).toBe('12äbcfn{\\"a\\":1}');
    const empty = new AnthropicAnswer(Buffer.from('{"type":"message","content":[{"type":"text","text":""}]}'));
    expect([empty.valid, empty.textBytes(), empty.hasContent()]).toEqual([true, 0, false]);
  });

  test.each(["", "{", "[]", "{}", "null", '{"content":5}', '{"type":"error","content":[]}'])("%j is none", (text) => {
    const reading = new AnthropicAnswer(Buffer.from(text));
    expect([reading.valid, reading.usage, reading.hasContent()]).toEqual([false, null, false]);
  });

  test("a tail without a usage has none", () => {
    for (const tail of ["", '"usage"', '"usage":5', '"usage":{"input_tokens":', '{"usage":{}}'])
      expect(usageInTail(Buffer.from(tail))).toBeNull();
  });
});
