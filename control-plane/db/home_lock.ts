/**
 * One process per home. The lock is one that the operating system holds on a file, so it ends with its process, however
 * that dies, and nobody has to judge whether a left-over lock is stale.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { DatabaseStartError } from "./errors.ts";

export interface HomeLock {
  release(): void;
}

const LOCK_FILE = "db.lock";
const OWNER_FILE = "db.pid";

function readOwner(home: string): string {
  try {
    return readFileSync(join(home, OWNER_FILE), "utf8").trim().slice(0, 16);
  } catch {
    return "";
  }
}

/** @throws DatabaseStartError when another process has it */
export function lockHome(home: string): HomeLock {
  mkdirSync(home, { recursive: true, mode: 0o700 });
  // SQLite is used for its portable file lock alone; no row is ever stored.
  const lock = new DatabaseSync(join(home, LOCK_FILE), { timeout: 0 });
  try {
    lock.exec("pragma journal_mode = memory; begin exclusive");
  } catch (error) {
    lock.close();
    if ((error as { errcode?: number }).errcode !== 5) throw error;
    const owner = readOwner(home);
    const who = owner === "" ? "another process" : `process ${owner}`;
    throw new DatabaseStartError(`${home} is in use by ${who}: stop it, or set TOKENBILL_HOME to another directory`);
  }
  writeFileSync(join(home, OWNER_FILE), `${process.pid}\n`, { mode: 0o600 });
  return { release: () => lock.close() };
}
