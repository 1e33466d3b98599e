/** What the journal costs a request: encoding, framing, and its share of the writes of its turn. */

import * as nodeFs from "node:fs";
import { rmSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { pino } from "pino";
import { FileJournal } from "../../data-plane/journal/file_journal.ts";
import type { Settlement } from "../../data-plane/journal/journal.ts";
import type { JournalFs, SegmentFs } from "../../data-plane/journal/journal_disk.ts";
import { newId } from "../../data-plane/ids.ts";
import { type Cost, cpuOf } from "./cost.ts";
import { intentOf, progressOf, settlementOf } from "./journal_world.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { benchFolder } from "./processes.ts";
import { digits, median, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 7;
const WARM_UP_ROUNDS = 2;
const REQUESTS = 40_000;
const PREPARED = 10_000;
const VES = 10_000;
/** As when 64 connections are busy, and as when one is. */
const BUSY_PER_TURN = 32;
/** Every so many the ledger says that it has them, as it does each second or so. */
const ACKNOWLEDGED_EVERY = 5_000;

/** Says at once that the disk has it. */
const confirm = ((_fd: number, done: nodeFs.NoParamCallback) => setImmediate(done, null)) as unknown;
const confirming = { fdatasync: confirm as typeof nodeFs.fdatasync, fsync: confirm as typeof nodeFs.fsync };
/** The operating system has it, and brings it to the disk when it likes. */
const NO_SYNC: JournalFs & SegmentFs = { ...nodeFs, ...confirming };
/** A disk that takes everything and keeps nothing. */
const NO_DISK: JournalFs & SegmentFs = {
  ...NO_SYNC,
  writeSync: ((_fd: number, _buffer: Buffer, _at: number, length: number) => length) as typeof nodeFs.writeSync,
};

interface Case {
  readonly name: string;
  readonly fs: JournalFs & SegmentFs;
  readonly stream: boolean;
  readonly perTurn: number;
  readonly count: number;
}

const CASES: readonly Case[] = [
  { name: "JSON, 32 a turn, no disk", fs: NO_DISK, stream: false, perTurn: BUSY_PER_TURN, count: REQUESTS },
  { name: "JSON, 32 a turn, no fdatasync", fs: NO_SYNC, stream: false, perTurn: BUSY_PER_TURN, count: REQUESTS },
  { name: "JSON, 32 a turn, fdatasync", fs: nodeFs, stream: false, perTurn: BUSY_PER_TURN, count: REQUESTS },
  { name: "JSON, 1 a turn, no fdatasync", fs: NO_SYNC, stream: false, perTurn: 1, count: REQUESTS / 4 },
  { name: "JSON, 1 a turn, fdatasync", fs: nodeFs, stream: false, perTurn: 1, count: REQUESTS / 4 },
  { name: "stream, 32 a turn, fdatasync", fs: nodeFs, stream: true, perTurn: BUSY_PER_TURN, count: REQUESTS / 2 },
];

interface Sample extends Cost {
  /** By the clock, microseconds each. */
  readonly us: number;
}

/** Settles `count` requests, `perTurn` in each turn, and waits until the disk has them. */
async function settleAll(journal: FileJournal, { stream, perTurn, count }: Case, requests: readonly Settlement[]) {
  let open = count;
  const { promise, resolve } = Promise.withResolvers<void>();
  const written = (): void => {
    open--;
    if (open === 0) resolve();
  };
  for (let n = 0; n < count; n++) {
    const request = requests[n % requests.length]!;
    if (stream) {
      journal.intent(intentOf(request));
      journal.progress(progressOf(request));
    }
    journal.settle(request, written);
    if (n % perTurn === perTurn - 1) await nextTurn();
    if (n % ACKNOWLEDGED_EVERY === ACKNOWLEDGED_EVERY - 1) journal.acknowledge(journal.durableNo);
  }
  await promise;
  await journal.sync();
}

async function measure(each: Case, requests: readonly Settlement[]): Promise<Sample> {
  const dir = benchFolder();
  const journal = new FileJournal({ dir, log: pino({ level: "warn" }), now: Date.now, newId, fs: each.fs });
  const begin = performance.now();
  const cost = await cpuOf(each.count, () => settleAll(journal, each, requests));
  const us = ((performance.now() - begin) * 1000) / each.count;
  await journal.close();
  rmSync(dir, { recursive: true, force: true });
  return { ...cost, us };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "journal",
    `What a request costs in the journal: encoded, framed, written with the others of its turn. CPU time of the event loop's thread;\n` +
      `"µs by the clock" is until the disk has all of them. ${rounds} rounds, interleaved, medians (least-most). A stream is an intent,\n` +
      `a progress note and the settlement. Bytes are of the JavaScript heap.`,
  );
  const json = Array.from({ length: PREPARED }, (_, n) => settlementOf(n, VES, false));
  const streams = Array.from({ length: PREPARED }, (_, n) => settlementOf(n, VES, true));
  const samples = CASES.map(() => [] as Sample[]);
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    for (const [index, each] of CASES.entries()) {
      const sample = await measure(each, each.stream ? streams : json);
      if (round >= 0) samples[index]!.push(sample);
    }
  }
  const rows = CASES.map(({ name }, index) => [
    name,
    spread(samples[index]!.map(({ ns }) => ns)),
    digits(median(samples[index]!.map(({ bytes }) => bytes))),
    spread(samples[index]!.map(({ us }) => us)),
  ]);
  printTable(["case", "CPU ns/request", "heap bytes/request", "µs by the clock"], rows);
}

if (import.meta.main) await benchMain(run);
