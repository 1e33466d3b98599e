/** The figures of all nodes in Redis, for when there are several control planes. Nothing there is lasting. */

import type { Logger } from "pino";
import type { RateGrant, RateKind, RateReport } from "../domain/rates.ts";
import { RedisScripts, script } from "../redis.ts";
import { BOOTS_KEY, limitKey, SHARE_SCRIPT, TIGHT_KEY, USED_SCRIPT } from "./redis_script.ts";
import type { RateLimitOf, RateShare, RateShared, RateStore, RateTight } from "./store.ts";

/** Reports in one run of the script: others wait while it runs. */
const SCRIPT_REPORTS_MAX = 100;

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
  readonly #redis: RedisScripts;
  readonly #draw: () => number;

  /** Connects by itself, and again whenever the connection is lost; until then every call fails at once. */
  constructor({ url, log, draw }: RedisStoreOptions) {
    this.#draw = draw;
    this.#redis = new RedisScripts({ url, log, withoutIt: "nodes keep to their shares of rate limits" });
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
      const [count, ...rest] = await this.#redis.run(SHARE, keys, [...head, ...values]);
      nodes = Number(count);
      batch.forEach((_, i) => grants.push({ allowance: Number(rest[2 * i]), remaining: Number(rest[2 * i + 1]) }));
      tight.push(...rest.slice(2 * batch.length).map((name) => toTight(String(name))));
    }
    return { grants, nodes, tight };
  }

  async remaining(subjectId: string, limits: readonly RateLimitOf[]): Promise<number[]> {
    const keys = limits.map(({ kind }) => limitKey(kind, subjectId));
    const kinds = limits.map(({ kind }) => kind);
    const used = await this.#redis.run(USED, keys, kinds);
    return limits.map(({ limit }, i) => Math.max(0, limit - Number(used[i])));
  }

  close(): Promise<void> {
    return this.#redis.close();
  }
}
