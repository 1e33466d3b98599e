/** What the simulator found, as plots that bring it about again: each broke an invariant when it was written. */

import { parseCredits } from "../../core/credits.ts";
import { VES } from "./catalogue.ts";
import { planRequest, type RequestPlan } from "./clients.ts";
import type { World, WorldPlan } from "./world.ts";

export interface Regression {
  readonly name: string;
  /** What was wrong. */
  readonly found: string;
  readonly plan: WorldPlan;
  act(world: World): void;
}

const VE = VES.find(({ size, strict }) => size === "ample" && !strict)!;
const CREDITS = parseCredits("100000");

function planOf(seed: number): WorldPlan {
  const initial = new Map(VES.map(({ id }) => [id, CREDITS]));
  return { seed, nodes: 1, holdMs: 4_500_000, upstreamTrouble: 0, initial, keepTrace: false };
}

/** One request every so often. */
function steady(world: World, everyMs: number, untilMs: number, more: Partial<RequestPlan> = {}): void {
  for (let at = 500; at < untilMs; at += everyMs) {
    world.scheduler.after(at, () =>
      world.request(VE, undefined, { ...planRequest(world.random, VE), leaveMs: 0, ...more }),
    );
  }
}

export const REGRESSIONS: readonly Regression[] = [
  {
    name: "a backlog is read from the segment that is being written",
    found:
      "The reader kept its copy of a segment that grew meanwhile, and told the ledger that all records written since were lost.",
    plan: planOf(101),
    act(world) {
      steady(world, 60, 30_000);
      world.scheduler.after(3_000, () => world.network.cut("n1"));
      world.scheduler.after(24_000, () => world.heal(world.nodes[0]!));
      world.scheduler.runUntil(32_000);
    },
  },
  {
    name: "the settlement of a stream rots that is the first record",
    found:
      "Records before the least number on disk were not missed, so the stream was billed again as if its node had died.",
    plan: planOf(102),
    act(world) {
      const [node] = world.nodes;
      steady(world, 400, 1_500, { stream: true, maxTokens: 40 });
      world.scheduler.runUntil(6_000);
      node!.kill();
      // The first settlement, wherever it stands: the intents and progress notes before it stay whole.
      node!.rotSettlement();
      node!.start();
      world.scheduler.runUntil(8_000);
    },
  },
  {
    name: "a recovery fails once",
    found: "An I/O error left the journal claimed by the living process, which then never looked at it again.",
    plan: planOf(103),
    act(world) {
      const [node] = world.nodes;
      steady(world, 300, 4_000);
      world.scheduler.runUntil(4_000);
      node!.kill();
      node!.disk.trouble = "sync";
      node!.start();
      node!.troubled = true;
      world.scheduler.runUntil(9_000);
      node!.disk.trouble = null;
      world.scheduler.runUntil(30_000);
    },
  },
];
