/**
 * A PostgreSQL of one test's own, which can be killed, paused and started again on the same data. A shell that waits for
 * the end of a pipe stops the server and removes the data if the test goes away without a word.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chown, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { answers, dataRoot, findBinaries, freePort, type PostgresBinaries, serverUser } from "./postgres_server.ts";

const run = promisify(execFile);
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
const WATCH = 'read _; kill -QUIT "$1" 2>/dev/null; sleep 1; rm -rf "$2"';

export class OwnPostgres {
  /** Of the maintenance database. */
  readonly url: string;
  readonly port: number;
  readonly #binaries: PostgresBinaries;
  readonly #user: { uid?: number; gid?: number };
  readonly #folder: string;
  #server: ChildProcess | undefined;
  #watch: ChildProcess | undefined;

  private constructor(binaries: PostgresBinaries, user: { uid?: number; gid?: number }, folder: string, port: number) {
    this.#binaries = binaries;
    this.#user = user;
    this.#folder = folder;
    this.port = port;
    this.url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  }

  static async start(): Promise<OwnPostgres> {
    const [binaries, user, port] = await Promise.all([findBinaries(), serverUser(), freePort()]);
    const folder = await mkdtemp(join(await dataRoot(), "tokenbill-postgres-"));
    const own = new OwnPostgres(binaries, user, folder, port);
    try {
      if (user.uid !== undefined) await chown(folder, user.uid, user.gid!);
      const args = ["-D", own.#data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
      await run(binaries.initdb, args, { ...user, cwd: folder });
      await own.start();
      return own;
    } catch (error) {
      await own.close();
      throw error;
    }
  }

  get #data(): string {
    return join(this.#folder, "data");
  }

  get #log(): string {
    return join(this.#folder, "server.log");
  }

  get running(): boolean {
    return this.#server !== undefined && this.#server.exitCode === null && this.#server.signalCode === null;
  }

  /** On the same port and data; returns when it answers, after a kill once the log is replayed. */
  async start(): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < deadline) {
      if (!this.running) await this.#spawn();
      if (await answers(this.url)) return;
      // It ends at once while processes of the killed one are still there.
      await delay(POLL_MS);
    }
    const log = await readFile(this.#log, "utf8").catch(() => "");
    throw new Error(`PostgreSQL did not answer within ${START_TIMEOUT_MS} ms:\n${log.slice(-4_000)}`);
  }

  async #spawn(): Promise<void> {
    const settings = [
      `port=${this.port}`,
      "listen_addresses=127.0.0.1",
      "unix_socket_directories=",
      "max_connections=100",
      "shared_buffers=64MB",
    ].flatMap((setting) => ["-c", setting]);
    const file = await open(this.#log, "a");
    const server = spawn(this.#binaries.postgres, ["-D", this.#data, ...settings], {
      ...this.#user,
      cwd: this.#folder,
      stdio: ["ignore", file.fd, file.fd],
      // Ctrl-C is for the test, which ends it in its own order.
      detached: true,
    });
    this.#server = server;
    await file.close();
    this.#watch?.kill("SIGKILL");
    this.#watch = spawn("sh", ["-c", WATCH, "sh", String(server.pid), this.#folder], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
  }

  /** kill -9 of the server and everything it started. */
  async kill(): Promise<void> {
    const server = this.#server;
    if (server === undefined || !this.running) return;
    const gone = new Promise((resolve) => server.once("exit", resolve));
    const pids = [server.pid!, ...(await childrenOf(server.pid!))];
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself.
      }
    }
    await gone;
  }

  /** Stops the server and removes the data. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server !== undefined && this.running) {
      const gone = new Promise((resolve) => server.once("exit", resolve));
      server.kill("SIGQUIT"); // Immediate: the data is thrown away.
      await gone;
    }
    this.#watch?.kill("SIGKILL");
    await rm(this.#folder, { recursive: true, force: true });
  }
}

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await run("ps", ["-A", "-o", "pid=,ppid="]);
  return stdout
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, parent]) => parent === pid)
    .map(([child]) => child!);
}
