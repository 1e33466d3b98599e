import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Price } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import { audit } from "./audit.ts";
import { Auditor } from "./audit/auditor.ts";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { LEASE_TTL_MS } from "./domain/leases.ts";
import { SERVICE_TICK_MAX_MS } from "./domain/service_clock.ts";
import { makePartitions, PARTITION_DAYS_AHEAD, startMaintenance } from "./maintenance.ts";
import {
  addBasics,
  addVe,
  passServiceTime,
  encode,
  record,
  reporter,
  T0,
  TestNode,
  testWorld,
  type TestWorld,
} from "./report/testing.ts";
import { readWallet } from "./store/wallet.ts";

describe.each(openTestDatabases())("maintenance on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(() => db.close());

  const partitionOf = async (id: string) =>
    (
      await db.query<{ name: string }>("select tableoid::regclass::text as name from usage_event where id = $1", [id])
    )[0]!.name;

  it("makes partitions ahead, leaves days with events in the default one, and can do so twice at once", async () => {
    await addVe(world, "ve_p", { credits: "100" });
    const node = new TestNode(reporter(world.deps), "boot_p");
    const us = (day: number) => BigInt(T0 + day * 86_400_000) * 1000n;
    await node.send([encode(record(1n, "ve_p", 1, price, { arriveUnixUs: us(2) }))]);
    await Promise.all([makePartitions(world.deps), makePartitions(world.deps)]);
    const [made] = await db.query<{ count: bigint }>(
      "select count(*) as count from pg_inherits where inhparent = 'usage_event'::regclass",
    );
    // Today and the days ahead, less the one with an event, and the default.
    expect(Number(made!.count)).toBe(PARTITION_DAYS_AHEAD + 1);
    await node.send([
      encode(record(2n, "ve_p", 1, price)),
      encode(record(3n, "ve_p", 1, price, { arriveUnixUs: us(30) })),
    ]);
    expect(await partitionOf("usg_ve_p_1")).toBe("usage_event_default");
    expect(await partitionOf("usg_ve_p_2")).toBe("usage_event_20261123");
    expect(await partitionOf("usg_ve_p_3")).toBe("usage_event_default");
  });

  it("runs the jobs at the start, but for the audit, and stops", async () => {
    await addVe(world, "ve_s", { credits: "100" });
    await new TestNode(reporter(world.deps), "boot_s").send([], [{ veId: "ve_s", want: "10" }]);
    const { leaseHoldMs } = world.deps.settings;
    await passServiceTime(world, LEASE_TTL_MS + leaseHoldMs + SERVICE_TICK_MAX_MS + 1);
    await db.query(
      "insert into idempotency (owner, method, request_id, request_digest, created_at) values ('o', 'm', 'r', '\\x00', '2020-01-01')",
    );
    await startMaintenance(world.deps, new Auditor(world.deps)).close();
    expect((await readWallet(db, "ve_s"))!.escrowed).toBe(0n);
    expect(await db.query("select 1 from idempotency")).toEqual([]);
    expect(await audit(db, { deep: true })).toEqual([]);
  });
});
