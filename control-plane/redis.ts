/** A connection to Redis that runs scripts, for what several control planes share beside the database. Nothing there is lasting. */

import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import type { Logger } from "pino";

/** An answer that takes longer is not waited for. */
const REDIS_TIMEOUT_MS = 100;
const CONNECT_TIMEOUT_MS = 2_000;
/** A connection that is lost is made again after a pause up to this. */
const RECONNECT_MS_MAX = 1_000;
const RECONNECT_MS_MIN = 50;

export interface Script {
  readonly text: string;
  readonly sha: string;
}

export function script(text: string): Script {
  return { text, sha: createHash("sha1").update(text).digest("hex") };
}

export interface RedisScriptsOptions {
  readonly url: string;
  readonly log: Logger;
  /** What it means that Redis does not answer, for the log. */
  readonly withoutIt: string;
}

export class RedisScripts {
  readonly #redis: Redis;
  readonly #log: Logger;
  readonly #withoutIt: string;
  #lost = false;

  /** Connects by itself, and again whenever the connection is lost; until then every call fails at once. */
  constructor({ url, log, withoutIt }: RedisScriptsOptions) {
    this.#log = log;
    this.#withoutIt = withoutIt;
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

  /** The text of a script goes over the wire only when Redis does not have it: after a restart or a flush. */
  async run({ text, sha }: Script, keys: readonly string[], values: readonly (string | number)[]): Promise<unknown[]> {
    try {
      return (await this.#redis.evalsha(sha, keys.length, ...keys, ...values)) as unknown[];
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
      return (await this.#redis.eval(text, keys.length, ...keys, ...values)) as unknown[];
    }
  }

  async close(): Promise<void> {
    this.#redis.removeAllListeners("close");
    this.#redis.disconnect();
  }

  #lose(reason: string): void {
    if (!this.#lost) this.#log.warn({ reason }, `Redis does not answer: ${this.#withoutIt}`);
    this.#lost = true;
  }
}
