/** The whole node as a process, alone and with workers, against a control plane of the tests. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { FakeControlPlane, NODE_TOKEN } from "./testing_control_plane.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

let home: string;
let server: FakeControlPlane;
let children: ChildProcess[];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "tokenbill-main-"));
  children = [];
  server = new FakeControlPlane();
  server.first = [
    create(WatchConfigResponseSchema, { event: { case: "snapshotBegin", value: { epoch: "e", revision: 1n } } }),
    create(WatchConfigResponseSchema, { event: { case: "snapshotEnd", value: { revision: 1n } } }),
  ];
  await server.start();
});
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  await server.stop();
  rmSync(home, { recursive: true, force: true });
});

interface Running {
  readonly child: ChildProcess;
  readonly ready: Promise<string>;
  readonly exit: Promise<{ code: number | null; stderr: string }>;
}

function start(env: Record<string, string> = {}): Running {
  const base = {
    PATH: process.env["PATH"] ?? "",
    TOKENBILL_HOME: home,
    DATA_PLANE_ADDR: "127.0.0.1:0",
    LOG_LEVEL: "silent",
  };
  const node = { CONTROL_PLANE_URL: server.url, NODE_TOKEN };
  const child = spawn(process.execPath, [MAIN], {
    env: { ...base, ...node, ...env },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  children.push(child);
  let stderr = "";
  child.stderr!.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const ready = new Promise<string>((done) =>
    child.once("message", (message: { address: string }) => done(message.address)),
  );
  const ended = new Promise<number | null>((done) => child.once("exit", done));
  const drained = new Promise((done) => child.stderr!.once("close", done));
  const exit = Promise.all([ended, drained]).then(([code]) => ({ code, stderr }));
  return { child, ready, exit };
}

async function get(address: string, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${address}${path}`, { headers: { connection: "close" } });
  return { status: response.status, text: await response.text() };
}

function boots(): string[] {
  return readdirSync(join(home, "node", "journal"));
}

test("serves, stops with everything reported, and starts from its stored table without a control plane", async () => {
  const first = start();
  const address = await first.ready;
  expect((await get(address, "/readyz")).status).toBe(200);
  expect((await get(address, "/healthz")).status).toBe(200);
  expect((await get(address, "/metrics")).text).toContain("tokenbill_node_feed_revision 1");
  first.child.kill("SIGTERM");
  expect(await first.exit).toEqual({ code: 0, stderr: "" });
  expect(boots()).toEqual([]);
  const [boot] = server.boots.values();
  expect(boot!.final).toBe(true);
  const { nodeId } = server.reports[0]!;

  await server.stop();
  const second = start();
  expect((await get(await second.ready, "/readyz")).status).toBe(200);
  second.child.kill("SIGINT");
  expect((await second.exit).code).toBe(0);
  // Nobody took its last report, so its journal stays.
  expect(boots()).toHaveLength(1);

  await server.start();
  const third = start();
  await third.ready;
  await server.until(() => [...server.boots.values()].filter(({ final }) => final).length === 2);
  third.child.kill("SIGTERM");
  await third.exit;
  expect(boots()).toEqual([]);
  expect(new Set(server.reports.map((report) => report.nodeId))).toEqual(new Set([nodeId]));
});

test("stops when the process that started it is gone", async () => {
  const { child, ready, exit } = start();
  await ready;
  child.disconnect();
  expect((await exit).code).toBe(0);
});

test("workers share one port, are metered together, come back when they die, and stop together", async () => {
  const { child, ready, exit } = start({ DATA_PLANE_WORKERS: "2" });
  const address = await ready;
  expect((await get(address, "/readyz")).status).toBe(200);
  const { text } = await get(address, "/metrics");
  for (const worker of [1, 2]) expect(text).toContain(`tokenbill_node_feed_revision{worker="${worker}"} 1`);
  const nodes = (): string[] => [...new Set(server.watches.map(({ nodeId }) => nodeId.replace(/.*\//, "")))].toSorted();
  expect(nodes()).toEqual(["w1", "w2"]);

  const bootsBefore = boots();
  expect(bootsBefore).toHaveLength(2);
  const pid = ownerPid(bootsBefore[0]!);
  expect(pid).not.toBe(child.pid);
  process.kill(pid, "SIGKILL");
  await server.until(() => server.watches.length === 3);
  await server.until(() => server.boot(bootsBefore[0]!).final);
  await expect.poll(async () => (await get(address, "/metrics")).text.match(/feed_revision\{/g)?.length).toBe(2);

  child.kill("SIGTERM");
  expect(await exit).toEqual({ code: 0, stderr: "" });
  expect([...server.boots.values()].every(({ final }) => final)).toBe(true);
  expect(boots()).toEqual([]);
});

function ownerPid(bootId: string): number {
  const claim = readdirSync(join(home, "node", "journal", bootId)).find((name) => name === "owner.0.json")!;
  return (JSON.parse(readFileSync(join(home, "node", "journal", bootId, claim), "utf8")) as { pid: number }).pid;
}

describe("a wrong setting stops the start with one line and code 78", () => {
  test.each<[Record<string, string>, RegExp]>([
    [{ DATA_PLANE_ADDR: "nowhere" }, /^DATA_PLANE_ADDR: [^\n]+\n$/],
    [{ NODE_TOKEN: "" }, /^NODE_TOKEN: [^\n]+\n$/],
    [{ DATA_PLANE_WORKERS: "-1" }, /^DATA_PLANE_WORKERS: [^\n]+\n$/],
  ])("%j", async (env, line) => {
    const { code, stderr } = await start(env).exit;
    expect(code).toBe(78);
    expect(stderr).toMatch(line);
  });

  test("a port that is taken, and a home that cannot be written", async () => {
    const taken = await start({ DATA_PLANE_ADDR: new URL(server.url).host }).exit;
    expect(taken).toMatchObject({ code: 78, stderr: expect.stringMatching(/^DATA_PLANE_ADDR: [^\n]+\n$/) });
    const file = join(home, "file");
    writeFileSync(file, "");
    const homeless = await start({ TOKENBILL_HOME: file }).exit;
    expect(homeless).toMatchObject({ code: 78, stderr: expect.stringMatching(/^TOKENBILL_HOME: [^\n]+\n$/) });
  });
});
