/** PURE. The newest records, in memory, so that the reporter rarely reads the disk. */

import type { JournalRecord, ReadLimits } from "./journal_records.ts";

/** Older records than these are read from disk. */
export const RECENT_BYTES_MAX = 16 * 1024 * 1024;
/** What one record costs beside its bytes, roughly. */
const RECORD_OVERHEAD_BYTES = 200;
/** The front of the array is cut off in steps of at least this. */
const COMPACT_RECORDS = 4096;

export class RecentRecords {
  #records: JournalRecord[] = [];
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

  push(record: JournalRecord): void {
    this.#records.push(record);
    this.#bytes += record.bytes.length + RECORD_OVERHEAD_BYTES;
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
      result.push(record);
      bytes += record.bytes.length;
    }
    return result;
  }

  #drop(): void {
    this.#bytes -= this.#records[this.#head]!.bytes.length + RECORD_OVERHEAD_BYTES;
    this.#head++;
    if (this.#head < COMPACT_RECORDS && this.#head < this.#records.length) return;
    this.#records = this.#records.slice(this.#head);
    this.#head = 0;
  }
}
