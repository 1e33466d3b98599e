/** Frames from one side to the other, in order: read no faster than they are taken, and held while something is decided. */

import type { Peer } from "./peer.ts";

interface Frame {
  readonly data: Buffer;
  readonly binary: boolean;
}

export class Lane {
  readonly from: Peer;
  private readonly to: Peer;
  private readonly handle: (data: Buffer, binary: boolean) => void;
  /** What was read already when the gate closed: what one read of a socket brought, since it is paused then. */
  private readonly queue: Frame[] = [];
  private gates = 0;
  private full = false;
  private opening = false;
  private readonly waiting: (() => void)[] = [];

  /** `handle` decides about each frame, and forwards it or not. */
  constructor(from: Peer, to: Peer, handle: (data: Buffer, binary: boolean) => void) {
    this.from = from;
    this.to = to;
    this.handle = handle;
  }

  take(data: Buffer, binary: boolean): void {
    if (this.gates > 0 || this.opening) this.queue.push({ data, binary });
    else this.handle(data, binary);
  }

  forward(data: Buffer, binary: boolean): void {
    if (this.to.send(data, binary) || this.full) return;
    this.full = true;
    this.from.pause();
  }

  /** Nothing more passes until `open` was called as often. */
  close(): void {
    this.gates++;
    this.from.pause();
  }

  open(): void {
    this.gates--;
    if (this.gates > 0 || this.opening) return;
    this.opening = true;
    while (this.gates === 0 && this.queue.length > 0) {
      const { data, binary } = this.queue.shift()!;
      this.handle(data, binary);
    }
    this.opening = false;
    if (this.gates > 0) return;
    if (!this.full) this.from.resume();
    for (const run of this.waiting.splice(0)) run();
  }

  /** When everything that came so far was handled, which may be now. */
  whenOpen(run: () => void): void {
    if (this.gates > 0 || this.opening) this.waiting.push(run);
    else run();
  }

  /** The one side is not read at the moment: it may be silent for no fault of its own. */
  get stopped(): boolean {
    return this.full || this.gates > 0;
  }

  /** Nothing is forwarded any more, so that nobody is waited for. */
  drop(): void {
    this.onRoom();
  }

  onRoom(): void {
    this.full = false;
    if (this.gates === 0) this.from.resume();
  }
}
