/**
 * Brings a database to the schema of this code. Forward only: a migration that has been released is never edited, a new
 * one is added. Several processes may do this at once.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { Database, Tx } from "./database.ts";
import { DatabaseStartError } from "./errors.ts";

export interface Migration {
  /** The file's name without `.sql`: `0001_configuration`. Migrations run in the order of their names. */
  readonly name: string;
  readonly sql: string;
}

/** Any number, as long as nobody else on the server uses it for another thing. */
const MIGRATION_LOCK = 7_306_085_143n;

function checksum(sql: string): string {
  return createHash("sha256").update(sql.replaceAll("\r\n", "\n")).digest("hex");
}

/** The migrations that come with this code. */
export function readMigrations(directory: URL = new URL("./migrations/", import.meta.url)): Migration[] {
  const files = readdirSync(directory).filter((file) => /^\d{4}_[a-z0-9_]+\.sql$/.test(file));
  return files.toSorted().map((file) => ({
    name: file.slice(0, -".sql".length),
    sql: readFileSync(new URL(file, directory), "utf8"),
  }));
}

interface Applied {
  name: string;
  checksum: string;
}

/** What has still to run. @throws DatabaseStartError when the database was not made by this code or an older one */
export function pendingMigrations(known: readonly Migration[], applied: readonly Applied[]): Migration[] {
  const byName = new Map(known.map((migration) => [migration.name, migration]));
  for (const row of applied) {
    const migration = byName.get(row.name);
    if (migration === undefined) {
      throw new DatabaseStartError(
        `the database is newer than this release: it has the migration ${row.name}, which this release does not know; start a newer release`,
      );
    }
    if (checksum(migration.sql) !== row.checksum) {
      throw new DatabaseStartError(
        `the migration ${row.name} was edited after it had been applied to this database; restore the file, and put the change in a new migration`,
      );
    }
  }
  const done = new Set(applied.map((row) => row.name));
  const last = applied.reduce((max, row) => (row.name > max ? row.name : max), "");
  const pending = known.filter((migration) => !done.has(migration.name));
  const late = pending.find((migration) => migration.name < last);
  if (late !== undefined) {
    throw new DatabaseStartError(
      `the migration ${late.name} comes before ${last}, which is applied already; give it a later number`,
    );
  }
  return pending;
}

async function readApplied(tx: Tx): Promise<Applied[]> {
  await tx.query("select pg_advisory_xact_lock($1::bigint)", [MIGRATION_LOCK]);
  await tx.query(
    "create table if not exists migration (name text primary key, checksum text not null, applied_at timestamptz not null default now())",
  );
  return tx.query<Applied>("select name, checksum from migration order by name");
}

/**
 * For those who only look: that the database has the schema of this code, without changing anything.
 * @throws DatabaseStartError when it has not
 */
export async function checkSchema(db: Database, known: readonly Migration[] = readMigrations()): Promise<void> {
  const [table] = await db.query<{ there: boolean }>("select to_regclass('migration') is not null as there");
  if (!table!.there) throw new DatabaseStartError("the database is empty: no control plane has used it yet");
  const applied = await db.query<Applied>("select name, checksum from migration order by name");
  const [next] = pendingMigrations(known, applied);
  if (next === undefined) return;
  throw new DatabaseStartError(
    `the database has the schema of an older release, without ${next.name}: start the control plane of this release once`,
  );
}

/** Runs one migration, if there is one to run; its name, or null. Each has a transaction of its own. */
function step(db: Database, known: readonly Migration[]): Promise<string | null> {
  return db.tx(async (tx) => {
    const [next] = pendingMigrations(known, await readApplied(tx));
    if (next === undefined) return null;
    await db.script(tx, next.sql);
    await tx.query("insert into migration (name, checksum) values ($1, $2)", [next.name, checksum(next.sql)]);
    return next.name;
  });
}

/** The names of the migrations that ran. @throws DatabaseStartError */
export async function migrate(db: Database, known: readonly Migration[] = readMigrations()): Promise<string[]> {
  const ran: string[] = [];
  for (;;) {
    const name = await step(db, known);
    if (name === null) return ran;
    ran.push(name);
  }
}
