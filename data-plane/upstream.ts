/**
 * Outbound calls on undici's `dispatch`: one bounded pool of keep-alive connections per origin. Every connection's real
 * address is checked, after the name was resolved. Redirects are not followed.
 */

import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from "node:dns";
import { isIP } from "node:net";
import { type Dispatcher, Pool } from "undici";
import { addressAllowed } from "../core/upstream_address.ts";
import { BODY_FAILED, SourceReadable } from "./upstream_body.ts";
import type { BodySource, CallErrorKind, OutboundCall, OutboundRequest, OutboundSink, Upstream } from "./transport.ts";

/** Calls to one origin at a time, each on a connection of its own; further ones fail at once, as a shortage. */
export const CONNECTIONS_PER_ORIGIN_MAX = 10_000;
/** Origins with open pools; beyond it the one that was not used for longest is closed once it is idle. */
export const ORIGINS_MAX = 256;
/** How long an idle connection is kept where the upstream does not say. */
export const KEEP_ALIVE_MS = 30_000;
/** No deadline of a Logical Model can be longer than this to connect; shorter ones abort the call. */
export const CONNECT_MS_MAX = 60_000;
export const ANSWER_HEADERS_BYTES_MAX = 64 * 1024;

export interface UpstreamOptions {
  /** ALLOW_PRIVATE_UPSTREAMS. */
  readonly allowPrivate: boolean;
  /** Resolves a name to all its addresses; by default the system's resolver. */
  readonly lookup?: typeof dnsLookup;
  readonly connectionsPerOriginMax?: number;
}

class ShortageError extends Error {
  readonly code = "NO_FREE_CONNECTION";
}

class AddressNotAllowedError extends Error {
  readonly code = "ADDRESS_NOT_ALLOWED";
}

type LookupCallback = (error: Error | null, address: string | LookupAddress[], family?: number) => void;

/** A resolver that answers only with addresses that are allowed, so that what is checked is what is connected to. */
export function guardedLookup(options: Pick<UpstreamOptions, "allowPrivate" | "lookup">) {
  const lookup = options.lookup ?? dnsLookup;
  return (hostname: string, wish: LookupOptions, done: LookupCallback): void => {
    lookup(hostname, { ...wish, all: true }, (error, addresses) => {
      if (error !== null) return done(error, []);
      const allowed = addresses.filter(({ address }) => addressAllowed(address, options.allowPrivate));
      const [first] = allowed;
      if (first === undefined) return done(new AddressNotAllowedError("the upstream's address is not allowed"), []);
      if (wish.all === true) done(null, allowed);
      else done(null, first.address, first.family);
    });
  };
}

const CONNECT_CODES = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** This host is short of something: file descriptors, ports, buffers. */
const SHORTAGE_CODES = new Set(["NO_FREE_CONNECTION", "EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM"]);

function codesOf(error: unknown): string[] {
  const { code, errors, cause } = (error ?? {}) as { code?: unknown; errors?: unknown[]; cause?: unknown };
  const inner = [...(Array.isArray(errors) ? errors : []), ...(cause === undefined ? [] : [cause])];
  return [...(typeof code === "string" ? [code] : []), ...inner.flatMap(codesOf)];
}

/** @param sent the connection stood, so that something may have been sent */
export function callErrorKind(error: Error, sent: boolean): CallErrorKind {
  const codes = codesOf(error);
  if (codes.includes("ADDRESS_NOT_ALLOWED")) return "address_not_allowed";
  if (codes.includes(BODY_FAILED)) return "body";
  if (error.name === "HTTPParserError" || codes.includes("UND_ERR_HEADERS_OVERFLOW")) return "protocol";
  if (!sent && codes.length > 0 && codes.every((code) => SHORTAGE_CODES.has(code))) return "shortage";
  return !sent || codes.some((code) => CONNECT_CODES.has(code)) ? "connect" : "reset";
}

/** A word for logs. */
export function callErrorDetail(error: Error): string {
  return codesOf(error)[0] ?? error.message;
}

/** Addresses written as numbers are not looked up, so they are checked by this. */
export function literalRefused(origin: string, allowPrivate: boolean): boolean {
  const { hostname } = new URL(origin);
  const host = hostname.startsWith("[") ? hostname.slice(1, -1) : hostname;
  return isIP(host) !== 0 && !addressAllowed(host, allowPrivate);
}

/** One call: undici's handler on one side, OutboundCall on the other. */
class Call implements OutboundCall, Dispatcher.DispatchHandler {
  private controller: Dispatcher.DispatchController | null = null;
  private sink: OutboundSink | null;
  private paused = false;
  /** The request's body, where it is streamed. */
  private body: SourceReadable | null = null;
  private readonly release: () => void;

  constructor(sink: OutboundSink, release: () => void) {
    this.sink = sink;
    this.release = release;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    if (this.sink === null) controller.abort(ABORTED);
    else this.sink.onSent();
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    // 1xx answers only announce the real one.
    if (status >= 200) this.sink?.onHead(status, headers);
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.sink?.onChunk(chunk);
  }

  onResponseEnd(): void {
    this.finish()?.onEnd();
  }

  onResponseError(_: Dispatcher.DispatchController | null, error: Error): void {
    const kind = callErrorKind(error, this.controller !== null);
    this.finish()?.onError(kind, callErrorDetail(error));
  }

  /** The body to send piece by piece; null: the call is over already. */
  stream(source: BodySource): SourceReadable | null {
    if (this.sink === null) return null;
    this.body = new SourceReadable(source, () => this.sink?.onBodySent?.());
    return this.body;
  }

  abort(): void {
    if (this.sink === null) return;
    this.sink = null;
    this.controller?.abort(ABORTED);
    this.body?.destroy();
  }

  pause(): void {
    this.paused = true;
    this.controller?.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.controller?.resume();
  }

  /** The call is over: whoever listened is told one last thing. */
  private finish(): OutboundSink | null {
    const { sink } = this;
    this.sink = null;
    this.release();
    this.body?.destroy();
    return sink;
  }
}

const ABORTED = Object.assign(new Error("aborted"), { code: "TOKENBILL_ABORTED" });

interface OriginPool {
  readonly pool: Pool;
  live: number;
}

export function createUpstream(options: UpstreamOptions): Upstream {
  const pools = new Map<string, OriginPool>();
  const lookup = guardedLookup(options);
  const connectionsMax = options.connectionsPerOriginMax ?? CONNECTIONS_PER_ORIGIN_MAX;

  function open(origin: string): OriginPool {
    const pool = new Pool(origin, {
      connections: connectionsMax,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // The pipeline has its own deadlines.
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: ANSWER_HEADERS_BYTES_MAX,
      allowH2: false,
      connect: { timeout: CONNECT_MS_MAX, noDelay: true, keepAlive: true, lookup: lookup as never },
    });
    return { pool, live: 0 };
  }

  /** The pool of an origin, moved to the end of the order in which they are given up. */
  function poolOf(origin: string): OriginPool {
    const found = pools.get(origin);
    if (found !== undefined) pools.delete(origin);
    const entry = found ?? open(origin);
    pools.set(origin, entry);
    if (found === undefined && pools.size > ORIGINS_MAX) evict();
    return entry;
  }

  function evict(): void {
    for (const [origin, entry] of pools) {
      if (entry.live > 0) continue;
      pools.delete(origin);
      void entry.pool.close();
      return;
    }
  }

  const refused = new Map<string, boolean>();
  function originRefused(origin: string): boolean {
    let answer = refused.get(origin);
    if (answer === undefined) {
      if (refused.size >= ORIGINS_MAX) refused.clear();
      refused.set(origin, (answer = literalRefused(origin, options.allowPrivate)));
    }
    return answer;
  }

  return {
    send(request: OutboundRequest, sink: OutboundSink): OutboundCall {
      if (originRefused(request.origin)) {
        return failing(sink, new AddressNotAllowedError("the upstream's address is not allowed"));
      }
      const entry = poolOf(request.origin);
      if (entry.live >= connectionsMax) return failing(sink, new ShortageError("all connections are in use"));
      entry.live++;
      const call = new Call(sink, () => void entry.live--);
      // undici may answer at once, the callers of `send` are promised that it does not.
      process.nextTick(dispatch, entry.pool, request, call);
      return call;
    },
    async close() {
      const all = [...pools.values()];
      pools.clear();
      await Promise.all(all.map(({ pool }) => pool.destroy()));
    },
  };
}

/** A call that fails before it begins. */
function failing(sink: OutboundSink, error: Error): OutboundCall {
  const call = new Call(sink, () => undefined);
  process.nextTick(() => call.onResponseError(null, error));
  return call;
}

function dispatch(pool: Pool, request: OutboundRequest, call: Call): void {
  const { path, method, headers, body } = request;
  try {
    if (body === null || body instanceof Uint8Array) {
      pool.dispatch({ path, method, headers: headers as string[], body }, call);
    } else {
      const stream = call.stream(body);
      if (stream === null) return call.onResponseError(null, ABORTED);
      const { length } = body;
      // Without a length undici sends chunks.
      const own = length === null ? headers : [...headers, "content-length", String(length)];
      pool.dispatch({ path, method, headers: own as string[], body: stream }, call);
    }
  } catch (error) {
    call.onResponseError(null, error as Error);
  }
}
