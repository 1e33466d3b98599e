/** Runs once around a whole vitest run. Nothing heavy starts here: the first test that asks for PostgreSQL starts it. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { POSTGRES_DIR_ENV, stopPostgres } from "./postgres.ts";

export async function setup(): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), "tokenbill-test-"));
  process.env[POSTGRES_DIR_ENV] = dir;
  return async () => {
    await stopPostgres(dir);
    await rm(dir, { recursive: true, force: true });
  };
}
