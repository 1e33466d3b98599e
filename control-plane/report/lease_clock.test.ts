/** How long a silent boot's leases are held, and what must not take them back. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { formatCredits } from "../../core/credits.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { DomainError } from "../domain/errors.ts";
import { LEASE_TTL_MS } from "../domain/leases.ts";
import { SERVICE_TICK_MAX_MS } from "../domain/service_clock.ts";
import { readWallet } from "../store/wallet.ts";
import { sweepLeases } from "./sweep.ts";
import {
  addBasics,
  addVe,
  encode,
  passServiceTime,
  record,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";
import { writeOffNode } from "./write_off.ts";

const HOUR_MS = 3_600_000;

describe.each(openTestDatabases())("the clock of leases on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterEach(async () => {
    await passServiceTime(world, 2 * HOUR_MS);
    await sweepLeases(world.deps, world.deps.now());
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await db.close();
  });

  /** A node that holds 10 of 100 Credits of a new VE. */
  async function holder(): Promise<{ ve: string; node: TestNode }> {
    const ve = `ve_${(count += 1)}`;
    await addVe(world, ve, { credits: "100" });
    const node = new TestNode(reporter(world.deps), `boot_${count}`);
    await node.send([], [{ veId: ve, want: "10" }]);
    return { ve, node };
  }
  const sweep = () => sweepLeases(world.deps, world.deps.now());
  async function figures(veId: string): Promise<string[]> {
    const { settled, escrowed, debt } = (await readWallet(db, veId))!;
    return [settled, escrowed, debt].map(formatCredits);
  }
  const alarmsOf = (kind: string, subject: string) =>
    db.query<{ detail: Record<string, unknown> }>("select detail from alarm where kind = $1 and subject = $2", [
      kind,
      subject,
    ]);
  const heldMs = () => LEASE_TTL_MS + world.deps.settings.leaseHoldMs + SERVICE_TICK_MAX_MS;

  it("takes the leases of a silent boot back after their time and the hold, and not before", async () => {
    const { ve, node } = await holder();
    await passServiceTime(world, heldMs() - 15_000);
    await node.send([]);
    await passServiceTime(world, heldMs());
    expect(await sweep()).toBe(0);
    expect(await figures(ve)).toEqual(["0", "10", "0"]);
    await passServiceTime(world, 1);
    expect(await sweep()).toBe(1);
    expect(await figures(ve)).toEqual(["0", "0", "0"]);
    await node.send([encode(record(1n, ve, 2000, price))]);
    expect(await figures(ve)).toEqual(["2", "0", "0"]);
  });

  it("takes nothing back after it was away itself, however long", async () => {
    const { ve } = await holder();
    await passServiceTime(world, heldMs() - 2 * SERVICE_TICK_MAX_MS);
    world.advance(100 * HOUR_MS);
    expect(await sweep()).toBe(0);
    expect(await sweep()).toBe(0);
    expect(await figures(ve)).toEqual(["0", "10", "0"]);
  });

  it("takes nothing back when clocks jump, forth or back", async () => {
    const { ve, node } = await holder();
    const other = new TestNode(reporter(world.deps), `boot_jump`);
    for (const jump of [HOUR_MS, -HOUR_MS, -HOUR_MS, 3 * HOUR_MS, -2 * HOUR_MS]) {
      world.advance(jump);
      // The replica's clock and the database's.
      expect(await sweepLeases(world.deps)).toBe(0);
      expect(await sweep()).toBe(0);
    }
    expect(await figures(ve)).toEqual(["0", "10", "0"]);
    // Still asked to give back: it counts as alive.
    await node.send([]);
    world.advance(HOUR_MS);
    const answer = await other.send([], [{ veId: ve, want: "90" }]);
    expect(answer.leases[0]!.granted).toBe("22.5");
  });

  it("writes a silent node off at once, and still posts what it brings back", async () => {
    const { ve, node } = await holder();
    const nodeId = `node_${node.boot}`;
    await expect(writeOffNode(world.deps, nodeId)).rejects.toThrow(DomainError);
    await expect(writeOffNode(world.deps, node.boot)).rejects.toThrow(/within the last 30 seconds/);
    await expect(writeOffNode(world.deps, "node_nobody")).rejects.toMatchObject({ code: "not_found" });
    await passServiceTime(world, 31_000);
    expect(await writeOffNode(world.deps, nodeId)).toMatchObject({ boots: [node.boot], leases: 1 });
    expect(await writeOffNode(world.deps, nodeId)).toMatchObject({ boots: [], leases: 0 });
    expect(await figures(ve)).toEqual(["0", "0", "0"]);
    expect(await alarmsOf("node_written_off", node.boot)).toEqual([{ detail: { nodeId, leases: 1 } }]);

    const other = new TestNode(reporter(world.deps), `${node.boot}_other`);
    await other.send([], [{ veId: ve, need: "95" }]);
    const back = await node.send([encode(record(1n, ve, 8000, price))]);
    expect(back).toMatchObject({ status: 1, lastRecordNo: 1n });
    expect(await figures(ve)).toEqual(["8", "95", "3"]);
    const [alarm] = await alarmsOf("lease_overrun", `${node.boot}:2`);
    expect(alarm!.detail).toEqual({ nodeId, credits: "3", ves: 1, examples: [{ veId: ve, credits: "3" }] });
  });

  it("raises no alarm while what comes back late is covered, but for a later part of it that is not", async () => {
    const { ve, node } = await holder();
    await passServiceTime(world, 31_000);
    await writeOffNode(world.deps, node.boot);
    await node.send([encode(record(1n, ve, 8000, price))]);
    await node.send([]);
    await node.send([encode(record(2n, ve, 100_000, price))]);
    expect(await figures(ve)).toEqual(["108", "0", "8"]);
    expect(await alarmsOf("lease_overrun", `${node.boot}:2`)).toEqual([]);
    expect(await alarmsOf("lease_overrun", `${node.boot}:4`)).toMatchObject([{ detail: { credits: "8" } }]);
  });

  it("raises no alarm for debt of a node that came back and spends from new leases", async () => {
    const { ve, node } = await holder();
    await passServiceTime(world, 31_000);
    await writeOffNode(world.deps, node.boot);
    await node.send([encode(record(1n, ve, 8000, price))], [{ veId: ve, want: "10" }]);
    await node.send([encode(record(2n, ve, 2000, price))], [{ veId: ve, want: "10" }]);
    await node.send([encode(record(3n, ve, 100_000, price))]);
    expect(await figures(ve)).toEqual(["110", "0", "10"]);
    for (const seq of [2, 3, 4]) expect(await alarmsOf("lease_overrun", `${node.boot}:${seq}`)).toEqual([]);
  });
});
