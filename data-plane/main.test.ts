/** The whole node as a process, alone and with workers, against a control plane of the tests. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { FakeControlPlane } from "./testing_control_plane.ts";
import { get, NodeHome, type RunningProcess } from "./testing_node.ts";

let at: NodeHome;
let server: FakeControlPlane;

beforeEach(async () => {
  at = await NodeHome.open();
  server = at.server;
});
afterEach(() => at.close());

function start(env?: Record<string, string>): RunningProcess {
  return at.start(env);
}

function boots(): string[] {
  return at.boots();
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
  // One worker is enough to be ready; the other may be a moment behind.
  await server.until(() => nodes().length === 2);
  expect(nodes()).toEqual(["w1", "w2"]);

  const bootsBefore = boots();
  expect(bootsBefore).toHaveLength(2);
  const pid = at.ownerPid(bootsBefore[0]!);
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

test("alone, SIGHUP changes nothing, and it is said how to get reloads", async () => {
  const { child, ready, exit, stderr } = start({ LOG_LEVEL: "warn" });
  const address = await ready;
  child.kill("SIGHUP");
  await expect.poll(stderr).toContain("set DATA_PLANE_WORKERS");
  expect((await get(address, "/readyz")).status).toBe(200);
  child.kill("SIGTERM");
  expect((await exit).code).toBe(0);
});

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
    const file = join(at.home, "file");
    writeFileSync(file, "");
    const homeless = await start({ TOKENBILL_HOME: file }).exit;
    expect(homeless).toMatchObject({ code: 78, stderr: expect.stringMatching(/^TOKENBILL_HOME: [^\n]+\n$/) });
  });
});
