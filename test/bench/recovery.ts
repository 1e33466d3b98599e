/** How long it takes to bring the journal of a node that died to the ledger, and what the node that does it pays for that. */

import { linkSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openPostgres } from "../../control-plane/db/postgres.ts";
import { startControlPlane } from "./gateway.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { atEnd, benchFolder, message, start } from "./processes.ts";
import { BOOT, type Measured, VES } from "./recovery_child.ts";
import { loadSqlWorld } from "./sql_world.ts";
import { digits, median, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 3;
const JOURNAL_BYTES = 1024 ** 3;
/** For a real control plane, which takes longer. */
const REAL_BYTES = JOURNAL_BYTES / 32;
const CHILD_TIMEOUT_MS = 600_000;
const CHILD = fileURLToPath(new URL("recovery_child.ts", import.meta.url));

function child<T>(...args: readonly string[]): Promise<T> {
  const started = start(`recovery ${args[0]}`, process.execPath, ["--expose-gc", CHILD, ...args], { ipc: true });
  return message(started, (value) => value as T, CHILD_TIMEOUT_MS);
}

function make(root: string, bytes: number, bootId: string): Promise<{ records: number }> {
  return child("make", root, String(bytes), bootId);
}

/** The same journal again: recovery deletes what it has brought in. */
function copyOf(root: string): string {
  const copy = benchFolder();
  mkdirSync(join(copy, BOOT));
  for (const name of readdirSync(join(root, BOOT))) linkSync(join(root, BOOT, name), join(copy, BOOT, name));
  return copy;
}

interface Step {
  readonly name: string;
  readonly bytes: number;
  readonly records: number;
  readonly samples: Measured[];
}

function row({ name, bytes, records, samples }: Step): string[] {
  const of = (pick: (sample: Measured) => number): number[] => samples.map(pick);
  const seconds = of((sample) => sample.seconds);
  return [
    name,
    digits(bytes / 1e6),
    spread(seconds),
    spread(of(({ cpuSeconds }) => cpuSeconds)),
    digits(bytes / 1e6 / median(seconds)),
    digits(records / median(seconds)),
    spread(of(({ peakMb }) => peakMb)),
    digits(median(of(({ beforeMb }) => beforeMb))),
    spread(of(({ blockedMs }) => blockedMs)),
  ];
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  const root = benchFolder();
  const { records } = await make(root, JOURNAL_BYTES, BOOT);
  printHeading(
    "recovery",
    `A journal of 1 GB: ${records.toLocaleString("en-US")} settled requests of ${VES.toLocaleString("en-US")} VEs, a fourth of them streams, and 1,000 streams that were live.\n` +
      `${rounds} rounds, each in a process of its own, medians (least-most). The control plane answers at once, but for the last\n` +
      `line: a real one on PostgreSQL, and a smaller journal. "blocked" is the longest time in which the event loop of the node\n` +
      `did nothing else; it counts what the machine gave to other processes.`,
  );
  const control = await startControlPlane(undefined);
  const db = openPostgres({ url: control.databaseUrl, poolMax: 1, onNotice: () => {} });
  atEnd(() => db.close());
  await loadSqlWorld(db, VES, 1);
  const steps: [Step, Step, Step] = [
    { name: "reading it once", bytes: JOURNAL_BYTES, records, samples: [] },
    { name: "all of it", bytes: JOURNAL_BYTES, records, samples: [] },
    {
      name: "all of it, real control plane",
      bytes: REAL_BYTES,
      records: (records * REAL_BYTES) / JOURNAL_BYTES,
      samples: [],
    },
  ];
  for (let round = 0; round < rounds; round++) {
    steps[0].samples.push(await child<Measured>("inspect", root));
    const copy = copyOf(root);
    steps[1].samples.push(await child<Measured>("recover", copy));
    rmSync(copy, { recursive: true, force: true });
    const real = benchFolder();
    await make(real, REAL_BYTES, `${BOOT}_${round}`);
    steps[2].samples.push(await child<Measured>("deliver", real, control.url, control.nodeToken));
  }
  const [count] = await db.query<{ count: bigint }>("select count(*) as count from usage_event");
  if (count!.count === 0n) throw new Error("the control plane has none of the records");
  printTable(["step", "MB", "s", "CPU s", "MB/s", "records/s", "peak MB", "before", "blocked ms"], steps.map(row));
}

if (import.meta.main) await benchMain(run);
