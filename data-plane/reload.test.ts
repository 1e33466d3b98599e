/** SIGHUP to a node with workers: new processes take the port over, and nobody is refused meanwhile. */

import { rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { FakeControlPlane } from "./testing_control_plane.ts";
import { get, NodeHome, type RunningProcess } from "./testing_node.ts";

let at: NodeHome;
let server: FakeControlPlane;

beforeEach(async () => {
  at = await NodeHome.open();
  server = at.server;
});
afterEach(() => at.close());

/** Asks without a pause, with a new connection each time and over kept ones, until `stop`, which tells what went wrong. */
function traffic(address: string): { stop(): Promise<{ asked: number; problems: string[] }> } {
  const problems: string[] = [];
  let [asked, stopped] = [0, false];
  const ask = (agent: Agent): Promise<void> =>
    new Promise((done) => {
      asked++;
      const call = request(`http://${address}/v1/models`, { agent, headers: { authorization: "Bearer none" } });
      call.on("error", (error) => {
        problems.push(String(error));
        done();
      });
      call.on("response", (response) => {
        // Nobody has that key; who says so serves.
        if (response.statusCode !== 401) problems.push(`status ${response.statusCode}`);
        response.resume().on("close", done);
      });
      call.end();
    });
  const client = async (agent: Agent): Promise<void> => {
    while (!stopped) await ask(agent);
    agent.destroy();
  };
  const agents = [false, false, true, true].map((keepAlive) => new Agent({ keepAlive }));
  const clients = Promise.all(agents.map(client));
  return {
    async stop() {
      stopped = true;
      await clients;
      return { asked, problems };
    },
  };
}

function live(): string[] {
  return at.boots().filter((bootId) => bootId.startsWith("boot_"));
}

/** Sends SIGHUP and waits until every boot of before is over. */
async function reload({ child }: RunningProcess): Promise<void> {
  const before = live();
  child.kill("SIGHUP");
  await server.until(() => before.every((bootId) => server.boot(bootId).final));
  await expect.poll(() => live().some((bootId) => before.includes(bootId)), { timeout: 10_000 }).toBe(false);
  expect(live()).toHaveLength(before.length);
}

describe.each(["1", "2"])("%s workers", (count) => {
  test("are replaced again and again under traffic without a refused or broken connection", async () => {
    const node = at.start({ DATA_PLANE_WORKERS: count, DRAIN_MS: "5000" });
    const load = traffic(await node.ready);
    await reload(node);
    await reload(node);
    const { asked, problems } = await load.stop();
    expect(problems).toEqual([]);
    expect(asked).toBeGreaterThan(100);
    expect(new Set(server.reports.map(({ nodeId }) => nodeId)).size).toBe(Number(count));
    node.child.kill("SIGTERM");
    expect(await node.exit).toEqual({ code: 0, stderr: "" });
    expect(at.boots()).toEqual([]);
  });
});

test("a SIGHUP during a reload is done after it, once", async () => {
  const node = at.start({ DATA_PLANE_WORKERS: "1" });
  await node.ready;
  node.child.kill("SIGHUP");
  await server.until(() => server.watches.length === 2);
  for (let i = 0; i < 5; i++) {
    node.child.kill("SIGHUP");
    await new Promise((done) => setTimeout(done, 5));
  }
  await server.until(() => [...server.boots.values()].filter(({ final }) => final).length === 2);
  await server.until(() => server.watches.length === 3);
  await expect.poll(() => live().length, { timeout: 10_000 }).toBe(1);
  node.child.kill("SIGTERM");
  await node.exit;
  expect(server.watches).toHaveLength(3);
});

test("SIGTERM during a reload stops the old and the new ones", async () => {
  const node = at.start({ DATA_PLANE_WORKERS: "2" });
  const address = await node.ready;
  node.child.kill("SIGHUP");
  await server.until(() => server.watches.length === 3);
  node.child.kill("SIGTERM");
  expect((await node.exit).code).toBe(0);
  await expect(get(address, "/healthz")).rejects.toThrow();
});

describe("new workers that cannot serve", () => {
  const FLAG = "broken";
  let options: string;

  /** From now on new processes of the node do this first. */
  function breakRelease(statement: string): void {
    writeFileSync(join(at.home, FLAG), statement);
  }

  beforeEach(() => {
    const module = join(at.home, "release.mjs");
    const flag = JSON.stringify(join(at.home, FLAG));
    const code = `import { existsSync, readFileSync } from "node:fs";
      if (existsSync(${flag}) && process.env.TOKENBILL_WORKER) new Function(readFileSync(${flag}, "utf8"))();`;
    writeFileSync(module, code);
    options = `--import=${pathToFileURL(module).href}`;
  });

  test.each([
    ["die", "process.exit(1)"],
    ["say that the configuration is wrong", "process.exit(78)"],
    ["hang", "for (;;);"],
  ])("because they %s cost no old one, and the next reload works", async (_, statement) => {
    const env = { DATA_PLANE_WORKERS: "2", JOIN_MS_MAX: "15000", NODE_OPTIONS: options };
    const node = at.start(env, "testing_primary.ts");
    const load = traffic(await node.ready);
    const before = live().toSorted();
    breakRelease(statement);
    node.child.kill("SIGHUP");
    await expect.poll(node.stderr, { timeout: 30_000 }).toContain("a new worker cannot serve");
    expect(live().toSorted()).toEqual(before);
    rmSync(join(at.home, FLAG));
    await reload(node);
    expect((await load.stop()).problems).toEqual([]);
    node.child.kill("SIGTERM");
    expect((await node.exit).code).toBe(0);
  });
});

test("without a control plane the old workers go on, since new ones would get no leases", async () => {
  const env = { DATA_PLANE_WORKERS: "1", JOIN_MS_MAX: "3000" };
  const node = at.start(env, "testing_primary.ts");
  const load = traffic(await node.ready);
  const before = live();
  await server.stop();
  node.child.kill("SIGHUP");
  await expect.poll(node.stderr, { timeout: 30_000 }).toContain("a new worker cannot serve");
  expect(live()).toEqual(expect.arrayContaining(before));
  expect((await load.stop()).problems).toEqual([]);
});

test("the stored route table goes over to the new worker, which keeps it as it is from then on", async () => {
  const revise = (from: bigint): void => {
    const value = { fromRevision: from, revision: from + 1n };
    server.send(create(WatchConfigResponseSchema, { event: { case: "delta", value } }));
  };
  const node = at.start({ DATA_PLANE_WORKERS: "1" });
  await node.ready;
  await reload(node);
  // The first event after the old process is gone makes the new one ask for the snapshot that its file begins with.
  const asked = server.watches.length;
  const hint = create(WatchConfigResponseSchema, { event: { case: "wallet", value: { veId: "ve_none" } } });
  await expect
    .poll(() => {
      server.send(hint);
      return server.watches.length;
    })
    .toBe(asked + 1);
  expect(server.watches.at(-1)!.cursor).toBeUndefined();
  await expect.poll(() => server.statuses.at(-1)?.applied?.revision).toBe(1n);
  revise(1n);
  await server.until(() => server.statuses.at(-1)?.applied?.revision === 2n);
  node.child.kill("SIGTERM");
  await node.exit;

  await server.stop();
  const again = at.start();
  expect((await get(await again.ready, "/metrics")).text).toContain("tokenbill_node_feed_revision 2");
});
