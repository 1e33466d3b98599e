/** One exchange with the simulated upstream: how it answers, and how it misbehaves when told to. */

import type { ServerResponse } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import * as answers from "./upstream_answers.ts";
import type { Behaviour, Moment } from "./upstream_behaviour.ts";

/** One call as the upstream saw it. */
export interface UpstreamCall {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly rawBody: Buffer;
  /** Parsed JSON, undefined if there was none. */
  readonly body: any;
  readonly model: string;
  /** `performance.timeOrigin + performance.now()` of the arrival and of each content chunk, in ms. */
  readonly arriveMs: number;
  readonly chunkMs: number[];
  /** Resolves when the exchange is over: true if the answer was sent whole, false if the caller hung up or it broke. */
  readonly done: Promise<boolean>;
}

/** Holds content chunks until they are released. */
export class Gate {
  #open = 0;
  readonly #waiting: (() => void)[] = [];

  async take(): Promise<void> {
    if (this.#open > 0) this.#open--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  release(count: number): void {
    this.#open += count;
    while (this.#open > 0 && this.#waiting.length > 0) {
      this.#open--;
      this.#waiting.shift()!();
    }
  }
}

export interface Exchange {
  readonly call: UpstreamCall;
  readonly response: ServerResponse;
  readonly behaviour: Behaviour;
  readonly gate: Gate;
  readonly number: number;
}

/** Thrown to leave an exchange where the script says so. */
export class Left extends Error {}

export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Between two frames of an answer that never gets to its content. */
const FOREVER_MS = 20;

/** Breaks the connection after what was written has left. */
async function destroyFlushed({ socket }: ServerResponse): Promise<void> {
  do await new Promise((resolve) => setImmediate(resolve));
  while (socket !== null && !socket.destroyed && socket.writableLength > 0);
  socket?.destroy();
}

async function leave(exchange: Exchange, moment: Moment): Promise<void> {
  const { behaviour, response } = exchange;
  if (behaviour.reset === moment) {
    // A reset makes the kernel forget what the other side has not read yet: only good where nothing was sent.
    if (moment === "head") response.socket?.resetAndDestroy();
    else await destroyFlushed(response);
    throw new Left();
  }
  if (behaviour.hang === moment) {
    await new Promise((resolve) => response.once("close", resolve));
    throw new Left();
  }
  if (behaviour.end === moment && moment !== "head") {
    response.end();
    throw new Left();
  }
}

function sendJson(exchange: Exchange, status: number, body: unknown): void {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  exchange.response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...commonHeaders(exchange),
  });
  exchange.response.end(text);
}

function commonHeaders({ behaviour, number }: Exchange): Record<string, string> {
  const { retryAfter, retryAfterDate, retryAfterMs } = behaviour;
  return {
    "x-request-id": `req_simulated_${number}`,
    ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
    ...(retryAfterDate === undefined
      ? {}
      : { "retry-after": new Date(Date.now() + retryAfterDate * 1_000).toUTCString() }),
    ...(retryAfterMs === undefined ? {} : { "retry-after-ms": String(retryAfterMs) }),
    ...behaviour.headers,
  };
}

function sendError(exchange: Exchange, status: number, message: string, type: string, code: string | null): void {
  sendJson(exchange, status, answers.errorBody(message, type, code));
}

/** Writes SSE frames as the behaviour says. */
class FrameWriter {
  readonly #exchange: Exchange;
  readonly #eol: string;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
    this.#eol = exchange.behaviour.crlf === true ? "\r\n" : "\n";
  }

  async write(data: string): Promise<void> {
    const { response, behaviour } = this.#exchange;
    if (response.destroyed) throw new Left();
    const comment = behaviour.comments === true ? `: keep-alive${this.#eol}${this.#eol}` : "";
    await this.#send(`${comment}data: ${data}${this.#eol}${this.#eol}`);
  }

  /** For ever what is no content. @throws Left when the caller has hung up */
  async fill(kind: NonNullable<Behaviour["forever"]>): Promise<never> {
    const { response, call } = this.#exchange;
    const choice = { index: 0, delta: kind === "roles" ? { role: "assistant" } : { content: "" }, finish_reason: null };
    const frame = { id: "chatcmpl-filler", object: "chat.completion.chunk", model: call.model, choices: [choice] };
    for (;;) {
      if (response.destroyed) throw new Left();
      if (kind === "comments") await this.#send(`: keep-alive${this.#eol}${this.#eol}`);
      else await this.write(JSON.stringify(frame));
      await delay(FOREVER_MS);
    }
  }

  async #send(text: string): Promise<void> {
    const { response, behaviour } = this.#exchange;
    const bytes = Buffer.from(text);
    const step = behaviour.dripBytes ?? bytes.length;
    for (let at = 0; at < bytes.length; at += step) {
      const hasRoom = response.write(bytes.subarray(at, at + step));
      // A turn of its own is a packet of its own.
      if (step < bytes.length) await new Promise((resolve) => setImmediate(resolve));
      if (hasRoom || response.destroyed) continue;
      await new Promise<void>((resolve) => {
        response.once("drain", resolve);
        response.once("close", resolve);
      });
    }
  }

  async disturb(moment: Moment): Promise<void> {
    const { response, behaviour } = this.#exchange;
    if (behaviour.brokenFrame === moment) await this.write('{"id": "chatcmpl-broken", "choi');
    if (behaviour.errorFrame === moment) {
      await this.write(JSON.stringify(overloaded()));
      response.end();
      throw new Left();
    }
    if (behaviour.done === moment) {
      await this.write("[DONE]");
      response.end();
      throw new Left();
    }
    await leave(this.#exchange, moment);
  }
}

async function stream(exchange: Exchange, style: answers.Style, answer: answers.Answer, asked: boolean): Promise<void> {
  const { response, behaviour, call } = exchange;
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    ...commonHeaders(exchange),
  });
  response.flushHeaders();
  response.socket?.setNoDelay(true);
  const writer = new FrameWriter(exchange);
  const wanted = (asked && behaviour.usage !== "none") || behaviour.usage === "unasked";
  const middle = behaviour.afterChunks ?? 3;
  let chunks = 0;
  let disturbed = false;
  await writer.disturb("content");
  if (behaviour.forever !== undefined) await writer.fill(behaviour.forever);
  for (const frame of answers.answerFrames(style, answer, wanted ? answer.usage : undefined)) {
    if (frame.content) {
      if (chunks === middle) await writer.disturb("middle");
      disturbed ||= chunks === middle;
      if (behaviour.hold === true) await exchange.gate.take();
      if (behaviour.chunkDelayMs !== undefined) await delay(behaviour.chunkDelayMs);
      chunks++;
      call.chunkMs.push(nowMs());
    }
    await writer.write(behaviour.usage === "every" ? withRunningUsage(frame.data, answer, chunks) : frame.data);
  }
  if (!disturbed) await writer.disturb("middle");
  await writer.write("[DONE]");
  response.end();
}

function withRunningUsage(data: string, answer: answers.Answer, chunks: number): string {
  const frame = JSON.parse(data) as Record<string, unknown>;
  const prompt = answer.usage.prompt_tokens;
  return JSON.stringify({
    ...frame,
    usage: { ...answer.usage, completion_tokens: chunks, total_tokens: prompt + chunks },
  });
}

async function complete(exchange: Exchange, style: answers.Style): Promise<void> {
  const { body, model } = exchange.call;
  const { behaviour } = exchange;
  const input = style === "chat" ? body.messages : body.prompt;
  if (input === undefined) return sendError(exchange, 400, "The input is missing", "invalid_request_error", null);
  if (body.stream !== true && body.stream_options !== undefined && body.stream_options !== null) {
    return sendError(exchange, 400, "stream_options needs stream", "invalid_request_error", null);
  }
  const answer = answers.composeAnswer(`chatcmpl-simulated-${exchange.number}`, {
    model,
    input,
    n: typeof body.n === "number" ? body.n : 1,
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    words: behaviour.words ?? answers.SENTENCE_WORDS.length,
    cachedTokens: behaviour.cachedTokens ?? 0,
    reasoningTokens: behaviour.reasoningTokens ?? 0,
  });
  if (body.stream === true) return stream(exchange, style, answer, body.stream_options?.include_usage === true);
  const text = JSON.stringify(answers.answerBody(style, answer, behaviour.usage === "none" ? undefined : answer.usage));
  return completeJson(exchange, text);
}

/** An answer that is no stream, and every way in which it can go wrong. */
async function completeJson(exchange: Exchange, text: string): Promise<void> {
  const { behaviour, response } = exchange;
  if (behaviour.errorFrame !== undefined) return sendJson(exchange, 200, overloaded());
  if (behaviour.brokenFrame !== undefined) return sendJson(exchange, 200, text.slice(0, text.length >> 1));
  const { reset, hang, end, done, forever } = behaviour;
  if (done !== undefined) return sendJson(exchange, 200, "");
  if (forever !== undefined) {
    response.writeHead(200, { "content-type": "application/json" });
    for (; !response.destroyed; await delay(FOREVER_MS)) response.write(" ");
    throw new Left();
  }
  if (reset === undefined && hang === undefined && end === undefined) return sendJson(exchange, 200, text);
  // No content-length: a body that ends early must be noticed by its JSON, or by the broken connection.
  response.writeHead(200, { "content-type": "application/json" }).flushHeaders();
  await leave(exchange, "content");
  response.write(text.slice(0, text.length >> 1));
  await leave(exchange, "middle");
  response.end(text.slice(text.length >> 1));
}

function overloaded(): object {
  return answers.errorBody("The server had an error while answering", "server_error", null);
}

function authorize(exchange: Exchange): boolean {
  const key = /^Bearer (.+)$/.exec(String(exchange.call.headers["authorization"] ?? ""))?.[1];
  if (key !== undefined && key !== "bad-key") return true;
  sendError(
    exchange,
    401,
    key === undefined ? "You gave no API key" : "Incorrect API key",
    "invalid_request_error",
    "invalid_api_key",
  );
  return false;
}

/** Answers a call. @throws Left where the behaviour says to stop */
export async function answer(exchange: Exchange): Promise<void> {
  const { call, behaviour } = exchange;
  if (behaviour.delayMs !== undefined) await delay(behaviour.delayMs);
  await leave(exchange, "head");
  if (!authorize(exchange)) return;
  if (behaviour.status !== undefined) {
    const type = behaviour.status >= 500 ? "server_error" : "invalid_request_error";
    return sendJson(
      exchange,
      behaviour.status,
      behaviour.body ?? answers.errorBody(`Status ${behaviour.status}`, type, behaviour.code ?? null),
    );
  }
  if (behaviour.errorBody === true) return sendJson(exchange, 200, overloaded());
  if (behaviour.body !== undefined) return sendJson(exchange, 200, behaviour.body);
  const route = `${call.method} ${call.path}`;
  if (route === "GET /v1/models") {
    return sendJson(exchange, 200, {
      object: "list",
      data: [answers.modelBody("simulated-model"), answers.modelBody("simulated-embedding")],
    });
  }
  if (call.model.includes("missing")) {
    return sendError(
      exchange,
      404,
      `The model \`${call.model}\` does not exist`,
      "invalid_request_error",
      "model_not_found",
    );
  }
  if (call.method === "GET" && call.path.startsWith("/v1/models/"))
    return sendJson(exchange, 200, answers.modelBody(call.model));
  if (call.method === "POST" && call.body === undefined)
    return sendError(exchange, 400, "The body is not JSON", "invalid_request_error", null);
  if (route === "POST /v1/chat/completions") return complete(exchange, "chat");
  if (route === "POST /v1/completions") return complete(exchange, "text");
  if (route === "POST /v1/embeddings") {
    const { input, dimensions = answers.EMBEDDING_DIMENSIONS, encoding_format: format } = call.body;
    return sendJson(exchange, 200, answers.embeddingsBody(call.model, input, dimensions, format === "base64"));
  }
  sendError(exchange, 404, `Unknown path ${route}`, "invalid_request_error", null);
}
