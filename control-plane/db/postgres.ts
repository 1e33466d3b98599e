/** Database on a PostgreSQL server. */

import postgres from "postgres";
import type { Database, SqlValue, Tx } from "./database.ts";
import { withRetry } from "./errors.ts";
import { encodeValue, PARSERS, type Parser } from "./values.ts";

export interface PostgresOptions {
  readonly url: string;
  /** Connections at most, besides one for LISTEN. */
  readonly poolMax: number;
  /** Called with what the server says by the way. */
  readonly onNotice: (message: string) => void;
}

const CONNECT_TIMEOUT_S = 10;
const END_TIMEOUT_S = 5;

interface CustomType {
  to: number;
  from: number[];
  serialize: (value: unknown) => unknown;
  parse: Parser;
}

/** Parameters are text already when the driver sees them, so every type passes them on as they are. */
function customTypes(): Record<string, CustomType> {
  const types: Record<string, CustomType> = {};
  for (const [oid, parse] of PARSERS) {
    types[`oid${oid}`] = { to: oid, from: [oid], serialize: (value) => value, parse };
  }
  return types;
}

type Runner = Pick<postgres.Sql, "unsafe">;

async function run<Row>(sql: Runner, text: string, params: readonly SqlValue[]): Promise<Row[]> {
  const rows = await sql.unsafe(text, params.map(encodeValue), { prepare: true });
  // The driver's result is an array with more on it; callers get a plain one.
  return Array.from(rows) as Row[];
}

class PostgresTx implements Tx {
  readonly sql: Runner;
  constructor(sql: Runner) {
    this.sql = sql;
  }
  query<Row>(text: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    return run<Row>(this.sql, text, params);
  }
}

class PostgresDatabase implements Database {
  readonly dialect = "postgres";
  readonly #sql: postgres.Sql;

  constructor(sql: postgres.Sql) {
    this.#sql = sql;
  }

  tx<T>(fn: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#begin("isolation level read committed", fn);
  }

  snapshot<T>(fn: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#begin("isolation level repeatable read read only", fn);
  }

  #begin<T>(mode: string, fn: (tx: Tx) => Promise<T>): Promise<T> {
    const attempt = async (): Promise<T> => {
      // Boxed, since the driver would await the members of an array.
      const box = await this.#sql.begin(mode, async (sql) => ({ value: await fn(new PostgresTx(sql)) }));
      return box.value as T;
    };
    return withRetry(attempt, Math.random);
  }

  query<Row>(text: string, params: readonly SqlValue[] = []): Promise<Row[]> {
    return run<Row>(this.#sql, text, params);
  }

  async script(tx: Tx, text: string): Promise<void> {
    await (tx as PostgresTx).sql.unsafe(text).simple();
  }

  async listen(
    channel: string,
    onNotify: (payload: string) => void,
    onReady: () => void,
  ): Promise<() => Promise<void>> {
    const { unlisten } = await this.#sql.listen(channel, onNotify, onReady);
    return async () => {
      await unlisten();
    };
  }

  async close(): Promise<void> {
    await this.#sql.end({ timeout: END_TIMEOUT_S });
  }
}

/** Connects lazily; the first statement fails if the server cannot be reached. */
export function openPostgres({ url, poolMax, onNotice }: PostgresOptions): Database {
  const sql = postgres(url, {
    max: poolMax,
    connect_timeout: CONNECT_TIMEOUT_S,
    // Types are known by number and never fetched: one round trip less for each connection.
    fetch_types: false,
    types: customTypes() as unknown as Record<string, postgres.PostgresType>,
    connection: {
      application_name: "tokenbill",
      TimeZone: "UTC",
      DateStyle: "ISO, YMD",
      IntervalStyle: "postgres",
      // Tables grow by a thousand times while a connection lives; a plan kept from their first minutes scans them whole.
      plan_cache_mode: "force_custom_plan",
    },
    onnotice: (notice) => onNotice(notice["message"] ?? ""),
  });
  return new PostgresDatabase(sql as unknown as postgres.Sql);
}
