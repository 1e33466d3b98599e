/** For tests only: an upstream on a real socket that does what a test tells it. */

import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export interface SeenRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The parsed body. */
  readonly body: Record<string, unknown>;
}

export type Handler = (response: ServerResponse, request: SeenRequest) => void;

export interface TestUpstream {
  /** `http://127.0.0.1:<port>`. */
  readonly url: string;
  readonly seen: SeenRequest[];
  /** Answers the next request; those without a handler get `chat()`. */
  next(...handlers: Handler[]): void;
  /** Answers all further requests. */
  always(handler: Handler | null): void;
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>;
  close(): Promise<void>;
}

/** Forms have no JSON body. */
function parsed(text: string): Record<string, unknown> {
  return text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : {};
}

export async function startTestUpstream(): Promise<TestUpstream> {
  const queue: Handler[] = [];
  const seen: SeenRequest[] = [];
  const sockets = new Set<Socket>();
  let constant: Handler | null = null;
  const server = createServer((request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString("utf8");
      const entry = {
        path: request.url ?? "",
        headers: request.headers,
        text,
        body: parsed(text),
      };
      seen.push(entry);
      (queue.shift() ?? constant ?? chat())(response, entry);
    });
    response.on("error", () => undefined);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    sockets,
    next: (...handlers) => void queue.push(...handlers),
    always: (handler) => void (constant = handler),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export const USAGE = { prompt_tokens: 9, completion_tokens: 12, total_tokens: 21 };

export function chatBody(content = "Hello there", usage: unknown = USAGE): Record<string, unknown> {
  return {
    id: "chatcmpl-up1",
    object: "chat.completion",
    created: 1_700_000_000,
    model: "upstream-model",
    choices: [
      { index: 0, message: { role: "assistant", content, refusal: null }, logprobs: null, finish_reason: "stop" },
    ],
    ...(usage === undefined ? {} : { usage }),
  };
}

export function json(status: number, body: unknown, headers: Record<string, string> = {}): Handler {
  return (response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
}

export function chat(content?: string, usage?: unknown): Handler {
  return json(200, chatBody(content, usage), { "x-request-id": "req_upstream" });
}

export function error(
  status: number,
  code: string | null = null,
  message = "upstream says no",
  headers: Record<string, string> = {},
): Handler {
  return json(status, { error: { message, type: "invalid_request_error", param: null, code } }, headers);
}

/** Breaks the connection before any answer. */
export const reset: Handler = (response) => void response.socket?.destroy();
/** Never answers. */
export const hang: Handler = () => undefined;

/** A `chat.completion.chunk`. Usage undefined: no key. */
export function chunk(delta: Record<string, unknown> | null, finish: string | null = null, usage?: unknown): string {
  return frame({
    id: "chatcmpl-up1",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: "upstream-model",
    choices: delta === null ? [] : [{ index: 0, delta, logprobs: null, finish_reason: finish }],
    ...(usage === undefined ? {} : { usage }),
  });
}

export function frame(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

export const DONE = "data: [DONE]\n\n";

/** A whole stream as OpenAI sends it when usage was asked for. */
export function streamText(words: readonly string[], usage: unknown = USAGE): string[] {
  return [
    chunk({ role: "assistant", content: "" }, null, null),
    ...words.map((word) => chunk({ content: word }, null, null)),
    chunk({}, "stop", null),
    chunk(null, null, usage),
    DONE,
  ];
}

/** Sends these pieces one by one, each in its own write. */
export function sse(pieces: readonly (string | Buffer)[], end: "end" | "break" | "hang" = "end"): Handler {
  return (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    let at = 0;
    const step = (): void => {
      if (at < pieces.length) response.write(pieces[at++]!, () => setImmediate(step));
      else if (end === "end") response.end();
      else if (end === "break") response.socket?.destroy();
    };
    step();
  };
}
