/** Database in this process: PGlite, in memory or in the home. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { PGlite, type Transaction } from "@electric-sql/pglite";
import type { Database, SqlValue, Tx } from "./database.ts";
import { DatabaseStartError, withRetry } from "./errors.ts";
import { type HomeLock, lockHome } from "./home_lock.ts";
import { encodeValue, PARSERS } from "./values.ts";

type Runner = Pick<Transaction, "query" | "exec">;

async function run<Row>(runner: Runner, text: string, params: readonly SqlValue[]): Promise<Row[]> {
  const result = await runner.query(text, params.map(encodeValue));
  return result.rows as Row[];
}

class PgliteTx implements Tx {
  readonly runner: Runner;
  constructor(runner: Runner) {
    this.runner = runner;
  }
  query<Row>(text: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    return run<Row>(this.runner, text, params);
  }
}

/**
 * PGlite is one connection: transactions and single statements wait for each other in turn. A statement of the database
 * itself inside a transaction's function would wait for ever; use the transaction.
 */
class PgliteDatabase implements Database {
  readonly dialect = "pglite";
  readonly #pg: PGlite;
  readonly #lock: HomeLock | null;
  #closing = false;

  constructor(pg: PGlite, lock: HomeLock | null) {
    this.#pg = pg;
    this.#lock = lock;
  }

  /** As a closed pool of the other dialect says it. */
  #checkOpen(): void {
    if (this.#closing) throw Object.assign(new Error("the database is closed"), { code: "CONNECTION_ENDED" });
  }

  async tx<T>(fn: (tx: Tx) => Promise<T>): Promise<T> {
    this.#checkOpen();
    return withRetry(() => this.#pg.transaction((runner) => fn(new PgliteTx(runner))), Math.random);
  }

  async snapshot<T>(fn: (tx: Tx) => Promise<T>): Promise<T> {
    this.#checkOpen();
    return this.#pg.transaction(async (runner) => {
      await runner.exec("set transaction isolation level repeatable read read only");
      return fn(new PgliteTx(runner));
    });
  }

  async query<Row>(text: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    this.#checkOpen();
    return run<Row>(this.#pg, text, params);
  }

  async script(tx: Tx, text: string): Promise<void> {
    await (tx as PgliteTx).runner.exec(text);
  }

  async listen(
    channel: string,
    onNotify: (payload: string) => void,
    onReady: () => void,
  ): Promise<() => Promise<void>> {
    const quoted = `"${channel.replaceAll('"', '""')}"`;
    const unlisten = await this.#pg.listen(quoted, onNotify);
    onReady();
    return () => (this.#closing ? Promise.resolve() : unlisten());
  }

  async close(): Promise<void> {
    this.#closing = true;
    try {
      if (!this.#pg.closed) await this.#pg.close();
    } finally {
      this.#lock?.release();
    }
  }
}

async function start(dataDir: string | undefined): Promise<PGlite> {
  const pg = await PGlite.create(dataDir === undefined ? {} : { dataDir });
  for (const [oid, parse] of PARSERS) {
    pg.parsers[oid] = parse;
    // Parameters are text already when PGlite sees them.
    pg.serializers[oid] = (value: string) => value;
  }
  await pg.exec("set timezone to 'UTC'; set datestyle to 'ISO, YMD'");
  return pg;
}

/** A database that is gone when it is closed. */
export async function openPgliteInMemory(): Promise<Database> {
  return new PgliteDatabase(await start(undefined), null);
}

/**
 * The database in `<home>/db`, made if it is not there. Only one process at a time can have it.
 * @throws DatabaseStartError when another process has it, or it cannot be opened
 */
export async function openPglite(home: string): Promise<Database> {
  const lock = lockHome(home);
  const dataDir = join(home, "db");
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    return new PgliteDatabase(await start(dataDir), lock);
  } catch (error) {
    lock.release();
    if (error instanceof DatabaseStartError) throw error;
    throw new DatabaseStartError(`the embedded database in ${dataDir} does not open: ${(error as Error).message}`);
  }
}
