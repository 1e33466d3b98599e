/**
 * A Redis of one test's own, on an ephemeral port of the loopback address, which can be killed and started again. A shell
 * that waits for the end of a pipe stops the server if the test goes away without a word.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { aptInstall, freePort } from "./postgres_server.ts";

const run = promisify(execFile);
const START_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
const BINARY = "redis-server";
const WATCH = 'read _; kill -KILL "$1" 2>/dev/null';

async function present(): Promise<boolean> {
  return run(BINARY, ["--version"]).then(
    () => true,
    () => false,
  );
}

/** The server's program, installed if the machine lacks it. @throws saying precisely what is missing */
export async function findRedis(): Promise<void> {
  if (await present()) return;
  const missing = `Redis is missing: \`${BINARY}\` is not on PATH. Install Redis 6 or later.`;
  await aptInstall([BINARY], missing);
  if (!(await present())) throw new Error(missing);
}

export class OwnRedis {
  readonly url: string;
  readonly #port: number;
  #server: ChildProcess | undefined;
  #watch: ChildProcess | undefined;

  private constructor(port: number) {
    this.#port = port;
    this.url = `redis://127.0.0.1:${port}`;
  }

  static async start(): Promise<OwnRedis> {
    await findRedis();
    const own = new OwnRedis(await freePort());
    await own.start();
    return own;
  }

  get running(): boolean {
    return this.#server !== undefined && this.#server.exitCode === null && this.#server.signalCode === null;
  }

  /** On the same port, with nothing in it; returns when it answers. */
  async start(): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < deadline) {
      if (!this.running) this.#spawn();
      if (await this.#answers()) return;
      await delay(POLL_MS);
    }
    throw new Error(`Redis did not answer within ${START_TIMEOUT_MS} ms on port ${this.#port}`);
  }

  async flush(): Promise<void> {
    await this.#with((redis) => redis.flushall());
  }

  /** kill -9. */
  async kill(): Promise<void> {
    const server = this.#server;
    if (server === undefined || !this.running) return;
    const gone = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGKILL");
    await gone;
  }

  async close(): Promise<void> {
    await this.kill();
    this.#watch?.kill("SIGKILL");
  }

  /** A client of the test's own. */
  async #with<T>(fn: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(this.url, { lazyConnect: true, retryStrategy: () => null });
    redis.on("error", () => {});
    try {
      await redis.connect();
      return await fn(redis);
    } finally {
      redis.disconnect();
    }
  }

  async #answers(): Promise<boolean> {
    return this.#with((redis) => redis.ping()).then(
      () => true,
      () => false,
    );
  }

  #spawn(): void {
    const args = ["--port", String(this.#port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    const server = spawn(BINARY, args, { stdio: "ignore", detached: true });
    server.on("error", () => {});
    this.#server = server;
    this.#watch?.kill("SIGKILL");
    this.#watch = spawn("sh", ["-c", WATCH, "sh", String(server.pid)], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
  }
}
