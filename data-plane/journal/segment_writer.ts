/**
 * The files of one boot's journal: append-only segments. What was written stays in memory until the disk has confirmed
 * it, so that a failed write or sync can be done again. One write per span, at a known place, so that a torn write is
 * overwritten by the next try.
 */

import { join } from "node:path";
import type { JournalFs } from "./journal_disk.ts";

/** A segment is closed once it is this long. */
export const SEGMENT_BYTES = 16 * 1024 * 1024;

/** A part of a buffer that holds whole frames. `lastNo`: the last record in it, or of those before it. */
export interface Span {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly lastNo: number;
  /** Repeated from older segments: does not count towards the length at which a segment is closed. */
  readonly carried?: boolean;
}

export interface Segment {
  readonly path: string;
  /** Records from here on may be in it. */
  readonly firstNo: number;
  /** The last record in it; `firstNo - 1` if there is none. */
  lastNo: number;
  bytes: number;
  carriedBytes: number;
}

export function segmentName(index: number): string {
  return `${String(index).padStart(8, "0")}.log`;
}

export function isSegmentName(name: string): boolean {
  return /^\d{8,}\.log$/.test(name);
}

export class SegmentWriter {
  readonly segments: Segment[] = [];
  /** All records up to this one have reached the file. */
  writtenNo: number;
  /** All records up to this one have reached the disk. */
  durableNo: number;
  readonly #dir: string;
  readonly #fs: JournalFs;
  readonly #segmentBytes: number;
  #index: number;
  #fd = -1;
  /** Closed segments that are not synced yet. */
  #closing: number[] = [];
  #dirDirty = false;
  /** Written, not synced. */
  #unsynced: Span[] = [];
  #syncing: Promise<void> | null = null;

  /** Starts with segment number `index`; `lastNo` is the last record of those before. */
  constructor(dir: string, fs: JournalFs, index = 1, lastNo = 0, segmentBytes = SEGMENT_BYTES) {
    this.#dir = dir;
    this.#fs = fs;
    this.#index = index;
    this.#segmentBytes = segmentBytes;
    this.writtenNo = lastNo;
    this.durableNo = lastNo;
  }

  get current(): Segment | undefined {
    return this.#fd < 0 ? undefined : this.segments.at(-1);
  }

  /** True if the next write begins a new segment: the caller then opens it and writes first what must not be left behind. */
  get startsSegment(): boolean {
    const { current } = this;
    return current === undefined || current.bytes - current.carriedBytes >= this.#segmentBytes;
  }

  get bytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  get isSynced(): boolean {
    return this.#unsynced.length === 0;
  }

  /** Opens the next segment. @throws what node:fs throws */
  openSegment(): Segment {
    const path = join(this.#dir, segmentName(this.#index));
    const fd = this.#fs.openSync(path, "wx", 0o600);
    if (this.#fd >= 0) this.#closing.push(this.#fd);
    this.#fd = fd;
    this.#index++;
    this.#dirDirty = true;
    const segment = { path, firstNo: this.writtenNo + 1, lastNo: this.writtenNo, bytes: 0, carriedBytes: 0 };
    this.segments.push(segment);
    return segment;
  }

  /** Writes a span to the current segment. @throws what node:fs throws; nothing counts as written then */
  write(span: Span): void {
    const segment = this.current ?? this.openSegment();
    let at = span.start;
    let position = segment.bytes;
    while (at < span.end) {
      const written = this.#fs.writeSync(this.#fd, span.buffer, at, span.end - at, position);
      at += written;
      position += written;
    }
    segment.bytes = position;
    if (span.carried === true) segment.carriedBytes += span.end - span.start;
    segment.lastNo = Math.max(segment.lastNo, span.lastNo);
    this.writtenNo = Math.max(this.writtenNo, span.lastNo);
    this.#unsynced.push(span);
  }

  /**
   * Brings everything written so far to the disk. Calls share one sync, and a call during one waits for the next.
   * Rejects if the disk cannot: then `takeUnsynced` gives what must be written again.
   */
  async sync(): Promise<void> {
    if (this.#syncing !== null) await this.#syncing.catch(() => undefined);
    if (this.#syncing !== null) return this.#syncing;
    if (this.isSynced && this.#closing.length === 0) return;
    this.#syncing = this.#syncNow().finally(() => {
      this.#syncing = null;
    });
    return this.#syncing;
  }

  async #syncNow(): Promise<void> {
    const upTo = this.writtenNo;
    const spans = this.#unsynced.length;
    const closing = [...this.#closing];
    for (const fd of [...closing, this.#fd]) {
      if (fd >= 0) await this.#fdatasync(fd);
    }
    this.#closing = this.#closing.filter((fd) => !closing.includes(fd));
    for (const fd of closing) this.#fs.closeSync(fd);
    if (this.#dirDirty) {
      this.#dirDirty = false;
      await this.#syncDir();
    }
    this.#unsynced.splice(0, spans);
    this.durableNo = Math.max(this.durableNo, upTo);
  }

  /**
   * After a failed sync nobody knows what the disk has: gives everything unconfirmed back, to be written again, and goes
   * on with a new segment.
   */
  takeUnsynced(): Span[] {
    const spans = this.#unsynced;
    this.#unsynced = [];
    this.writtenNo = this.durableNo;
    for (const fd of [...this.#closing, this.#fd]) {
      if (fd >= 0) this.#close(fd);
    }
    this.#closing = [];
    this.#fd = -1;
    return spans;
  }

  /** Deletes segments that hold only records up to this one, oldest first; never the current one. */
  deleteUpTo(recordNo: number): void {
    while (this.segments.length > 1 && this.segments[0]!.lastNo <= recordNo) {
      const { path } = this.segments.shift()!;
      this.#fs.unlink(path, () => undefined);
    }
  }

  async close(): Promise<void> {
    await this.sync();
    if (this.#fd >= 0) this.#close(this.#fd);
    this.#fd = -1;
  }

  #close(fd: number): void {
    try {
      this.#fs.closeSync(fd);
    } catch {
      // A file that cannot be closed after an I/O error is of no more use anyway.
    }
  }

  #fdatasync(fd: number): Promise<void> {
    return new Promise((done, fail) => this.#fs.fdatasync(fd, (error) => (error === null ? done() : fail(error))));
  }

  async #syncDir(): Promise<void> {
    const fd = this.#fs.openSync(this.#dir, "r");
    try {
      await new Promise<void>((done, fail) => this.#fs.fsync(fd, (error) => (error === null ? done() : fail(error))));
    } finally {
      this.#close(fd);
    }
  }
}
