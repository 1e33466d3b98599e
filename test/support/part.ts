/** Processes for tests: each part of TokenBill as a process of its own. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);
const READY_TIMEOUT_MS = 60_000;
const LOG_CHARS_MAX = 200_000;
const POLL_MS = 10;

/** Calls `check` until it gives something (not undefined, null or false). @throws after `timeoutMs`, with the last error */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | null | false>,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await check();
      if (value !== undefined && value !== null && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await delay(POLL_MS);
  }
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface PartOptions {
  /** Finds the address in what was printed; without it, the part sends it as an IPC message. */
  readonly readyIn?: (log: string) => string | undefined;
  /** Modules from the root that are loaded before anything else. */
  readonly preloads?: readonly string[];
  /** What the part may write before its disk is full; `Part.makeRoom` ends that. */
  readonly disk?: SmallDisk | undefined;
}

/**
 * `own`: the folder is a file system of its own of this size, which exists as long as the part does; for this the part
 * needs to be allowed to mount, see `canMount`. Otherwise no file of the part may grow beyond the size.
 */
export interface SmallDisk {
  readonly bytes: number;
  readonly folder: string;
  readonly own: boolean;
}

/** Whether this machine lets us give a process a file system of its own: root on Linux, as a rule. */
export async function canMount(): Promise<boolean> {
  const trial = ["-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$1"', "sh", tmpdir()];
  return run("unshare", trial).then(
    () => true,
    () => false,
  );
}

function commandLine(script: string, { preloads = [], disk }: PartOptions): [string, string[]] {
  const imports = ["scripts/stop_with_parent.mjs", ...preloads].flatMap((path) => [
    "--import",
    pathToFileURL(join(ROOT, path)).href,
  ]);
  const command = [process.execPath, ...imports, join(ROOT, script)];
  if (disk === undefined) return [command[0]!, command.slice(1)];
  if (disk.own) {
    const mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"';
    return ["unshare", ["-m", "sh", "-c", mount, "sh", String(disk.bytes), disk.folder, ...command]];
  }
  // The soft limit alone, so that it can be lifted. POSIX counts in blocks of 512 bytes.
  const blocks = String(Math.floor(disk.bytes / 512));
  return ["sh", ["-c", 'ulimit -S -f "$1"; shift; exec "$@"', "sh", blocks, ...command]];
}

/** One process of the system. */
export class Part {
  readonly title: string;
  readonly process: ChildProcess;
  readonly exited: Promise<Exit>;
  /** Everything it printed, the end of it if that is much. */
  log = "";
  readonly #options: PartOptions;
  #address: string | undefined;
  readonly #ready: Promise<string | null>;

  constructor(title: string, script: string, env: NodeJS.ProcessEnv, options: PartOptions = {}) {
    this.title = title;
    this.#options = options;
    const { readyIn } = options;
    const [command, args] = commandLine(script, options);
    this.process = spawn(command, args, {
      cwd: ROOT,
      // A run that is killed must not leave parts behind.
      env: { ...env, TOKENBILL_PARENT: String(process.pid) },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.#ready = promise;
    const keep = (data: Buffer): void => {
      this.log = (this.log + data.toString()).slice(-LOG_CHARS_MAX);
      const address = readyIn?.(this.log);
      if (address !== undefined) resolve(address);
    };
    this.process.stdout!.on("data", keep);
    this.process.stderr!.on("data", keep);
    this.process.on("message", (message: { type?: string; address?: string }) => {
      if (message.type === "ready" && message.address !== undefined) resolve(message.address);
    });
    this.exited = new Promise((done) => this.process.once("close", (code, signal) => done({ code, signal })));
    void this.exited.then(() => resolve(null));
  }

  /** host:port, once it is ready. */
  get address(): string {
    if (this.#address === undefined) throw new Error(`${this.title} is not ready`);
    return this.#address;
  }

  async ready(): Promise<this> {
    const address = await Promise.race([this.#ready, delay(READY_TIMEOUT_MS, undefined, { ref: false })]);
    if (address === undefined || address === null) {
      this.process.kill("SIGKILL");
      throw new Error(`${this.title} ${address === null ? "ended before it was" : "did not get"} ready:\n${this.log}`);
    }
    this.#address = address;
    return this;
  }

  /** Asks it to stop and waits. @throws if it does not end with 0 */
  async stop(): Promise<void> {
    this.process.kill("SIGTERM");
    const { code, signal } = await this.exited;
    if (code !== 0) throw new Error(`${this.title} ended with ${signal ?? code}:\n${this.log.slice(-4_000)}`);
  }

  /** Ends it as a power cut would. */
  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  /** Stops the clock of the process, as a machine does that hangs. */
  pause(): void {
    this.process.kill("SIGSTOP");
  }

  resume(): void {
    this.process.kill("SIGCONT");
  }

  /** Sets the wall clock so far off. Only for parts that were started with `test/support/clock_jump.mjs`. */
  async setClock(offsetMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const hear = (message: { type?: string; offsetMs?: number }): void => {
      if (message.type === "clock" && message.offsetMs === offsetMs) resolve();
    };
    this.process.on("message", hear);
    this.process.send({ type: "clock", offsetMs });
    await Promise.race([promise, this.exited]);
    this.process.off("message", hear);
  }

  /** Its small disk is a large one from here on. @throws where `nsenter` or `prlimit` (util-linux) are missing */
  async makeRoom(): Promise<void> {
    const pid = String(this.process.pid);
    const { disk } = this.#options;
    if (disk === undefined) throw new Error(`${this.title} has no small disk`);
    if (disk.own) await run("nsenter", ["-t", pid, "-m", "mount", "-o", "remount,size=1g", disk.folder]);
    else await run("prlimit", ["--pid", pid, "--fsize=unlimited:unlimited"]);
  }

  get running(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }
}
