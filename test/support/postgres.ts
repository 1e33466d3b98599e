/**
 * A real PostgreSQL for tests and benchmarks. The first caller of a run starts one server (under a lock, on an ephemeral
 * loopback port); a small supervisor process owns it and stops it when the run ends, however the run ends.
 * TEST_DATABASE_URL names a server to use instead.
 */

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, mkdtemp, open, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { findBinaries } from "./postgres_server.ts";

/** Set by global_setup.ts: the folder that the processes of one run share. */
export const POSTGRES_DIR_ENV = "TOKENBILL_TEST_POSTGRES_DIR";
const START_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 20_000;
const POLL_MS = 50;

/** What the supervisor writes when the server is up, or why it is not. */
interface ServerState {
  readonly pid: number;
  readonly url?: string;
  readonly error?: string;
}

let ownDir: Promise<string> | undefined;

/** Outside of vitest (benchmarks) the server belongs to this process alone. */
function runDir(): Promise<string> {
  const shared = process.env[POSTGRES_DIR_ENV];
  if (shared !== undefined) return Promise.resolve(shared);
  ownDir ??= mkdtemp(join(tmpdir(), "tokenbill-test-"));
  return ownDir;
}

async function readState(dir: string): Promise<ServerState | undefined> {
  try {
    return JSON.parse(await readFile(join(dir, "state.json"), "utf8")) as ServerState;
  } catch {
    return undefined;
  }
}

/** True for exactly one of the processes that share `dir`. */
async function takeStartLock(dir: string): Promise<boolean> {
  try {
    await (await open(join(dir, "start.lock"), "wx")).close();
    return true;
  } catch {
    return false;
  }
}

async function serverUrl(): Promise<string> {
  const given = process.env["TEST_DATABASE_URL"];
  if (given !== undefined && given !== "") return given;
  const dir = await runDir();
  await mkdir(dir, { recursive: true });
  if (await takeStartLock(dir)) {
    await findBinaries();
    const owner = process.env[POSTGRES_DIR_ENV] === undefined ? process.pid : process.ppid;
    const script = fileURLToPath(new URL("postgres_server.ts", import.meta.url));
    // Detached: an interrupt of the run must reach the supervisor by its own watch, not half-way through a start.
    spawn(process.execPath, [script, dir, String(owner)], { detached: true, stdio: "ignore" }).unref();
  }
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < deadline) {
    const state = await readState(dir);
    if (state?.error !== undefined) throw new Error(state.error);
    if (state?.url !== undefined) return state.url;
    await delay(POLL_MS);
  }
  throw new Error(`PostgreSQL did not start within ${START_TIMEOUT_MS} ms; see ${dir}/server.log`);
}

/** The URL of a fresh, empty database. It goes away with the run. */
export async function postgresUrl(): Promise<string> {
  const url = new URL(await serverUrl());
  const name = `tokenbill_test_${randomBytes(8).toString("hex")}`;
  const sql = postgres(url.href, { max: 1, onnotice: () => {} });
  try {
    await sql.unsafe(`create database ${name}`);
    if (process.env["TEST_DATABASE_URL"]) await appendFile(join(await runDir(), "databases"), `${name}\n`);
  } finally {
    await sql.end();
  }
  url.pathname = `/${name}`;
  return url.href;
}

/** Ends what the run started: the server, or the databases made on a given one. */
export async function stopPostgres(dir: string): Promise<void> {
  const given = process.env["TEST_DATABASE_URL"];
  if (given !== undefined && given !== "") return dropDatabases(given, dir);
  const state = await readState(dir);
  if (state === undefined) return;
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  try {
    process.kill(state.pid, "SIGTERM");
    while (Date.now() < deadline) {
      process.kill(state.pid, 0);
      await delay(POLL_MS);
    }
  } catch {
    return; // Gone: it stopped the server first.
  }
  throw new Error(`the supervisor of the test PostgreSQL (process ${state.pid}) did not stop`);
}

async function dropDatabases(url: string, dir: string): Promise<void> {
  const names = (await readFile(join(dir, "databases"), "utf8").catch(() => ""))
    .split("\n")
    .filter((name) => name !== "");
  if (names.length === 0) return;
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    for (const name of names) await sql.unsafe(`drop database if exists ${name} with (force)`);
  } finally {
    await sql.end();
  }
}
