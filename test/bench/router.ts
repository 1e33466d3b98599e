/**
 * What finding and choosing a target costs with 100,000 VEs in the route table, and what a VE costs in memory; then what a
 * choice costs by how the targets are.
 */

import { hash } from "node:crypto";
import { RouteTable } from "../../data-plane/route_table.ts";
import { choose } from "../../data-plane/router.ts";
import type { RouteGroup } from "../../data-plane/route_types.ts";
import { type FeedWorld, modelNameOf, secretOf, snapshotOf } from "./feed_world.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { printModes, random } from "./router_modes.ts";
import { digits, median, percentile, printAim, printHeading, printTable } from "./stats.ts";

const VES = 100_000;
/** For the costlier case, where no Logical Models are shared. */
const VES_ALL_DIFFERENT = 20_000;
const LMS_PER_VE = 10;
const ROUNDS = 5;
const LOOKUPS = 100_000;
/** Timed together: the clock costs as much as a choice. */
const BATCH = 100;
const MEDIAN_US_AIM = 2;
const NOW = 1_764_000_000_000;

function collect(): void {
  if (globalThis.gc === undefined) throw new Error("run this with --expose-gc, as npm run bench does");
  globalThis.gc();
  globalThis.gc();
}

interface Loaded {
  readonly table: RouteTable;
  readonly seconds: number;
  readonly heapPerVe: number;
  readonly rssPerVe: number;
}

function load(world: FeedWorld): Loaded {
  collect();
  const before = process.memoryUsage();
  const table = new RouteTable();
  let appliedMs = 0;
  for (const event of snapshotOf(world)) {
    const begin = performance.now();
    const { applied, rejected } = table.apply(event);
    appliedMs += performance.now() - begin;
    if (!applied || rejected.length > 0) throw new Error(`the table refused: ${rejected[0]?.reason ?? "a gap"}`);
  }
  collect();
  const after = process.memoryUsage();
  return {
    table,
    seconds: appliedMs / 1000,
    heapPerVe: (after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers) / world.ves,
    rssPerVe: (after.rss - before.rss) / world.ves,
  };
}

/** A string that no map has hashed and nothing shares, as one that came off a socket. */
function fresh(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}

interface Lookup {
  readonly secret: string;
  readonly model: string;
}

function prepare(world: FeedWorld, random: () => number): Lookup[] {
  return Array.from({ length: LOOKUPS }, () => {
    const ve = Math.floor(random() * world.ves);
    return { secret: fresh(secretOf(ve)), model: fresh(modelNameOf(world, ve, Math.floor(random() * world.lmsPerVe))) };
  });
}

/** Nanoseconds of each batch, for one call. */
function timeBatches(count: number, run: (from: number, to: number) => void): number[] {
  const times = [];
  for (let at = 0; at + BATCH <= count; at += BATCH) {
    const begin = process.hrtime.bigint();
    run(at, at + BATCH);
    times.push(Number(process.hrtime.bigint() - begin) / BATCH);
  }
  return times;
}

function groupOf(table: RouteTable, { secret, model }: Lookup): RouteGroup {
  const key = table.key(hash("sha256", secret, "base64"))!;
  return table.logicalModel(key.ve, model)!.spec.group;
}

function measure(table: RouteTable, world: FeedWorld, rounds: number): { choice: number[]; full: number[] } {
  const choice: number[] = [];
  const full: number[] = [];
  let chosen = 0;
  for (let round = 0; round <= rounds; round++) {
    const lookups = prepare(world, Math.random);
    const whole = timeBatches(LOOKUPS, (from, to) => {
      for (let i = from; i < to; i++) if (choose(groupOf(table, lookups[i]!), null, random, NOW) !== null) chosen++;
    });
    const groups = lookups.map((lookup) => groupOf(table, lookup));
    const alone = timeBatches(LOOKUPS, (from, to) => {
      for (let i = from; i < to; i++) if (choose(groups[i]!, null, random, NOW) !== null) chosen++;
    });
    // The first round warms up.
    if (round === 0) continue;
    choice.push(...alone);
    full.push(...whole);
  }
  if (chosen !== 2 * LOOKUPS * (rounds + 1)) throw new Error("a look-up found nothing");
  return { choice, full };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "router",
    `VEs with a key and ${LMS_PER_VE} Logical Models each, three targets in two tiers. ${rounds} rounds of ${LOOKUPS.toLocaleString("en-US")} random look-ups,\n` +
      `timed in batches of ${BATCH}. "full" is secret -> SHA-256 -> key -> VE -> Logical Model -> choice.`,
  );
  const rows: string[][] = [];
  let medians = { choice: 0, full: 0 };
  for (const allDifferent of [true, false]) {
    const world: FeedWorld = { ves: allDifferent ? VES_ALL_DIFFERENT : VES, lmsPerVe: LMS_PER_VE, allDifferent };
    const { table, seconds, heapPerVe, rssPerVe } = load(world);
    const { choice, full } = measure(table, world, rounds);
    medians = { choice: median(choice) / 1000, full: median(full) / 1000 };
    rows.push([
      allDifferent ? "all names different" : "from templates",
      world.ves.toLocaleString("en-US"),
      digits(median(choice)),
      digits(percentile(choice, 0.99)),
      digits(median(full)),
      digits(percentile(full, 0.99)),
      digits(heapPerVe),
      digits(rssPerVe),
      digits(seconds),
    ]);
  }
  printTable(
    ["Logical Models", "VEs", "choice ns p50", "p99", "full ns p50", "p99", "heap B/VE", "RSS B/VE", "apply s"],
    rows,
  );
  printAim({
    what: `choice at the median, ${VES.toLocaleString("en-US")} VEs,`,
    value: medians.choice,
    bound: MEDIAN_US_AIM,
    kind: "below",
    unit: " µs",
  });
  console.log(`The full look-up, choice included: ${digits(medians.full)} µs at the median.`);
  printModes(rounds);
}

if (import.meta.main) await benchMain(run);
