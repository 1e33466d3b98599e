/**
 * `npm start`: the whole of TokenBill on this machine. Starts the control plane, then one data-plane node, says when both
 * are ready, and stops them in the other order, so that the node's last report finds somebody listening.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { relative, resolve } from "node:path";
import { isatty } from "node:tty";
import { fileURLToPath } from "node:url";

/** A configuration that cannot work (sysexits' EX_CONFIG): the child has said on stderr what is wrong. */
const EXIT_CONFIG = 78;
/** npm repeats a Ctrl-C that the terminal has sent already; only a later one means "now". */
const FORCE_AFTER_MS = 1_000;

interface Part {
  readonly title: string;
  readonly process: ChildProcess;
  /** The host:port it listens on, or null if it ended before it was ready. */
  readonly ready: Promise<string | null>;
  readonly ended: Promise<Ending>;
}

interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const parts: Part[] = [];
let stopSince: number | undefined;
/** Once it is ready. */
let node: Part | undefined;

function startPart(title: string, script: string, env: NodeJS.ProcessEnv): Part {
  const [guard, main] = ["scripts/stop_with_parent.mjs", script].map((path) => new URL(path, import.meta.url));
  const child = spawn(process.execPath, ["--import", guard!.href, fileURLToPath(main!)], {
    env: { ...env, TOKENBILL_PARENT: String(process.pid) },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    // A group of its own: a terminal's Ctrl-C must reach this process only, which stops the parts in order.
    detached: true,
  });
  const ended = new Promise<Ending>((done) => {
    child.once("exit", (code, signal) => done({ code, signal }));
    child.once("error", () => done({ code: 1, signal: null }));
  });
  const ready = new Promise<string | null>((done) => {
    child.on("message", (message: { type?: unknown; address?: unknown }) => {
      if (message.type === "ready" && typeof message.address === "string") done(message.address);
    });
    void ended.then(() => done(null));
  });
  const part: Part = { title, process: child, ready, ended };
  parts.push(part);
  return part;
}

/** An address that listens everywhere is reached on this machine by loopback. */
function reachable(address: string): string {
  return address.replace(/^0\.0\.0\.0:/, "127.0.0.1:").replace(/^\[::\]:/, "[::1]:");
}

async function stopPart(part: Part): Promise<void> {
  part.process.kill("SIGTERM");
  await part.ended;
}

/** Stops the parts, the last started first, and ends this process. */
async function stopAll(exitCode: number): Promise<never> {
  stopSince ??= performance.now();
  for (const part of parts.toReversed()) await stopPart(part);
  process.exit(exitCode);
}

function onSignal(): void {
  if (stopSince === undefined) {
    void stopAll(0);
  } else if (performance.now() - stopSince > FORCE_AFTER_MS) {
    console.error("Stopping at once; what was not reported stays in the journal.");
    for (const part of parts) part.process.kill("SIGKILL");
    process.exit(1);
  }
}

/** The terminal that this was started in, if there is one, as a file descriptor. */
const TERMINAL = [0, 1, 2].find((fd) => isatty(fd));

/** SIGHUP goes to the node, which knows what to do; but when it says that the terminal was closed, everything stops. */
function onHangup(): void {
  if (TERMINAL !== undefined && !isatty(TERMINAL)) return onSignal();
  if (stopSince === undefined) node?.process.kill("SIGHUP");
}

/** A part that ends unasked takes the others with it. */
async function watch(part: Part): Promise<void> {
  const { code, signal } = await part.ended;
  if (stopSince !== undefined) return;
  if (code !== EXIT_CONFIG) {
    console.error(`The ${part.title} stopped unexpectedly (${signal ?? `exit code ${code}`}); stopping everything.`);
  }
  await stopAll(code === EXIT_CONFIG ? EXIT_CONFIG : 1);
}

async function main(): Promise<void> {
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  process.on("SIGHUP", onHangup);
  const home = resolve(process.env["TOKENBILL_HOME"] || ".tokenbill");
  const env = { ...process.env, TOKENBILL_HOME: home, LOG_LEVEL: process.env["LOG_LEVEL"] || "warn" };

  const controlPlane = startPart("control plane", "control-plane/main.ts", env);
  void watch(controlPlane);
  const controlPlaneAddress = await controlPlane.ready;
  if (controlPlaneAddress === null || stopSince !== undefined) return;

  const url = `http://${reachable(controlPlaneAddress)}`;
  const dataPlane = startPart("data-plane node", "data-plane/main.ts", { ...env, CONTROL_PLANE_URL: url });
  void watch(dataPlane);
  const dataPlaneAddress = await dataPlane.ready;
  if (dataPlaneAddress === null || stopSince !== undefined) return;
  node = dataPlane;

  const shown = relative(process.cwd(), home) || ".";
  const folder = shown.startsWith("..") ? home : shown;
  console.log(
    `TokenBill is ready: control plane ${url}, data plane http://${reachable(dataPlaneAddress)}/v1, ` +
      `API token in ${folder}/merchant.token, operator token in ${folder}/operator.token`,
  );
}

await main();
