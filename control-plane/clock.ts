/**
 * The present time by the clock of the database, which all replicas share: a wall clock of one machine that jumps must not
 * begin a period early, nor forget the answers of retried calls. Between readings a clock that cannot jump counts on.
 */

import type { Logger } from "pino";
import type { Tx } from "./db/database.ts";

export const CLOCK_READ_EVERY_MS = 10_000;

/** Milliseconds since some moment, never set back or forward. */
export type Uptime = () => number;

export class DatabaseClock {
  readonly #db: Tx;
  readonly #uptime: Uptime;
  /** What is added to the uptime. */
  #offsetMs = 0;

  constructor(db: Tx, uptime: Uptime = () => performance.now()) {
    this.#db = db;
    this.#uptime = uptime;
  }

  /** Milliseconds since 1970. */
  now(): number {
    return Math.floor(this.#uptime() + this.#offsetMs);
  }

  /** Reads the clock of the database. What is known already stays while the reading, made some time ago, may mean the same. */
  async read(): Promise<void> {
    const beginMs = this.#uptime();
    const [row] = await this.#db.query<{ ms: string }>("select extract(epoch from clock_timestamp()) * 1000 as ms");
    const halfMs = (this.#uptime() - beginMs) / 2;
    const offsetMs = Number(row!.ms) - (beginMs + halfMs);
    if (Math.abs(offsetMs - this.#offsetMs) > halfMs) this.#offsetMs = offsetMs;
  }

  /** Reads it from time to time until the returned function is called. */
  keepReading(log: Logger): () => void {
    const read = () =>
      this.read().catch((error: unknown) =>
        log.debug({ reason: (error as Error).message }, "the clock of the database could not be read"),
      );
    const timer = setInterval(() => void read(), CLOCK_READ_EVERY_MS);
    return () => clearInterval(timer);
  }
}
