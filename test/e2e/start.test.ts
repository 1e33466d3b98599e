/** What `npm start` does when things go well and when they do not. */

import { spawn as spawnProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, stat } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AllInOne, makeHome, removeHome, spawnAllInOne } from "../support/all_in_one.ts";
import { type Part, until } from "../support/part.ts";

let home: string;
let started: Part[] = [];

beforeEach(async () => {
  home = await makeHome();
  started = [];
});

afterEach(async () => {
  for (const part of started) if (part.running) await part.kill();
  await removeHome(home);
});

function spawn(env: Record<string, string> = {}): Part {
  const part = spawnAllInOne({ home, env });
  started.push(part);
  return part;
}

/** The processes that a process started and that still run. */
async function children(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  return text
    .split(" ")
    .filter((part) => part !== "")
    .map(Number);
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("one line when ready, private files in the home, health on both planes, and a clean end", async () => {
  const part = await spawn().ready();
  const system = new AllInOne(part, home);
  expect(part.log.trim().split("\n")).toHaveLength(1);
  expect(part.log).toContain(join(home, "merchant.token"));
  for (const name of ["merchant.token", "operator.token", "node.token", "master.key"]) {
    expect((await stat(join(home, name))).mode & 0o777, name).toBe(0o600);
  }
  for (const base of [system.controlPlaneUrl, system.dataPlaneUrl]) {
    for (const path of ["/healthz", "/readyz", "/metrics"]) {
      const response = await fetch(base + path);
      expect(response.status, base + path).toBe(200);
      await response.arrayBuffer();
    }
    expect(await (await fetch(`${base}/metrics`)).text()).toMatch(/^# TYPE \w+ (counter|gauge|histogram)/m);
  }
  await system.stop();
});

test.each([
  ["CONTROL_PLANE_ADDR", "nonsense"],
  ["DATA_PLANE_ADDR", "nonsense"],
  ["DATABASE_URL", "mysql://x"],
  ["TOKENBILL_MASTER_KEY", "short"],
  ["PUBLIC_URL", "ftp://x"],
  ["LOG_LEVEL", "loud"],
  ["DATA_PLANE_WORKERS", "many"],
])("a wrong %s stops the start with one line that names it, and code 78", async (name, value) => {
  const part = spawn({ [name]: value });
  expect((await part.exited).code, part.log).toBe(78);
  const lines = part.log.trim().split("\n");
  expect(lines, part.log).toHaveLength(1);
  expect(lines[0]).toContain(name);
});

test("a home in use is refused, and its owner goes on", async () => {
  const first = await spawn().ready();
  const second = spawn();
  expect((await second.exited).code, second.log).toBe(78);
  expect(second.log.trim().split("\n"), second.log).toHaveLength(1);
  expect((await fetch(`${new AllInOne(first, home).controlPlaneUrl}/readyz`)).status).toBe(200);
  await first.stop();
});

test("a part that dies takes the other with it, and it is said which one it was", async () => {
  const part = await spawn().ready();
  const [controlPlane, dataPlane] = await children(part.process.pid!);
  process.kill(dataPlane!, "SIGKILL");
  expect((await part.exited).code).toBe(1);
  expect(part.log).toContain("The data-plane node stopped unexpectedly (SIGKILL)");
  expect(alive(controlPlane!)).toBe(false);
});

test("SIGHUP reloads the node, and nothing stops", async () => {
  const part = await spawn({ DATA_PLANE_WORKERS: "1", LOG_LEVEL: "info" }).ready();
  const { dataPlaneUrl } = new AllInOne(part, home);
  part.process.kill("SIGHUP");
  await until("the worker was replaced", async () => part.log.includes("all workers were replaced"));
  expect((await fetch(`${dataPlaneUrl}/readyz`)).status).toBe(200);
  await part.stop();
});

/** True if something listens there. */
async function listens(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  const connected = await once(socket, "connect").then(
    () => true,
    () => false,
  );
  socket.destroy();
  return connected;
}

test("a signal to npm stops everything", async () => {
  const npm = spawnProcess("npm", ["start"], {
    cwd: new URL("../..", import.meta.url),
    env: { ...process.env, TOKENBILL_HOME: home, CONTROL_PLANE_ADDR: "127.0.0.1:0", DATA_PLANE_ADDR: "127.0.0.1:0" },
    stdio: ["ignore", "pipe", "inherit"],
    // A group of its own, so that a test that fails leaves nothing behind.
    detached: true,
  });
  try {
    let log = "";
    npm.stdout.on("data", (data: Buffer) => (log += data.toString()));
    const exited = once(npm, "exit");
    const urls = await until("it is ready", async () => /control plane (\S+), data plane (\S+)\/v1/.exec(log), 60_000);
    for (const url of urls.slice(1)) expect(await listens(url)).toBe(true);
    npm.kill("SIGTERM");
    expect(await exited).toStrictEqual([0, null]);
    for (const url of urls.slice(1)) expect(await listens(url)).toBe(false);
  } finally {
    try {
      process.kill(-npm.pid!, "SIGKILL");
    } catch {
      // Nothing of it is left, as it should be.
    }
  }
});

test("nothing is left running when the supervisor is killed", async () => {
  const part = await spawn().ready();
  const pids = await children(part.process.pid!);
  expect(pids).toHaveLength(2);
  await part.kill();
  await until("both parts are gone", async () => !pids.some(alive));
});
