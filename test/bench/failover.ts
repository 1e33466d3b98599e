/** What clients feel of a target that fails, how soon it is left alone, and what hedging costs. */

import { setTimeout as delay } from "node:timers/promises";
import type { Mode } from "./failover_upstream.ts";
import {
  type BenchNode,
  type FailoverWorld,
  FIRST_BYTE_MS,
  HEDGE_AFTER_MS,
  startFailoverWorld,
  TARGETS,
} from "./failover_world.ts";
import { runOpenLoop } from "./open_loop.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { cpuUs, pinSelfToLoadCore } from "./processes.ts";
import { digits, median, percentile, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 5;
const SECONDS = 5;
const PER_SECOND = 200;
/** Not measured: the node notices how its targets are now. */
const LEAD_IN_S = 2;
const WARM_UP_S = 10;
const WELL: Mode = { kind: "well" };
const DEAD_SHARE = 0.01;
const DEATH_S = 12;
const POLL_MS = 25;
/** After the first node has met the dead target, the second gets its first request so much later. */
const SECOND_NODE_AFTER_S = 1;
const SLOW: Mode = { kind: "slow", share: 0.1, delayMs: 300 };

interface Sample {
  readonly p50: number;
  readonly p99: number;
  readonly cpu: number;
  /** Calls of the upstreams per request. */
  readonly calls: number;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

async function measure(world: FailoverWorld, model: string, mode: Mode, seconds: number): Promise<Sample> {
  const node = world.nodes[0]!;
  await world.setMode(0, mode);
  await runOpenLoop(node.target(model), PER_SECOND, LEAD_IN_S);
  const [cpuBefore, callsBefore] = [cpuUs(node.process.pid), sum(await world.calls())];
  const { latenciesUs } = await runOpenLoop(node.target(model), PER_SECOND, seconds);
  const requests = latenciesUs.length;
  return {
    p50: percentile(latenciesUs, 0.5) / 1000,
    p99: percentile(latenciesUs, 0.99) / 1000,
    cpu: (cpuUs(node.process.pid) - cpuBefore) / requests,
    calls: (sum(await world.calls()) - callsBefore) / requests,
  };
}

interface Variant {
  readonly name: string;
  readonly model: string;
  readonly mode: Mode;
}

/** Interleaved rounds; each variant is compared with the first one of its round. */
async function compare(world: FailoverWorld, variants: readonly Variant[], rounds: number, seconds: number) {
  const samples = variants.map(() => [] as Sample[]);
  for (let round = 0; round < rounds; round++) {
    for (const [n, { model, mode }] of variants.entries()) samples[n]!.push(await measure(world, model, mode, seconds));
  }
  const of = (n: number, pick: (sample: Sample) => number): number[] => samples[n]!.map(pick);
  const added = (n: number, pick: (sample: Sample) => number): string =>
    n === 0 ? "" : spread(of(n, pick).map((value, round) => value - pick(samples[0]![round]!)));
  printTable(
    ["", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "CPU µs/request", "calls/request"],
    variants.map(({ name }, n) => [
      name,
      spread(of(n, ({ p50 }) => p50)),
      spread(of(n, ({ p99 }) => p99)),
      added(n, ({ p50 }) => p50),
      added(n, ({ p99 }) => p99),
      spread(of(n, ({ cpu }) => cpu)),
      digits(median(of(n, ({ calls }) => calls))),
    ]),
  );
}

/** Attempts of a node that could not connect, so far. */
async function connectionErrors({ url }: BenchNode): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.matchAll(/^tokenbill_node_attempts_total\{result="connection_error",[^}]*\} (\d+)/gm);
  return [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
}

interface Count {
  readonly atMs: number;
  readonly attempts: number;
}

/** When the dead target last had 1 % or more of the attempts of one second. */
function untilLeftAlone(series: readonly Count[]): number {
  let ms = 0;
  for (const [n, { atMs, attempts }] of series.entries()) {
    const before = series.findLast((earlier) => earlier.atMs <= atMs - 1_000)?.attempts ?? 0;
    const isNew = attempts > (series[n - 1]?.attempts ?? 0);
    if (isNew && attempts - before >= DEAD_SHARE * PER_SECOND) ms = atMs;
  }
  return ms;
}

interface Death {
  /** Until it got less than 1 % of the attempts, for good. 0: it never got so many. */
  readonly ms: number;
  /** Attempts at it, over all of the time. */
  readonly attempts: number;
  readonly p99: number;
}

/** Load on one node while target 0 is dead, from this moment on. */
async function watchDeath(world: FailoverWorld, node: BenchNode, mode: Mode): Promise<Death> {
  const count = async (): Promise<number> =>
    mode.kind === "closed" ? connectionErrors(node) : (await world.calls())[0]!;
  const before = await count();
  const beganMs = performance.now();
  const series: Count[] = [{ atMs: 0, attempts: 0 }];
  let over = false;
  const polling = (async () => {
    while (!over) {
      await delay(POLL_MS);
      const attempts = (await count()) - before;
      series.push({ atMs: performance.now() - beganMs, attempts });
    }
  })();
  const { latenciesUs } = await runOpenLoop(node.target("plain"), PER_SECOND, DEATH_S);
  over = true;
  await polling;
  return {
    ms: untilLeftAlone(series),
    attempts: series.at(-1)!.attempts,
    p99: percentile(latenciesUs, 0.99) / 1000,
  };
}

/** A target dies under the load of node 1; node 2 gets its first request a moment later. */
async function die(world: FailoverWorld, mode: Mode): Promise<{ first: Death; second: Death }> {
  const [one, two] = world.nodes as [BenchNode, BenchNode];
  await world.setMode(0, WELL);
  for (const node of [one, two]) await runOpenLoop(node.target("plain"), PER_SECOND, LEAD_IN_S * 2);
  await world.setMode(0, mode);
  const first = watchDeath(world, one, mode);
  if (mode.kind === "closed") {
    // Attempts are told apart by the nodes' own counters, so both can be watched at once.
    await delay(SECOND_NODE_AFTER_S * 1000);
    const second = await watchDeath(world, two, mode);
    return { first: await first, second };
  }
  return { first: await first, second: await watchDeath(world, two, mode) };
}

async function benchDeaths(world: FailoverWorld, rounds: number): Promise<void> {
  const modes: readonly (readonly [string, Mode])[] = [
    ["refuses connections", { kind: "closed" }],
    ["hangs", { kind: "hang" }],
  ];
  const deaths = modes.map(() => ({ first: [] as Death[], second: [] as Death[] }));
  for (let round = 0; round < rounds; round++) {
    for (const [n, [, mode]] of modes.entries()) {
      const { first, second } = await die(world, mode);
      deaths[n]!.first.push(first);
      deaths[n]!.second.push(second);
    }
  }
  await world.setMode(0, WELL);
  const rows = modes.flatMap(([name], n) =>
    (["first", "second"] as const).map((which) => [
      `${name}, ${which} node`,
      spread(deaths[n]![which].map(({ ms }) => ms)),
      spread(deaths[n]![which].map(({ attempts }) => attempts)),
      spread(deaths[n]![which].map(({ p99 }) => p99)),
    ]),
  );
  printTable(["target 1 of 3", "ms until under 1 %", "attempts at it", "p99 ms"], rows);
}

async function run({ rounds = ROUNDS, seconds = SECONDS }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  printHeading(
    "failover",
    `${TARGETS} equal targets; open loop at ${PER_SECOND} requests/s and node, 1 KB, timed from the scheduled moment; every answer must be 200.\n` +
      `${rounds} interleaved rounds of ${seconds} s after ${LEAD_IN_S} s that are not measured, medians (least-most); "added" is to the first line of the same round.`,
  );
  const world = await startFailoverWorld(2);
  for (const node of world.nodes) await runOpenLoop(node.target("plain"), PER_SECOND, WARM_UP_S);
  console.log("One target fails half of its calls\n");
  const half = (kind: "503" | "reset"): Variant => ({
    name: kind === "503" ? "half of target 1: 503 at once" : "half of target 1: reset",
    model: "plain",
    mode: { kind, share: 0.5 },
  });
  await compare(world, [{ name: "all well", model: "plain", mode: WELL }, half("503"), half("reset")], rounds, seconds);
  console.log(
    `\nA target dies, for ${DEATH_S} s; the second node gets its first request ${SECOND_NODE_AFTER_S} s after that where it refuses, ${DEATH_S} s where it hangs.` +
      `\nFirst-byte deadline ${FIRST_BYTE_MS} ms\n`,
  );
  await benchDeaths(world, rounds);
  console.log(`\nHedging after ${HEDGE_AFTER_MS} ms; the slow target takes 300 ms for a tenth of its calls\n`);
  await compare(
    world,
    [
      { name: "all well, off", model: "plain", mode: WELL },
      { name: "all well, on", model: "hedged", mode: WELL },
      { name: "one slow, off", model: "plain", mode: SLOW },
      { name: "one slow, on", model: "hedged", mode: SLOW },
    ],
    rounds,
    seconds,
  );
}

if (import.meta.main) await benchMain(run);
