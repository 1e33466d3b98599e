/** PURE. The newest records, in memory, so that the reporter rarely reads the disk. */

import type { Credits } from "../../core/credits.ts";
import type { JournalRecord, ReadLimits } from "./journal_records.ts";

/** Older records than these are read from disk. */
export const RECENT_BYTES_MAX = 16 * 1024 * 1024;
/** What one record costs beside its bytes, roughly. */
const RECORD_OVERHEAD_BYTES = 200;
/** The front of the array is cut off in steps of at least this. */
const COMPACT_RECORDS = 4096;

/** Where a record stands in the buffer it was encoded into: a view is made only when it is read. */
interface RecentRecord {
  readonly recordNo: number;
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly veId: string;
  readonly credits: Credits;
}

export class RecentRecords {
  #records: RecentRecord[] = [];
  #head = 0;
  #bytes = 0;
  readonly #bytesMax: number;

  constructor(bytesMax = RECENT_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** The number of the oldest record that is here; Infinity if there is none. */
  get firstNo(): number {
    return this.#records[this.#head]?.recordNo ?? Number.POSITIVE_INFINITY;
  }

  push(record: RecentRecord): void {
    this.#records.push(record);
    this.#bytes += record.end - record.start + RECORD_OVERHEAD_BYTES;
    while (this.#bytes > this.#bytesMax && this.#records.length - this.#head > 1) this.#drop();
  }

  dropUpTo(recordNo: number): void {
    while (this.firstNo <= recordNo) this.#drop();
  }

  /** Records from `from` (which is here) up to `last`, within the limits, at least one. */
  read(from: number, last: number, limits: ReadLimits): JournalRecord[] {
    const result: JournalRecord[] = [];
    let bytes = 0;
    for (let at = this.#head + from - this.firstNo; at < this.#records.length; at++) {
      const record = this.#records[at]!;
      if (record.recordNo > last || result.length >= limits.records || bytes >= limits.bytes) break;
      const { recordNo, buffer, start, end, veId, credits } = record;
      result.push({ recordNo, bytes: buffer.subarray(start, end), veId, credits });
      bytes += end - start;
    }
    return result;
  }

  #drop(): void {
    const { start, end } = this.#records[this.#head]!;
    this.#bytes -= end - start + RECORD_OVERHEAD_BYTES;
    this.#head++;
    if (this.#head < COMPACT_RECORDS && this.#head < this.#records.length) return;
    this.#records = this.#records.slice(this.#head);
    this.#head = 0;
  }
}
