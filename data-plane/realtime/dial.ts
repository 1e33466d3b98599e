/**
 * WebSocket calls to upstreams. The rules of `upstream.ts` hold here too: the real address of every connection is checked
 * after its name was resolved, and redirects are not followed.
 */

import type { AnswerHeaders } from "../formats/format.ts";
import type { ClientRequest, IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import { REFUSAL_MS } from "../deadlines.ts";
import type { CallErrorKind, OutboundRequest } from "../transport.ts";
import {
  ANSWER_HEADERS_BYTES_MAX,
  callErrorDetail,
  callErrorKind,
  CONNECT_MS_MAX,
  guardedLookup,
  literalRefused,
  type UpstreamOptions,
} from "../upstream.ts";
import { StatusBody } from "../upstream_head.ts";
import { CLOSE_MS } from "./limits.ts";
import { Peer } from "./peer.ts";

/** What a call calls back: one of the three, once, never before `dial` returns, and not after `abort`. */
export interface DialSink {
  onOpen(peer: Peer): void;
  /** The upstream answered, but not with a WebSocket. */
  onRefused(status: number, headers: AnswerHeaders, body: Buffer): void;
  /** `detail` is for logs. */
  onError(kind: CallErrorKind, detail: string): void;
}

export interface Dialing {
  abort(): void;
  /** The connection stood. */
  readonly connected: boolean;
}

export interface DialerOptions extends Pick<UpstreamOptions, "allowPrivate" | "lookup"> {
  readonly frameBytesMax: number;
  readonly bufferBytesMax: number;
}

function headersOf(flat: readonly string[]): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  for (let i = 0; i < flat.length; i += 2) {
    const [name, value] = [flat[i]!, flat[i + 1]!];
    const before = headers[name];
    headers[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  return headers;
}

class Call implements Dialing {
  private readonly options: DialerOptions;
  private sink: DialSink | null;
  private ws: WebSocket | null = null;
  connected = false;

  constructor(options: DialerOptions, sink: DialSink) {
    this.options = options;
    this.sink = sink;
  }

  begin(request: OutboundRequest): void {
    if (this.sink === null) return;
    try {
      if (literalRefused(request.origin, this.options.allowPrivate)) return this.fail("address_not_allowed", "");
      this.open(request);
    } catch (error) {
      // A header or an address that Node does not take.
      this.fail("protocol", callErrorDetail(error as Error));
    }
  }

  abort(): void {
    this.sink = null;
    this.ws?.terminate();
  }

  private open({ origin, path, headers }: OutboundRequest): void {
    const { frameBytesMax, bufferBytesMax } = this.options;
    const options = {
      headers: headersOf(headers),
      lookup: guardedLookup(this.options),
      maxPayload: frameBytesMax,
      perMessageDeflate: false,
      followRedirects: false,
      handshakeTimeout: CONNECT_MS_MAX,
      closeTimeout: CLOSE_MS,
      maxHeaderSize: ANSWER_HEADERS_BYTES_MAX,
      finishRequest: (request: ClientRequest) => this.send(request, origin.startsWith("https:")),
    };
    const ws = new WebSocket(origin.replace(/^http/, "ws") + path, options as never);
    this.ws = ws;
    // From the first frame on the peer listens: frames can come with the head.
    const peer = new Peer(ws, bufferBytesMax);
    ws.once("open", () => {
      const { sink } = this;
      this.sink = null;
      if (sink === null) ws.terminate();
      else sink.onOpen(peer);
    });
    ws.on("unexpected-response", (_request, response) => this.refused(response));
    ws.on("error", (error) => this.fail(callErrorKind(error, this.connected), callErrorDetail(error)));
  }

  private send(request: ClientRequest, secure: boolean): void {
    request.once("socket", (socket) => {
      socket.setNoDelay(true);
      socket.setKeepAlive(true);
      socket.once(secure ? "secureConnect" : "connect", () => (this.connected = true));
    });
    request.end();
  }

  private refused(response: IncomingMessage): void {
    const body = new StatusBody();
    const done = (): void => {
      clearTimeout(timer);
      const { sink } = this;
      this.sink = null;
      sink?.onRefused(response.statusCode ?? 0, response.headers, body.bytes());
      this.ws?.terminate();
    };
    const timer = setTimeout(done, REFUSAL_MS).unref();
    response.on("data", (chunk: Buffer) => body.add(chunk));
    response.once("end", done).once("error", done).once("close", done);
  }

  private fail(kind: CallErrorKind, detail: string): void {
    const { sink } = this;
    this.sink = null;
    sink?.onError(kind, detail);
  }
}

export interface Dialer {
  dial(request: OutboundRequest, sink: DialSink): Dialing;
}

export function createDialer(options: DialerOptions): Dialer {
  return {
    dial(request, sink) {
      const call = new Call(options, sink);
      process.nextTick(() => call.begin(request));
      return call;
    },
  };
}
