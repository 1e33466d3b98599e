/** What the API asks about rate limits: shares them out, and goes on when the store cannot answer. */

import type { Logger } from "pino";
import { GRANT_TTL_MS, NODE_KEEP_MS, type RateGrant, RateKind } from "../domain/rates.ts";
import { MemoryRateStore } from "./memory_store.ts";
import { linesTotal, nodesGauge, shareSeconds, sharesTotal } from "./metrics.ts";
import { RedisRateStore } from "./redis_store.ts";
import type { RateShare, RateStore, RateTight } from "./store.ts";

export interface RateAnswer {
  /** Empty if `shared` is false. */
  readonly grants: readonly RateGrant[];
  readonly shared: boolean;
  readonly nodes: number;
  readonly ttlMs: number;
  readonly tight: readonly RateTight[];
}

/** 0: no such limit. */
export interface RateLimitsOf {
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
  readonly concurrentRequests: number;
}

/** What is left over all nodes. Null: there is no such limit, or nobody can tell now. */
export interface RatesLeft {
  readonly remainingRequests: number | null;
  readonly remainingTokens: number | null;
  readonly remainingConcurrent: number | null;
}

export interface RateSharingOptions {
  /** Null: there is one control plane, and it counts in memory. */
  readonly redisUrl: string | null;
  readonly log: Logger;
  /** Milliseconds of a clock that only goes forward. */
  readonly uptime?: () => number;
  /** In [0, 1). */
  readonly random?: () => number;
}

export class RateSharing {
  readonly #store: RateStore;
  readonly #log: Logger;
  readonly #uptime: () => number;
  /** Nodes that called this replica, for when the store cannot say how many there are. */
  readonly #callers = new Map<string, number>();
  /** As the store said last. */
  #nodes = 1;

  constructor({ redisUrl, log, uptime = () => performance.now(), random = Math.random }: RateSharingOptions) {
    this.#log = log;
    this.#uptime = uptime;
    this.#store =
      redisUrl === null
        ? new MemoryRateStore(uptime, random)
        : new RedisRateStore({ url: redisUrl, log, draw: random });
  }

  /** Never rejects. */
  async share(share: RateShare): Promise<RateAnswer> {
    const callers = this.#countCallers(share);
    const stop = shareSeconds.startTimer();
    linesTotal.inc(share.reports.length);
    try {
      const { grants, nodes, tight } = await this.#store.share(share);
      this.#nodes = nodes;
      return this.#answer({ grants, tight, shared: true, nodes });
    } catch (error) {
      this.#log.debug({ reason: (error as Error).message }, "rate limits cannot be shared now");
      // Other replicas have callers of their own.
      return this.#answer({ grants: [], tight: [], shared: false, nodes: Math.max(this.#nodes, callers) });
    } finally {
      stop();
    }
  }

  async left(subjectId: string, limits: RateLimitsOf): Promise<RatesLeft> {
    const wanted = [
      { kind: RateKind.REQUESTS, limit: limits.requestsPerMinute },
      { kind: RateKind.TOKENS, limit: limits.tokensPerMinute },
      { kind: RateKind.CONCURRENT, limit: limits.concurrentRequests },
    ];
    const set = wanted.filter(({ limit }) => limit > 0);
    const left = set.length === 0 ? [] : await this.#store.remaining(subjectId, set).catch(() => []);
    const of = (kind: RateKind): number | null => left[set.findIndex((one) => one.kind === kind)] ?? null;
    return {
      remainingRequests: of(RateKind.REQUESTS),
      remainingTokens: of(RateKind.TOKENS),
      remainingConcurrent: of(RateKind.CONCURRENT),
    };
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #answer(answer: Omit<RateAnswer, "ttlMs">): RateAnswer {
    sharesTotal.inc({ shared: String(answer.shared) });
    nodesGauge.set(answer.nodes);
    return { ...answer, nodes: Math.max(1, answer.nodes), ttlMs: GRANT_TTL_MS };
  }

  #countCallers({ bootId, final }: RateShare): number {
    const now = this.#uptime();
    if (final) this.#callers.delete(bootId);
    else this.#callers.set(bootId, now);
    for (const [boot, at] of this.#callers) if (now - at >= NODE_KEEP_MS) this.#callers.delete(boot);
    return this.#callers.size;
  }
}
