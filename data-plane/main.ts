/** A data-plane node: environment -> settings -> serve -> SIGTERM. */

import cluster from "node:cluster";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isatty } from "node:tty";
import { type Logger, pino } from "pino";
import { newId } from "./ids.ts";
import { startNode } from "./node.ts";
import { parseSettings, type Settings, SettingsError } from "./settings.ts";
import { answerMetrics, onKeepTable, readRole, type WorkerRole } from "./worker_messages.ts";
import { runPrimary } from "./workers.ts";

/** As of sysexits: the configuration is wrong. */
const EXIT_CONFIG = 78;
const LISTEN_ERRORS = new Set(["EADDRINUSE", "EADDRNOTAVAIL", "EACCES", "ENOTFOUND"]);

function fail(message: string): never {
  console.error(message);
  process.exit(EXIT_CONFIG);
}

function readSettings(): Settings {
  try {
    return parseSettings(process.env);
  } catch (error) {
    if (error instanceof SettingsError) fail(error.problems.join("\n"));
    throw error;
  }
}

function readNodeToken({ nodeToken, home }: Settings): string {
  if (nodeToken !== null) return nodeToken;
  const path = join(home, "node.token");
  try {
    const token = readFileSync(path, "utf8").trim();
    if (token !== "") return token;
  } catch {
    // Told below.
  }
  return fail(`NODE_TOKEN: not set, and ${path} cannot be read; the control plane makes that file in its own home`);
}

/** The stable name of the node, made on the first start. */
function readNodeId({ nodeId, home }: Settings): string {
  if (nodeId !== null) return nodeId;
  const dir = join(home, "node");
  const path = join(dir, "node.id");
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    writeFileSync(path, newId("node_"), { flag: "wx", mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST")
      fail(`TOKENBILL_HOME: ${dir} cannot be written: ${(error as Error).message}`);
  }
  const kept = readFileSync(path, "utf8").trim();
  return kept === "" ? fail(`NODE_ID: ${path} is empty; delete it or set the variable`) : kept;
}

/** Runs `stop` on the first signal, or when the process that started this one is gone. */
function onStop(stop: () => Promise<void>, log: Logger): void {
  let stopping = false;
  const begin = (): void => {
    if (stopping) return;
    stopping = true;
    stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, "stopping failed");
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", begin);
  process.on("SIGINT", begin);
  process.on("disconnect", begin);
}

/** The terminal that this process was started in, if there is one, as a file descriptor. */
const TERMINAL = [0, 1, 2].find((fd) => isatty(fd));

/** SIGHUP asks for a reload, unless it says that the terminal was closed: that stops the process, as it always did. */
function onHangup(reload: () => void): void {
  process.on("SIGHUP", () => {
    if (TERMINAL !== undefined && !isatty(TERMINAL)) process.kill(process.pid, "SIGTERM");
    else reload();
  });
}

async function serve(settings: Settings, role: WorkerRole | null, log: Logger): Promise<void> {
  const nodeId = readNodeId(settings) + (role === null ? "" : `/w${role.k}`);
  const nodeToken = readNodeToken(settings);
  const metricsText = role === null ? undefined : answerMetrics(() => node.metrics);
  if (role !== null) onKeepTable(() => node.keepTable());
  // One that joins others is started when it can serve; stopped before, it has nothing to finish.
  const node = await startNode({
    settings,
    nodeId,
    nodeToken,
    worker: role?.k ?? null,
    keepsTable: role?.keepsTable ?? true,
    joins: role?.joins ?? false,
    log,
    metricsText,
  });
  onStop(() => node.stop(), log);
  await node.ready;
  log.info({ address: node.address, nodeId }, "data-plane node is ready");
  if (process.connected) process.send?.({ type: "ready", address: node.address });
}

/** Workers and their primary, of which this process is one. */
async function serveWithWorkers(settings: Settings, count: number, log: Logger): Promise<void> {
  if (cluster.isWorker) {
    // The primary, if anybody, is who a hangup was meant for.
    process.on("SIGHUP", () => undefined);
    return serve(settings, readRole(process.env), log);
  }
  readNodeToken(settings);
  const primary = runPrimary({ count, nodeId: readNodeId(settings), drainMs: settings.drainMs, log, onStop });
  onHangup(() => void primary.reload());
}

async function main(): Promise<void> {
  const settings = readSettings();
  const log = pino(
    { level: settings.logLevel, base: { part: "data-plane" } },
    pino.destination({ dest: 2, sync: false }),
  );
  process.on("exit", () => log.flush());
  try {
    if (settings.workers !== null) return await serveWithWorkers(settings, settings.workers, log);
    onHangup(() =>
      log.warn("SIGHUP replaces the worker processes, and here are none: set DATA_PLANE_WORKERS, also to 1"),
    );
    await serve(settings, null, log);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== undefined && LISTEN_ERRORS.has(code)) fail(`DATA_PLANE_ADDR: cannot listen: ${message}`);
    if (code !== undefined && /^E[A-Z]+$/.test(code)) fail(`TOKENBILL_HOME: ${message}`);
    throw error;
  }
}

await main();
