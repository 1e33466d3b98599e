/**
 * The seam between our SQL and the two databases. Everything above `db/` writes PostgreSQL SQL with `$1` parameters and
 * never knows which one it talks to. Values come back as: text, boolean, number (int2, int4, float8), bigint (int8),
 * string (numeric: exact), Date (timestamptz), Uint8Array (bytea), parsed JSON (json, jsonb), arrays of these.
 * Parameters go in as the same types; arrays as JS arrays; JSON as a string with a `::jsonb` cast.
 */

export type SqlValue = string | number | bigint | boolean | null | Date | Uint8Array | readonly SqlValue[];

export interface Tx {
  /** Runs one statement; returns its rows. */
  query<Row = Record<string, unknown>>(text: string, params?: readonly SqlValue[]): Promise<Row[]>;
}

export interface Database {
  readonly dialect: "pglite" | "postgres";
  /** Runs `fn` in one READ COMMITTED transaction: commits when it resolves, rolls back when it throws. */
  tx<T>(fn: (tx: Tx) => Promise<T>): Promise<T>;
  /** Runs `fn` in one REPEATABLE READ, READ ONLY transaction: every query in it sees one moment. */
  snapshot<T>(fn: (tx: Tx) => Promise<T>): Promise<T>;
  /** One statement in its own implicit transaction. */
  query<Row = Record<string, unknown>>(text: string, params?: readonly SqlValue[]): Promise<Row[]>;
  /** Runs a script of several statements without parameters, for migrations. */
  script(tx: Tx, text: string): Promise<void>;
  /**
   * Listens on a channel. `onReady` runs after every (re)subscription: re-read then, notifications may have been missed.
   * Notify with `select pg_notify($1, $2)` inside the writing transaction.
   */
  listen(channel: string, onNotify: (payload: string) => void, onReady: () => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}
