/** What a choice among ten targets costs, by how they are. */

import { getHeapStatistics } from "node:v8";
import { stickyHash } from "../../core/routing.ts";
import { fastRandom } from "../../data-plane/fast_random.ts";
import { HEALTH_DEFAULTS } from "../../data-plane/health.ts";
import { RouteTable } from "../../data-plane/route_table.ts";
import { choose } from "../../data-plane/router.ts";
import type { RouteGroup } from "../../data-plane/route_types.ts";
import { gatewayResources, snapshot, VE } from "../../data-plane/testing.ts";
import { digits, median, printAim, printTable, spread } from "./stats.ts";

const TARGETS = 10;
const CHOICES = 1_000_000;
const KEYS = 1024;
/** By then everything is compiled for good. */
const WARM_UP_ROUNDS = 2;
const US_AIM = 1;
/** What the measuring itself may allocate. */
const BYTES_AIM = 1;

interface Mode {
  readonly name: string;
  readonly stream: boolean;
  readonly sticky: boolean;
  prepare(group: RouteGroup, now: number): void;
}

/** Half of the calls of three targets failed lately, and one target is slow. */
function dim({ pms }: RouteGroup, now: number): void {
  pms.forEach((pm, i) => pm.health.took(true, i === 9 ? 9_000 : 600 + i, now));
  for (let call = 0; call < 20; call++) {
    for (const pm of pms.slice(0, 3)) {
      pm.health.fail("failure", 0, now, HEALTH_DEFAULTS);
      pm.health.succeed(now);
    }
  }
}

function cool({ pms }: RouteGroup, now: number): void {
  for (const pm of pms.slice(0, 4)) pm.health.fail("rate_limit", 60_000, now, HEALTH_DEFAULTS);
}

const MODES: readonly Mode[] = [
  { name: "all well", stream: false, sticky: false, prepare: () => undefined },
  { name: "some shares below 1", stream: true, sticky: false, prepare: dim },
  { name: "some cooling", stream: true, sticky: false, prepare: cool },
  {
    name: "shares below 1 and cooling",
    stream: true,
    sticky: false,
    prepare(group, now) {
      dim(group, now);
      cool(group, now);
    },
  },
  { name: "sticky", stream: true, sticky: true, prepare: () => undefined },
  { name: "sticky, some shares below 1", stream: true, sticky: true, prepare: dim },
];

function groupOfTen(): RouteGroup {
  const urls = Array.from({ length: TARGETS }, (_, i) => `https://u${i}.example`);
  const table = new RouteTable();
  snapshot(table, gatewayResources(urls, { targets: urls.map((_, i) => ({ tier: 0, weight: 1 + i })) }));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group;
}

/** As in production, and one for all choices, so that its calls are compiled into them as there. */
export const random = fastRandom(1);

function allocatedBytes(): number {
  return (getHeapStatistics() as unknown as { total_allocated_bytes: number }).total_allocated_bytes;
}

/** Of this thread, so that what else runs on the machine counts little. */
function cpuUs(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

/** Nanoseconds and bytes of a choice. */
function measure(group: RouteGroup, { stream, sticky }: Mode, keys: readonly number[], now: number) {
  let chosen = 0;
  const bytes = allocatedBytes();
  const begin = cpuUs();
  for (let i = 0; i < CHOICES; i++) {
    const key = sticky ? keys[i % KEYS]! : 0;
    if (choose(group, null, random, now, stream, key) !== null) chosen++;
  }
  const ns = ((cpuUs() - begin) * 1000) / CHOICES;
  if (chosen !== CHOICES) throw new Error("nothing was chosen");
  return { ns, bytes: (allocatedBytes() - bytes) / CHOICES };
}

export function printModes(rounds: number): void {
  const now = 1_764_000_000_000.5;
  // Of 31 bits, since reading a larger number from a list allocates it.
  const keys = Array.from({ length: KEYS }, (_, i) => stickyHash(`user-${i}`) >>> 1);
  const groups = MODES.map((mode) => {
    const group = groupOfTen();
    mode.prepare(group, now);
    return group;
  });
  const times = MODES.map((): number[] => []);
  const bytes = MODES.map((): number[] => []);
  // The modes take turns, so that what disturbs the machine hits all of them.
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    MODES.forEach((mode, i) => {
      const measured = measure(groups[i]!, mode, keys, now);
      if (round < 0) return;
      times[i]!.push(measured.ns);
      bytes[i]!.push(measured.bytes);
    });
  }
  console.log(
    `\nOne choice among ${TARGETS} targets of one tier; median (least-most) of ${rounds} rounds of a million.\n`,
  );
  printTable(
    ["targets", "ns", "bytes allocated"],
    MODES.map(({ name }, i) => [name, spread(times[i]!), digits(median(bytes[i]!))]),
  );
  const slowest = Math.max(...times.map(median));
  const what = `a choice among ${TARGETS} targets, in the slowest mode,`;
  printAim({ what, value: slowest / 1000, bound: US_AIM, kind: "below", unit: " µs" });
  const most = Math.max(...bytes.map(median));
  printAim({ what: "allocated by it", value: most, bound: BYTES_AIM, kind: "below", unit: " bytes" });
}
