/** What Anthropic's official SDK makes of answers, streams and errors in the format of Messages. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import Anthropic, {
  APIError,
  AuthenticationError,
  BadRequestError,
  ContentTooLargeError,
  InternalServerError,
  NotFoundError,
  PaymentRequiredError,
  PermissionDeniedError,
  RateLimitError,
} from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { badRequest, exhausted, exhaustedFields, INVALID_KEY, modelNotFound, STREAM_CUT } from "../../errors.ts";
import { responseJson, responseStream } from "../../magic_responses.ts";
import type { HubContext, Json } from "../hub.ts";
import { messagesClient } from "./client.ts";
import { messagesError, messagesErrorBody, messagesErrorFrame } from "./errors.ts";
import { PING_FRAME } from "./frames.ts";
import { messagesMagicJson, messagesMagicStream, warmUpJson, warmUpStream } from "./magic.ts";

const CONTEXT: HubContext = { id: "1", createdS: 1, model: "lm", request: {} };
const CHECKOUT = "https://pay.example/checkout?ve_id=ve_a";
const USAGE = {
  prompt_tokens: 100,
  completion_tokens: 30,
  total_tokens: 130,
  prompt_tokens_details: { cached_tokens: 50, cache_write_tokens: 20 },
  completion_tokens_details: { reasoning_tokens: 12 },
};

interface Reply {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: string | Buffer;
}

let server: Server;
let reply: Reply;
let calls: number;
let client: Anthropic;
let openai: OpenAI;
beforeAll(async () => {
  server = createServer((request, response) => {
    calls++;
    request.resume().on("end", () => {
      response.writeHead(reply.status, [...reply.headers]);
      // In two pieces: no client may depend on how a stream is cut.
      const bytes = Buffer.from(reply.body as string);
      response.write(bytes.subarray(0, bytes.length >> 1));
      response.end(bytes.subarray(bytes.length >> 1));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = new Anthropic({ apiKey: "key", baseURL: url });
  openai = new OpenAI({ apiKey: "key", baseURL: `${url}/v1` });
});
beforeEach(() => void (calls = 0));
afterAll(() => new Promise((resolve) => server.close(resolve)));

const ASK = { model: "lm", max_tokens: 10, messages: [{ role: "user" as const, content: "Hi" }] };
const json = (body: string | Buffer): Reply => ({ status: 200, headers: ["content-type", "application/json"], body });
const sse = (body: string | Buffer): Reply => ({ status: 200, headers: ["content-type", "text/event-stream"], body });

/** The SDK's own properties are not of the message; and it never takes the split of cache writes from a delta. */
function plain(message: any): any {
  const { _request_id, parsed_output: _parsed, ...rest } = JSON.parse(JSON.stringify(message));
  return { ...rest, usage: { ...rest.usage, cache_creation: null } };
}

function streamOf(deltas: readonly Json[], reason: string | null): string {
  const sink = messagesClient.sink(CONTEXT);
  const body = deltas.map((delta) => sink.push({ index: 0, delta, finishReason: null }) + PING_FRAME).join("");
  if (reason === null) return body + sink.cut(USAGE);
  return body + sink.push({ index: 0, delta: {}, finishReason: reason }) + sink.end(USAGE);
}

const answerOf = (message: Json, reason: string): Json =>
  messagesClient.answer({ choices: [{ index: 0, message, finish_reason: reason }], usage: USAGE }, CONTEXT);

const call = (index: number, text: string, id?: string): Json => ({
  tool_calls: [
    { index, ...(id === undefined ? {} : { id }), function: { name: id && `tool_${index}`, arguments: text } },
  ],
});
const calledWith = (index: number, text: string) => ({
  id: `call_${index}`,
  function: { name: `tool_${index}`, arguments: text },
});
const SIGNED = { type: "thinking", thinking: "2 and 2", signature: "c2ln" };

describe("a stream ends as the message that the whole answer is", () => {
  test.each<[string, Json[], string | null, Json, string]>([
    ["text", [{ role: "assistant" }, { content: "Hel" }, { content: "lo" }], "stop", { content: "Hello" }, "stop"],
    [
      "thinking",
      [{ reasoning_content: "2 and" }, { reasoning_content: " 2" }, { thinking_blocks: [SIGNED] }, { content: "4" }],
      "stop",
      { content: "4", thinking_blocks: [SIGNED] },
      "stop",
    ],
    [
      "reasoning that nobody signed",
      [{ reasoning_content: "2 and" }, { reasoning_content: " 2" }, { content: "4" }],
      "length",
      { content: "4", reasoning_content: "2 and 2" },
      "length",
    ],
    [
      "redacted thinking",
      [{ thinking_blocks: [{ type: "redacted_thinking", data: "cmVk" }] }, { content: "4" }],
      "stop",
      { content: "4", thinking_blocks: [{ type: "redacted_thinking", data: "cmVk" }] },
      "stop",
    ],
    [
      "parallel tools, interleaved",
      [
        { content: "I look." },
        call(0, "", "call_0"),
        call(1, '{"y"', "call_1"),
        call(0, '{"x":'),
        call(1, ":[2]}"),
        call(0, "1}"),
      ],
      "tool_calls",
      { content: "I look.", tool_calls: [calledWith(0, '{"x":1}'), calledWith(1, '{"y":[2]}')] },
      "tool_calls",
    ],
    [
      "a call without arguments",
      [call(0, "", "call_0")],
      "tool_calls",
      { tool_calls: [calledWith(0, "")] },
      "tool_calls",
    ],
    ["a refusal", [{ refusal: "I cannot." }], "content_filter", { refusal: "I cannot." }, "content_filter"],
    ["a cut", [{ content: "Hello" }], null, { content: "Hello" }, "length"],
    ["nothing", [], "stop", { content: null }, "stop"],
  ])("%s", async (_, deltas, reason, message, wholeReason) => {
    const whole = answerOf(message, wholeReason);
    reply = sse(streamOf(deltas, reason));
    expect(plain(await client.messages.stream(ASK).finalMessage())).toEqual(plain(whole));
    reply = sse(streamOf(deltas, reason));
    expect(plain(await client.beta.messages.stream(ASK).finalMessage())).toMatchObject(plain(whole));
    reply = json(JSON.stringify(whole));
    const answered = await client.messages.create(ASK);
    expect({ ...answered, _request_id: undefined }).toEqual({ ...whole, _request_id: undefined });
    expect(answered.usage).toMatchObject({
      input_tokens: 30,
      cache_read_input_tokens: 50,
      cache_creation_input_tokens: 20,
      cache_creation: { ephemeral_5m_input_tokens: 20, ephemeral_1h_input_tokens: 0 },
      output_tokens: 30,
      output_tokens_details: { thinking_tokens: 12 },
    });
  });
});

async function failure(run: Promise<unknown>): Promise<any> {
  try {
    await run;
  } catch (caught) {
    return caught;
  }
  throw new Error("it did not fail");
}

describe("errors", () => {
  test.each([
    [400, BadRequestError, "invalid_request_error"],
    [401, AuthenticationError, "authentication_error"],
    [402, PaymentRequiredError, "billing_error"],
    [403, PermissionDeniedError, "permission_error"],
    [404, NotFoundError, "not_found_error"],
    [413, ContentTooLargeError, "request_too_large"],
    [418, APIError, "invalid_request_error"],
    [429, RateLimitError, "rate_limit_error"],
    [500, InternalServerError, "api_error"],
    [502, InternalServerError, "api_error"],
    [503, APIError, "overloaded_error"],
    [504, APIError, "timeout_error"],
    [529, APIError, "overloaded_error"],
  ])("with status %i are typed", async (status, type, name) => {
    const body = messagesErrorBody(status, { message: "No.", type: "x", code: "a_code", param: "p" }, "req_1");
    reply = { status, headers: ["x-should-retry", "false", "request-id", "req_1"], body };
    const error = await failure(client.messages.create(ASK));
    expect(error).toBeInstanceOf(type);
    expect(error).toMatchObject({ status, type: name, errorCode: "a_code", apiMessage: "No.", requestID: "req_1" });
    expect(error.error).toEqual({
      type: "error",
      error: { type: name, message: "No.", details: { error_code: "a_code", param: "p" } },
      request_id: "req_1",
    });
  });

  test.each([402, 403, 429])(
    "an empty wallet keeps status %i and shows its link, and is not retried",
    async (status) => {
      const { body, headers, code } = messagesError(exhausted(status, CHECKOUT), "req_1");
      expect(code).toBe("insufficient_quota");
      reply = { status, headers, body };
      const error = await failure(client.messages.create(ASK));
      expect(calls).toBe(1);
      expect(error).toMatchObject({
        status,
        type: "billing_error",
        errorCode: "insufficient_quota",
        requestID: "req_1",
      });
      expect(error.error.error).toEqual({
        type: "billing_error",
        message: `Your Credit balance is insufficient. Please top up: ${CHECKOUT}`,
        details: { error_code: "insufficient_quota" },
        code: "insufficient_quota",
        checkout_url: CHECKOUT,
      });
      expect(error.message).toContain(CHECKOUT);
    },
  );

  test("made for OpenAI's clients keep status and headers", () => {
    for (const answer of [INVALID_KEY, modelNotFound("m"), badRequest("Bad.", null, null)]) {
      const made = messagesError(answer, "req_1");
      expect(made).toMatchObject({ status: answer.status, code: answer.code });
      expect(made.headers).toEqual([...answer.headers, "request-id", "req_1"]);
    }
    const { error } = JSON.parse(messagesError(badRequest("Bad.", null, null), "r").body.toString());
    expect(error).toEqual({ type: "invalid_request_error", message: "Bad." });
  });

  test.each([
    [STREAM_CUT, "api_error"],
    [{ message: "x", type: "server_error", code: "timeout" }, "timeout_error"],
    [{ message: "x", type: "server_error", code: "shutting_down" }, "overloaded_error"],
    [{ message: "x", type: "rate_limit_error", code: null }, "rate_limit_error"],
    [exhaustedFields(CHECKOUT), "billing_error"],
  ])("inside of a stream are raised (%#)", async (fields, type) => {
    const sink = messagesClient.sink(CONTEXT);
    const begun = sink.push({ index: 0, delta: { content: "Hel" }, finishReason: null });
    reply = sse(begun + messagesErrorFrame(fields, "req_1").toString());
    const error = await failure(client.messages.stream(ASK).finalMessage());
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ type, errorCode: fields.code, apiMessage: fields.message });
  });

  test("the link is seen after a cut", async () => {
    const sink = messagesClient.sink(CONTEXT);
    const begun = sink.push({ index: 0, delta: { content: "Hel" }, finishReason: null });
    reply = sse(begun + sink.cut(USAGE) + messagesErrorFrame(exhaustedFields(CHECKOUT), "req_1").toString());
    const stream = client.messages.stream(ASK);
    const seen: string[] = [];
    stream.on("message", (message) => seen.push(String(message.stop_reason)));
    const error = await failure(stream.finalMessage());
    expect(error.message).toContain(CHECKOUT);
    expect(error.error.error.checkout_url).toBe(CHECKOUT);
    expect(seen).toEqual(["max_tokens"]);
  });
});

const TEXT = 'TokenBill VE Info\n{"ve_id":"ve_a"}';

describe("answers of the gateway itself", () => {
  test("are messages", async () => {
    reply = json(messagesMagicJson("1", "lm", TEXT));
    const message = await client.messages.create(ASK);
    expect(message).toMatchObject({ id: "msg_1", model: "lm", stop_reason: "end_turn", content: [{ text: TEXT }] });
    expect(message.usage).toMatchObject({ input_tokens: 0, output_tokens: 0 });
    reply = sse(messagesMagicStream("1", "lm", TEXT));
    expect(plain(await client.messages.stream(ASK).finalMessage())).toEqual(plain(message));
  });

  test("warm a cache with no content", async () => {
    reply = json(warmUpJson("1", "lm"));
    const message = await client.messages.create({ ...ASK, max_tokens: 0 });
    expect(message).toMatchObject({ content: [], stop_reason: "max_tokens" });
    reply = sse(warmUpStream("1", "lm"));
    expect(plain(await client.messages.stream({ ...ASK, max_tokens: 0 }).finalMessage())).toEqual(plain(message));
  });

  test("are responses", async () => {
    reply = json(responseJson("1", 7, "lm", TEXT));
    const response = await openai.responses.create({ model: "lm", input: "/tokenbill" });
    expect(response).toMatchObject({ id: "resp_1", status: "completed", output_text: TEXT, created_at: 7 });
    expect(response.usage).toMatchObject({ input_tokens: 0, output_tokens: 0, total_tokens: 0 });
    reply = sse(responseStream("1", 7, "lm", TEXT));
    const streamed = openai.responses.stream({ model: "lm", input: "/tokenbill" });
    const numbers: number[] = [];
    streamed.on("event", (event) => numbers.push(event.sequence_number));
    expect(await streamed.finalResponse()).toMatchObject({ id: "resp_1", output_text: TEXT, output: response.output });
    expect(numbers).toEqual(numbers.map((_, index) => index));
  });
});
