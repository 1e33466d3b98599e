/** The API users: a random mix of requests, some of which leave before their answer is there. */

import { streamWhole } from "../../data-plane/testing_fakes.ts";
import type { BodySink, BodyStreamSink, Exchange, ExchangeSink, Flow } from "../../data-plane/transport.ts";
import { MODELS, type Ve } from "./catalogue.ts";
import type { SimNode } from "./node.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

export interface Finished {
  readonly ve: Ve;
  readonly node: SimNode;
  readonly status: number;
  readonly code: string;
  /** `left`: the client went away; `broken`: the connection did. */
  readonly end: "whole" | "left" | "broken";
}

class SimExchange implements Exchange {
  readonly method = "POST";
  readonly target = "/v1/chat/completions";
  readonly #headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  sink: ExchangeSink | null = null;
  reader: BodySink | null = null;
  status = 0;
  over = false;
  answer = "";
  /** After so many writes the client is slow for a while; -1: never. */
  stallAt = -1;
  readonly #onEnd: (end: Finished["end"]) => void;
  readonly #onRead: () => void;
  readonly #onStall: () => void;

  constructor(
    headers: Readonly<Record<string, string>>,
    body: Buffer,
    on: { end(end: Finished["end"]): void; read(): void; stall(): void },
  ) {
    this.#headers = headers;
    this.body = body;
    this.#onEnd = on.end;
    this.#onRead = on.read;
    this.#onStall = on.stall;
  }

  header(name: string): string {
    return this.#headers[name] ?? "";
  }
  setSink(sink: ExchangeSink): void {
    this.sink = sink;
  }
  readBody(_: number, reader: BodySink): void {
    this.reader = reader;
    this.#onRead();
  }
  streamBody(bytesMax: number, sink: BodyStreamSink): Flow {
    return streamWhole(this, bytesMax, sink);
  }
  writeHead(status: number): void {
    this.status = status;
  }
  write(): boolean {
    if (this.stallAt < 0 || this.stallAt-- > 0) return true;
    this.#onStall();
    return false;
  }
  end(chunk?: Uint8Array): void {
    if (this.over) return;
    if (chunk !== undefined && this.status >= 400) this.answer = Buffer.from(chunk).toString();
    this.#finish("whole");
  }
  destroy(): void {
    this.#finish("broken");
  }
  leave(): void {
    if (this.over) return;
    this.#finish("left");
    this.sink?.onGone();
  }
  #finish(end: Finished["end"]): void {
    if (this.over) return;
    this.over = true;
    this.#onEnd(end);
  }
}

export interface RequestPlan {
  readonly ve: Ve;
  readonly model: string;
  readonly stream: boolean;
  readonly maxTokens: number;
  readonly bodyBytes: number;
  /** When the client goes away; 0: it stays. */
  readonly leaveMs: number;
  readonly slow: boolean;
}

export function planRequest(random: Random, ve: Ve): RequestPlan {
  return {
    ve,
    model: random.pick(MODELS).name,
    stream: random.chance(0.55),
    maxTokens: random.chance(0.5) ? random.int(1, 600) : 0,
    bodyBytes: random.chance(0.1) ? random.int(500, 3000) : random.int(1, 300),
    leaveMs: random.chance(0.15) ? random.between(1, 3000) : 0,
    slow: random.chance(0.03),
  };
}

function codeOf(answer: string): string {
  try {
    return (JSON.parse(answer) as { error: { code: string | null } }).error.code ?? "";
  } catch {
    return "";
  }
}

/** Sends a request to a node that runs. */
export function sendRequest(
  scheduler: Scheduler,
  node: SimNode,
  plan: RequestPlan,
  finished: (result: Finished) => void,
): void {
  const boot = node.boot!;
  const { ve, model, stream, maxTokens, bodyBytes, leaveMs, slow } = plan;
  const body = Buffer.from(
    JSON.stringify({
      model,
      messages: [{ role: "user", content: "x".repeat(bodyBytes) }],
      ...(stream ? { stream: true } : {}),
      ...(maxTokens > 0 ? { max_tokens: maxTokens } : {}),
    }),
  );
  const headers = { authorization: `Bearer ${ve.secret}`, "content-type": "application/json" };
  const exchange: SimExchange = new SimExchange(headers, body, {
    end: (end) => {
      if (!boot.actor.alive) return;
      finished({ ve, node, status: exchange.status, code: codeOf(exchange.answer), end });
    },
    read: () => scheduler.after(1, () => exchange.over || exchange.reader!.onBody(exchange.body), boot.actor),
    stall: () => scheduler.after(400, () => exchange.over || exchange.sink!.onDrain(), boot.actor),
  });
  if (slow) exchange.stallAt = 1;
  scheduler.after(0, () => boot.pipeline.handle(exchange), boot.actor);
  if (leaveMs > 0) scheduler.after(leaveMs, () => exchange.leave(), boot.actor);
}
