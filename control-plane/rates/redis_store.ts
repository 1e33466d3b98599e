/** The figures of all nodes in Redis, for when there are several control planes. Nothing there is lasting. */

import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import type { Logger } from "pino";
import type { RateGrant, RateKind, RateReport } from "../domain/rates.ts";
import { BOOTS_KEY, limitKey, SHARE_SCRIPT, TIGHT_KEY, USED_SCRIPT } from "./redis_script.ts";
import type { RateLimitOf, RateShare, RateShared, RateStore, RateTight } from "./store.ts";

/** An answer that takes longer is not waited for. */
export const REDIS_TIMEOUT_MS = 100;
const CONNECT_TIMEOUT_MS = 2_000;
/** A connection that is lost is made again after a pause up to this. */
const RECONNECT_MS_MAX = 1_000;
const RECONNECT_MS_MIN = 50;
/** Reports in one run of the script: others wait while it runs. */
const SCRIPT_REPORTS_MAX = 100;

interface Script {
  readonly text: string;
  readonly sha: string;
}

function script(text: string): Script {
  return { text, sha: createHash("sha1").update(text).digest("hex") };
}

const SHARE = script(SHARE_SCRIPT);
const USED = script(USED_SCRIPT);

/** The end of a limit's key: its kind, and its subject. */
function toTight(name: string): RateTight {
  const at = name.indexOf(":");
  return { kind: Number(name.slice(0, at)) as RateKind, subjectId: name.slice(at + 1) };
}

export interface RedisStoreOptions {
  readonly url: string;
  readonly log: Logger;
  /** In [0, 1). */
  draw(): number;
}

export class RedisRateStore implements RateStore {
  readonly #redis: Redis;
  readonly #draw: () => number;
  readonly #log: Logger;
  #lost = false;

  /** Connects by itself, and again whenever the connection is lost; until then every call fails at once. */
  constructor({ url, log, draw }: RedisStoreOptions) {
    this.#draw = draw;
    this.#log = log;
    this.#redis = new Redis(url, {
      commandTimeout: REDIS_TIMEOUT_MS,
      connectTimeout: CONNECT_TIMEOUT_MS,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      retryStrategy: (times) => Math.min(RECONNECT_MS_MAX, times * RECONNECT_MS_MIN),
    });
    this.#redis.on("ready", () => {
      log.info(this.#lost ? "Redis answers again" : "connected to Redis");
      this.#lost = false;
    });
    this.#redis.on("error", (error: Error) => this.#lose(error.message));
    this.#redis.on("close", () => this.#lose("the connection was closed"));
  }

  async share({ bootId, reports, final, withTight }: RateShare): Promise<RateShared> {
    const batches: RateReport[][] = [];
    for (let i = 0; i < reports.length; i += SCRIPT_REPORTS_MAX) batches.push(reports.slice(i, i + SCRIPT_REPORTS_MAX));
    if (batches.length === 0) batches.push([]);
    const grants: RateGrant[] = [];
    const tight: RateTight[] = [];
    let nodes = 0;
    for (const batch of batches) {
      const keys = [BOOTS_KEY, TIGHT_KEY, ...batch.map(({ kind, subjectId }) => limitKey(kind, subjectId))];
      const values = batch.flatMap(({ kind, limit, used, held, want }) => [
        kind,
        limit,
        used,
        held,
        want,
        this.#draw(),
      ]);
      const asks = withTight && batch === batches.at(-1);
      const head = [bootId, final ? 1 : 0, asks ? 1 : 0];
      const [count, ...rest] = await this.#run(SHARE, keys, [...head, ...values]);
      nodes = Number(count);
      batch.forEach((_, i) => grants.push({ allowance: Number(rest[2 * i]), remaining: Number(rest[2 * i + 1]) }));
      tight.push(...rest.slice(2 * batch.length).map((name) => toTight(String(name))));
    }
    return { grants, nodes, tight };
  }

  async remaining(subjectId: string, limits: readonly RateLimitOf[]): Promise<number[]> {
    const keys = limits.map(({ kind }) => limitKey(kind, subjectId));
    const kinds = limits.map(({ kind }) => kind);
    const used = await this.#run(USED, keys, kinds);
    return limits.map(({ limit }, i) => Math.max(0, limit - Number(used[i])));
  }

  async close(): Promise<void> {
    this.#redis.removeAllListeners("close");
    this.#redis.disconnect();
  }

  /** The text of a script goes over the wire only when Redis does not have it: after a restart or a flush. */
  async #run({ text, sha }: Script, keys: readonly string[], values: readonly (string | number)[]): Promise<unknown[]> {
    try {
      return (await this.#redis.evalsha(sha, keys.length, ...keys, ...values)) as unknown[];
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
      return (await this.#redis.eval(text, keys.length, ...keys, ...values)) as unknown[];
    }
  }

  #lose(reason: string): void {
    if (!this.#lost) this.#log.warn({ reason }, "Redis does not answer: nodes keep to their shares of rate limits");
    this.#lost = true;
  }
}
