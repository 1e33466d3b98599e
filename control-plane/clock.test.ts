import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DatabaseClock } from "./clock.ts";
import type { Database, Tx } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";

/** A database whose answer takes 2 x `halfMs`, and a machine that has been up for a while. */
function fake(start: { readonly uptimeMs: number; readonly databaseMs: number }) {
  const world = { uptimeMs: start.uptimeMs, databaseMs: start.databaseMs, halfMs: 0 };
  const pass = (ms: number) => {
    world.uptimeMs += ms;
    world.databaseMs += ms;
  };
  const db = {
    query: async () => {
      pass(world.halfMs);
      const ms = String(world.databaseMs);
      pass(world.halfMs);
      return [{ ms }];
    },
  } as unknown as Tx;
  return { world, pass, clock: new DatabaseClock(db, () => world.uptimeMs) };
}

describe("DatabaseClock", () => {
  it("counts on from the last reading, in whole milliseconds", async () => {
    const { clock, pass } = fake({ uptimeMs: 5000.25, databaseMs: 1_800_000_000_000 });
    await clock.read();
    expect(clock.now()).toBe(1_800_000_000_000);
    pass(1234.5);
    expect(clock.now()).toBe(1_800_000_001_234);
  });

  it("follows the database when that was set, or the machine slept", async () => {
    const { clock, world } = fake({ uptimeMs: 10, databaseMs: 1_800_000_000_000 });
    await clock.read();
    world.databaseMs += 3_600_000;
    await clock.read();
    expect(clock.now()).toBe(1_800_003_600_000);
  });

  it("does not move for a reading that took too long to tell", async () => {
    const { clock, world } = fake({ uptimeMs: 10, databaseMs: 1_800_000_000_000 });
    await clock.read();
    world.halfMs = 400;
    world.databaseMs += 300;
    await clock.read();
    expect(clock.now()).toBe(1_800_000_000_800);
    world.databaseMs += 200;
    await clock.read();
    expect(clock.now()).toBe(world.databaseMs);
  });
});

describe.each(openTestDatabases())("DatabaseClock on $name", ({ open }) => {
  let db: Database;
  beforeAll(async () => {
    db = await open();
  });
  afterAll(() => db.close());

  it("shows the time of the database, whatever this machine's wall clock says", async () => {
    const clock = new DatabaseClock(db);
    const time = async () => (await db.query<{ at: Date }>("select clock_timestamp() as at"))[0]!.at.getTime();
    const before = await time();
    await clock.read();
    // By as much as the reading took.
    const slackMs = (await time()) - before;
    const wall = Date.now;
    Date.now = () => wall() + 86_400_000;
    try {
      expect(clock.now()).toBeGreaterThanOrEqual(before - slackMs - 1);
      expect(clock.now() - (await time())).toBeLessThanOrEqual(slackMs + 1);
    } finally {
      Date.now = wall;
    }
  });
});
