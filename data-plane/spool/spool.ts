/**
 * Request bodies that are not held whole: the first bytes of each stay in memory, what follows goes to a file without a
 * name. What was received can be read from the start by any number of readers while it still grows.
 */

import { Blocks } from "./blocks.ts";
import { BLOCK_BYTES, type SpoolRoom } from "./spool_room.ts";
import { SpoolError, type SpoolFailure, type SpoolFs } from "./spool_types.ts";
import { SpoolReading } from "./spool_reading.ts";
import type { BodySource } from "../transport.ts";

/** So much of a body stays in memory; with less it never touches the disk. */
export const SPOOL_MEMORY_BYTES = 256 * 1024;
/** With more than this waiting for the disk, the client has to wait. */
export const SPOOL_PENDING_BYTES_MAX = 256 * 1024;

/** Bytes that stand in place of others. */
export interface SpoolSplice {
  /** `[start, end)` of the body as received. */
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

/** Parts of a body at will, for what looks at media. */
export interface SpoolView {
  readonly size: number;
  /** The bytes `[start, end)` of the view, fewer only at its end. @throws SpoolError */
  read(start: number, end: number): Promise<Uint8Array>;
}

/** Who feeds a spool. */
export interface SpoolHost {
  /** Room again after `write` returned false. */
  onDrain(): void;
  /** The body cannot be kept. Nothing is called after it. */
  onFailure(failure: SpoolFailure): void;
}

/** In place of a descriptor: none was opened, or it was given back. */
const NO_FILE = -1;
const GONE = -2;
const IDLE: SpoolHost = { onDrain() {}, onFailure() {} };

/** One body. Made by `Spools`; whoever has it made closes it. */
export class Spool {
  /** Bytes received. */
  bytes = 0;
  /** All of it was received. */
  ended = false;
  failure: SpoolError | null = null;
  host: SpoolHost = IDLE;
  /** In all, as the client announced; null: it did not. */
  readonly announced: number | null;
  private readonly room: SpoolRoom;
  private readonly fs: SpoolFs;
  private readonly path: string;
  /** What stays in memory: `[0, kept.bytes)`. */
  private readonly kept: Blocks;
  /** What waits for the disk. */
  private readonly pending: Blocks;
  /** Nothing more stays in memory. */
  private spilled = false;
  private opening = false;
  private fd = NO_FILE;
  /** Bytes of the disk's room that are this spool's. */
  private taken = 0;
  /** Bytes in the file. */
  private written = 0;
  private writing = false;
  /** Calls of the file system under way: the descriptor is closed after the last of them. */
  private busy = 0;
  private closed = false;
  private needsDrain = false;
  /** Who wants to know that there is more. */
  private readonly readings = new Set<{ pump(): void }>();
  private readonly onClosed: () => void;

  constructor(room: SpoolRoom, fs: SpoolFs, path: string, announced: number | null, onClosed: () => void) {
    this.room = room;
    this.fs = fs;
    this.path = path;
    this.announced = announced;
    this.onClosed = onClosed;
    // Readers hand views of these on, to sockets that may outlive the spool.
    this.kept = new Blocks(room, false);
    this.pending = new Blocks(room, true);
  }

  /** Bytes that can be read already. */
  get readable(): number {
    return this.kept.bytes + this.written;
  }

  /** Takes a copy. False: wait for `onDrain`; what comes nevertheless is taken too. */
  write(chunk: Uint8Array): boolean {
    if (this.closed || this.failure !== null) return true;
    this.bytes += chunk.length;
    const rest = this.keep(chunk);
    if (rest.length > 0) {
      if (!this.room.takeDisk(rest.length)) {
        this.fail("no_room");
        return true;
      }
      this.taken += rest.length;
      this.pending.add(rest, BLOCK_BYTES);
      this.flush();
    }
    this.wake();
    if (this.pending.bytes === 0) return true;
    if (this.pending.bytes <= SPOOL_PENDING_BYTES_MAX && !this.room.full) return true;
    this.needsDrain = true;
    return false;
  }

  /** The body is whole. */
  end(): void {
    this.ended = true;
    this.wake();
  }

  /** The body does not come whole, or cannot be kept: readers fail. */
  fail(failure: SpoolFailure, detail = ""): void {
    if (this.failure !== null || this.closed) return;
    this.failure = new SpoolError(failure, detail);
    this.wake();
    if (failure !== "cut") this.host.onFailure(failure);
  }

  /** The body as it came but for these changes, which are in order and do not overlap. Opened once for each reader. */
  source(splices: readonly SpoolSplice[] = []): BodySource {
    let grows = 0;
    for (const { start, end, bytes } of splices) grows += bytes.length - (end - start);
    const whole = this.ended ? this.bytes : this.announced;
    return {
      length: whole === null ? null : whole + grows,
      open: (sink) => {
        const reading: SpoolReading = new SpoolReading(this, splices, sink, () => this.readings.delete(reading));
        this.readings.add(reading);
        process.nextTick(() => reading.pump());
        return reading;
      },
    };
  }

  /** The bytes `[start, end)`, all of which were received. */
  view(start: number, end: number): SpoolView {
    const size = end - start;
    return {
      size,
      read: (from, to) => this.readAll(start + Math.max(0, from), start + Math.min(to, size)),
    };
  }

  /** Ends whatever reads it and gives everything back. Safe to call twice. */
  close(): void {
    if (this.closed) return;
    this.failure ??= new SpoolError("closed", "");
    this.closed = true;
    this.wake();
    this.kept.clear();
    // A block that is being written must not be used for something else.
    if (!this.writing) this.pending.clear();
    this.closeFile();
  }

  /** What can be read of `[start, end)` at once without waiting for the disk; null: nothing. */
  peek(start: number, end: number): Uint8Array | null {
    return this.kept.view(start, end);
  }

  /** Reads from the file. `done` runs once, later; with less than asked for if so much is not there. */
  readFile(start: number, end: number, done: (error: Error | null, bytes: Uint8Array) => void): void {
    const bytes = Buffer.allocUnsafeSlow(end - start);
    this.busy++;
    this.fs.read(this.fd, bytes, 0, bytes.length, start - this.kept.bytes, (error, read) => {
      this.busy--;
      const failed = error ?? (read === 0 ? new Error("the file ended early") : null);
      done(failed === null ? null : new SpoolError("disk_error", codeOf(failed)), bytes.subarray(0, read ?? 0));
      this.closeFile();
    });
  }

  private async readAll(start: number, end: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let at = start; at < end;) {
      if (this.failure !== null) throw this.failure;
      if (at >= this.readable) {
        await this.moreReadable();
        continue;
      }
      const here = this.peek(at, end);
      const part =
        here ??
        (await new Promise<Uint8Array>((resolve, reject) => {
          this.readFile(at, Math.min(end, this.readable), (error, bytes) =>
            error === null ? resolve(bytes) : reject(error),
          );
        }));
      parts.push(part);
      at += part.length;
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  /** Resolves when more was written, or nothing more comes. */
  private moreReadable(): Promise<void> {
    return new Promise((resolve) => {
      const waiting = {
        pump: (): void => {
          this.readings.delete(waiting);
          resolve();
        },
      };
      this.readings.add(waiting);
    });
  }

  /** Keeps what fits into memory; returns the rest. */
  private keep(chunk: Uint8Array): Uint8Array {
    if (this.spilled) return chunk;
    const fits = this.room.full ? 0 : Math.min(chunk.length, SPOOL_MEMORY_BYTES - this.kept.bytes);
    if (fits > 0) this.kept.add(chunk.subarray(0, fits), this.hintOf(fits));
    if (fits === chunk.length) return chunk.subarray(fits);
    this.spilled = true;
    return chunk.subarray(fits);
  }

  /** How many bytes may still come, with those at hand. */
  private hintOf(bytes: number): number {
    return this.announced === null ? bytes : Math.max(bytes, this.announced - this.kept.bytes);
  }

  private flush(): void {
    if (this.writing || this.closed || this.failure !== null || this.pending.bytes === 0) return;
    if (this.fd === NO_FILE) return this.openFile();
    const block = this.pending.first();
    this.writing = true;
    this.busy++;
    this.fs.write(this.fd, block, 0, block.length, this.written, (error, count) => {
      this.writing = false;
      this.busy--;
      if (error !== null) this.diskFailed(error);
      if (this.closed || error !== null) {
        this.pending.clear();
      } else {
        this.pending.drop(count);
        this.written += count;
        this.flush();
        this.wake();
        this.drain();
      }
      this.closeFile();
    });
  }

  private openFile(): void {
    if (this.opening) return;
    this.opening = true;
    this.busy++;
    this.fs.open(this.path, "wx+", 0o600, (error, fd) => {
      this.busy--;
      if (error !== null) {
        this.pending.clear();
        this.diskFailed(error);
        return this.closeFile();
      }
      this.fd = fd;
      this.busy++;
      // Its name goes at once, so that nothing is left when the process dies. The next start removes what is.
      this.fs.unlink(this.path, () => {
        this.busy--;
        this.closeFile();
      });
      this.flush();
    });
  }

  private drain(): void {
    if (!this.needsDrain || this.pending.bytes > 0) return;
    this.needsDrain = false;
    this.host.onDrain();
  }

  private diskFailed(error: Error): void {
    this.fail(codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT" ? "disk_full" : "disk_error", codeOf(error));
  }

  private closeFile(): void {
    if (!this.closed || this.busy > 0) return;
    const { fd } = this;
    if (fd === GONE) return;
    this.fd = GONE;
    this.room.giveDisk(this.taken);
    if (fd === NO_FILE) return this.onClosed();
    this.fs.close(fd, () => this.onClosed());
  }

  private wake(): void {
    for (const reading of this.readings) reading.pump();
  }
}

function codeOf(error: Error): string {
  return (error as NodeJS.ErrnoException).code ?? error.message;
}
