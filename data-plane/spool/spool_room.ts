/** PURE. What all spools of a process may take together, and the blocks that they use again. */

export const BLOCK_BYTES = 64 * 1024;
/** Free blocks that are kept for later. */
const FREE_BLOCKS_MAX = 32;

export class SpoolRoom {
  memoryBytes = 0;
  diskBytes = 0;
  private readonly memoryBytesMax: number;
  private readonly diskBytesMax: number;
  private readonly free: Buffer[] = [];

  constructor(memoryBytesMax: number, diskBytesMax: number) {
    this.memoryBytesMax = memoryBytesMax;
    this.diskBytesMax = diskBytesMax;
  }

  /** Memory is short: bodies go to the disk at once, and clients wait for it. */
  get full(): boolean {
    return this.memoryBytes >= this.memoryBytesMax;
  }

  /** False: there is not so much. */
  takeDisk(bytes: number): boolean {
    if (this.diskBytes + bytes > this.diskBytesMax) return false;
    this.diskBytes += bytes;
    return true;
  }

  giveDisk(bytes: number): void {
    this.diskBytes -= bytes;
  }

  takeBlock(bytes: number): Buffer {
    this.memoryBytes += bytes;
    return (bytes === BLOCK_BYTES ? this.free.pop() : undefined) ?? Buffer.allocUnsafeSlow(bytes);
  }

  /** `reuse`: nobody else has a view of it. */
  giveBlock(block: Buffer, reuse: boolean): void {
    this.memoryBytes -= block.length;
    if (reuse && block.length === BLOCK_BYTES && this.free.length < FREE_BLOCKS_MAX) this.free.push(block);
  }
}
