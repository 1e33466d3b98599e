/** A client's body as it comes, as the body of one call to an upstream: what the one does not take, the other does not send. */

import type { BodyFailure, BodyReading, BodySource, BodySourceSink, Exchange, Flow } from "./transport.ts";

/** Who wants to know how it goes. */
export interface ClientBodyHost {
  /** Some of it moved on. */
  onBodyProgress(): void;
  /** The rest does not come: the call must be given up. */
  onBodyFailure(failure: BodyFailure): void;
}

/** Can be opened once, since nothing of it is kept. When the client goes away nothing is called back: abort the call then. */
export class ClientBody implements BodySource {
  readonly length: number | null;
  readonly bytesMax: number;
  host: ClientBodyHost | null = null;
  /** The client's next bytes are waited for, and nobody else. */
  waitsForClient = false;
  private readonly exchange: Exchange;
  private opened = false;

  /** `length`: as the client announced it, at most `bytesMax`; null: it sends chunks. */
  constructor(exchange: Exchange, length: number | null, bytesMax: number) {
    this.exchange = exchange;
    this.length = length;
    this.bytesMax = bytesMax;
  }

  open(sink: BodySourceSink): BodyReading {
    if (this.opened) throw new Error("a client's body can be read once");
    this.opened = true;
    let closed = false;
    const flow: Flow = this.exchange.streamBody(this.bytesMax, {
      onChunk: (chunk) => {
        if (closed) return;
        this.host?.onBodyProgress();
        // The bytes are the socket's.
        sink.onChunk(Buffer.from(chunk));
      },
      onEnd: () => {
        this.waitsForClient = false;
        if (!closed) sink.onEnd();
      },
      onBodyFailure: (failure) => {
        this.waitsForClient = false;
        if (!closed) this.host?.onBodyFailure(failure);
      },
    });
    this.waitsForClient = true;
    return {
      pause: () => {
        this.waitsForClient = false;
        flow.pause();
      },
      resume: () => {
        if (closed) return;
        this.waitsForClient = true;
        flow.resume();
      },
      close: () => {
        if (closed) return;
        closed = true;
        this.waitsForClient = false;
        // What still comes is thrown away once the client is answered.
        flow.pause();
      },
    };
  }
}
