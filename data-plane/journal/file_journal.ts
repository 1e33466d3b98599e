/**
 * The journal of one boot. Frames are collected in memory and written once per event-loop turn; the disk confirms them
 * on a timer. Only what the disk has confirmed is reported, so that the ledger never knows more than the journal.
 */

import type { Logger } from "pino";
import { FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameType, sealFrame } from "./frame.ts";
import { type JournalFs, NODE_DISK, type SegmentFs } from "./journal_disk.ts";
import type { Intent, Journal, Progress, Settlement } from "./journal.ts";
import { LimitUses } from "./limit_uses.ts";
import { type JournalRecord, lostRecord, type ReadLimits, SegmentReader } from "./journal_records.ts";
import { OpenStreams } from "./open_streams.ts";
import { RecentRecords } from "./recent_records.ts";
import {
  encodeIntent,
  encodeProgress,
  encodeSettlement,
  intentBytesMax,
  progressBytesMax,
  settlementBytesMax,
} from "./record.ts";
import { SegmentWriter, type Span } from "./segment_writer.ts";

/** What a power cut can cost at most. */
export const SYNC_MS = 200;
/** A write that failed is tried again this often. */
export const RETRY_MS = 500;
/** Frames are encoded into buffers of this size. */
const CHUNK_BYTES = 256 * 1024;
/** Unwritten bytes beyond which intents and progress notes are dropped. Settlements are kept: no new requests come then. */
const PENDING_BYTES_MAX = 64 * 1024 * 1024;
/** Segments on disk beyond which nothing is admitted, because the control plane has been away for too long. */
export const DISK_BYTES_MAX = 4 * 1024 * 1024 * 1024;

export interface FileJournalOptions {
  /** The directory of this boot; exists and is empty. */
  readonly dir: string;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  now(): number;
  newId(prefix: string): string;
  /** Hears of every settlement, for metrics. */
  onSettle?(settlement: Settlement): void;
  readonly fs?: JournalFs & SegmentFs;
  readonly segmentBytes?: number;
  readonly recentBytesMax?: number;
  readonly diskBytesMax?: number;
}

export class FileJournal implements Journal {
  readonly #options: FileJournalOptions;
  readonly #writer: SegmentWriter;
  readonly #recent: RecentRecords;
  readonly #streams = new OpenStreams();
  /** What records that are not acknowledged used of limits. */
  readonly limitUses = new LimitUses();
  #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  /** Where the frames of this turn begin and end in the chunk. */
  #start = 0;
  #end = 0;
  #lastNo = 0;
  #ackedNo = 0;
  #pending: Span[] = [];
  #pendingBytes = 0;
  #callbacks: ((error?: Error) => void)[] = [];
  #scheduled = false;
  #failing = false;
  #diskFull = false;
  #gone = false;
  #syncTimer: NodeJS.Timeout | null = null;
  #retryTimer: NodeJS.Timeout | null = null;
  readonly #reader: SegmentReader;
  #onDurable: (() => void) | null = null;

  constructor(options: FileJournalOptions) {
    this.#options = options;
    const fs = options.fs ?? NODE_DISK;
    this.#writer = new SegmentWriter(options.dir, fs, 1, 0, options.segmentBytes);
    this.#recent = new RecentRecords(options.recentBytesMax);
    this.#reader = new SegmentReader(fs, (recordNo) => {
      options.log.error({ recordNo }, "a journal record is lost");
      return lostRecord(recordNo, options.newId("usg_"), options.now());
    });
  }

  get accepting(): boolean {
    return !this.#failing && !this.#diskFull && !this.#gone;
  }

  /** Records that the ledger has not confirmed. */
  get backlog(): number {
    return this.#lastNo - this.#ackedNo;
  }

  get diskBytes(): number {
    return this.#writer.bytes;
  }

  /** All records up to this one are on disk and can be reported. */
  get durableNo(): number {
    return this.#writer.durableNo;
  }

  get lastNo(): number {
    return this.#lastNo;
  }

  get liveStreams(): number {
    return this.#streams.size;
  }

  /** `run` is called whenever more records can be reported. */
  onDurable(run: () => void): void {
    this.#onDurable = run;
  }

  intent(intent: Intent): void {
    if (this.#pendingBytes > PENDING_BYTES_MAX) return;
    const at = this.#room(intentBytesMax(intent));
    const end = encodeIntent(this.#chunk, at, intent);
    this.#streams.intent(intent.id, this.#chunk.subarray(at, end));
    this.#seal(FrameType.INTENT, at, end);
  }

  progress(progress: Progress): void {
    if (this.#pendingBytes > PENDING_BYTES_MAX) return;
    const at = this.#room(progressBytesMax(progress));
    const end = encodeProgress(this.#chunk, at, progress);
    this.#streams.progress(progress.id, this.#chunk.subarray(at, end));
    this.#seal(FrameType.PROGRESS, at, end);
  }

  settle(settlement: Settlement, written: (error?: Error) => void): void {
    const at = this.#room(settlementBytesMax(settlement));
    const recordNo = ++this.#lastNo;
    const end = encodeSettlement(this.#chunk, at, recordNo, settlement);
    this.#streams.settle(settlement.id);
    const { veId, credits } = settlement;
    this.#recent.push({ recordNo, buffer: this.#chunk, start: at, end, veId, credits });
    if (settlement.limits !== undefined) this.limitUses.push(recordNo, settlement.limits);
    this.#callbacks.push(written);
    this.#options.onSettle?.(settlement);
    this.#seal(FrameType.SETTLE, at, end);
  }

  /**
   * Somebody has looked whether the directory is still there. Open files can be written without it, but nobody would find
   * them again: nothing is admitted until it is back.
   */
  sawDirectory(there: boolean): void {
    if (there === !this.#gone) return;
    this.#gone = !there;
    if (there) this.#options.log.warn("the journal's directory is back");
    else this.#options.log.error("the journal's directory is gone; nothing is admitted until it is back");
  }

  /** Writes what is waiting and brings it to the disk; resolves also if it cannot: see `durableNo`. */
  async sync(): Promise<void> {
    this.#flush();
    try {
      await this.#writer.sync();
    } catch (error) {
      this.#syncFailed(error as Error);
      return;
    }
    this.#onDurable?.();
  }

  /** Confirmed records from `from` on, in order, at least one if there is one; from memory, or from disk when far behind. */
  async read(from: number, limits: ReadLimits): Promise<JournalRecord[]> {
    const last = this.#writer.durableNo;
    if (from > last) return [];
    if (from >= this.#recent.firstNo) {
      this.#reader.rest();
      return this.#recent.read(from, last, limits);
    }
    return this.#reader.read(this.#writer.segments, from, last, limits);
  }

  /** The ledger has all records up to this one for good. */
  acknowledge(recordNo: number): void {
    if (recordNo <= this.#ackedNo) return;
    this.#ackedNo = Math.min(recordNo, this.#lastNo);
    this.#recent.dropUpTo(this.#ackedNo);
    this.limitUses.dropUpTo(this.#ackedNo);
    this.#writer.deleteUpTo(this.#ackedNo);
    this.#checkDisk();
  }

  async close(): Promise<void> {
    await this.sync();
    for (const timer of [this.#syncTimer, this.#retryTimer]) if (timer !== null) clearTimeout(timer);
    await this.#writer.close().catch(() => undefined);
  }

  /** Makes sure that a frame with this payload fits into the chunk; returns where its payload begins. */
  #room(payloadBytesMax: number): number {
    const bytes = FRAME_HEADER_BYTES + payloadBytesMax;
    if (this.#end + bytes > this.#chunk.length) {
      this.#closeSpan();
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, bytes));
      this.#start = 0;
      this.#end = 0;
    }
    return this.#end + FRAME_HEADER_BYTES;
  }

  #seal(type: FrameType, at: number, end: number): void {
    // The pipeline's own limits on names and attempts keep records far below this.
    if (end - at > FRAME_PAYLOAD_BYTES_MAX)
      this.#options.log.error({ bytes: end - at }, "a journal record is too large to be read back");
    this.#end = sealFrame(this.#chunk, at - FRAME_HEADER_BYTES, type, end - at);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  #closeSpan(): void {
    if (this.#end === this.#start) return;
    this.#pending.push({ buffer: this.#chunk, start: this.#start, end: this.#end, lastNo: this.#lastNo });
    this.#pendingBytes += this.#end - this.#start;
    this.#start = this.#end;
  }

  #flush(): void {
    this.#scheduled = false;
    this.#closeSpan();
    if (this.#pending.length === 0) return;
    const callbacks = this.#callbacks;
    this.#callbacks = [];
    let failure: Error | undefined;
    try {
      this.#writePending();
      this.#recovered();
    } catch (error) {
      failure = error as Error;
      this.#failed(failure);
    }
    for (const callback of callbacks) callback(failure);
  }

  #writePending(): void {
    while (this.#pending.length > 0) {
      if (this.#writer.startsSegment) this.#beginSegment();
      const span = this.#pending[0]!;
      this.#writer.write(span);
      this.#pending.shift();
      this.#pendingBytes -= span.end - span.start;
    }
    this.#checkDisk();
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = null;
      void this.sync();
    }, SYNC_MS);
  }

  /** A new segment begins with the streams that are live, so that older segments can go. */
  #beginSegment(): void {
    this.#writer.openSegment();
    const buffer = this.#streams.encode();
    if (buffer.length === 0) return;
    this.#pending.unshift({ buffer, start: 0, end: buffer.length, lastNo: this.#writer.writtenNo, carried: true });
    this.#pendingBytes += buffer.length;
  }

  #failed(error: Error): void {
    if (!this.#failing)
      this.#options.log.error({ err: error }, "the journal cannot be written; nothing is admitted until it can");
    this.#failing = true;
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = null;
      this.#flush();
    }, RETRY_MS);
  }

  #recovered(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#options.log.warn("the journal can be written again");
  }

  #syncFailed(error: Error): void {
    const spans = this.#writer.takeUnsynced();
    this.#pending = [...spans, ...this.#pending];
    for (const { start, end } of spans) this.#pendingBytes += end - start;
    this.#failed(error);
  }

  #checkDisk(): void {
    const full = this.#writer.bytes > (this.#options.diskBytesMax ?? DISK_BYTES_MAX);
    if (full && !this.#diskFull)
      this.#options.log.error("too much is waiting to be reported; nothing is admitted until it is less");
    this.#diskFull = full;
  }
}
