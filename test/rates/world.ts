/**
 * Nodes and their control plane in simulated time: the real limiters, their real reports and the real store, with a network
 * that takes time and can lose things. Everything follows from the seed.
 */

import pino from "pino";
import { MemoryRateStore } from "../../control-plane/rates/memory_store.ts";
import { GRANT_TTL_MS, type RateKind } from "../../control-plane/domain/rates.ts";
import { isRefusal, type RateHold, type RateLimits } from "../../data-plane/rates/rates.ts";
import { RateLimiter } from "../../data-plane/rates/rate_limiter.ts";
import { RateSync, type ShareAnswer, type ShareKind, type ShareRates } from "../../data-plane/rates/rate_sync.ts";
import { Random } from "../simulator/random.ts";

export const STEP_MS = 5;
export const SUBJECT = "key_simulated";
const log = pino({ level: "silent" });

interface Event {
  readonly at: number;
  readonly fn: () => void;
  cancelled: boolean;
}

export interface SimNode {
  readonly boot: string;
  readonly limiter: RateLimiter;
  readonly sync: RateSync;
  /** What it does with the answers of the next calls; then it delivers them. */
  readonly lose: ("call" | "answer")[];
  alive: boolean;
  holds: RateHold[];
}

export interface WorldOptions {
  readonly seed: number;
  readonly nodes: number;
  /** One way. */
  readonly latencyMs?: number;
}

export class RateWorld {
  now = 1_000_000;
  readonly nodes: SimNode[] = [];
  /** Set to answer no call; to answer that nothing is known. */
  away = false;
  storeLost = false;
  readonly random: () => number;
  store: MemoryRateStore;
  readonly #latencyMs: number;
  readonly #events: Event[] = [];

  constructor({ seed, nodes, latencyMs = 5 }: WorldOptions) {
    const random = new Random(seed);
    this.random = () => random.next();
    this.#latencyMs = latencyMs;
    this.store = this.freshStore();
    for (let i = 0; i < nodes; i++) this.addNode();
  }

  freshStore(): MemoryRateStore {
    return new MemoryRateStore(() => this.now, this.random);
  }

  addNode(): SimNode {
    const now = (): number => this.now;
    const limiter = new RateLimiter({ now, random: this.random });
    const boot = `boot_${this.nodes.length}`;
    const node: SimNode = {
      boot,
      limiter,
      sync: new RateSync({
        limiter,
        log,
        now,
        share: (lines, kind) => this.#share(node, lines, kind),
        timer: (ms, fn) => this.#timer(ms, () => node.alive && fn()),
      }),
      lose: [],
      alive: true,
      holds: [],
    };
    this.nodes.push(node);
    node.sync.start();
    return node;
  }

  /** Moves time on; `each` is called with every step. */
  async run(ms: number, each: () => void = () => {}): Promise<void> {
    const end = this.now + ms;
    while (this.now < end) {
      this.now += STEP_MS;
      await this.#fire();
      each();
    }
  }

  /** Returns whether it was admitted. */
  take(node: SimNode, limits: RateLimits, tokens = 0, keep = false): boolean {
    const result = node.limiter.take(SUBJECT, limits, tokens, 0);
    if (isRefusal(result)) return false;
    if (keep) node.holds.push(result);
    else result.settle(tokens);
    return true;
  }

  /** How many of a rate come in one step. */
  arrivals(perSecond: number): number {
    let left = (perSecond * STEP_MS) / 1000;
    let count = 0;
    // Poisson by its exponential gaps.
    for (left += Math.log(1 - this.random()); left > 0; left += Math.log(1 - this.random())) count++;
    return count;
  }

  async #fire(): Promise<void> {
    for (;;) {
      const due = this.#events.filter(({ at }) => at <= this.now).toSorted((a, b) => a.at - b.at);
      if (due.length === 0) return;
      for (const event of due) this.#events.splice(this.#events.indexOf(event), 1);
      for (const event of due) if (!event.cancelled) event.fn();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #timer(ms: number, fn: () => void): () => void {
    const event = { at: this.now + ms, fn, cancelled: false };
    this.#events.push(event);
    return () => (event.cancelled = true);
  }

  #delay(): Promise<void> {
    return new Promise((resolve) => this.#timer(this.#latencyMs * (0.5 + this.random()), resolve));
  }

  async #share(node: SimNode, lines: Parameters<ShareRates>[0], { final, withTight }: ShareKind): Promise<ShareAnswer> {
    const fate = node.lose.shift();
    await this.#delay();
    if (this.away || fate === "call") throw new Error("no answer");
    const reports = lines.map(({ account: { subject, kind, limit }, figures }) => ({
      subjectId: subject,
      kind: kind as RateKind,
      limit,
      ...figures,
    }));
    const { grants, nodes, tight } = await this.store.share({ bootId: node.boot, reports, final, withTight });
    await this.#delay();
    if (fate === "answer") throw new Error("the answer was lost");
    const named = tight.map(({ subjectId, kind }) => ({ subject: subjectId, kind }));
    const shared = !this.storeLost;
    return { grants: shared ? grants : [], shared, nodes, ttlMs: GRANT_TTL_MS, tight: shared ? named : [] };
  }
}

/** What was admitted when. */
export class Admissions {
  readonly #steps: number[] = [];
  #first = -1;

  add(now: number, amount: number): void {
    const step = Math.floor(now / STEP_MS);
    if (this.#first === -1) this.#first = step;
    const at = step - this.#first;
    while (this.#steps.length <= at) this.#steps.push(0);
    this.#steps[at]! += amount;
  }

  get total(): number {
    return this.#steps.reduce((sum, amount) => sum + amount, 0);
  }

  /** The sums of all windows of 60 s that end `fromMs` or more after the first admission. */
  windows(fromMs: number): { most: number; least: number; mean: number } {
    const span = 60_000 / STEP_MS;
    let [sum, most, least, total, count] = [0, 0, Number.POSITIVE_INFINITY, 0, 0];
    this.#steps.forEach((amount, at) => {
      sum += amount - (at >= span ? this.#steps[at - span]! : 0);
      if (at * STEP_MS < fromMs) return;
      most = Math.max(most, sum);
      least = Math.min(least, sum);
      total += sum;
      count++;
    });
    return { most, least, mean: total / count };
  }
}
