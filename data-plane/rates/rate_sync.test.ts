import pino from "pino";
import { expect, test } from "vitest";
import { RateLimiter, type RateLine } from "./rate_limiter.ts";
import { CALL_TIMEOUT_MS, HEARTBEAT_MS, RateSync, SEND_MIN_MS, type ShareAnswer } from "./rate_sync.ts";
import { isRefusal } from "./rates.ts";

const LIMITS = { requestsPerMinute: 100, tokensPerMinute: 0, concurrentRequests: 0 };
const log = pino({ level: "silent" });

interface Call {
  readonly lines: readonly RateLine[];
  readonly final: boolean;
  readonly at: number;
  answer(fields?: Partial<ShareAnswer>): Promise<void>;
  fail(): Promise<void>;
}

/** A node whose calls a test answers by hand. */
class Node {
  now = 5_000;
  readonly calls: Call[] = [];
  #timers: { at: number; fn: () => void }[] = [];
  readonly limiter = new RateLimiter({ now: () => this.now, random: () => 0.5 });
  readonly sync = new RateSync({
    limiter: this.limiter,
    log,
    now: () => this.now,
    timer: (ms, fn) => {
      const entry = { at: this.now + ms, fn };
      this.#timers.push(entry);
      return () => (this.#timers = this.#timers.filter((other) => other !== entry));
    },
    share: (lines, { final }, timeoutMs) => {
      expect(timeoutMs).toBe(CALL_TIMEOUT_MS);
      const { promise, resolve, reject } = Promise.withResolvers<ShareAnswer>();
      const grants = lines.map(() => ({ allowance: 10, remaining: 90 }));
      this.calls.push({
        lines,
        final,
        at: this.now,
        answer: async (fields = {}) => {
          resolve({ grants, shared: true, nodes: 2, ttlMs: 10_000, tight: [], ...fields });
          await settled();
        },
        fail: async () => {
          reject(new Error("away"));
          await settled();
        },
      });
      return promise;
    },
  });

  get last(): Call {
    return this.calls.at(-1)!;
  }

  take(count = 1): number {
    let admitted = 0;
    for (let i = 0; i < count; i++) admitted += Number(!isRefusal(this.limiter.take("key_a", LIMITS, 0, 0)));
    return admitted;
  }

  /** A millisecond at a time, as timers go. */
  pass(ms: number): void {
    for (let i = 0; i < ms; i++) {
      this.now++;
      const due = this.#timers.filter(({ at }) => at <= this.now);
      this.#timers = this.#timers.filter(({ at }) => at > this.now);
      for (const { fn } of due) fn();
    }
  }

  async started(): Promise<this> {
    this.sync.start();
    this.pass(1);
    await this.last.answer();
    return this;
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("says at once that it is there, and again while there is nothing to say", async () => {
  const node = await new Node().started();
  expect(node.calls).toHaveLength(1);
  expect(node.limiter.stats.nodes).toBe(2);
  node.pass(HEARTBEAT_MS - 1);
  expect(node.calls).toHaveLength(1);
  node.pass(60);
  expect(node.calls).toHaveLength(2);
  expect(node.last.lines).toEqual([]);
});

test("the first use of a limit is reported at once, and one call is under way at a time", async () => {
  const node = await new Node().started();
  const { at } = node.last;
  expect(node.take(3)).toBe(3);
  node.pass(SEND_MIN_MS);
  expect(node.last.at - at).toBeLessThanOrEqual(SEND_MIN_MS + 1);
  expect(node.last.lines.map(({ figures }) => figures.used)).toEqual([3]);
  node.take(1);
  node.pass(500);
  expect(node.calls).toHaveLength(2);
  await node.last.answer();
  // Three were used when it was reported, and one since: ten may be used beyond the three.
  expect(node.take(20)).toBe(9);
});

test("a call that fails is made again after a pause that grows, and a need does not shorten it", async () => {
  const node = await new Node().started();
  node.take(1);
  const pauses: number[] = [];
  let { at } = node.last;
  for (let i = 0; i < 6; i++) {
    while (node.last.at === at) {
      node.take(1);
      node.pass(1);
    }
    pauses.push(node.last.at - at);
    at = node.last.at;
    await node.last.fail();
  }
  // A limit that somebody asks for is not tried again before a quarter of a second.
  expect(pauses.slice(1)).toEqual([300, 300, 400, 800, 1_600]);
  expect(node.sync.stats).toMatchObject({ failed: 6, shared: false });
  node.pass(2_000);
  expect(node.last.lines).toHaveLength(1);
  await node.last.answer();
  expect(node.sync.stats.shared).toBe(true);
});

test("an answer that nothing can be known changes no grant, but tells how many nodes there are", async () => {
  const node = await new Node().started();
  node.take(1);
  node.pass(SEND_MIN_MS);
  await node.last.answer({ grants: [{ allowance: 0, remaining: 0 }] });
  expect(node.take(1)).toBe(0);
  node.pass(200);
  await node.last.answer({ shared: false, grants: [], nodes: 4 });
  expect(node.sync.stats).toMatchObject({ unshared: 1, shared: false });
  expect(node.take(1)).toBe(0);
  node.pass(10_000);
  expect(node.limiter.stats.nodes).toBe(4);
  expect(node.take(100)).toBe(24);
});

test("at the stop it tells what it used, and that it holds nothing", async () => {
  const node = await new Node().started();
  node.take(2);
  node.pass(SEND_MIN_MS);
  const stopped = node.sync.stop();
  await node.last.answer();
  expect(node.last).toMatchObject({ final: true, lines: [{ figures: { used: 2, held: 0, want: 0 } }] });
  await node.last.answer();
  await stopped;
  const { length } = node.calls;
  node.take(1);
  node.pass(5_000);
  await node.sync.stop();
  expect(node.calls).toHaveLength(length);
});
