/** The plots: what a seed is about, how long it lasts, who asks for what, and what goes wrong. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import { VES, type Ve } from "./catalogue.ts";
import { planRequest } from "./clients.ts";
import { healAll, MIXED, strike } from "./faults.ts";
import { Random } from "./random.ts";
import { World } from "./world.ts";

export const PLOTS = ["mixed", "drain", "outage", "silence", "calm"] as const;
export type Plot = (typeof PLOTS)[number];

/** Out of a hundred seeds, about so many. */
const SHARES: readonly [Plot, number][] = [
  ["mixed", 55],
  ["drain", 18],
  ["outage", 4],
  ["silence", 8],
  ["calm", 15],
];

/** Of LEASE_HOLD_S, the default; plots about silence have a short one. */
const HOLD_MS = 4_500_000;
const SHORT_HOLD_MS = 30_000;
const OUTAGE_MS = 600_000;
/** After everything is well, the backlog is gone within this. */
const HEALED_MS = 60_000;
const TINY: readonly Credits[] = ["0", "0.0005", "0.004", "0.01", "0.03"].map(parseCredits);
const SMALL: readonly Credits[] = ["0.05", "0.2", "1"].map(parseCredits);
const AMPLE = parseCredits("100000");

export function plotOf(seed: number): Plot {
  let at = new Random(seed ^ 0x5eed).int(0, 99);
  for (const [plot, share] of SHARES) {
    if (at < share) return plot;
    at -= share;
  }
  return "mixed";
}

function initialOf(random: Random): Map<string, Credits> {
  return new Map(
    VES.map(({ id, size }) => [id, size === "ample" ? AMPLE : random.pick(size === "tiny" ? TINY : SMALL)]),
  );
}

/** Which VEs are asked for: some runs are about few. */
function cast(random: Random): readonly Ve[] {
  return random.chance(0.5) ? VES : VES.filter(() => random.chance(0.4));
}

/** Requests at random times, on average `everyMs`, until `untilMs`. */
function load(world: World, ves: readonly Ve[], everyMs: number, untilMs: number): void {
  const { scheduler, random } = world;
  const next = (): void => {
    if (scheduler.now >= untilMs) return;
    world.request(random.pick(ves));
    scheduler.after(-Math.log(1 - random.next()) * everyMs, next);
  };
  scheduler.after(random.between(0, everyMs), next);
}

/** Adjustments at random times; sometimes many requests follow a top-up at once. */
function money(world: World, ves: readonly Ve[], everyMs: number, untilMs: number): void {
  const { scheduler, random } = world;
  const next = (): void => {
    if (scheduler.now >= untilMs) return;
    const { id, size } = random.pick(ves);
    const credits = random.pick(size === "tiny" ? TINY.slice(1) : SMALL);
    if (random.chance(0.35)) world.adjust(id, -credits);
    else if (size !== "ample") world.adjust(id, credits);
    scheduler.after(random.between(0.2, 2) * everyMs, next);
  };
  scheduler.after(random.between(0, everyMs), next);
}

function faults(world: World, everyMs: number, untilMs: number): void {
  const { scheduler, random } = world;
  const next = (): void => {
    if (scheduler.now >= untilMs) return;
    strike(world, random.pick(MIXED));
    scheduler.after(random.between(0.1, 2) * everyMs, next);
  };
  scheduler.after(random.between(0, everyMs), next);
}

function mixed(world: World): void {
  const { random, scheduler } = world;
  const ves = cast(random);
  const endMs = random.between(8_000, 40_000);
  load(world, ves.length === 0 ? VES : ves, random.between(100, 1_000), endMs);
  money(world, VES, 5_000, endMs);
  faults(world, random.between(2_000, 12_000), endMs);
  scheduler.runUntil(endMs);
}

/** Many want the last Credits, on all nodes, while nothing is wrong with the machines. */
function drain(world: World): void {
  const { random, scheduler } = world;
  const ves = VES.filter(({ size }) => size !== "ample");
  const few = [random.pick(ves)];
  const endMs = random.between(6_000, 15_000);
  load(world, few, random.between(20, 200), endMs);
  money(world, few, random.between(1_500, 6_000), endMs);
  scheduler.after(random.between(0, endMs), () => {
    for (let n = 0; n < 25; n++) world.request(few[0]!, undefined, { ...planRequest(random, few[0]!), leaveMs: 0 });
  });
  scheduler.runUntil(endMs);
}

/** The control plane or its database is away for ten minutes. */
function outage(world: World): void {
  const { random, scheduler, control } = world;
  const ves = VES.filter(({ size }) => size === "ample");
  load(world, ves, 2_500, 40_000 + OUTAGE_MS);
  load(world, VES, 15_000, 40_000 + OUTAGE_MS);
  scheduler.runUntil(random.between(25_000, 40_000));
  const fromDb = random.chance(0.5);
  if (fromDb) control.setDatabase(false);
  else for (const replica of control.replicas) control.kill(replica);
  world.count("outages");
  world.ampleMustServe = true;
  scheduler.runUntil(scheduler.now + OUTAGE_MS);
  world.ampleMustServe = false;
}

/** A node is silent until its leases are taken back, others get them, and it comes back. */
function silence(world: World): void {
  const { random, scheduler } = world;
  const ves = VES.filter(({ size }) => size !== "ample");
  const silentMs = random.between(100_000, 190_000);
  const endMs = 5_000 + silentMs + 10_000;
  load(world, ves, 1_000, endMs);
  money(world, ves, 15_000, endMs);
  scheduler.runUntil(5_000);
  const node = random.pick(world.nodes);
  const how = random.int(0, 3);
  world.count("silences");
  if (how === 0) world.network.cut(node.name);
  else if (how === 1) node.freeze(silentMs);
  else if (how === 2) node.kill();
  else {
    node.loseDisk();
    world.lostDisks.add(node.name);
  }
  if (how === 0 && random.chance(0.3)) node.jump(-3_600_000);
  scheduler.runUntil(5_000 + silentMs);
  world.heal(node);
  node.start();
  scheduler.runUntil(endMs);
}

/** Nothing goes wrong: then everything must be right at once. */
function calm(world: World): void {
  const { random, scheduler } = world;
  const ves = VES.filter(({ size }) => size === "tiny");
  const endMs = random.between(8_000, 30_000);
  load(world, ves, random.between(150, 600), endMs);
  const topUp = (): void => {
    if (scheduler.now >= endMs - 3_000) return;
    const ve = random.pick(ves);
    world.adjust(ve.id, random.pick(SMALL));
    // A second later it is there for everybody.
    scheduler.after(1_000, () => {
      for (const node of world.nodes) world.request(ve, node, { ...planRequest(random, ve), leaveMs: 0 });
    });
    scheduler.after(random.between(2_000, 8_000), topUp);
  };
  scheduler.after(random.between(2_500, 6_000), topUp);
  scheduler.runUntil(endMs);
}

const ACTS: Readonly<Record<Plot, (world: World) => void>> = { mixed, drain, outage, silence, calm };

export function worldOf(seed: number, plot: Plot, keepTrace: boolean): World {
  const random = new Random(seed ^ 0x77);
  return new World({
    seed,
    nodes: plot === "drain" ? random.int(2, 5) : random.int(1, 3),
    holdMs: plot === "silence" ? SHORT_HOLD_MS : HOLD_MS,
    upstreamTrouble: plot === "outage" ? 0.02 : random.pick([0, 0.1, 0.3]),
    initial: initialOf(random),
    keepTrace,
  });
}

/** From the first start to the last balance. */
export function play(world: World, plot: Plot, act = ACTS[plot]): void {
  const { scheduler } = world;
  const goHome = scheduler.install();
  try {
    for (const node of world.nodes) node.start();
    act(world);
    comeToRest(world);
  } finally {
    goHome();
  }
}

/** Everything heals, and must be in order within a minute; then the nodes stop, and every Credit must be back. */
function comeToRest(world: World): void {
  const { scheduler, violations, nodes, control } = world;
  world.violations.note("healing");
  // Faults that are still planned come to their end.
  const thawed = Math.max(scheduler.now, ...nodes.map(({ boot }) => boot?.actor.frozenUntil ?? 0));
  healAll(world);
  scheduler.runUntil(thawed);
  scheduler.runUntil(thawed + HEALED_MS);
  healAll(world);
  const must = (invariant: string, holds: boolean, detail: () => string): void =>
    violations.check(invariant, holds, detail);
  for (const { name, boot, disk } of nodes) {
    const backlog = boot?.journal.backlog ?? 0;
    must("the backlog is gone a minute after", backlog === 0, () => `${name}: ${backlog} records`);
    const dirs = new Set(disk.files(".json").map(({ path }) => path.split("/").at(-2)!));
    must("every journal is brought in a minute after", dirs.size <= 1, () => `${name}: ${[...dirs].join(" ")}`);
  }
  must("nothing is under way at the end", world.live === 0, () => `${world.live} requests`);
  must("nothing is reserved at the end", world.reserved === 0n, () => `${world.reserved}`);
  for (const node of nodes) {
    world.stopNode(node, (all) => must("the last report takes everything", all, () => node.name));
  }
  scheduler.runUntil(scheduler.now + 10_000);
  for (const { name, boot } of nodes) must("a node stops", boot === null, () => name);
  const lost = [...world.lostDisks];
  world.writingOff = true;
  for (const name of lost) control.writeOff(name);
  const left = control.ledger.leases().filter(({ credits }) => credits > 0n);
  must("every lease comes back", left.length === 0, () =>
    left.map(({ bootId, veId }) => `${bootId} ${veId}`).join(", "),
  );
  world.invariants.atEnd();
}
