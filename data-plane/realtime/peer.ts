/** One side of a session: a WebSocket that stands, with back-pressure. */

import type { WebSocket } from "ws";

/** Who listens. Nothing is called after `onClosed`. */
export interface PeerSink {
  onFrame(data: Buffer, binary: boolean): void;
  /** Room again after `send` returned false. */
  onRoom(): void;
  /** The connection is over; 1006: it broke. */
  onClosed(code: number, reason: string): void;
}

const NOBODY: PeerSink = { onFrame: () => undefined, onRoom: () => undefined, onClosed: () => undefined };
const REASON_BYTES_MAX = 123;

export class Peer {
  private readonly ws: WebSocket;
  private readonly bufferBytesMax: number;
  private sink: PeerSink = NOBODY;
  private full = false;
  closed = false;
  /** When `send` began to return false; 0: it does not. */
  fullSince = 0;
  /** Set when a ping was answered, or a frame came. */
  answered = true;

  constructor(ws: WebSocket, bufferBytesMax: number) {
    this.ws = ws;
    this.bufferBytesMax = bufferBytesMax;
    ws.on("message", (data, binary) => {
      this.answered = true;
      this.sink.onFrame(data as Buffer, binary);
    });
    ws.on("pong", () => (this.answered = true));
    ws.on("error", () => undefined);
    ws.on("close", (code, reason) => {
      this.closed = true;
      const { sink } = this;
      this.sink = NOBODY;
      sink.onClosed(code, reason.toString("utf8"));
    });
  }

  setSink(sink: PeerSink): void {
    this.sink = sink;
  }

  /** Bytes that wait for this side to take them. */
  get bufferedBytes(): number {
    return this.ws.bufferedAmount;
  }

  /** False: this side is slow, stop until `onRoom`. */
  send(data: Buffer, binary: boolean): boolean {
    if (this.ws.readyState !== this.ws.OPEN) return true;
    this.ws.send(data, { binary, compress: false }, this.sent);
    if (this.ws.bufferedAmount <= this.bufferBytesMax) return true;
    if (!this.full) this.fullSince = performance.now();
    this.full = true;
    return false;
  }

  private readonly sent = (): void => {
    if (!this.full || this.ws.bufferedAmount > this.bufferBytesMax / 2) return;
    this.full = false;
    this.fullSince = 0;
    this.sink.onRoom();
  };

  pause(): void {
    this.ws.pause();
  }

  resume(): void {
    this.ws.resume();
  }

  ping(): void {
    this.answered = false;
    if (this.ws.readyState === this.ws.OPEN) this.ws.ping();
  }

  /** The other side has CLOSE_MS to answer. What was sent before arrives before. */
  close(code: number, reason: string): void {
    // The answer must be read, also if nothing else was.
    this.ws.resume();
    this.ws.close(code, Buffer.from(reason).subarray(0, REASON_BYTES_MAX));
  }

  terminate(): void {
    this.ws.terminate();
  }
}
