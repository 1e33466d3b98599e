/**
 * The seam between the pipeline and HTTP. `proxy.ts` knows these callbacks only: no streams, no Request or Response
 * objects. `server.ts` and `upstream.ts` implement them on node:http and undici; others can replace those.
 */

/** Why a request body did not arrive whole. */
export type BodyFailure = "too_large" | "no_memory";

/** Who reads a request body. One of the two is called, once, unless the client goes away first. */
export interface BodySink {
  /** The whole body. The bytes belong to the receiver. */
  onBody(body: Buffer): void;
  onBodyFailure(failure: BodyFailure): void;
}

/**
 * Who takes a request body as it comes. Nothing is called any more after `onEnd` or `onBodyFailure`, after the exchange
 * ended, or when the client goes away: that is told to `ExchangeSink`.
 */
export interface BodyStreamSink {
  /** The bytes are the socket's: copy what is needed after this returns. */
  onChunk(chunk: Buffer): void;
  onEnd(): void;
  onBodyFailure(failure: BodyFailure): void;
}

/** The flow of something that is read. Both may be called at any time; a chunk that is under way may still come. */
export interface Flow {
  pause(): void;
  resume(): void;
}

/** What the pipeline gives an Exchange to call back. Nothing is called after `onGone`, or after `end` was called. */
export interface ExchangeSink {
  /** Room again after `write` returned false. */
  onDrain(): void;
  /** The client's connection closed before the answer was complete. */
  onGone(): void;
}

/** One request of a client, and the answer to it. */
export interface Exchange {
  readonly method: string;
  /** The request target as sent: path and query. */
  readonly target: string;
  /** A request header by its lower-case name; the first one if it came several times, "" if absent. */
  header(name: string): string;
  setSink(sink: ExchangeSink): void;
  /** Asks for the body; a longer one than `bytesMax` fails before it is read whole. */
  readBody(bytesMax: number, sink: BodySink): void;
  /**
   * Asks for the body piece by piece, in place of `readBody`; more than `bytesMax` fails, at once where the length was
   * announced. Nothing is called back before this returns. While it is paused a client that goes away may not be noticed.
   */
  streamBody(bytesMax: number, sink: BodyStreamSink): Flow;
  /** Queues status and headers (flat: name, value, …). They leave with the first `write` or `end`. */
  writeHead(status: number, headers: readonly string[]): void;
  /** False: the client is slow, stop until `onDrain`. The bytes must not change afterwards. */
  write(chunk: Uint8Array): boolean;
  end(chunk?: Uint8Array): void;
  /** Breaks the connection. `onGone` is not called. */
  destroy(): void;
}

/** Why an outbound call failed before or during its answer. */
export type CallErrorKind =
  /** DNS, connect or TLS. Nothing was sent. */
  | "connect"
  /** This node has no connection to spare: it says nothing about the upstream. Nothing was sent. */
  | "shortage"
  /** The connection broke after the request was (partly) sent. */
  | "reset"
  /** The address is one that this deployment does not allow. Nothing was sent. */
  | "address_not_allowed"
  /** The answer was not HTTP, or its headers were too large. */
  | "protocol"
  /** This node could not read the request's body to its end: it says nothing about the upstream. Partly sent. */
  | "body";

/** Who reads a `BodySource`. One of `onEnd` and `onError` is called, once, unless the reading was closed before. */
export interface BodySourceSink {
  /** The bytes must not change afterwards. */
  onChunk(chunk: Uint8Array): void;
  onEnd(): void;
  onError(error: Error): void;
}

export interface BodyReading extends Flow {
  /** Reads no more, and calls nothing back. Safe to call twice. */
  close(): void;
}

/** A request body that is not held whole. Each attempt opens it once, and reads it from the start. */
export interface BodySource {
  /** Bytes in all; null: not known yet. */
  readonly length: number | null;
  /** Never calls back before it returns. */
  open(sink: BodySourceSink): BodyReading;
}

export interface OutboundRequest {
  /** Scheme, host and port, such as `https://api.openai.com`. */
  readonly origin: string;
  readonly path: string;
  readonly method: "POST" | "GET" | "DELETE";
  /** Flat: name, value, … Without host and content-length. */
  readonly headers: readonly string[];
  /** A source is closed when the call is over, however that came. */
  readonly body: Uint8Array | BodySource | null;
  /** Further calls that belong to this one: see `fan_out.ts`. Absent: none. */
  readonly others?: readonly OutboundRequest[];
}

/** What the pipeline gives an outbound call to call back. After `abort`, `onEnd` or `onError` nothing is called. */
export interface OutboundSink {
  /** The request is on a connection: connecting is over. */
  onSent(): void;
  /** A body that is a `BodySource` was handed to the connection whole: only now can the upstream be late. */
  onBodySent?(): void;
  /** `headers` has lower-case names; a repeated header is an array. */
  onHead(status: number, headers: Readonly<Record<string, string | string[] | undefined>>): void;
  onChunk(chunk: Buffer): void;
  onEnd(): void;
  /** `detail` is for logs. */
  onError(kind: CallErrorKind, detail: string): void;
}

export interface OutboundCall {
  /** Stops the call and closes its connection. */
  abort(): void;
  /** Stops and resumes `onChunk`; a chunk that is under way may still come. */
  pause(): void;
  resume(): void;
}

export interface Upstream {
  /** Never throws and never calls back before it returns. */
  send(request: OutboundRequest, sink: OutboundSink): OutboundCall;
  close(): Promise<void>;
}

/** What `server.ts` needs of the pipeline. */
export interface Pipeline {
  /** Takes a request over. Never throws. */
  handle(exchange: Exchange): void;
  /** Requests under way, those included whose client is gone but whose usage is still being read. */
  readonly live: number;
  /** Resolves when nothing is under way. */
  idle(): Promise<void>;
  /** Ends everything under way: streams get an error frame, and what was delivered is settled. */
  abortAll(): void;
  /** Stops the clocks. Call it last. */
  close(): void;
}
