/** Eight nodes' limiters over the real network, with real control planes and a real Redis, for more than a minute. */

import pino from "pino";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import { openTestDatabases } from "../../control-plane/db/testing.ts";
import { startTestControlPlane } from "../../control-plane/testing.ts";
import { type ControlPlane, connectControlPlane } from "../../data-plane/control_plane.ts";
import { RateLimiter } from "../../data-plane/rates/rate_limiter.ts";
import { RateSync } from "../../data-plane/rates/rate_sync.ts";
import { isRefusal } from "../../data-plane/rates/rates.ts";
import { shareCall } from "../../data-plane/rates/share_call.ts";
import { until } from "../support/part.ts";
import { postgresUrl } from "../support/postgres.ts";
import { OwnRedis } from "../support/redis_server.ts";
import { System } from "../support/system.ts";
import { Admissions } from "./world.ts";

const NODES = 8;
const LIMIT = 600;
const LIMITS = { requestsPerMinute: LIMIT, tokensPerMinute: 0, concurrentRequests: 0 };
const SUBJECT = "key_real";
const RUN_MS = 66_000;
const DEMAND_PER_S = 30;
const log = pino({ level: "silent" });
/** Closed at the very end: ten seconds after that, the library's keep-alive timer trips over a connection that was ended. */
const controls: ControlPlane[] = [];

afterAll(() => {
  for (const control of controls) control.close();
});

class Nodes {
  readonly limiters: RateLimiter[] = [];
  readonly syncs: RateSync[] = [];
  readonly admitted = new Admissions();
  readonly byNode: number[] = Array.from({ length: NODES }, () => 0);

  constructor(urls: readonly string[], token: string) {
    const now = (): number => performance.now();
    for (let i = 0; i < NODES; i++) {
      const control = connectControlPlane(urls[i % urls.length]!, token);
      const limiter = new RateLimiter({ now, random: Math.random });
      const timer = (ms: number, fn: () => void): (() => void) => {
        const timeout = setTimeout(fn, ms);
        return () => clearTimeout(timeout);
      };
      const share = shareCall(control.rates, `node_${i}`, `boot_${i}`);
      const sync = new RateSync({ limiter, share, log, now, timer });
      controls.push(control);
      this.limiters.push(limiter);
      this.syncs.push(sync);
      sync.start();
    }
  }

  get known(): boolean {
    return this.limiters.every(({ stats }) => stats.nodes === NODES) && this.syncs.every(({ stats }) => stats.shared);
  }

  /** Three times the limit, more of it on some nodes than on others. */
  async ask(ms: number): Promise<void> {
    const begin = performance.now();
    let asked = 0;
    while (performance.now() - begin < ms) {
      const due = Math.floor(((performance.now() - begin) / 1000) * DEMAND_PER_S);
      for (; asked < due; asked++) {
        const i = Math.floor(Math.random() ** 2 * NODES);
        const result = this.limiters[i]!.take(SUBJECT, LIMITS, 0, 0);
        if (isRefusal(result)) continue;
        result.settle(0);
        this.admitted.add(performance.now(), 1);
        this.byNode[i]!++;
      }
      await delay(5);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.syncs.map((sync) => sync.stop()));
  }
}

async function expectExact(nodes: Nodes): Promise<void> {
  await until("every node knows of the others", async () => nodes.known);
  await nodes.ask(RUN_MS);
  expect(nodes.admitted.windows(0).most).toBeLessThanOrEqual(LIMIT * 1.01);
  expect(nodes.admitted.windows(59_000).most).toBeGreaterThanOrEqual(LIMIT * 0.99);
}

describe.concurrent("eight nodes", { timeout: 240_000 }, () => {
  test("with two control planes and Redis: exact within 1 %; without Redis they go on", async () => {
    const redis = await OwnRedis.start();
    const system = new System({ databaseUrl: await postgresUrl(), env: { REDIS_URL: redis.url } });
    let nodes: Nodes | undefined;
    try {
      await system.startControlPlane();
      await system.startControlPlane({}, 1);
      const urls = system.replicas.map(({ address }) => `http://${address}`);
      nodes = new Nodes(urls, await system.token("node"));
      await expectExact(nodes);

      await redis.kill();
      await until("the nodes are told", async () => nodes!.syncs.every(({ stats }) => !stats.shared));
      const before = [...nodes.byNode];
      // Grants hold for ten seconds; a minute after that, only shares count.
      await nodes.ask(75_000);
      nodes.byNode.forEach((count, i) => expect(count - before[i]!).toBeGreaterThan(0));
      expect(nodes.limiters.every(({ stats }) => stats.nodes === NODES)).toBe(true);
      const after = nodes.admitted.total;
      await redis.start();
      await until("the nodes share again", async () => nodes!.known);
      expect(after).toBeGreaterThan(LIMIT);
    } finally {
      await nodes?.close();
      await system.stop();
      await redis.close();
    }
  });

  test("with one control plane and nothing else: exact within 1 %", async () => {
    const db = await openTestDatabases()[0]!.open();
    const cp = await startTestControlPlane(db);
    const nodes = new Nodes([cp.url], cp.nodeToken);
    try {
      await expectExact(nodes);
      const { remainingRequests } = await cp.rates.left(SUBJECT, LIMITS);
      expect(remainingRequests).toBeLessThan(LIMIT * 0.1);
    } finally {
      await nodes.close();
      await cp.close();
      await db.close();
    }
  });
});
