/**
 * What no upstream should send: bytes at random, and recorded streams with something changed. Readers end with a verdict or
 * an error of their own, hold no more than they may, and never report what cannot be billed.
 */

import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CHAT, COMPLETIONS, MESSAGES, RESPONSES } from "../endpoints.ts";
import { unitsFromUsage } from "../meter.ts";
import type { RoutePm } from "../route_types.ts";
import { scanBody } from "../body.ts";
import { FrameError, parseFrame, type SseEvent, SseSplitter } from "../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX } from "../tokenizer/tokens.ts";
import { AnthropicStream } from "./anthropic/native.ts";
import { anthropicChat } from "./anthropic/upstream.ts";
import { TranscriptionStream } from "./audio.ts";
import { SpeechStream } from "./audio_speech.ts";
import type { AudioRead } from "./audio_usage.ts";
import { converseChat } from "./bedrock/converse.ts";
import { eventStreamSplitter } from "./bedrock/splitter.ts";
import { type Event, frameOf } from "./bedrock/testing.ts";
import { chatAnswer, chatSource } from "./chat_source.ts";
import { type Asked, type EndpointSpec, FrameKind, type FrameSplitter, type StreamReader } from "./format.ts";
import type { ChatUpstream } from "./hub.ts";
import { ImageStream } from "./images.ts";
import { messagesClient } from "./messages/client.ts";
import { openAiError } from "./openai.ts";
import { OpenAiStream } from "./openai_stream.ts";
import { responsesClient } from "./responses/client.ts";
import { ResponsesStream } from "./responses/native.ts";
import { responsesChat } from "./responses/upstream.ts";
import { translated } from "./translated.ts";

const FIXTURES = new URL("../../test/fixtures/", import.meta.url);

function filesIn(folder: string, ending: string): string[] {
  const names = readdirSync(new URL(folder, FIXTURES)).filter((name) => name.endsWith(ending));
  return names.map((name) => readFileSync(new URL(`${folder}${name}`, FIXTURES), "utf8"));
}

/** Of all formats: an upstream may be told to be what it is not. */
const RECORDED: readonly string[] = [
  ...filesIn("azure/", ".sse.txt"),
  ...filesIn("anthropic/streams/", ".txt"),
  ...filesIn("messages/streams/", ".sse"),
  ...filesIn("responses/", ".sse"),
  ...filesIn("media/images/", ".txt"),
  `data: {"type":"transcript.text.delta","delta":"Hi","logprobs":[]}\n\n` +
    `data: {"type":"transcript.text.segment","id":"seg_0","start":0.0,"end":2.5,"text":"Hi","speaker":"A"}\n\n` +
    `data: {"type":"transcript.text.done","text":"Hi","usage":{"type":"duration","seconds":3}}\n\n`,
  `data: {"type":"speech.audio.delta","audio":"AAAA"}\n\n` +
    `data: {"type":"speech.audio.done","usage":{"input_tokens":4,"output_tokens":90,"total_tokens":94}}\n\n`,
  `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}\n\n` +
    `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":"stop"}]}\n\n` +
    `data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":2}}}\n\ndata: [DONE]\n\n`,
];
const CONVERSE: readonly (readonly Event[])[] = filesIn("bedrock/streams/", ".json").map(
  (text) => (JSON.parse(text) as { events: Event[] }).events,
);

const DEEP = `${"[".repeat(200)}${"]".repeat(200)}`;
/** What may stand where another JSON value stood. */
const VALUES = [
  "-1",
  "0",
  "1e999",
  "-0.5",
  "9007199254740993",
  "null",
  "true",
  '""',
  '"x"',
  "[]",
  "{}",
  "[null]",
  DEEP,
];
const VALUE = /"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?|\b(?:true|false|null)\b/g;

/** Of one text: values and keys replaced, and pieces cut out, doubled or overwritten. */
interface Change {
  readonly kind: "value" | "cut" | "twice" | "byte";
  readonly at: number;
  readonly length: number;
  readonly value: string;
}

const change = fc.record<Change>({
  kind: fc.constantFrom("value", "value", "value", "cut", "twice", "byte"),
  at: fc.nat(),
  length: fc.integer({ min: 1, max: 200 }),
  value: fc.constantFrom(...VALUES),
});

function changed(text: string, { kind, at, length, value }: Change): string {
  if (text === "") return text;
  if (kind === "value") {
    const places = [...text.matchAll(VALUE)];
    const place = places[at % Math.max(1, places.length)];
    if (place === undefined) return text;
    return text.slice(0, place.index) + value + text.slice(place.index + place[0].length);
  }
  const from = at % text.length;
  const piece = text.slice(from, from + length);
  if (kind === "cut") return text.slice(0, from) + text.slice(from + length);
  if (kind === "twice") return text.slice(0, from) + piece + text.slice(from);
  return text.slice(0, from) + String.fromCharCode(length) + text.slice(from + 1);
}

const changes = fc.array(change, { minLength: 1, maxLength: 4 });
const cuts = fc.integer({ min: 1, max: 500 });

/** As a relay reads it. Returns how many bytes the client would get. */
function relay(bytes: Buffer, step: number, splitter: FrameSplitter, reader: StreamReader): number {
  const event: SseEvent = { event: "", data: null };
  let sent = 0;
  let over = false;
  let exact = true;
  const onFrame = (buffer: Buffer, start: number, end: number): void => {
    if (over) return;
    const { pieces, textBytes } = reader;
    splitter.parse(buffer, start, end, event);
    const kind = reader.read(event, exact);
    if (kind === FrameKind.CONTENT) exact = false;
    over = kind === FrameKind.DONE || kind === FrameKind.ERROR || kind === FrameKind.BROKEN;
    expect(reader.pieces - pieces === 0 || reader.pieces - pieces === 1).toBe(true);
    expect(reader.textBytes).toBeGreaterThanOrEqual(textBytes);
    if (kind !== FrameKind.ERROR && kind !== FrameKind.BROKEN)
      sent += (reader.replacement(buffer, start, end) ?? buffer.subarray(start, end)).length;
  };
  try {
    for (let at = 0; at < bytes.length; at += step) splitter.push(Buffer.from(bytes.subarray(at, at + step)), onFrame);
    splitter.finish(onFrame);
  } catch (error) {
    expect(error).toBeInstanceOf(FrameError);
  }
  return sent + (reader.ending?.()?.length ?? 0) + reader.lengthFrame(2).length;
}

function check(reader: StreamReader, read: number, sent: number): void {
  for (const { quantity } of [...(unitsFromUsage(reader.usage, true, true) ?? []), ...(reader.counted ?? [])])
    expect(Number.isSafeInteger(quantity) && quantity >= 0, `${quantity} units`).toBe(true);
  const { thousandths = 0 } = (reader as Partial<AudioRead>).seconds ?? {};
  expect(Number.isSafeInteger(thousandths) && thousandths >= 0, `${thousandths} ms`).toBe(true);
  expect(reader.sample().bytes.length).toBeLessThanOrEqual(OUTPUT_SAMPLE_BYTES_MAX);
  expect(reader.textBytes).toBeLessThanOrEqual(8 * read);
  // What is made anew repeats all of its text at the end, and its head with each of a few bytes.
  expect(sent).toBeLessThanOrEqual(100 * read + 10_000);
}

const asked = (endpoint: EndpointSpec): Asked => {
  const body = scanBody(Buffer.from(JSON.stringify({ model: "lm", messages: [], stream: true })));
  return {
    id: "usg_1",
    arriveMs: 0,
    endpoint,
    body,
    stream: true,
    clampTo: null,
    pinSecret: "",
    previousId: null,
    form: null,
    mediaSeconds: null,
  };
};
const account = { apiVersion: "" };
const PM = { upstreamName: "m", family: "", maxOutputTokens: 0, provider: { account } } as Partial<RoutePm> as RoutePm;
const openAiChat: ChatUpstream = {
  request: () => ({ path: "", headers: [], body: {} }),
  answer: chatAnswer,
  source: chatSource,
  error: openAiError,
};

/** To a client of each kind. */
function readersOf(upstream: ChatUpstream): (() => StreamReader)[] {
  const clients = [
    [CHAT, null],
    [RESPONSES, responsesClient],
    [MESSAGES, messagesClient],
  ] as const;
  return clients.map(
    ([endpoint, client]) =>
      () =>
        translated({ client, upstream }).streamReader(asked(endpoint), PM),
  );
}

const READERS: readonly [string, readonly (() => StreamReader)[]][] = [
  ["chat", [() => new OpenAiStream(CHAT, true), () => new OpenAiStream(CHAT, false)]],
  ["completions", [() => new OpenAiStream(COMPLETIONS, true)]],
  ["messages", [() => new AnthropicStream()]],
  ["responses", [() => new ResponsesStream(null), () => new ResponsesStream((id) => `${id}_x`)]],
  ["images", [() => new ImageStream()]],
  ["transcriptions", [() => new TranscriptionStream()]],
  ["speech", [() => new SpeechStream()]],
  ["chat, translated", readersOf(openAiChat)],
  ["Anthropic, translated", readersOf(anthropicChat)],
  ["Responses, translated", readersOf(responsesChat)],
];

describe.each(READERS)("streams of %s", (_, readers) => {
  test("recorded ones that were changed", () => {
    fc.assert(
      fc.property(fc.constantFrom(...RECORDED), changes, cuts, fc.nat(), (text, wrong, step, which) => {
        const bytes = Buffer.from(wrong.reduce(changed, text));
        const reader = readers[which % readers.length]!();
        check(reader, bytes.length, relay(bytes, step, new SseSplitter(), reader));
      }),
      { numRuns: 300 },
    );
  });
});

test("streams of Converse that were changed", () => {
  const readers = readersOf(converseChat);
  const event = fc.tuple(fc.nat(), change);
  fc.assert(
    fc.property(
      fc.constantFrom(...CONVERSE),
      fc.array(event, { maxLength: 3 }),
      cuts,
      fc.nat(2),
      (events, wrong, step, which) => {
        // Names and payloads are changed within frames that are sound: others end the stream at once.
        const lines = events.map(([type, payload]) => `${type} ${JSON.stringify(payload)}`);
        for (const [at, one] of wrong) lines[at % lines.length] = changed(lines[at % lines.length]!, one);
        const frames = lines.map((line) => frameOfLine(line));
        const bytes = Buffer.concat(frames);
        const reader = readers[which]!();
        check(reader, bytes.length, relay(bytes, step, eventStreamSplitter(), reader));
      },
    ),
    { numRuns: 500 },
  );
});

/** The payload may be no JSON any more. */
function frameOfLine(line: string): Buffer {
  const [type = "", ...rest] = line.split(" ");
  const payload = rest.join(" ");
  try {
    return frameOf([type, JSON.parse(payload) as unknown]);
  } catch {
    return frameOf([type, payload]);
  }
}

describe("server-sent events", () => {
  const BYTES_MAX = 64;
  const piece = fc.oneof(
    fc.constantFrom("\n", "\r", "\r\n", "\n\n", "data:", "data: ", "event: x", ":", "\uFEFF", "id", "[DONE]", "é🙂"),
    fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  );

  test("bytes at random, cut anywhere: nothing is lost, and no more than a frame is held", () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.integer({ min: 1, max: 40 }), (pieces, step) => {
        const bytes = Buffer.concat(pieces.map((each, at) => Buffer.from(each, at % 2 === 0 ? "utf8" : "latin1")));
        const splitter = new SseSplitter(BYTES_MAX);
        const event: SseEvent = { event: "", data: null };
        const told: Buffer[] = [];
        const onFrame = (buffer: Buffer, start: number, end: number): void => {
          // The blank line that some servers leave out at the end is added.
          expect(end - start).toBeLessThanOrEqual(BYTES_MAX + 2);
          parseFrame(buffer, start, end, event);
          expect(event.data?.length ?? 0).toBeLessThan(end - start);
          // As it is: a frame that was told must not change any more.
          told.push(buffer.subarray(start, end));
        };
        let pushed = 0;
        try {
          for (; pushed < bytes.length; pushed += step) {
            splitter.push(Buffer.from(bytes.subarray(pushed, pushed + step)), onFrame);
            expect(splitter.remainder().length).toBeLessThanOrEqual(BYTES_MAX);
          }
          expect(Buffer.concat([...told, splitter.remainder()]).equals(bytes)).toBe(true);
          splitter.finish(onFrame);
        } catch (error) {
          expect(error).toBeInstanceOf(FrameError);
          const frames = Buffer.concat(told);
          expect(frames.equals(bytes.subarray(0, frames.length))).toBe(true);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("a line without an end is held once, and refused where it is too long", () => {
    const bytesMax = 4 * 1024 * 1024;
    const splitter = new SseSplitter(bytesMax);
    const chunk = Buffer.alloc(1024, "x");
    const begin = process.threadCpuUsage();
    let pushed = 0;
    const push = (): void => {
      for (; pushed <= bytesMax; pushed += chunk.length) splitter.push(chunk, () => expect.unreachable());
    };
    expect(push).toThrow(FrameError);
    expect(pushed).toBe(bytesMax);
    // The backing store has room for what may still come, and no more.
    expect(splitter.remainder().buffer.byteLength).toBeLessThanOrEqual(2 * bytesMax);
    // Copied anew with each chunk it would be eight gigabytes, and seconds.
    expect(process.threadCpuUsage(begin).user).toBeLessThan(500_000);
  });
});
