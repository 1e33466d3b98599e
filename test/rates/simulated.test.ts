/** Eight nodes share limits, in simulated time: how exact they are, and what becomes of that when something fails. */

import { describe, expect, test } from "vitest";
import type { RateLimits } from "../../data-plane/rates/rates.ts";
import { SlidingWindow } from "../../data-plane/rates/window.ts";
import { Admissions, RateWorld, type SimNode } from "./world.ts";

const NODES = 8;
const MINUTE_MS = 60_000;
const EVEN = Array.from({ length: NODES }, () => 1 / NODES);
const SKEWED = [0.4, 0.2, 0.1, 0.1, 0.08, 0.06, 0.04, 0.02];
const NONE: RateLimits = { requestsPerMinute: 0, tokensPerMinute: 0, concurrentRequests: 0 };
const requests = (limit: number): RateLimits => ({ ...NONE, requestsPerMinute: limit });

interface Load {
  readonly limits: RateLimits;
  readonly limit: number;
  /** Demand as a multiple of the limit. */
  readonly factor: number;
  readonly shares?: readonly number[];
  /** Tokens of a request, on average; 0: requests are limited. */
  readonly size?: number;
}

/** Sends a load, and keeps what was admitted; beside it, what one limiter that sees everything would have admitted. */
class Traffic {
  readonly world: RateWorld;
  readonly admitted = new Admissions();
  readonly ideal = new Admissions();
  refused = 0;
  readonly byNode = Array.from({ length: NODES }, () => 0);
  readonly #window = new SlidingWindow();

  constructor(world: RateWorld) {
    this.world = world;
  }

  async send(ms: number, { limits, limit, factor, shares = EVEN, size = 0 }: Load): Promise<void> {
    const { world } = this;
    const perSecond = (limit / 60 / (size === 0 ? 1 : size)) * factor;
    await world.run(ms, () => {
      world.nodes.forEach((node, i) => {
        const count = node.alive ? world.arrivals(perSecond * shares[i]!) : 0;
        for (let n = 0; n < count; n++) this.#ask(node, i, limits, limit, size);
      });
    });
  }

  #ask(node: SimNode, i: number, limits: RateLimits, limit: number, size: number): void {
    const { world } = this;
    const amount = size === 0 ? 1 : Math.ceil(size * (0.5 + world.random()));
    if (this.#window.used(world.now) + amount <= limit) {
      this.#window.add(world.now, amount);
      this.ideal.add(world.now, amount);
    }
    if (world.take(node, limits, size === 0 ? 0 : amount)) {
      this.admitted.add(world.now, amount);
      this.byNode[i]!++;
    } else this.refused++;
  }
}

async function traffic(seed: number, nodes = NODES): Promise<Traffic> {
  const world = new RateWorld({ seed, nodes });
  // Nodes hear once a second how many there are.
  await world.run(1_200);
  return new Traffic(world);
}

const CASES: [string, Load][] = [
  ["600 requests, skewed", { limits: requests(600), limit: 600, factor: 3, shares: SKEWED }],
  ["600 requests, evenly", { limits: requests(600), limit: 600, factor: 3 }],
  ["100,000 requests, skewed", { limits: requests(100_000), limit: 100_000, factor: 3, shares: SKEWED }],
  [
    "100,000 tokens, skewed",
    { limits: { ...NONE, tokensPerMinute: 100_000 }, limit: 100_000, factor: 3, shares: SKEWED, size: 20 },
  ],
];

describe("three times as much as the limit", () => {
  test.each(CASES)("from one moment to the next: %s: every minute is exact within 1 %", async (_, load) => {
    const all = await traffic(1);
    for (let minute = 1; minute <= 4; minute++) {
      await all.send(MINUTE_MS, load);
      // After the first minute it comes in bursts, as the first one leaves the window.
      expect(all.admitted.total).toBeGreaterThanOrEqual(Math.min(all.ideal.total, minute * load.limit) * 0.99);
    }
    expect(all.admitted.windows(0).most).toBeLessThanOrEqual(load.limit * 1.01);
  });

  test.each(CASES)("once it is steady: %s: every 60 seconds are exact within 1 %", async (_, load) => {
    const all = await traffic(2);
    await all.send(75_000, { ...load, factor: 1 });
    await all.send(4 * MINUTE_MS, load);
    const { most, mean } = all.admitted.windows(150_000);
    expect(most).toBeLessThanOrEqual(load.limit * 1.01);
    expect(mean).toBeGreaterThanOrEqual(load.limit * 0.99);
  });

  test("a node that comes late gets its part", async () => {
    const all = await traffic(3);
    const limits = requests(600);
    await all.send(3 * MINUTE_MS, { limits, limit: 600, factor: 30, shares: [1, 0, 0, 0, 0, 0, 0, 0] });
    const before = all.byNode[0]!;
    await all.send(2 * MINUTE_MS, { limits, limit: 600, factor: 30, shares: [0.9, 0.1, 0, 0, 0, 0, 0, 0] });
    expect(before).toBeGreaterThan(1_700);
    expect(all.byNode[1]!).toBeGreaterThan(60);
    expect(all.admitted.windows(0).most).toBeLessThanOrEqual(606);
  });
});

test("what some nodes have used up, nodes that come new to it do not use again", async () => {
  const all = await traffic(12);
  const limits = requests(600);
  await all.send(40_000, { limits, limit: 600, factor: 3, shares: [1, 0, 0, 0, 0, 0, 0, 0] });
  expect(all.admitted.total).toBe(600);
  // A share of each at once.
  for (const node of all.world.nodes.slice(1))
    for (let n = 0; n < 75; n++) expect(all.world.take(node, limits)).toBe(false);
  await all.send(15_000, { limits, limit: 600, factor: 3 });
  expect(all.admitted.windows(0).most).toBe(600);
});

describe("less than the limit", () => {
  test.each([
    ["evenly", requests(600), 600, 0.7, EVEN, 0],
    ["skewed", requests(600), 600, 0.7, SKEWED, 0],
    ["skewed tokens", { ...NONE, tokensPerMinute: 100_000 }, 100_000, 0.7, SKEWED, 20],
    ["a small limit", requests(200), 200, 0.6, EVEN, 0],
  ])("nothing is refused: %s", async (_, limits, limit, factor, shares, size) => {
    const all = await traffic(4);
    await all.send(5 * MINUTE_MS, { limits, limit, factor, shares, size });
    expect(all.refused).toBe(0);
  });

  test("a burst of a third of the limit on one node is admitted, also where the others are used", async () => {
    const all = await traffic(5);
    const limits = requests(600);
    await all.send(30_000, { limits, limit: 600, factor: 0.1 });
    const node = all.world.nodes[3]!;
    let admitted = 0;
    // Over half a second: what a client sends at once may find only what its node holds.
    for (let i = 0; i < 100; i++) {
      for (let n = 0; n < 2; n++) admitted += Number(all.world.take(node, limits));
      await all.world.run(5);
    }
    expect(admitted).toBe(200);
  });
});

test("never more requests run than the limit, and nearly as many when there is demand", async () => {
  const world = new RateWorld({ seed: 6, nodes: NODES });
  const limits = { ...NONE, concurrentRequests: 80 };
  await world.run(100);
  const running = (): number => world.nodes.reduce((sum, { holds }) => sum + holds.length, 0);
  let [most, total, steps] = [0, 0, 0];
  await world.run(3 * MINUTE_MS, () => {
    world.nodes.forEach((node, i) => {
      // Each takes a second on average.
      node.holds = node.holds.filter((held) => {
        if (world.random() > 0.005) return true;
        held.settle(0);
        return false;
      });
      const count = world.arrivals(240 * SKEWED[i]!);
      for (let n = 0; n < count; n++) world.take(node, limits, 0, true);
    });
    most = Math.max(most, running());
    if (world.now > 1_000_000 + 10_000) {
      total += running();
      steps++;
    }
  });
  expect(most).toBeLessThanOrEqual(80);
  expect(total / steps).toBeGreaterThan(80 * 0.95);
});

test.each([
  [2, 6],
  [2, 20],
  [2, 600],
  [8, 60],
  [8, 6_000],
])("a burst on %i nodes that know nothing yet of a limit of %i comes to the limit at most", async (nodes, limit) => {
  for (let seed = 1; seed <= 10; seed++) {
    const world = new RateWorld({ seed, nodes });
    await world.run(1_200);
    let admitted = 0;
    const atOnce = Math.ceil(limit / nodes / 10) + 1;
    await world.run(100, () => {
      for (const node of world.nodes)
        for (let n = 0; n < atOnce; n++) admitted += Number(world.take(node, requests(limit)));
    });
    await world.run(10_000, () => {
      const node = world.nodes[Math.floor(world.random() * nodes)]!;
      admitted += Number(world.take(node, requests(limit)));
    });
    expect(admitted).toBeLessThanOrEqual(limit);
    expect(admitted).toBeGreaterThan(limit * 0.8);
  }
});

test.each([
  [2, 1],
  [2, 2],
  [8, 1],
  [8, 4],
])("over %i nodes, of %i places none is kept from who asks for it while nothing runs", async (nodes, limit) => {
  const world = new RateWorld({ seed: 9, nodes });
  const limits = { ...NONE, concurrentRequests: limit };
  await world.run(2_000);
  const rounds = 40;
  let [atOnce, served] = [0, 0];
  for (let i = 0; i < rounds; i++) {
    const node = world.nodes[i % nodes]!;
    // As the official SDKs do: two more tries, a second apart.
    for (let tries = 0; tries < 3; tries++) {
      if (world.take(node, limits, 0, true)) {
        served++;
        if (tries === 0) atOnce++;
        break;
      }
      await world.run(1_000);
    }
    await world.run(1_000);
    for (const held of node.holds.splice(0)) held.settle(0);
    await world.run(2_500);
  }
  expect(served).toBe(rounds);
  expect(atOnce).toBeGreaterThan(rounds * 0.8);
});

describe("failures", () => {
  const limits = requests(600);
  const load = { limits, limit: 600, factor: 3 };

  test("lost calls and answers make nobody admit more, and little less", async () => {
    const all = await traffic(7);
    const { world } = all;
    for (let i = 0; i < 240; i++) {
      for (const node of world.nodes) {
        if (world.random() < 0.2) node.lose.push(world.random() < 0.5 ? "call" : "answer");
      }
      await all.send(1_000, load);
    }
    expect(all.admitted.windows(0).most).toBeLessThanOrEqual(600);
    expect(all.admitted.total).toBeGreaterThan(4 * 600 * 0.98);
  });

  test("what a dead node used counts until it is out of the window; then the others have it", async () => {
    const all = await traffic(8);
    await all.send(2 * MINUTE_MS, load);
    all.world.nodes[0]!.alive = false;
    await all.send(3 * MINUTE_MS, load);
    expect(all.admitted.windows(0).most).toBeLessThanOrEqual(600);
    expect(all.admitted.windows(255_000).mean).toBeGreaterThan(600 * 0.97);
  });

  test("a node that stops gives back what it holds at once", async () => {
    const world = new RateWorld({ seed: 9, nodes: 2 });
    await world.run(100);
    world.take(world.nodes[0]!, limits);
    await world.run(2_000);
    const stopped = world.nodes[0]!.sync.stop();
    await world.run(500);
    await stopped;
    let admitted = 0;
    await world.run(1_000, () => {
      for (let n = 0; n < 5; n++) admitted += Number(world.take(world.nodes[1]!, limits));
    });
    expect(admitted).toBe(599);
  });

  test.each(["away", "storeLost"] as const)(
    "control plane or Redis %s: shares, and exact again after",
    async (what) => {
      const all = await traffic(10);
      await all.send(MINUTE_MS, load);
      all.world[what] = true;
      await all.send(2 * MINUTE_MS, load);
      const before = [...all.byNode];
      await all.send(2 * MINUTE_MS, load);
      // 75 each, twice.
      for (const [i, count] of all.byNode.entries()) {
        expect(count - before[i]!).toBeGreaterThan(150 * 0.9);
        expect(count - before[i]!).toBeLessThanOrEqual(225);
      }
      all.world[what] = false;
      await all.send(2 * MINUTE_MS, load);
      // The figures of before are too old by now, so for a moment the first to report seems to be alone.
      expect(all.admitted.windows(5 * MINUTE_MS).most).toBeLessThanOrEqual(600 * 1.03);
      expect(all.admitted.windows(6 * MINUTE_MS).most).toBeLessThanOrEqual(606);
    },
  );

  test("figures that were lost are there again with the next reports", async () => {
    const all = await traffic(11);
    await all.send(2 * MINUTE_MS, load);
    all.world.store = all.world.freshStore();
    await all.send(2 * MINUTE_MS, load);
    expect(all.admitted.windows(0).most).toBeLessThanOrEqual(600 * 1.02);
    expect(all.admitted.windows(3 * MINUTE_MS).most).toBeLessThanOrEqual(606);
  });
});
