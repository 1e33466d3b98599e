/** Databases for contract tests: the same suite runs on each of them. */

import { postgresUrl } from "../../test/support/postgres.ts";
import type { Database } from "./database.ts";
import { migrate } from "./migrate.ts";
import { openPgliteInMemory } from "./pglite.ts";
import { openPostgres } from "./postgres.ts";

export interface TestDatabase {
  readonly name: "pglite" | "postgres";
  /** An empty database, not migrated. Close it when done. */
  openEmpty(): Promise<Database>;
  /** A fresh database with the present schema. Close it when done. */
  open(): Promise<Database>;
}

const POOL_MAX = 8;

async function migrated(db: Database): Promise<Database> {
  await migrate(db);
  return db;
}

async function openEmptyPostgres(): Promise<Database> {
  return openPostgres({ url: await postgresUrl(), poolMax: POOL_MAX, onNotice: () => {} });
}

/** For `describe.each(openTestDatabases())("… on $name", ({ open }) => …)`. */
export function openTestDatabases(): TestDatabase[] {
  return [
    { name: "pglite", openEmpty: openPgliteInMemory, open: async () => migrated(await openPgliteInMemory()) },
    { name: "postgres", openEmpty: openEmptyPostgres, open: async () => migrated(await openEmptyPostgres()) },
  ];
}
