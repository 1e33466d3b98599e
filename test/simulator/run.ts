/** One seed, from its plot to its verdict. */

import { type Plot, play, plotOf, worldOf } from "./scenario.ts";
import type { Violation } from "./violations.ts";
import { type Counts, World, type WorldPlan } from "./world.ts";

export interface Verdict {
  readonly seed: number;
  readonly plot: Plot;
  readonly violations: readonly Violation[];
  readonly trace: readonly string[];
  /** Equal for equal runs. */
  readonly hash: number;
  readonly steps: number;
  readonly checks: number;
  readonly virtualMs: number;
  readonly counts: Counts;
}

export function runSeed(seed: number, keepTrace = false): Verdict {
  const plot = plotOf(seed);
  return judge(seed, plot, worldOf(seed, plot, keepTrace));
}

/** A world with a plot of its own. */
export function runWorld(plan: WorldPlan, act: (world: World) => void): Verdict {
  return judge(plan.seed, "mixed", new World(plan), act);
}

function judge(seed: number, plot: Plot, world: World, act?: (world: World) => void): Verdict {
  const { violations, scheduler, network, control, counts } = world;
  try {
    play(world, plot, act);
  } catch (error) {
    violations.add("nothing throws", String((error as Error).stack));
  }
  counts["messages_lost"] = network.lost;
  counts["messages_twice"] = network.doubled;
  counts["commits"] = control.commits;
  counts["torn_writes"] = world.nodes.reduce((sum, { disk }) => sum + disk.torn, 0);
  counts["phantom_checks"] = world.invariants.phantomChecks;
  counts["overtaken"] = world.books.overtaken;
  return {
    seed,
    plot,
    violations: violations.list,
    trace: violations.list.length > 0 || violations.keep ? violations.lastOfTrace() : [],
    hash: violations.hash,
    steps: scheduler.steps,
    checks: violations.checks,
    virtualMs: scheduler.now,
    counts,
  };
}
