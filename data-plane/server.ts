/** The inbound side on node:http. One Exchange per request; `/healthz`, `/readyz` and `/metrics` are answered here. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Logger } from "pino";
import { type CloseOptions, Closing } from "./closing.ts";
import {
  type ErrorAnswer,
  HEADERS_TOO_LARGE,
  JOURNAL_UNAVAILABLE,
  MALFORMED_HTTP,
  REQUEST_TIMEOUT,
  UNKNOWN_EXPECTATION,
} from "./errors.ts";
import type { UpgradeHandler } from "./realtime/upgrade.ts";
import type { BodyFailure, BodySink, BodyStreamSink, Exchange, ExchangeSink, Flow, Pipeline } from "./transport.ts";

export const HEADERS_BYTES_MAX = 64 * 1024;
export const HEADERS_MS_MAX = 30_000;
/** For a request to arrive whole. */
export const REQUEST_MS_MAX = 300_000;
/** Longer than load balancers keep idle connections, so that it is them who close. */
export const KEEP_ALIVE_MS = 75_000;
export const CONNECTIONS_MAX = 50_000;
/** Of a body that is refused so much is read and thrown away, so that the client gets to read why. */
export const DISCARD_BYTES_MAX = 128 * 1024 * 1024;
export const DISCARD_MS_MAX = 30_000;
/** All request bodies in memory together; beyond it, those larger than BODY_BYTES_FREE are refused. */
export const BODIES_BYTES_MAX = 512 * 1024 * 1024;
/** What most requests have; connections bound how many there are. */
export const BODY_BYTES_FREE = 64 * 1024;
/** A client that does not take the end of its answer for so long is cut off. */
export const END_STALL_MS = 120_000;

export interface ServerOptions {
  /** `host:port`; port 0 means any. */
  readonly address: string;
  readonly pipeline: Pipeline;
  /** What the node answers itself. */
  readonly health: {
    /** True while the node can serve. */
    ready(): boolean;
    /** Prometheus text. */
    metrics(): Promise<{ contentType: string; body: string }>;
  };
  newId(prefix: string): string;
  readonly log: Logger;
  /** Takes the requests for WebSockets; absent: there are none. */
  readonly upgrades?: UpgradeHandler;
  /** All request bodies in memory together; BODIES_BYTES_MAX if absent. */
  readonly bodiesBytesMax?: number;
  /** Share the port with other processes (DATA_PLANE_WORKERS). */
  readonly reusePort?: boolean;
}

export interface RunningServer {
  /** `host:port` as it is. */
  readonly address: string;
  /**
   * Takes no new connections, lets what runs end for up to `drainMs`, then ends it. Connections that are or get idle meanwhile
   * stay for LINGER_MS, and their next answer says `connection: close`.
   */
  close(options: CloseOptions): Promise<void>;
}

/** Bytes of request bodies that this process holds. */
interface BodyMemory {
  readonly max: number;
  used: number;
}

/** Node keeps headers of a request in a plain object; a repeated one is joined or an array. */
class NodeExchange implements Exchange {
  readonly method: string;
  readonly target: string;
  private readonly request: IncomingMessage;
  private readonly response: ServerResponse;
  private sink: ExchangeSink | null = null;
  private bodySink: BodySink | null = null;
  private streamSink: BodyStreamSink | null = null;
  private bytesMax = 0;
  private chunks: Buffer[] = [];
  private bytes = 0;
  private ended = false;
  private waitsForDrain = false;
  /** The client was told that this is the last answer of its connection. */
  private isLast = false;
  private readonly closing: Closing;
  private readonly bodies: BodyMemory;

  constructor(request: IncomingMessage, response: ServerResponse, closing: Closing, bodies: BodyMemory) {
    this.bodies = bodies;
    this.method = request.method ?? "";
    this.target = request.url ?? "";
    this.request = request;
    this.response = response;
    this.closing = closing;
    (response as Owned)[OWNER] = this;
    (request as Owned)[OWNER] = this;
    response.on("close", onClose);
    response.on("error", ignore);
  }

  header(name: string): string {
    const value = this.request.headers[name];
    if (value === undefined) return "";
    return typeof value === "string" ? value : (value[0] ?? "");
  }

  setSink(sink: ExchangeSink): void {
    this.sink = sink;
  }

  readBody(bytesMax: number, sink: BodySink): void {
    this.bodySink = sink;
    this.bytesMax = bytesMax;
    const announced = Number(this.request.headers["content-length"] ?? 0);
    if (announced > bytesMax) {
      // Not from inside readBody: the caller may not be ready.
      process.nextTick(() => this.failBody("too_large"));
      return;
    }
    this.request.on("data", onData).on("end", onEnd).on("error", ignore);
  }

  streamBody(bytesMax: number, sink: BodyStreamSink): Flow {
    const { request } = this;
    this.streamSink = sink;
    const announced = Number(request.headers["content-length"] ?? 0);
    if (announced > bytesMax) {
      process.nextTick(() => this.failStream("too_large"));
      return { pause: ignore, resume: ignore };
    }
    let bytes = 0;
    const onChunk = (chunk: Buffer): void => {
      bytes += chunk.length;
      if (bytes > bytesMax) this.failStream("too_large");
      else this.streamSink?.onChunk(chunk);
    };
    request
      .on("data", onChunk)
      .on("end", () => this.endStream())
      .on("error", ignore);
    return {
      pause: () => this.streamSink !== null && request.pause(),
      resume: () => this.streamSink !== null && request.resume(),
    };
  }

  writeHead(status: number, headers: readonly string[]): void {
    const { response } = this;
    if (response.headersSent || response.destroyed) return;
    this.isLast = this.closing.begun;
    response.writeHead(status, this.isLast ? [...headers, "connection", "close"] : (headers as string[]));
  }

  write(chunk: Uint8Array): boolean {
    if (this.response.destroyed) return true;
    if (this.response.write(chunk)) return true;
    if (!this.waitsForDrain) {
      this.waitsForDrain = true;
      this.response.once("drain", onDrain);
    }
    return false;
  }

  end(chunk?: Uint8Array): void {
    this.ended = true;
    this.streamSink = null;
    const { response, request } = this;
    if (response.destroyed) return;
    if (!request.complete) this.discard();
    if (chunk === undefined) response.end();
    else response.end(chunk);
    if (response.writableLength > 0) response.setTimeout(END_STALL_MS, () => response.destroy());
  }

  destroy(): void {
    this.ended = true;
    this.streamSink = null;
    this.response.destroy();
  }

  /** Answered before the body was read: the rest of it is thrown away, within bounds, and the connection closed. */
  private discard(): void {
    const { request } = this;
    const { socket } = request;
    let left = DISCARD_BYTES_MAX;
    const timer = setTimeout(() => socket.destroy(), DISCARD_MS_MAX).unref();
    request.removeListener("data", onData);
    request.removeListener("end", onEnd);
    request.on("error", ignore);
    request.on("data", (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) socket.destroy();
    });
    request.on("close", () => clearTimeout(timer));
    request.resume();
  }

  private failBody(failure: BodyFailure): void {
    const sink = this.bodySink;
    this.bodySink = null;
    this.chunks = [];
    if (!this.ended) sink?.onBodyFailure(failure);
  }

  private failStream(failure: BodyFailure): void {
    const sink = this.streamSink;
    this.streamSink = null;
    if (!this.ended) sink?.onBodyFailure(failure);
  }

  private endStream(): void {
    const sink = this.streamSink;
    this.streamSink = null;
    sink?.onEnd();
  }

  take(chunk: Buffer): void {
    if (this.bodySink === null) return;
    this.bytes += chunk.length;
    this.bodies.used += chunk.length;
    if (this.bytes > this.bytesMax) this.failBody("too_large");
    else if (this.bodies.used > this.bodies.max && this.bytes > BODY_BYTES_FREE) this.failBody("no_memory");
    else this.chunks.push(chunk);
  }

  bodyEnd(): void {
    const sink = this.bodySink;
    if (sink === null) return;
    this.bodySink = null;
    const { chunks } = this;
    this.chunks = [];
    sink.onBody(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
  }

  drained(): void {
    this.waitsForDrain = false;
    if (!this.ended) this.sink?.onDrain();
  }

  closed(): void {
    if (!this.isLast) this.closing.noteIdle();
    this.bodies.used -= this.bytes;
    this.bytes = 0;
    this.bodySink = null;
    this.streamSink = null;
    this.chunks = [];
    if (this.ended) return;
    this.ended = true;
    this.sink?.onGone();
  }
}

const OWNER = Symbol("exchange");
type Owned = { [OWNER]?: NodeExchange };

/** Listeners are shared by all requests: `this` leads to the exchange, so none needs a closure. */
function onData(this: IncomingMessage, chunk: Buffer): void {
  (this as Owned)[OWNER]!.take(chunk);
}
function onEnd(this: IncomingMessage): void {
  (this as Owned)[OWNER]!.bodyEnd();
}
function onDrain(this: ServerResponse): void {
  (this as Owned)[OWNER]!.drained();
}
function onClose(this: ServerResponse): void {
  (this as Owned)[OWNER]!.closed();
}
function ignore(): void {}

function replyText(response: ServerResponse, status: number, contentType: string, body: string): void {
  response.writeHead(status, { "content-type": contentType, "content-length": Buffer.byteLength(body) });
  response.end(body);
}

const TEXT = "text/plain; charset=utf-8";

/** True if the request was one of the node's own. */
function replyOwn(
  options: ServerOptions,
  closing: boolean,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  if (request.method !== "GET" && request.method !== "HEAD") return false;
  if (closing) response.setHeader("connection", "close");
  switch (request.url) {
    case "/healthz":
      replyText(response, 200, TEXT, "ok\n");
      return true;
    case "/readyz": {
      const ready = !closing && options.health.ready();
      replyText(response, ready ? 200 : 503, TEXT, ready ? "ready\n" : "not ready\n");
      return true;
    }
    case "/metrics":
      options.health.metrics().then(
        ({ contentType, body }) => replyText(response, 200, contentType, body),
        (error: unknown) => {
          options.log.error({ err: error }, "metrics failed");
          replyText(response, 500, TEXT, "metrics failed\n");
        },
      );
      return true;
    default:
      return false;
  }
}

/** Refuses a request that the pipeline never sees, and closes its connection. */
function refuse(request: IncomingMessage, response: ServerResponse, { status, body }: ErrorAnswer, id: string): void {
  request.resume();
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": body.length,
    "x-request-id": id,
    connection: "close",
  });
  response.end(body);
}

/** What the HTTP parser refuses has no request: the answer is written to the socket as it is. */
function replyParserError(error: NodeJS.ErrnoException, socket: Socket, id: string): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const { status, body }: ErrorAnswer =
    error.code === "HPE_HEADER_OVERFLOW"
      ? HEADERS_TOO_LARGE
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? REQUEST_TIMEOUT
        : MALFORMED_HTTP;
  // An answer that has begun on this connection must not be mixed with another one.
  const begun = (socket as { _httpMessage?: ServerResponse | null })._httpMessage?.headersSent === true;
  if (begun) {
    socket.destroy();
    return;
  }
  socket.end(
    `HTTP/1.1 ${status} ${status === 431 ? "Request Header Fields Too Large" : status === 408 ? "Request Timeout" : "Bad Request"}\r\n` +
      `content-type: application/json\r\ncontent-length: ${body.length}\r\nx-request-id: ${id}\r\nconnection: close\r\n\r\n` +
      body.toString("utf8"),
    () => socket.destroy(),
  );
}

function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, colon).replace(/^\[|\]$/g, "");
  return { host, port: Number(address.slice(colon + 1)) };
}

function boundAddress(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  return family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Resolves once the server listens; rejects if it cannot. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const closing = new Closing();
  const { upgrades } = options;
  const bodies: BodyMemory = { max: options.bodiesBytesMax ?? BODIES_BYTES_MAX, used: 0 };
  const server = createServer(
    {
      // Answered in OpenAI's form below.
      requireHostHeader: false,
      maxHeaderSize: HEADERS_BYTES_MAX,
      headersTimeout: HEADERS_MS_MAX,
      requestTimeout: REQUEST_MS_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS,
      noDelay: true,
      keepAlive: true,
      // Other upgrades are offers that HTTP lets a server ignore, as some clients make with every request.
      shouldUpgradeCallback: (request) => upgrades?.takes(request) === true,
    },
    (request, response) => {
      if (request.headers.host === undefined && request.httpVersion === "1.1") {
        return refuse(request, response, MALFORMED_HTTP, options.newId("usg_"));
      }
      if (replyOwn(options, closing.begun, request, response)) return;
      if (closing.ended) return refuse(request, response, JOURNAL_UNAVAILABLE, options.newId("usg_"));
      options.pipeline.handle(new NodeExchange(request, response, closing, bodies));
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) =>
    refuse(request, response, UNKNOWN_EXPECTATION, options.newId("usg_")),
  );
  server.on("connect", (_request: IncomingMessage, socket: Socket) =>
    replyParserError(new Error("CONNECT"), socket, options.newId("usg_")),
  );
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) =>
    upgrades?.upgrade(request, socket, head),
  );
  server.on("clientError", (error, socket) => replyParserError(error, socket as Socket, options.newId("usg_")));
  const { host, port } = splitAddress(options.address);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, reusePort: options.reusePort === true }, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
  return {
    address: boundAddress(server),
    close(how) {
      upgrades?.drain();
      return closing.run(server, options.pipeline, how);
    },
  };
}
