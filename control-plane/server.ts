/** One port for Connect, gRPC, gRPC-Web, plain JSON and pages: HTTP/1.1 and HTTP/2 without TLS, told apart by the first bytes. */

import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Session } from "node:http2";
import { type AddressInfo, createServer as createNetServer, type Server as NetServer, type Socket } from "node:net";
import { Code } from "@connectrpc/connect";
import type { Logger } from "pino";
import { type NodeRequest, type NodeResponse, type RpcHandler, writeError } from "./api/adapter.ts";
import { withInfo } from "./api/errors.ts";
import { isPage, servePage } from "./http/pages.ts";
import type { HttpRoute } from "./http/route.ts";
import { serveRoute } from "./http/serve.ts";
import type { Address } from "../core/listen_address.ts";
import type { Settings } from "./settings.ts";

const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

const FIRST_BYTES_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 15_000;
const REQUEST_TIMEOUT_MS = 120_000;
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
const READY_TIMEOUT_MS = 2_000;
/** How often waiting connections are looked at: a limit above is kept to within this. */
const CONNECTION_CHECK_EVERY_MS = 5_000;
const STREAMS_PER_CONNECTION_MAX = 1_000;
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024;

/** What one client can take up. */
export interface ServerLimits {
  /** Further connections are closed at once. */
  readonly connectionsMax: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly checkEveryMs: number;
}

export const SERVER_LIMITS: ServerLimits = {
  connectionsMax: 10_000,
  headersTimeoutMs: HEADERS_TIMEOUT_MS,
  requestTimeoutMs: REQUEST_TIMEOUT_MS,
  checkEveryMs: CONNECTION_CHECK_EVERY_MS,
};

export interface App {
  readonly rpc: RpcHandler;
  /** Everything else that is served; the first that matches the path. */
  readonly routes: readonly HttpRoute[];
  readonly settings: Pick<Settings, "publicUrl" | "trustedProxyHops">;
  /** Resolves when the database answers. */
  ping(): Promise<unknown>;
  /** Ends long streams. */
  readonly shutdown: AbortController;
}

export interface ControlPlaneServer {
  /** The real address: the port is known even if 0 was asked for. */
  readonly address: Address;
  /** Begins to serve calls and routes; until then they are refused as unavailable, and `/readyz` says so. */
  serve(app: App): void;
  /**
   * Refuses new calls and everything that is posted, ends long streams, lets the others finish for at most `drainMs`, then
   * closes. What is only read is served to the end.
   */
  close(options: { readonly drainMs: number }): Promise<void>;
}

function timeout(ms: number): { promise: Promise<never>; clear(): void } {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("no answer in time")), ms);
  return { promise, clear: () => clearTimeout(timer) };
}

class Server implements ControlPlaneServer {
  readonly #log: Logger;
  readonly #net: NetServer;
  readonly #http: HttpServer;
  readonly #http2: Http2Server;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  #app: App | null = null;
  #draining = false;
  #inFlight = 0;
  #onIdle: () => void = () => {};

  constructor(log: Logger, limits: ServerLimits) {
    this.#log = log;
    const onRequest = (request: NodeRequest, response: NodeResponse): void => void this.#onRequest(request, response);
    this.#http = createHttpServer(
      {
        noDelay: true,
        headersTimeout: limits.headersTimeoutMs,
        requestTimeout: limits.requestTimeoutMs,
        connectionsCheckingInterval: limits.checkEveryMs,
        keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      },
      onRequest,
    );
    // It gets its connections from below and never listens; Node begins to check its timeouts at this event.
    this.#http.emit("listening");
    this.#http2 = createHttp2Server(
      { settings: { maxConcurrentStreams: STREAMS_PER_CONNECTION_MAX, initialWindowSize: STREAM_WINDOW_BYTES } },
      onRequest,
    );
    this.#http2.on("session", (session) => this.#onSession(session));
    // Broken connections are the client's affair; without a listener they would end the process.
    this.#http2.on("sessionError", (error: Error) =>
      this.#log.debug({ reason: error.message }, "HTTP/2 connection failed"),
    );
    this.#net = createNetServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#onSocket(socket));
    this.#net.maxConnections = limits.connectionsMax;
  }

  get address(): Address {
    const { address, port } = this.#net.address() as AddressInfo;
    return { host: address, port };
  }

  async listen(address: Address): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#net.once("error", reject);
    this.#net.listen(address.port, address.host, resolve);
    await promise;
    this.#net.off("error", reject);
    this.#net.on("error", (error) => this.#log.error({ reason: error.message }, "the listener failed"));
  }

  serve(app: App): void {
    this.#app = app;
  }

  #onSocket(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    const onError = (): void => void socket.destroy();
    const onEnd = (): void => void socket.destroy();
    socket.on("error", onError);
    socket.on("end", onEnd);
    socket.setTimeout(FIRST_BYTES_TIMEOUT_MS, onEnd);
    let seen: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const length = Math.min(seen.length, HTTP2_PREFACE.length);
      const isHttp2 = seen.subarray(0, length).equals(HTTP2_PREFACE.subarray(0, length));
      if (isHttp2 && length < HTTP2_PREFACE.length) return;
      socket.off("data", onData);
      socket.off("end", onEnd);
      socket.setTimeout(0);
      socket.removeListener("timeout", onEnd);
      socket.pause();
      socket.unshift(seen);
      (isHttp2 ? this.#http2 : this.#http).emit("connection", socket);
      if (!isHttp2) socket.resume();
    };
    socket.on("data", onData);
  }

  #onSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.on("close", () => this.#sessions.delete(session));
    session.on("error", () => {});
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  }

  async #onRequest(request: NodeRequest, response: NodeResponse): Promise<void> {
    request.on("error", () => {});
    response.on("error", () => {});
    try {
      const path = (request.url ?? "").split("?", 1)[0]!;
      if (isPage(path)) return await servePage(path, { ready: () => this.#ready() }, request, response);
      const app = this.#app;
      if (app === null) return this.#refuse(request, response);
      const isCall = app.rpc.knows(path);
      const isRead = request.method === "GET" || request.method === "HEAD";
      // Whoever posts something to a server that stops, a processor above all, has to come again.
      if (this.#draining && (isCall || !isRead)) return this.#refuse(request, response);
      if (isCall) return await this.#work(app.rpc.handle(path, request, response));
      const route = app.routes.find((each) => each.matches(path));
      if (route === undefined) return await servePage(path, { ready: () => this.#ready() }, request, response);
      await this.#work(serveRoute({ ...app.settings, log: this.#log }, route, path, request, response));
    } catch (error) {
      this.#log.error({ reason: (error as Error).message }, "request failed");
      response.destroy();
    }
  }

  /** A stop waits for it. */
  async #work(work: Promise<void>): Promise<void> {
    this.#inFlight += 1;
    try {
      await work;
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#onIdle();
    }
  }

  #refuse(request: NodeRequest, response: NodeResponse): void {
    request.resume();
    const text = this.#draining
      ? "the server is stopping: try another, or again in a moment"
      : "the server is starting: try again in a moment";
    writeError(response, 503, withInfo(text, Code.Unavailable, "unavailable", {}));
  }

  async #ready(): Promise<string | null> {
    if (this.#draining) return "stopping";
    if (this.#app === null) return "starting";
    const limit = timeout(READY_TIMEOUT_MS);
    try {
      await Promise.race([this.#app.ping(), limit.promise]);
      return null;
    } catch {
      return "the database does not answer";
    } finally {
      limit.clear();
    }
  }

  async close({ drainMs }: { readonly drainMs: number }): Promise<void> {
    this.#draining = true;
    this.#app?.shutdown.abort();
    if (this.#inFlight > 0) {
      const idle = new Promise<void>((resolve) => (this.#onIdle = resolve));
      const limit = timeout(drainMs);
      await Promise.race([idle, limit.promise]).catch(() => {
        this.#log.warn({ calls: this.#inFlight }, "calls were cut: they did not end in time");
      });
      limit.clear();
    }
    const closed = new Promise<void>((resolve) => this.#net.close(() => resolve()));
    for (const session of this.#sessions) session.close();
    // Ends its idle connections, and its checks.
    this.#http.close();
    // What is left is idle, or was cut.
    setImmediate(() => {
      for (const socket of this.#sockets) socket.destroySoon();
    });
    await closed;
  }
}

/** Listens. @throws the network's error when the address cannot be had */
export async function listen(
  address: Address,
  log: Logger,
  limits: ServerLimits = SERVER_LIMITS,
): Promise<ControlPlaneServer> {
  const server = new Server(log, limits);
  await server.listen(address);
  return server;
}
