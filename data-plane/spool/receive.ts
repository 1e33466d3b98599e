/** From a client's connection into a spool. */

import type { BodyFailure, Exchange } from "../transport.ts";
import type { Spool } from "./spool.ts";
import type { SpoolFailure } from "./spool_types.ts";

/** Who wants to know how a body comes. One of the last two is called, once, unless the client goes away first. */
export interface BodyReceiver {
  /** Bytes of the socket, before they are kept. */
  onChunk(chunk: Buffer): void;
  /** All of it was received; the end of it may still wait for the disk. */
  onEnd(): void;
  onFailure(failure: BodyFailure | SpoolFailure): void;
}

/** What the client announced, for `Spools.create`; null: it sends chunks. */
export function announcedBytes(exchange: Exchange): number | null {
  const text = exchange.header("content-length");
  return /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/**
 * Takes the body, as fast as the disk does. On a failure readers of the spool fail too. When the client goes away
 * (`ExchangeSink.onGone`) before `onEnd`, call `spool.fail("cut")`.
 */
export function receiveBody(exchange: Exchange, spool: Spool, bytesMax: number, receiver: BodyReceiver): void {
  const flow = exchange.streamBody(bytesMax, {
    onChunk(chunk) {
      if (spool.failure !== null) return;
      receiver.onChunk(chunk);
      if (!spool.write(chunk)) flow.pause();
    },
    onEnd() {
      // The last chunk may have been the one that failed.
      if (spool.failure !== null) return;
      spool.end();
      receiver.onEnd();
    },
    onBodyFailure(failure) {
      spool.fail("cut", failure);
      receiver.onFailure(failure);
    },
  });
  spool.host = {
    onDrain: () => flow.resume(),
    onFailure(failure) {
      flow.resume();
      receiver.onFailure(failure);
    },
  };
}
