import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { unitsFromUsage } from "../../meter.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { Meter } from "../../../core/meters.ts";
import { type ChatDelta, type HubTarget, type Json, SourceState } from "../hub.ts";
import { BLOCK_CHARS_MAX } from "./source.ts";
import { anthropicChat } from "./upstream.ts";

const FIXTURES = new URL("../../../test/fixtures/anthropic/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, FIXTURES), "utf8");
const parse = <T>(name: string): T => JSON.parse(read(name)) as T;
const namesIn = (folder: string, end: string): string[] =>
  readdirSync(new URL(folder, FIXTURES)).filter((name) => name.endsWith(end));

const TARGET: HubTarget = { model: "claude-opus-4-6", family: "", maxOutputTokens: 0, apiVersion: "", stream: false };

describe("whole answers", () => {
  interface Pair {
    readonly name: string;
    readonly answer: Json;
    readonly chat: Json | null;
  }
  test.each(parse<Pair[]>("answers/answers.json"))("$name", ({ answer, chat }) => {
    expect(anthropicChat.answer(answer, TARGET)).toEqual(chat);
  });

  test.each<Json>([{}, { content: "text" }, { content: [], type: "error" }])("%j is none", (body) => {
    expect(anthropicChat.answer(body, TARGET)).toBeNull();
  });

  test("usage comes to the meters it belongs to, each token once", () => {
    const usage = {
      input_tokens: 5,
      cache_creation_input_tokens: 300,
      cache_read_input_tokens: 1000,
      output_tokens: 60,
      output_tokens_details: { thinking_tokens: 50 },
    };
    const chat = anthropicChat.answer({ type: "message", content: [], stop_reason: "end_turn", usage }, TARGET)!;
    const units = unitsFromUsage(chat["usage"], true, true)!.map(({ meter, quantity }) => [meter, quantity]);
    expect(Object.fromEntries(units)).toMatchObject({
      [Meter.INPUT_TOKENS]: 5,
      [Meter.CACHED_INPUT_TOKENS]: 1000,
      [Meter.CACHE_WRITE_TOKENS]: 300,
      [Meter.OUTPUT_TOKENS]: 10,
      [Meter.REASONING_TOKENS]: 50,
    });
  });
});

interface StreamResult {
  readonly state: string;
  readonly finished: boolean;
  readonly usage: unknown;
  readonly error: unknown;
  readonly deltas: readonly Json[];
}

const STATE_NAMES = Object.fromEntries(Object.entries(SourceState).map(([name, value]) => [value, name]));

function flat({ delta, finishReason, index }: ChatDelta): Json {
  expect(index).toBe(0);
  return finishReason === null ? delta : { ...delta, finish_reason: finishReason };
}

/** Reads the stream in pieces that end at `cuts`. */
function readStream(bytes: Buffer, cuts: readonly number[]): StreamResult {
  const source = anthropicChat.source(TARGET);
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  const deltas: Json[] = [];
  let state: SourceState = SourceState.OPEN;
  const ends = [...cuts, bytes.length].toSorted((a, b) => a - b);
  let from = 0;
  for (const end of ends) {
    // The bytes are the socket's, and others stand there later.
    const chunk = Buffer.from(bytes.subarray(from, end));
    splitter.push(chunk, (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      if (state !== SourceState.OPEN) return;
      state = source.read(event);
      deltas.push(...source.deltas.map(flat));
    });
    from = end;
  }
  return { state: STATE_NAMES[state]!, finished: source.finished, usage: source.usage, error: source.error, deltas };
}

describe.each(namesIn("streams/", ".txt"))("streams: %s", (file) => {
  const bytes = Buffer.from(read(`streams/${file}`));
  const { native: _, ...expected } = parse<StreamResult & { native: unknown }>(
    `streams/${file.replace(".txt", ".json")}`,
  );

  test("read at once", () => expect(readStream(bytes, [])).toEqual(expected));

  test("cut anywhere", () => {
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 12 });
    fc.assert(
      fc.property(cuts, (at) => {
        expect(readStream(bytes, at)).toEqual(expected);
      }),
      { numRuns: 40 },
    );
    expect(readStream(bytes, [...bytes.keys()])).toEqual(expected);
  });
});

describe("streams", () => {
  const event = (data: Json): SseEvent => ({ event: String(data["type"]), data: Buffer.from(JSON.stringify(data)) });

  test("what a block keeps is bounded", () => {
    const source = anthropicChat.source(TARGET);
    source.read(event({ type: "content_block_start", index: 0, content_block: { type: "thinking" } }));
    const delta = { type: "thinking_delta", thinking: "x".repeat(BLOCK_CHARS_MAX / 2) };
    const states = [1, 2, 3].map(() => source.read(event({ type: "content_block_delta", index: 0, delta })));
    expect(states).toEqual([SourceState.OPEN, SourceState.OPEN, SourceState.BROKEN]);
  });

  test("the end without a reason still ends the choice", () => {
    const source = anthropicChat.source(TARGET);
    expect(source.read(event({ type: "message_stop" }))).toBe(SourceState.DONE);
    expect([source.deltas[0]!.finishReason, source.usage]).toEqual(["stop", null]);
  });

  test("errors of other servers are errors too", () => {
    for (const frame of [
      { event: "", data: Buffer.from('{"error":{"message":"x"}}') },
      { event: "error", data: Buffer.from("oops") },
      { event: "error", data: null },
    ]) {
      const source = anthropicChat.source(TARGET);
      expect(source.read(frame)).toBe(SourceState.ERROR);
      expect(source.error).toMatchObject({ health: "failure", clientFault: false });
    }
  });

  const words = fc.constantFrom(
    "user",
    "assistant",
    "tool",
    "system",
    "text",
    "image_url",
    "function",
    "custom",
    "f",
    "{}",
  );
  const keys = fc.constantFrom(
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "id",
    "url",
    "tool_call_id",
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, words, fc.constant(null), fc.integer(), tie("list"), tie("object")),
    list: fc.array(tie("value"), { maxLength: 4 }),
    object: fc.dictionary(keys, tie("value"), { maxKeys: 4 }),
  }));

  test("events of a stream never throw", () => {
    const types = [
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
    ];
    const event = fc.record({
      type: fc.constantFrom(...types, "error"),
      index: value,
      content_block: value,
      delta: value,
      usage: value,
      message: value,
    });
    const check = (events: readonly Json[]): void => {
      const source = anthropicChat.source(TARGET);
      for (const each of events) source.read({ event: "", data: Buffer.from(JSON.stringify(each)) });
      expect(source.usage).toBeNull();
    };
    fc.assert(fc.property(fc.array(event, { maxLength: 8 }), check), { numRuns: 200 });
  });
});
