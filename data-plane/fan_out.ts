/**
 * Calls that are really several, because an upstream takes one text at a time: an `Upstream` that makes them all, and
 * answers as if it had been one. The first that fails is the answer of all.
 */

import type { CallErrorKind, OutboundCall, OutboundRequest, OutboundSink, Upstream } from "./transport.ts";
import type { AnswerHeaders } from "./formats/format.ts";

/** So many of them at once. */
export const FAN_OUT_CALLS_MAX = 8;
/** All answers together are kept up to this size. */
export const FAN_OUT_BYTES_MAX = 32 * 1024 * 1024;

export function fanOut(upstream: Upstream): Upstream {
  return {
    send(request, sink) {
      const { others } = request;
      if (others === undefined || others.length === 0) return upstream.send(request, sink);
      return new FanOut(upstream, [request, ...others], sink);
    },
    close: () => upstream.close(),
  };
}

interface Part {
  call: OutboundCall | null;
  headers: AnswerHeaders;
  chunks: Buffer[];
}

class FanOut implements OutboundCall {
  private readonly upstream: Upstream;
  private readonly requests: readonly OutboundRequest[];
  private readonly sink: OutboundSink;
  private readonly parts: Part[] = [];
  private done = 0;
  private bytes = 0;
  private sent = false;
  private over = false;
  /** The one whose failure is told on. */
  private failed: Part | null = null;

  constructor(upstream: Upstream, requests: readonly OutboundRequest[], sink: OutboundSink) {
    this.upstream = upstream;
    this.requests = requests;
    this.sink = sink;
    for (let i = 0; i < FAN_OUT_CALLS_MAX; i++) this.next();
  }

  abort(): void {
    this.over = true;
    for (const part of this.parts) part.call?.abort();
  }

  /** All that comes is kept here, within its limit. */
  pause(): void {}

  resume(): void {}

  private next(): void {
    const request = this.requests[this.parts.length];
    if (request === undefined) return;
    const part: Part = { call: null, headers: {}, chunks: [] };
    this.parts.push(part);
    part.call = this.upstream.send(request, this.sinkOf(part));
  }

  private sinkOf(part: Part): OutboundSink {
    return {
      onSent: () => {
        if (this.over || this.sent) return;
        this.sent = true;
        this.sink.onSent();
      },
      onHead: (status, headers) => {
        if (this.over) return;
        part.headers = headers;
        if (status < 200 || status >= 300) this.fail(part, status, headers);
      },
      onChunk: (chunk) => this.took(part, chunk),
      onEnd: () => this.ended(part),
      onError: (kind, detail) => this.broke(part, kind, detail),
    };
  }

  private took(part: Part, chunk: Buffer): void {
    if (this.over) return;
    if (this.failed === part) return this.sink.onChunk(chunk);
    part.chunks.push(chunk);
    this.bytes += chunk.length;
    if (this.bytes <= FAN_OUT_BYTES_MAX) return;
    // This one would go on sending, to nobody.
    part.call?.abort();
    this.broke(part, "protocol", "too_large");
  }

  private ended(part: Part): void {
    part.call = null;
    if (this.over) return;
    if (this.failed === part) {
      this.over = true;
      return this.sink.onEnd();
    }
    if (++this.done < this.requests.length) return this.next();
    this.over = true;
    this.sink.onHead(200, { "content-type": "application/json" });
    this.sink.onChunk(joined(this.parts));
    this.sink.onEnd();
  }

  /** The others are of no use any more; what this one says is the answer. */
  private fail(part: Part, status: number, headers: AnswerHeaders): void {
    this.failed = part;
    for (const other of this.parts) if (other !== part) other.call?.abort();
    this.sink.onHead(status, headers);
  }

  private broke(part: Part, kind: CallErrorKind, detail: string): void {
    part.call = null;
    if (this.over) return;
    this.abort();
    this.sink.onError(kind, detail);
  }
}

/** `[{"headers":{…},"body":…}, …]` in the order of the calls. A body that is no JSON makes the whole unreadable. */
function joined(parts: readonly Part[]): Buffer {
  const pieces: Buffer[] = [];
  for (const [i, part] of parts.entries()) {
    pieces.push(Buffer.from(`${i === 0 ? "[" : ","}{"headers":${JSON.stringify(part.headers)},"body":`));
    pieces.push(...part.chunks, Buffer.from("}"));
  }
  pieces.push(Buffer.from("]"));
  return Buffer.concat(pieces);
}
