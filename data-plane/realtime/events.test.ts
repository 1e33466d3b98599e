import { NO_ACCOUNT } from "../route_account.ts";
import { expect, test } from "vitest";
import fc from "fast-check";
import { cancelEvent, errorEvent, limitOutput, mediaOf, readHead, withModel } from "./events.ts";
import { observeClient, observeServer } from "./observe.ts";
import { Answer, Conversation } from "./tally.ts";
import { errorFrameOf, wordsOf } from "./upstream_words.ts";

const bytes = (value: unknown): Buffer => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));

test("the head is found wherever it stands, and inner fields are not taken for it", () => {
  const head = readHead(bytes(' {"item":{"type":"x","event_id":"no"},"\\u0074ype":"response.create","event_id":"e"} '));
  expect(head).toMatchObject({ type: "response.create", eventId: "e", ambiguous: false });
  expect(readHead(bytes('{"type":"a","type":"b"}'))).toMatchObject({ ambiguous: true });
  expect(readHead(bytes({ type: "d", response_id: "r", delta: "abc" }))).toMatchObject({
    responseId: "r",
    deltaBytes: 3,
  });
  for (const text of ["", "[]", "{", "null", '{"type":"a"', "\u0000"]) expect(readHead(bytes(text))).toBeNull();
  expect(readHead(bytes({ type: 7, event_id: "x".repeat(500) }))).toMatchObject({ type: "", eventId: "" });
});

test("no bytes make it throw", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (frame) => void readHead(Buffer.from(frame))));
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.string({ minLength: 1, maxLength: 20 }),
      (event, type) => {
        expect(readHead(bytes({ ...event, type }))!.type).toBe(type);
      },
    ),
  );
});

test("media are told from text", () => {
  const content = [
    { type: "input_audio", audio: "A".repeat(400) },
    { type: "input_image", image_url: `data:image/png;base64,${"B".repeat(300)}` },
    { type: "input_text", text: 'say "audio" or \\"audio\\": "x"' },
  ];
  const frame = bytes({ type: "conversation.item.create", item: { content } });
  expect(mediaOf(frame)).toEqual({ textBytes: frame.length - 400 - 308, audioBytes: 400, images: 1 });
});

test("changed events keep everything else", () => {
  const create = bytes({
    type: "response.create",
    event_id: "e",
    response: { instructions: "x", max_output_tokens: "inf" },
  });
  expect(JSON.parse(limitOutput(create, 12).toString())).toEqual({
    type: "response.create",
    event_id: "e",
    response: { instructions: "x", max_output_tokens: 12 },
  });
  expect(JSON.parse(limitOutput(bytes({ type: "response.create" }), 3).toString())["response"]).toEqual({
    max_output_tokens: 3,
  });
  const update = bytes({ type: "session.update", session: { model: "a", voice: "v" } });
  expect(JSON.parse(withModel(update, "a", "b")!.toString())["session"]).toEqual({ model: "b", voice: "v" });
  expect(withModel(update, "c", "a")).toBe(update);
  expect(withModel(update, "c", "b")).toBeNull();
  const plain = bytes({ type: "session.update", session: { voice: "v" } });
  expect(withModel(plain, "a", "b")).toBe(plain);
  expect(JSON.parse(cancelEvent("").toString())).toEqual({ type: "response.cancel" });
  const error = errorEvent("1", { message: "m", type: "t", code: "c" }, "e1");
  expect(JSON.parse(error.toString())).toEqual({
    type: "error",
    event_id: "event_1",
    error: { type: "t", code: "c", message: "m", param: null, event_id: "e1" },
  });
});

test("a conversation is as long as was said since the last usage", () => {
  const conversation = new Conversation();
  const server = (event: Record<string, unknown>): void => {
    observeServer(conversation, String(event["type"]), bytes(event));
  };
  const client = (event: Record<string, unknown>): void =>
    observeClient(conversation, readHead(bytes(event))!, bytes(event));
  const session = { type: "session.created", session: { instructions: "i".repeat(400), max_output_tokens: 50 } };
  server(session);
  expect(conversation.outputLimit).toBe(50);
  const length = bytes(session).length;
  expect(conversation.tokens(false).text).toBe(Math.ceil(length / 4));
  expect(conversation.tokens(true).text).toBe(length);
  // Three seconds were sent, of which one was speech.
  client({ type: "input_audio_buffer.append", audio: Buffer.alloc(144_000).toString("base64") });
  expect(conversation.tokens(false).audio).toBe(0);
  server({ type: "input_audio_buffer.speech_started", audio_start_ms: 500 });
  server({ type: "input_audio_buffer.speech_stopped", audio_end_ms: 1500 });
  server({ type: "input_audio_buffer.committed" });
  expect(conversation.tokens(false).audio).toBe(10);
  conversation.used([
    { meter: 1, quantity: 100, source: 1 },
    { meter: 2, quantity: 20, source: 1 },
    { meter: 4, quantity: 7, source: 1 },
    { meter: 6, quantity: 10, source: 1 },
    { meter: 7, quantity: 40, source: 1 },
  ]);
  expect(conversation.tokens(false)).toEqual({ text: 127, audio: 50, image: 0 });
  // Only what a new configuration adds counts, and G.711 has a sixth of the bytes.
  server({ ...session, type: "session.updated", session: { ...session.session, input_audio_format: "g711_ulaw" } });
  expect(conversation.tokens(false).text).toBeLessThan(145);
  client({ type: "input_audio_buffer.append", audio: Buffer.alloc(8000).toString("base64") });
  client({ type: "input_audio_buffer.clear" });
  client({ type: "input_audio_buffer.append", audio: Buffer.alloc(16_000).toString("base64") });
  server({ type: "input_audio_buffer.committed" });
  expect(conversation.tokens(false).audio).toBe(71);
});

test("an answer is its text, at least a token for each piece, and its audio", () => {
  const answer = new Answer();
  expect(answer.hasContent).toBe(false);
  answer.delta("response.output_text.delta", 1);
  answer.delta("response.function_call_arguments.delta", 1);
  answer.delta("response.output_audio.delta", Buffer.alloc(48_000).toString("base64").length);
  expect(answer.tokens(48_000)).toEqual({ text: 2, audio: 20 });
});

test("an upstream's words about its account are replaced, others are scrubbed, and most pass as they came", () => {
  const provider = {
    apiKey: "sk-secret-1234",
    headers: [],
    origin: "https://up.example",
    account: NO_ACCOUNT,
  } as never;
  const plain = bytes({ type: "error", event_id: "u", error: { type: "invalid_request_error", message: "No." } });
  expect(errorFrameOf(plain, wordsOf({ type: "invalid_request_error", message: "No." }, provider))).toBe(plain);
  const leak = wordsOf({ type: "server_error", code: "x", message: "at up.example with sk-secret-1234" }, provider);
  expect(leak).toMatchObject({ health: "ignore", error: { message: "at *** with ***" } });
  const quota = wordsOf({ type: "insufficient_quota", code: null, message: "pay", event_id: "e" }, provider);
  expect(quota).toMatchObject({ health: "account", code: "upstream_error", error: { event_id: "e" } });
  expect(JSON.stringify(quota.error)).not.toContain("quota");
});
