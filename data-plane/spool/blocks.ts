/** PURE. A row of bytes in blocks of their own: clients' chunks may be tiny, and each keeps a whole read of its socket. */

import { BLOCK_BYTES, type SpoolRoom } from "./spool_room.ts";

const BLOCK_BYTES_MIN = 4 * 1024;

interface Block {
  readonly bytes: Buffer;
  used: number;
}

export class Blocks {
  /** Bytes in it, without those that were dropped. */
  bytes = 0;
  private blocks: Block[] = [];
  /** Where the bytes of the first block begin. */
  private from = 0;
  private readonly room: SpoolRoom;
  private readonly reuse: boolean;

  /** `reuse`: its blocks are used for other bytes once they are dropped. */
  constructor(room: SpoolRoom, reuse: boolean) {
    this.room = room;
    this.reuse = reuse;
  }

  /** Appends a copy. `hint`: how much is about to come, these included. */
  add(chunk: Uint8Array, hint: number): void {
    let at = 0;
    while (at < chunk.length) {
      let last = this.blocks.at(-1);
      if (last === undefined || last.used === last.bytes.length) {
        const size = Math.min(BLOCK_BYTES, Math.max(BLOCK_BYTES_MIN, hint - at));
        this.blocks.push((last = { bytes: this.room.takeBlock(size), used: 0 }));
      }
      const fits = Math.min(chunk.length - at, last.bytes.length - last.used);
      last.bytes.set(chunk.subarray(at, at + fits), last.used);
      last.used += fits;
      at += fits;
    }
    this.bytes += chunk.length;
  }

  /** The bytes from `start`, as far as one block has them and at most to `end`; null: there are none. */
  view(start: number, end: number): Uint8Array | null {
    let base = -this.from;
    for (const { bytes, used } of this.blocks) {
      if (start < base + used) return bytes.subarray(start - base, Math.min(used, end - base));
      base += used;
    }
    return null;
  }

  /** The bytes of the first block. They stay as they are until they are dropped. */
  first(): Uint8Array {
    const { bytes, used } = this.blocks[0]!;
    return bytes.subarray(this.from, used);
  }

  /** Takes bytes of the first block away. */
  drop(count: number): void {
    const block = this.blocks[0]!;
    this.bytes -= count;
    this.from += count;
    if (this.from < block.used) return;
    this.from = 0;
    this.blocks.shift();
    this.room.giveBlock(block.bytes, this.reuse);
  }

  clear(): void {
    for (const { bytes } of this.blocks) this.room.giveBlock(bytes, this.reuse);
    this.blocks = [];
    this.bytes = this.from = 0;
  }
}
