/**
 * Brings what dead boots left in their journals to the ledger: every settled record, and for each stream that was live an
 * estimated one from its last progress. Runs beside the serving node, and as long as the control plane is away.
 */

import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import { UnitSource } from "../../core/meters.ts";
import {
  ReportStatus,
  type ReportUsageRequest,
  ReportUsageRequestSchema,
  UsageRecordSchema,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import {
  HEARTBEAT_MS,
  type Host,
  listBoots,
  type Owner,
  removeBootDir,
  removeLeftovers,
  takeOver,
  THIS_HOST,
  touchClaim,
} from "./boot_dir.ts";
import {
  type CorruptRange,
  type Frame,
  FRAME_HEADER_BYTES,
  FrameType,
  nextFrame,
  type ScanResult,
  sealFrame,
} from "./frame.ts";
import { type JournalDisk, NODE_DISK, readSegment } from "./journal_disk.ts";
import { lostRecord, type RecordRange, SegmentReader } from "./journal_records.ts";
import { OpenStreams } from "./open_streams.ts";
import { readRecordKey } from "./record.ts";
import { REPORT_BYTES_MAX, REPORT_RECORDS_MAX } from "./reporter.ts";
import { ReportSender, type SenderOptions } from "./report_sender.ts";
import { isSegmentName, segmentName, SegmentWriter } from "./segment_writer.ts";

/** Directories of boots that died later, such as of other workers, are found this often. */
export const SCAN_EVERY_MS = 15_000;
/** A ledger that does not go on from where it says it is, is asked again this often, and then left for the next scan. */
const GAPS_MAX = 5;
/** Settled ids that are remembered while reading: many times what can be written between two syncs. */
const SETTLED_MAX = 100_000;
/** Bytes of a journal that are read in one turn of the event loop: about a millisecond, as requests are served meanwhile. */
const TURN_BYTES = 128 * 1024;

export interface RecoveryOptions extends Omit<SenderOptions, "onAttempt"> {
  /** `node/journal`. */
  readonly root: string;
  readonly owner: Owner;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  wallNow(): number;
  newId(prefix: string): string;
  /** The disk that `root` is on, and the processes that use it. */
  readonly host?: Host;
  readonly scanEveryMs?: number;
}

interface Found {
  readonly ranges: readonly RecordRange[];
  /** The number of the next segment. */
  readonly nextIndex: number;
  /** Streams without a settlement. */
  readonly streams: OpenStreams;
  readonly numbers: Runs;
  readonly lastNo: number;
  readonly corrupt: number;
  /** Its first segment is there: no record is missing because it was deleted. */
  readonly whole: boolean;
  /** Its end was cut off: the last write did not reach the disk, or is damaged. */
  readonly torn: boolean;
}

function segmentsOf(disk: JournalDisk, dir: string): string[] {
  return disk
    .readdirSync(dir)
    .filter(isSegmentName)
    .toSorted()
    .map((name) => join(dir, name));
}

/** Reads a dead boot's journal once, cutting its torn tail off. */
export async function inspectJournal(dir: string, log: Logger, disk = NODE_DISK): Promise<Found> {
  const segments = segmentsOf(disk, dir);
  const streams = new OpenStreams();
  const settled = new RecentIds(SETTLED_MAX);
  const ranges: RecordRange[] = [];
  const numbers = new Runs();
  let [lastNo, corrupt, torn] = [0, 0, false];
  await syncAll(disk, dir, segments);
  for (const [n, path] of segments.entries()) {
    const buffer = await readSegment(disk, path);
    const range = { path, firstNo: 0, lastNo: -1 };
    const scan = await scanInTurns(buffer, ({ type, payload }) => {
      const head = readRecordKey(payload);
      if (head === null) return;
      // After a failed sync a stream's intent can come again behind its settlement.
      if (type === FrameType.INTENT && !settled.has(head.id)) streams.intent(head.id, payload);
      if (type === FrameType.PROGRESS) streams.progress(head.id, payload);
      if (type !== FrameType.SETTLE) return;
      streams.settle(head.id);
      settled.add(head.id);
      numbers.add(head.recordNo);
      if (range.lastNo < 0) range.firstNo = head.recordNo;
      range.lastNo = Math.max(range.lastNo, head.recordNo);
    });
    ranges.push(range);
    lastNo = Math.max(lastNo, range.lastNo);
    corrupt += scan.corrupt.length;
    torn ||= scan.goodBytes < buffer.length;
    for (const damage of scan.corrupt)
      log.error({ path, ...damage }, "a part of the journal is damaged and was skipped");
    cutTail(disk, path, scan.goodBytes, buffer.length, n === segments.length - 1, log);
  }
  const nextIndex = Number(/(\d+)\.log$/.exec(segments.at(-1) ?? "")?.[1] ?? 0) + 1;
  const whole = segments.length === 0 || segments[0]!.endsWith(segmentName(1));
  return { ranges, nextIndex, streams, numbers, lastNo, corrupt, whole, torn };
}

/** What is reported must be on the disk: a process that dies leaves it in the memory of its machine, which can die too. */
async function syncAll(disk: JournalDisk, dir: string, segments: readonly string[]): Promise<void> {
  for (const path of [...segments, dir]) {
    const fd = disk.openSync(path, "r");
    try {
      await new Promise<void>((done, fail) => disk.fsync(fd, (error) => (error === null ? done() : fail(error))));
    } finally {
      disk.closeSync(fd);
    }
  }
}

/** How many of the ledger's records are not here although they should be, as far as that can be known. */
function missingOf({ numbers, whole, corrupt, torn }: Found, reportedNo: number): number {
  const first = numbers.first;
  if (whole) return first > reportedNo ? reportedNo : first - 1 + numbers.missingUpTo(reportedNo);
  // Those before the first one were deleted, unless they are what is damaged.
  const damaged = corrupt > 0 || (torn && first === Number.POSITIVE_INFINITY);
  return numbers.missingUpTo(reportedNo) + (damaged && first > 1 && reportedNo > 0 ? 1 : 0);
}

/** Ids that came lately: the last `max` at least, and at most twice as many. */
export class RecentIds {
  readonly #max: number;
  #ids = new Set<string>();
  #before = new Set<string>();

  constructor(max: number) {
    this.#max = max;
  }

  has(id: string): boolean {
    return this.#ids.has(id) || this.#before.has(id);
  }

  // Whole sets are dropped: to find the oldest of a set, V8 walks over all that were deleted before it.
  add(id: string): void {
    if (this.#ids.size >= this.#max) {
      this.#before = this.#ids;
      this.#ids = new Set();
    }
    this.#ids.add(id);
  }
}

function turn(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

/** As `scanSegment`, leaving the event loop to others every TURN_BYTES. */
async function scanInTurns(buffer: Buffer, onFrame: (frame: Frame) => void): Promise<ScanResult> {
  const corrupt: CorruptRange[] = [];
  let goodBytes = 0;
  for (let pauseAt = TURN_BYTES; ;) {
    const frame = nextFrame(buffer, goodBytes);
    if (frame === null) return { goodBytes, corrupt };
    if (frame.start > goodBytes) corrupt.push({ start: goodBytes, end: frame.start });
    onFrame(frame);
    goodBytes = frame.end;
    if (goodBytes < pauseAt) continue;
    pauseAt = goodBytes + TURN_BYTES;
    await turn();
  }
}

function cutTail(
  disk: JournalDisk,
  path: string,
  goodBytes: number,
  bytes: number,
  isLast: boolean,
  log: Logger,
): void {
  if (bytes === goodBytes) return;
  if (isLast) log.info({ path, bytes: bytes - goodBytes }, "the torn end of the journal was cut off");
  else log.error({ path, start: goodBytes, end: bytes }, "the end of a journal segment is damaged");
  disk.truncateSync(path, goodBytes);
}

/** The record of a stream that the node died in, billed from its last progress: nothing if no content had come. */
export function crashedRecord(intent: Buffer, progress: Buffer | null, recordNo: number): Buffer {
  const began = fromBinary(UsageRecordSchema, intent);
  const reached = progress === null ? create(UsageRecordSchema) : fromBinary(UsageRecordSchema, progress);
  const record = create(UsageRecordSchema, {
    ...began,
    recordNo: BigInt(recordNo),
    stream: true,
    physicalModelId: reached.physicalModelId,
    priceId: reached.priceId,
    units: reached.units.map((unit) => ({ ...unit, source: UnitSource.ESTIMATED })),
    credits: reached.credits,
    outcome: Outcome.NODE_CRASHED,
    httpStatus: progress === null ? 0 : 200,
  });
  return Buffer.from(toBinary(UsageRecordSchema, record));
}

/** Record numbers as runs without gaps. */
export class Runs {
  readonly #runs: [first: number, last: number][] = [];

  add(recordNo: number): void {
    const run = this.#runs.at(-1);
    if (run !== undefined && recordNo === run[1] + 1) run[1] = recordNo;
    else this.#runs.push([recordNo, recordNo]);
  }

  /** The least number; Infinity if there is none. */
  get first(): number {
    return this.#runs.reduce((least, [first]) => Math.min(least, first), Number.POSITIVE_INFINITY);
  }

  /** How many numbers between the least one here and `upTo` are not here. */
  missingUpTo(upTo: number): number {
    let [missing, next] = [0, 0];
    for (const [first, last] of this.#runs.toSorted(([a], [b]) => a - b)) {
      if (first > upTo) break;
      if (next > 0 && first > next) missing += first - next;
      next = Math.max(next, last + 1);
    }
    return next === 0 ? 0 : missing + Math.max(0, upTo + 1 - next);
  }
}

/** Ends early when `signal` aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) return done();
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

interface Boot {
  readonly nodeId: string;
  readonly bootId: string;
}

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #host: Host;
  readonly #sender: ReportSender;
  readonly #stopped = new AbortController();
  #running: Promise<void> = Promise.resolve();
  /** Boots whose directories are ours and not brought in yet, with their nodes. */
  readonly #taken = new Map<string, string>();
  /** Boots that were brought in. */
  recovered = 0;

  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.#host = options.host ?? THIS_HOST;
    this.#sender = new ReportSender({ ...options, onAttempt: () => undefined });
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.scan();
      await pause(this.#options.scanEveryMs ?? SCAN_EVERY_MS, signal);
    }
  }

  /** Brings in every dead boot that nobody else has taken. */
  async scan(): Promise<void> {
    const { root, owner, log, wallNow } = this.#options;
    try {
      removeLeftovers(root, wallNow(), this.#host.disk);
      for (const bootId of listBoots(root, this.#host.disk)) {
        if (this.#stopped.signal.aborted) return;
        // What could not be finished before is still ours.
        const nodeId =
          this.#taken.get(bootId) ?? takeOver(join(root, bootId), owner, wallNow(), this.#host)?.nodeId ?? null;
        if (nodeId !== null) await this.#tryToRecover(bootId, nodeId);
      }
    } catch (error) {
      if (!this.#stopped.signal.aborted)
        log.error({ err: error }, "the journals cannot be looked through; it is tried again");
    }
  }

  /** What fails is tried again by the next scan, and does not keep the others waiting. */
  async #tryToRecover(bootId: string, nodeId: string): Promise<void> {
    this.#taken.set(bootId, nodeId);
    try {
      await this.#recover(bootId, nodeId);
      this.#taken.delete(bootId);
    } catch (error) {
      if (!this.#stopped.signal.aborted)
        this.#options.log.error({ err: error, bootId }, "a journal could not be recovered; it is tried again");
    }
  }

  async #recover(bootId: string, nodeId: string): Promise<void> {
    const { root, log, wallNow } = this.#options;
    const { disk } = this.#host;
    const dir = join(root, bootId);
    const heartbeat = setInterval(() => touchClaim(dir, wallNow(), disk), HEARTBEAT_MS);
    try {
      const boot = { nodeId, bootId };
      const known = await this.#send(create(ReportUsageRequestSchema, boot));
      const reportedNo = Number(known.lastRecordNo);
      const found = await inspectJournal(dir, log, disk);
      const ranges = await this.#settleStreams(dir, found, reportedNo);
      const lastNo = Math.max(reportedNo, ...ranges.map((range) => range.lastNo));
      await this.#deliver(boot, ranges, lastNo, Number(known.lastSeq), reportedNo);
      removeBootDir(root, bootId, disk);
      this.recovered++;
      const records = Math.max(0, lastNo - Number(known.lastRecordNo));
      log.info(
        { bootId, records, streams: lastNo - found.lastNo, corrupt: found.corrupt },
        "a dead boot's journal was recovered",
      );
    } finally {
      clearInterval(heartbeat);
    }
  }

  /** Appends a record for each stream that was live, and has it on disk before anything is told. Returns all segments. */
  async #settleStreams(dir: string, found: Found, reportedNo: number): Promise<readonly RecordRange[]> {
    const missing = missingOf(found, reportedNo);
    if (missing > 0 && found.streams.size > 0) {
      // The ledger may have these streams already, and nothing may be counted twice.
      this.#options.log.error(
        { dir, missing, streams: found.streams.size },
        "damaged records: live streams are not billed",
      );
      return found.ranges;
    }
    // The ledger can know more than the disk, if the disk lost what it had confirmed; numbers go on after both.
    let lastNo = Math.max(found.lastNo, reportedNo);
    const writer = new SegmentWriter(dir, this.#host.disk, found.nextIndex, lastNo);
    for (const [, { intent, progress }] of found.streams.entries()) {
      const payload = crashedRecord(intent, progress, lastNo + 1);
      lastNo++;
      const buffer = Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), payload]);
      const end = sealFrame(buffer, 0, FrameType.SETTLE, payload.length);
      writer.write({ buffer, start: 0, end, lastNo });
    }
    await writer.close();
    return [...found.ranges, ...writer.segments];
  }

  /** Reports everything after what the ledger has, then that the boot is over. */
  async #deliver(
    boot: Boot,
    ranges: readonly RecordRange[],
    lastNo: number,
    lastSeq: number,
    reportedNo: number,
  ): Promise<void> {
    const { log, newId, wallNow } = this.#options;
    const reader = new SegmentReader(this.#host.disk, (recordNo) => {
      log.error({ ...boot, recordNo }, "a journal record is lost");
      return lostRecord(recordNo, newId("usg_"), wallNow());
    });
    const limits = { records: REPORT_RECORDS_MAX, bytes: REPORT_BYTES_MAX };
    let [seq, next, gaps] = [lastSeq, reportedNo + 1, 0];
    for (let final = false; !final;) {
      const records = next > lastNo ? [] : await reader.read(ranges, next, lastNo, limits);
      const end = next + records.length;
      final = end > lastNo;
      const firstRecordNo = BigInt(records.length > 0 ? next : 0);
      const bytes = records.map((record) => record.bytes);
      const request = create(ReportUsageRequestSchema, {
        ...boot,
        seq: BigInt(seq + 1),
        firstRecordNo,
        records: bytes,
        final,
      });
      const response = await this.#send(request);
      if (response.status === ReportStatus.GAP) {
        if (++gaps > GAPS_MAX) throw new Error(`the control plane keeps refusing the reports of ${boot.bootId}`);
        [seq, next, final] = [Number(response.lastSeq), Number(response.lastRecordNo) + 1, false];
      } else {
        [seq, next] = [seq + 1, end];
      }
    }
  }

  async #send(request: ReportUsageRequest) {
    const { response } = await this.#sender.send(request, this.#stopped.signal);
    return response;
  }
}
