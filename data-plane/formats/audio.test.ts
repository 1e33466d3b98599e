/** Audio endpoints: tokens and seconds of every kind of answer. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UnitSource } from "../../core/meters.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../sse.ts";
import { TranscriptionAnswer, TranscriptionCounter, TranscriptionStream } from "./audio.ts";
import { codePoints, readSpeechRequest, SpeechStream } from "./audio_speech.ts";
import { audioUsage, thousandthsOf } from "./audio_usage.ts";
import { FrameKind, type StreamReader } from "./format.ts";

const JSON_TYPE = "application/json";
const { REPORTED, ESTIMATED } = UnitSource;
const TOKENS = {
  type: "tokens",
  input_tokens: 14,
  input_token_details: { text_tokens: 4, audio_tokens: 10 },
  output_tokens: 45,
  total_tokens: 59,
};
const HUB = {
  prompt_tokens: 14,
  completion_tokens: 45,
  total_tokens: 59,
  prompt_tokens_details: { audio_tokens: 10, cached_tokens: 0 },
  completion_tokens_details: { audio_tokens: 0 },
};

const answer = (body: object): TranscriptionAnswer =>
  new TranscriptionAnswer(Buffer.from(JSON.stringify(body)), JSON_TYPE);

describe("transcriptions", () => {
  test.each([
    ["tokens", { text: "hi", usage: TOKENS }, HUB, null],
    ["a duration", { text: "hi", usage: { type: "duration", seconds: 9 } }, null, 9000],
    ["verbose", { task: "transcribe", duration: 8.470000267028809, text: "hi", segments: [] }, null, 8470],
    ["verbose of older servers", { duration: "8.47", text: "hi" }, null, 8470],
    ["both", { duration: 8.4, text: "hi", usage: { type: "duration", seconds: 9 } }, null, 9000],
    ["diarized", { duration: 27.4, segments: [{ end: 9 }], text: "hi", usage: TOKENS }, HUB, 27_400],
    [
      "seconds beside tokens",
      { text: "hi", usage: { prompt_audio_seconds: 3, prompt_tokens: 4, completion_tokens: 5, total_tokens: 9 } },
      {
        ...HUB,
        prompt_tokens: 4,
        completion_tokens: 5,
        total_tokens: 9,
        prompt_tokens_details: { audio_tokens: 0, cached_tokens: 0 },
      },
      3000,
    ],
    ["nothing", { text: "hi" }, null, null],
    ["nonsense", { text: "hi", duration: -1, usage: { seconds: "many", input_tokens: 1 } }, null, null],
  ])("that say %s", (_, body, usage, thousandths) => {
    const read = answer(body);
    expect(read.valid).toBe(true);
    expect(read.usage).toEqual(usage);
    expect(read.seconds).toEqual(thousandths === null ? null : { thousandths, source: REPORTED });
    expect(read.textBytes()).toBe(2);
    expect(read.hasContent()).toBe(true);
  });

  test.each([[{ error: { message: "no" } }], [{}], [{ text: "x", error: "no" }]])("%j is no answer", (body) =>
    expect(answer(body).valid).toBe(false),
  );

  test.each([
    ["text", "Hello there.\n", null],
    ["an empty text", "", null],
    ["srt", "1\n00:00:00,000 --> 00:00:03,120\nHi\n\n2\n00:00:03,120 --> 01:02:05,5\nyou\n\n", 3_725_500],
    ["vtt", "WEBVTT\n\n00:00.000 --> 00:01.500\nHi\n\n00:01.500 --> 00:04.250 align:start\nyou\n", 4250],
  ])("%s", (_, text, thousandths) => {
    const read = new TranscriptionAnswer(Buffer.from(text), "text/plain; charset=utf-8");
    expect(read).toMatchObject({ valid: true, usage: null });
    expect(read.seconds).toEqual(thousandths === null ? null : { thousandths, source: ESTIMATED });
    expect(read.sample()).toMatchObject({ textBytes: text.length });
  });

  test("answers too long to keep, in any pieces", () => {
    const srt = Array.from(
      { length: 2000 },
      (_, i) => `${i}\n00:00:00,000 --> 00:${String(i % 60).padStart(2, "0")}:01,000\nword\n\n`,
    );
    const cases: [string, string, number][] = [
      ["text/plain", srt.join(""), (1999 % 60) * 60_000 + 1000],
      [JSON_TYPE, JSON.stringify({ text: "x".repeat(50_000), words: [{ duration: 5 }], duration: 61.25 }), 61_250],
    ];
    for (const [type, text, thousandths] of cases) {
      const body = Buffer.from(text);
      fc.assert(
        fc.property(fc.array(fc.nat(body.length), { maxLength: 10 }), (where) => {
          const counter = new TranscriptionCounter(type);
          let from = 0;
          for (const cut of [...where.sort((a, b) => a - b), body.length]) {
            counter.push(body.subarray(from, cut));
            from = cut;
          }
          expect(counter.valid).toBe(true);
          expect(counter.seconds?.thousandths).toBe(thousandths);
        }),
        { numRuns: 30 },
      );
    }
  });

  test.each([
    [1, 1000],
    [0.0004, 0],
    ["12.5s", 12_500],
    ["-1", null],
    ["1e3", null],
    [Number.POSITIVE_INFINITY, null],
    [1e9, null],
    [null, null],
  ])("%j seconds", (value, thousandths) => expect(thousandthsOf(value)).toBe(thousandths));
});

function readStream(reader: StreamReader, text: string, cuts: readonly number[] = []): FrameKind[] {
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const kinds: FrameKind[] = [];
  const bytes = Buffer.from(text);
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    splitter.push(bytes.subarray(from, cut), (buffer, start, end) => {
      parseFrame(buffer, start, end, event);
      kinds.push(reader.read(event, false));
    });
    from = cut;
  }
  return kinds;
}

const frame = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;
const { CONTENT, EMPTY, ERROR, BROKEN, DONE, COMMENT } = FrameKind;

describe("streams of transcripts", () => {
  test("deltas and usage, at any cut", () => {
    const text =
      ": hi\n\n" +
      frame({ type: "transcript.text.delta", delta: "Grüße" }) +
      frame({ type: "transcript.text.delta", delta: "" }) +
      frame({ type: "transcript.text.done", text: "Grüße", usage: TOKENS });
    for (let cut = 0; cut < Buffer.byteLength(text); cut++) {
      const reader = new TranscriptionStream();
      expect(readStream(reader, text, [cut])).toEqual([COMMENT, CONTENT, EMPTY, CONTENT]);
      expect(reader).toMatchObject({ usage: HUB, seconds: null, finished: true, pieces: 1, textBytes: 7 });
    }
  });

  test("segments are a lower bound, and count once", () => {
    const reader = new TranscriptionStream();
    const segment = { type: "transcript.text.segment", text: "abc", start: 0, end: 4.2, speaker: "A" };
    expect(readStream(reader, frame(segment) + frame({ ...segment, end: 3 }))).toEqual([CONTENT, CONTENT]);
    expect(reader.seconds).toEqual({ thousandths: 4200, source: ESTIMATED });
    expect(reader).toMatchObject({ textBytes: 6, usage: null, finished: false });
    readStream(reader, frame({ type: "transcript.text.done", text: "", usage: { type: "duration", seconds: 6 } }));
    expect(reader.seconds).toEqual({ thousandths: 6000, source: REPORTED });
    const both = new TranscriptionStream();
    readStream(both, frame({ type: "transcript.text.delta", delta: "abc" }) + frame(segment));
    expect(both).toMatchObject({ textBytes: 3, pieces: 1 });
  });

  test.each([
    ["event: error\ndata: {}\n\n", ERROR],
    [frame({ error: { message: "no" } }), ERROR],
    [frame({ type: "error" }), ERROR],
    ["data: [DONE]\n\n", DONE],
    ["data: no\n\n", BROKEN],
    [frame({ type: "transcript.new" }), EMPTY],
  ])("%j", (text, kind) => expect(readStream(new TranscriptionStream(), text)).toEqual([kind]));
});

describe("speech", () => {
  test("frames, audio and usage", () => {
    const audio: Buffer[] = [];
    const reader = new SpeechStream((bytes) => audio.push(bytes));
    const kinds = readStream(
      reader,
      frame({ type: "speech.audio.delta", audio: Buffer.from("abc").toString("base64") }) +
        frame({ type: "speech.audio.delta", audio: Buffer.from("de").toString("base64") }) +
        frame({ type: "speech.audio.done", usage: { input_tokens: 7, output_tokens: 101, total_tokens: 108 } }),
    );
    expect(kinds).toEqual([CONTENT, CONTENT, CONTENT]);
    expect(Buffer.concat(audio).toString()).toBe("abcde");
    expect(reader).toMatchObject({ finished: true, pieces: 2, seconds: null });
    expect(reader.usage).toEqual({
      prompt_tokens: 7,
      completion_tokens: 101,
      total_tokens: 108,
      prompt_tokens_details: { audio_tokens: 0, cached_tokens: 0 },
      completion_tokens_details: { audio_tokens: 101 },
    });
    expect(readStream(new SpeechStream(), "event: error\ndata: {}\n\ndata: [DONE]\n\n")).toEqual([ERROR, DONE]);
  });

  test.each([
    ["", 0],
    ["abc", 3],
    ["Grüße", 5],
    ["👋🏽", 2],
    ["\ud800", 1],
    ["\udc00\ud800", 2],
    ["a\ud800\ud800\udc00", 3],
  ])("%j has %i characters", (text, count) => expect(codePoints(text)).toBe(count));

  test("any text has as many as its iterator says", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => codePoints(text) === [...text].length));
  });

  test("requests", () => {
    const body = Buffer.from('{"input":"\\ud83d\\udc4b h\\u00fc","response_format":"pcm","stream_format":"sse"}');
    expect(readSpeechRequest(body)).toEqual({ characters: 4, responseFormat: "pcm", sse: true });
    expect(readSpeechRequest(Buffer.from('{"input":5}'))).toEqual({
      characters: null,
      responseFormat: "mp3",
      sse: false,
    });
    expect(readSpeechRequest(Buffer.from("x"))).toMatchObject({ characters: null });
  });

  test("usage without output tokens of audio", () => {
    const usage = { input_tokens: 1, output_tokens: 5, output_token_details: { text_tokens: 2 } };
    expect(audioUsage(usage, "output").usage).toMatchObject({ completion_tokens_details: { audio_tokens: 3 } });
  });
});
