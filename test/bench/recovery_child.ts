/** One measurement of the recovery bench, in a process of its own: its memory is then its own too. */

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { pino } from "pino";
import { connectControlPlane, type ReportClient } from "../../data-plane/control_plane.ts";
import { createBootDir, thisProcess } from "../../data-plane/journal/boot_dir.ts";
import { FileJournal } from "../../data-plane/journal/file_journal.ts";
import { inspectJournal, Recovery } from "../../data-plane/journal/recovery.ts";
import { newId } from "../../data-plane/ids.ts";
import { ReportStatus, type ReportUsageRequest } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { intentOf, progressOf, settlementOf } from "./journal_world.ts";

/** The boots of a journal begin with it. */
export const BOOT = "boot_bench";
/** Streams that were live when the node died. */
const LIVE_STREAMS = 1_000;
export const VES = 10_000;
/** One request in so many is a stream, with an intent and a progress note. */
const STREAM_EVERY = 4;
const SETTLED_PER_SYNC = 20_000;
/** For the last delay of the event loop to be noticed. */
const LAST_DELAY_MS = 5;

const log = pino({ level: "error" });

export interface Measured {
  readonly seconds: number;
  /** Of all threads. */
  readonly cpuSeconds: number;
  /** The largest the process ever was, and what it was before the work. */
  readonly peakMb: number;
  readonly beforeMb: number;
  /** The longest time in which the event loop did nothing else. */
  readonly blockedMs: number;
  readonly records: number;
  readonly reports: number;
}

/** The journal of a node that died: about so many bytes, of which nothing was acknowledged. */
async function make(root: string, bytes: number, bootId: string): Promise<number> {
  const owner = { ...thisProcess("node_bench"), start: "never" };
  const dir = createBootDir(root, bootId, owner);
  const journal = new FileJournal({ dir, log, now: Date.now, newId, recentBytesMax: 1 });
  let n = 0;
  while (journal.diskBytes < bytes) {
    for (const end = n + SETTLED_PER_SYNC; n < end; n++) {
      const settlement = settlementOf(n, VES, n % STREAM_EVERY === 0);
      if (settlement.stream) {
        journal.intent(intentOf(settlement));
        journal.progress(progressOf(settlement));
      }
      journal.settle(settlement, () => {});
    }
    await journal.sync();
  }
  for (let live = 0; live < LIVE_STREAMS; live++) {
    const settlement = settlementOf(n + live, VES, true);
    journal.intent(intentOf(settlement));
    journal.progress(progressOf(settlement));
  }
  await journal.close();
  return n;
}

/** Answers at once, as a control plane that has all the time in the world. */
function instantLedger(counts: { records: number; reports: number }): ReportClient {
  let lastRecordNo = 0n;
  return {
    reportUsage: async ({ seq, records }: ReportUsageRequest) => {
      if (seq > 0n) {
        counts.reports++;
        counts.records += records.length;
        lastRecordNo += BigInt(records.length);
      }
      return { status: ReportStatus.APPLIED, lastSeq: seq, lastRecordNo, leases: [], limits: [] };
    },
  } as unknown as ReportClient;
}

async function recover(root: string, client: ReportClient): Promise<void> {
  const recovery = new Recovery({
    client,
    root,
    owner: thisProcess("node_bench"),
    log,
    now: () => performance.now(),
    wallNow: Date.now,
    random: Math.random,
    newId,
  });
  await recovery.scan();
  if (recovery.recovered !== 1) throw new Error("the journal was not recovered");
}

async function measured(work: (counts: { records: number; reports: number }) => Promise<void>): Promise<Measured> {
  const counts = { records: 0, reports: 0 };
  globalThis.gc?.();
  await sleep(100);
  const beforeMb = process.memoryUsage().rss / 1e6;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await work(counts);
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  await sleep(LAST_DELAY_MS);
  delay.disable();
  const peakMb = (process.resourceUsage().maxRSS * 1024) / 1e6;
  return { seconds, cpuSeconds: (user + system) / 1e6, peakMb, beforeMb, blockedMs: delay.max / 1e6, ...counts };
}

/** As `recover`, to a real control plane. */
async function deliver(root: string, url: string, token: string): Promise<void> {
  const control = connectControlPlane(url, token);
  await recover(root, control.reports);
  control.close();
}

async function main(): Promise<void> {
  const [mode, root, ...more] = process.argv.slice(2) as [string, string, string, string];
  switch (mode) {
    case "make":
      process.send!({ records: await make(root, Number(more[0]), more[1]) });
      break;
    case "inspect":
      process.send!(await measured(async () => void (await inspectJournal(join(root, BOOT), log))));
      break;
    case "recover":
      process.send!(await measured((counts) => recover(root, instantLedger(counts))));
      break;
    case "deliver":
      process.send!(await measured(() => deliver(root, more[0], more[1])));
      break;
    default:
      throw new Error(`there is no mode ${mode}`);
  }
  process.disconnect?.();
}

if (import.meta.main) await main();
