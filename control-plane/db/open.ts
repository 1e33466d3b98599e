/** Opens the database that the settings name. */

import type { Database } from "./database.ts";
import { DatabaseStartError } from "./errors.ts";
import { openPglite } from "./pglite.ts";
import { openPostgres } from "./postgres.ts";

export interface OpenOptions {
  readonly home: string;
  /** Null: the embedded store in `home`. */
  readonly databaseUrl: string | null;
  readonly databasePoolMax: number;
  readonly onNotice: (message: string) => void;
}

/** A database that answers. @throws DatabaseStartError with one clear line */
export async function openDatabase(options: OpenOptions): Promise<Database> {
  if (options.databaseUrl === null) return openPglite(options.home);
  const { databaseUrl: url, databasePoolMax: poolMax, onNotice } = options;
  const db = openPostgres({ url, poolMax, onNotice });
  try {
    await db.query("select 1");
    return db;
  } catch (error) {
    await db.close();
    const { hostname, port, pathname } = new URL(url);
    const place = `${hostname}${port === "" ? "" : `:${port}`}${pathname}`;
    throw new DatabaseStartError(`DATABASE_URL: the database at ${place} does not answer: ${(error as Error).message}`);
  }
}
