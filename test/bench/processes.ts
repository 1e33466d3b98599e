/** Starts, pins, measures and stops the processes of a bench. Everything started here is stopped by its id. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** The system under test has this core for itself; load, upstreams and the control plane share the other. */
export const PROXY_CORE = 0;
export const LOAD_CORE = 1;

const OUTPUT_CHARS_MAX = 64 * 1024;
const READY_TIMEOUT_MS = 60_000;
/** Longer than the planes take to drain. */
const STOP_TIMEOUT_MS = 20_000;
const POLL_MS = 20;

export interface Started {
  readonly name: string;
  readonly pid: number;
  readonly child: ChildProcess;
  /** The last of what it printed. */
  output(): string;
}

export interface StartOptions {
  readonly core?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Opens a message channel, as for `fork`. */
  readonly ipc?: boolean;
}

const running = new Set<Started>();
const folders: string[] = [];
const cleanups: (() => Promise<void> | void)[] = [];

/** A folder that goes away with the bench. */
export function benchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tokenbill-bench-"));
  folders.push(folder);
  return folder;
}

/** Runs when the bench ends, before its processes are stopped, last given first: for connections to them. */
export function atEnd(cleanup: () => Promise<void> | void): void {
  cleanups.unshift(cleanup);
}

/** On a machine with one core nothing is pinned; the tables then say nothing about a core of one's own. */
function pinned(core: number | undefined, command: string, args: readonly string[]): [string, string[]] {
  if (core === undefined || availableParallelism() < 2) return [command, [...args]];
  return ["taskset", ["-c", String(core), command, ...args]];
}

/** Moves this process, and what it starts from now on, to the core of the load. */
export function pinSelfToLoadCore(): void {
  execFileSync("taskset", ["-acp", String(LOAD_CORE), String(process.pid)], { stdio: "ignore" });
}

export function start(name: string, command: string, args: readonly string[], options: StartOptions = {}): Started {
  const [file, argv] = pinned(options.core, command, args);
  const child = spawn(file, argv, {
    env: { ...process.env, ...options.env },
    stdio: ["ignore", "pipe", "pipe", options.ipc === true ? "ipc" : "ignore"],
  });
  let output = "";
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-OUTPUT_CHARS_MAX);
    });
  }
  child.once("error", (error) => (output += error.message));
  const started = { name, pid: child.pid ?? -1, child, output: () => output };
  running.add(started);
  child.once("exit", () => running.delete(started));
  return started;
}

/** The first message of the process that `accept` takes. @throws when it ends or says nothing in time */
export function message<T>(
  { name, child, output }: Started,
  accept: (value: any) => T | undefined,
  timeoutMs = READY_TIMEOUT_MS,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      clearTimeout(timer);
      reject(new Error(`${name} ${why}\n${output()}`));
    };
    const timer = setTimeout(() => fail(`said nothing in ${timeoutMs} ms`), timeoutMs);
    const onExit = (code: number | null): void => fail(`ended with ${code}`);
    child.once("exit", onExit);
    child.on("message", function onMessage(value) {
      const accepted = accept(value);
      if (accepted === undefined) return;
      clearTimeout(timer);
      child.off("message", onMessage).off("exit", onExit);
      resolve(accepted);
    });
  });
}

export async function stop({ child, name }: Started): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const late = setTimeout(() => {
    console.error(`${name} did not stop within ${STOP_TIMEOUT_MS} ms and is killed`);
    child.kill("SIGKILL");
  }, STOP_TIMEOUT_MS);
  await gone;
  clearTimeout(late);
}

export async function stopAll(): Promise<void> {
  for (const cleanup of cleanups.splice(0)) await cleanup();
  // Last started first: a data plane still reports to its control plane when it stops.
  for (const started of [...running].toReversed()) await stop(started);
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

export async function waitForPort(started: Started, port: number): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  while (Date.now() < deadline && started.child.exitCode === null) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("error", () => resolve(false));
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
    });
    if (open) return;
    await delay(POLL_MS);
  }
  throw new Error(`${started.name} does not listen on port ${port}\n${started.output()}`);
}

function tree(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
      .split(" ")
      .filter((id) => id !== "")
      .map(Number),
  );
  return [pid, ...children.flatMap(tree)];
}

const TICKS_PER_S = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));

/** CPU time of a process and its children so far, all threads, user and kernel, in microseconds (to a tick of 10 ms). */
export function cpuUs(pid: number): number {
  let ticks = 0;
  for (const id of tree(pid)) {
    const stat = readFileSync(`/proc/${id}/stat`, "utf8");
    // The name before the last ")" may hold spaces; utime and stime are fields 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return (ticks * 1e6) / TICKS_PER_S;
}

/**
 * How long the threads of a process and its children were ready to run but had no core, in microseconds. Where nothing
 * else shares the core this is near 0; where it is not, latencies are those of a busy machine.
 */
export function coreWaitUs(pid: number): number {
  let ns = 0;
  for (const id of tree(pid)) {
    for (const task of readdirSync(`/proc/${id}/task`))
      ns += Number(readFileSync(`/proc/${id}/task/${task}/schedstat`, "utf8").split(" ")[1]);
  }
  return ns / 1000;
}

/** Resident memory of a process and its children in bytes. Shared pages count in each. */
export function rssBytes(pid: number): number {
  return tree(pid).reduce((sum, id) => {
    const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${id}/status`, "utf8"));
    return sum + Number(line?.[1] ?? 0) * 1024;
  }, 0);
}
