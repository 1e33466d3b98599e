/** One reader of a spool: from the start, with splices applied, as fast as it may. */

import type { BodyReading, BodySourceSink } from "../transport.ts";
import type { SpoolSplice } from "./spool.ts";
import { BLOCK_BYTES } from "./spool_room.ts";
import type { SpoolError } from "./spool_types.ts";

/** What a reader needs of the spool. */
export interface Readable {
  readonly bytes: number;
  readonly ended: boolean;
  readonly readable: number;
  readonly failure: SpoolError | null;
  peek(start: number, end: number): Uint8Array | null;
  readFile(start: number, end: number, done: (error: Error | null, bytes: Uint8Array) => void): void;
}

export class SpoolReading implements BodyReading {
  private readonly spool: Readable;
  private readonly splices: readonly SpoolSplice[];
  private readonly sink: BodySourceSink;
  private readonly onOver: () => void;
  /** In the body as received. */
  private at = 0;
  private nextSplice = 0;
  private paused = false;
  private over = false;
  /** The disk is asked. */
  private asking = false;
  /** A chunk is being handed over. */
  private handing = false;

  constructor(spool: Readable, splices: readonly SpoolSplice[], sink: BodySourceSink, onOver: () => void) {
    this.spool = spool;
    this.splices = splices;
    this.sink = sink;
    this.onOver = onOver;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.pump();
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    this.onOver();
  }

  /** Hands on what is there. */
  pump(): void {
    while (!this.handing && !this.over) {
      if (this.spool.failure !== null) return this.fail(this.spool.failure);
      if (this.asking || this.paused || !this.step()) return;
    }
  }

  /** One piece; false: wait. */
  private step(): boolean {
    const { spool, at } = this;
    const splice = this.splices[this.nextSplice];
    if (splice !== undefined && at === splice.start) {
      this.nextSplice++;
      this.at = splice.end;
      if (splice.bytes.length > 0) this.hand(splice.bytes);
      return true;
    }
    const limit = Math.min(spool.readable, splice?.start ?? spool.readable);
    if (at < limit) return this.read(at, limit);
    if (!spool.ended || at < spool.bytes) return false;
    this.close();
    this.sink.onEnd();
    return false;
  }

  private read(at: number, limit: number): boolean {
    const here = this.spool.peek(at, limit);
    if (here !== null) {
      this.at += here.length;
      this.hand(here);
      return true;
    }
    this.asking = true;
    this.spool.readFile(at, Math.min(limit, at + BLOCK_BYTES), (error, bytes) => {
      // After what sockets have to say in this turn: an upstream that refuses closes its connection right after its
      // answer, and writing to that one first would lose the answer.
      setImmediate(() => this.fileRead(error, bytes));
    });
    return false;
  }

  private fileRead(error: Error | null, bytes: Uint8Array): void {
    this.asking = false;
    if (this.over) return;
    if (error !== null) return this.fail(error);
    this.at += bytes.length;
    this.hand(bytes);
    this.pump();
  }

  /** The receiver may pause, resume or close meanwhile. */
  private hand(bytes: Uint8Array): void {
    this.handing = true;
    this.sink.onChunk(bytes);
    this.handing = false;
  }

  private fail(error: Error): void {
    this.close();
    this.sink.onError(error);
  }
}
