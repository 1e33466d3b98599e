/** Records of the journal as the reporter takes them, and reading them back from segments. */

import { create, toBinary } from "@bufbuild/protobuf";
import type { Credits } from "../../core/credits.ts";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { FrameType, nextFrame } from "./frame.ts";
import { readSegment, type SegmentFs } from "./journal_disk.ts";
import { readRecordHead } from "./record.ts";

export interface JournalRecord {
  readonly recordNo: number;
  /** Serialized `tokenbill.node.v1.UsageRecord`. */
  readonly bytes: Buffer;
  readonly veId: string;
  readonly credits: Credits;
}

/** At most this much goes into one report. */
export interface ReadLimits {
  readonly records: number;
  readonly bytes: number;
}

/** Takes the place of a record that the disk lost, since numbers have no gaps. The ledger sets it aside with a warning. */
export function lostRecord(recordNo: number, id: string, nowMs: number): JournalRecord {
  const record = create(UsageRecordSchema, {
    recordNo: BigInt(recordNo),
    id,
    credits: "0",
    outcome: Outcome.NODE_CRASHED,
    errorCode: "journal_record_lost",
    arriveUnixUs: BigInt(Math.floor(nowMs)) * 1000n,
  });
  return { recordNo, bytes: Buffer.from(toBinary(UsageRecordSchema, record)), veId: "", credits: 0n };
}

/** A file of the journal, and which records it may have. */
export interface RecordRange {
  readonly path: string;
  readonly firstNo: number;
  readonly lastNo: number;
}

interface Cursor {
  readonly range: RecordRange;
  readonly buffer: Buffer;
  /** The last record of the range when it was read: a segment that is still being written has more by now. */
  readonly lastNo: number;
  at: number;
  /** The record it stands at. */
  next: number;
}

/** The next settled record at the cursor, or null at the end. */
function nextRecord(cursor: Cursor): JournalRecord | null {
  for (;;) {
    const frame = nextFrame(cursor.buffer, cursor.at);
    if (frame === null) {
      cursor.at = cursor.buffer.length;
      return null;
    }
    cursor.at = frame.end;
    const head = frame.type === FrameType.SETTLE ? readRecordHead(frame.payload) : null;
    if (head !== null) return { recordNo: head.recordNo, bytes: frame.payload, veId: head.veId, credits: head.credits };
  }
}

/** Reads records back from segments, going on where it stopped: one segment is in memory at a time. */
export class SegmentReader {
  #cursor: Cursor | null = null;
  readonly #fs: SegmentFs;
  readonly #lost: (recordNo: number) => JournalRecord;

  /** `lost` makes what takes the place of a record that cannot be read. */
  constructor(fs: SegmentFs, lost: (recordNo: number) => JournalRecord) {
    this.#fs = fs;
    this.#lost = lost;
  }

  /** Records from `from` to `last` at most, within the limits, without gaps; at least one if `from <= last`. */
  async read(ranges: readonly RecordRange[], from: number, last: number, limits: ReadLimits): Promise<JournalRecord[]> {
    const records: JournalRecord[] = [];
    // After a failed sync a record can be in two segments; the later one is sound.
    const range = ranges.findLast(({ firstNo, lastNo }) => firstNo <= from && from <= lastNo);
    if (range === undefined) {
      // Damaged, or confirmed long ago and asked for again by a ledger that was restored from a backup.
      const next = ranges.find(({ firstNo, lastNo }) => firstNo > from && lastNo >= firstNo)?.firstNo ?? last + 1;
      const end = Math.min(next, last + 1, from + limits.records);
      for (let recordNo = from; recordNo < end; recordNo++) records.push(this.#lost(recordNo));
      return records;
    }
    if (this.#cursor?.range !== range || this.#cursor.next !== from || this.#cursor.lastNo < from) {
      const { lastNo } = range;
      this.#cursor = { range, lastNo, buffer: await readSegment(this.#fs, range.path), at: 0, next: from };
    }
    this.#take(this.#cursor, Math.min(last, this.#cursor.lastNo), limits, records);
    // A segment that is still being written is read again from its start; a finished one is done with.
    if (this.#cursor.at >= this.#cursor.buffer.length) this.#cursor = null;
    return records;
  }

  /** Lets go of the segment in memory. */
  rest(): void {
    this.#cursor = null;
  }

  #take(cursor: Cursor, last: number, limits: ReadLimits, into: JournalRecord[]): void {
    let bytes = 0;
    while (cursor.next <= last && into.length < limits.records && bytes < limits.bytes) {
      const before = cursor.at;
      let record = nextRecord(cursor);
      if (record !== null && record.recordNo < cursor.next) continue;
      if (record === null || record.recordNo > cursor.next) {
        // The one that was found comes again when its number does.
        cursor.at = before;
        record = this.#lost(cursor.next);
      }
      into.push(record);
      bytes += record.bytes.length;
      cursor.next++;
    }
  }
}
