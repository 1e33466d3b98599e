/** The control plane or the database is away: ample wallets see no error, and what piled up is gone soon after. */

import assert from "node:assert/strict";
import { closeBooks, untilReported } from "./books.ts";
import { askSmall, countFates, Load } from "./load.ts";
import { defineScenario, type Figures, ms, type Run, seeded } from "./scenario.ts";
import { World } from "./world.ts";

interface Params {
  readonly nodes: number;
  readonly shops: number;
  readonly clients: number;
  /** Each client asks this often. */
  readonly everyMs: number;
  /** Steady load before the first outage. */
  readonly warmUpMs: number;
  readonly outageMs: number;
  readonly outages: readonly Outage[];
}

type Outage = "both replicas killed" | "database killed" | "database silent" | "network silent" | "network half open";

const PROGRESS_MS = 60_000;
const BACKLOG_GONE_MS = 60_000;
const START_TRIES_MAX = 30;

async function begin(world: World, outage: Outage): Promise<void> {
  if (outage === "both replicas killed") await Promise.all(world.system.replicas.map((replica) => replica.kill()));
  else if (outage === "database killed") await world.postgres.kill();
  else if (outage === "database silent") world.databaseProxy.set({ blackhole: true });
  else for (const proxy of world.nodeProxies) fail(proxy, outage);
}

function fail(proxy: World["nodeProxies"][number], outage: Outage): void {
  if (outage === "network half open") proxy.halfOpen();
  // New connections find nobody either.
  proxy.set({ blackhole: true });
}

/** From here on everything can be reached again. */
async function end(world: World, outage: Outage): Promise<void> {
  if (outage === "both replicas killed") {
    for (let replica = 0; replica < world.system.replicas.length; replica++)
      await world.system.startControlPlane({}, replica);
  } else if (outage === "database killed") await world.postgres.start();
  else if (outage === "database silent") world.databaseProxy.heal();
  else for (const proxy of world.nodeProxies) proxy.heal();
  // A replica may have ended for want of its database.
  for (const [replica, part] of world.system.replicas.entries()) {
    for (let tries = 0; !world.system.replicas[replica]!.running && tries < START_TRIES_MAX; tries++) {
      world.run.progress(`${part.title} had ended`);
      await world.system.startControlPlane({}, replica).catch(() => world.pause(500));
    }
  }
}

async function suffer(world: World, load: Load, outage: Outage, params: Params): Promise<Figures> {
  const from = load.fates.length;
  await begin(world, outage);
  const beganMs = performance.now();
  for (let leftMs = params.outageMs; leftMs > 0; leftMs -= PROGRESS_MS) {
    await world.pause(Math.min(leftMs, PROGRESS_MS));
    world.run.progress(`${outage}: ${load.fates.length - from} requests so far`);
  }
  const during = load.fates.slice(from);
  const endedMs = performance.now();
  await end(world, outage);
  const backlogMs = await untilReported(world, load.fates.slice(), BACKLOG_GONE_MS * 2);
  const { requests, whole } = countFates(during);
  const failed = load.fates.slice(from).filter((fate) => !fate.whole);
  world.run.progress(`${outage}: ${whole} of ${requests} served; the backlog was gone after ${ms(backlogMs)}`);
  const when = failed
    .slice(0, 5)
    .map((fate) => ({ ...fate, after_ms: fate.askedMs - beganMs, returned_ms: endedMs - beganMs }));
  assert.equal(failed.length, 0, `an ample wallet saw ${failed.length} errors: ${JSON.stringify(when)}`);
  assert.ok(backlogMs < BACKLOG_GONE_MS, `the backlog was gone after ${ms(backlogMs)}`);
  return { outage, lasted: ms(params.outageMs), requests: requests!, whole: whole!, backlog_gone_after: ms(backlogMs) };
}

/** Every node has a lease of every shop: the very first request of a busy machine may have to try again. */
async function serveOnce(world: World): Promise<void> {
  for (const shop of world.shops) {
    for (const node of world.nodes) {
      await world.until("a node serves", async () => (await askSmall(node, shop)).whole);
    }
  }
}

async function runOutage(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: params.nodes }, async (world) => {
    for (let i = 0; i < params.shops; i++) {
      await world.openShop({ tokens: 1_000_000_000_000n, upstreamModels: ["some~words=60"], maxOutputTokens: 400 });
    }
    await serveOnce(world);
    const { clients, everyMs } = params;
    const load = new Load({ world, shops: world.shops, clients, random: seeded(6), everyMs });
    await world.pause(params.warmUpMs);
    const rows: Figures[] = [];
    for (const outage of params.outages) {
      rows.push(await suffer(world, load, outage, params));
      await world.pause(params.warmUpMs);
    }
    const fates = await load.stop();
    run.figures(`outages at ${Math.round((clients * 1000) / everyMs)} requests a second`, rows);
    const failed = fates.filter((fate) => !fate.whole);
    assert.equal(failed.length, 0, `an ample wallet saw errors: ${JSON.stringify(failed.slice(0, 3))}`);
    await closeBooks(world, fates, { clients, ample: true });
  });
}

export const outage = defineScenario<Params>({
  name: "outage",
  title: "control plane or database away: ample wallets see no error, the backlog is gone within 60 s of the return",
  short: {
    nodes: 2,
    shops: 2,
    clients: 16,
    everyMs: 400,
    warmUpMs: 3_000,
    outageMs: 8_000,
    outages: ["both replicas killed", "database killed", "network silent"],
  },
  long: {
    nodes: 4,
    shops: 4,
    clients: 32,
    everyMs: 500,
    warmUpMs: 30_000,
    outageMs: 600_000,
    outages: ["both replicas killed", "database killed", "database silent", "network silent", "network half open"],
  },
  run: runOutage,
});
