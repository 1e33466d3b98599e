/** Edits race snapshots and deltas: whatever the interleaving, every table ends up as the database is. */

import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { addBasics, addLm, addVe, testWorld, type TestWorld } from "../report/testing.ts";
import { addTombstones, nextRevision, readFeedState } from "../store/feed_state.ts";
import { Feed } from "./feed.ts";
import { FeedTable, follow } from "./testing.ts";

type Edit = { readonly kind: "add" | "rename" | "remove" | "revoke"; readonly pick: number };
const edits = fc.array(fc.record({ kind: fc.constantFrom("add", "rename", "remove", "revoke"), pick: fc.nat() }), {
  minLength: 5,
  maxLength: 30,
});
/** Pauses between the messages that a node reads, and after how many it loses its stream (0: never). */
const readers = fc.array(fc.record({ pause: fc.nat(3), dropAfter: fc.nat(6) }), { minLength: 1, maxLength: 4 });

describe.each(openTestDatabases())("edits that race the feed on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
  });
  afterAll(() => db.close());

  async function add(ves: string[]): Promise<void> {
    const id = `ve_${(count += 1)}`;
    await addVe(world, id);
    await addLm(db, `lm_${id}`, id, "pm_a");
    ves.push(id);
  }

  async function edit(ves: string[], { kind, pick }: Edit): Promise<void> {
    const id = ves[pick % ves.length];
    if (kind === "add" || id === undefined) return add(ves);
    await db.tx(async (tx) => {
      const revision = await nextRevision(tx);
      if (kind === "rename")
        await tx.query("update virtual_endpoint set name = name || '+', revision = $2 where id = $1", [id, revision]);
      if (kind === "revoke")
        await tx.query("update access_key set revoked_at = now(), revision = $2 where ve_id = $1", [id, revision]);
      if (kind !== "remove") return;
      await tx.query("delete from logical_model where ve_id = $1", [id]);
      await tx.query("delete from access_key where ve_id = $1", [id]);
      await tx.query("delete from virtual_endpoint where id = $1", [id]);
      await addTombstones(tx, revision, [`lm_${id}`, `key_${id}`, id]);
    });
    if (kind === "remove") ves.splice(ves.indexOf(id), 1);
  }

  async function read(
    feed: Feed,
    how: { pause: number; dropAfter: number },
    isDone: (table: FeedTable) => boolean,
  ): Promise<FeedTable> {
    const table = new FeedTable();
    for (;;) {
      let messages = 0;
      const stop = new AbortController();
      for await (const message of feed.watch(`boot_${(count += 1)}`, table.cursor, stop.signal)) {
        table.apply(message);
        for (let pause = 0; pause < how.pause; pause += 1) await turn();
        messages += 1;
        // Dropped streams make progress: a snapshot is always read to its end.
        const whole = message.event?.case === "delta" || message.event?.case === "snapshotEnd";
        if (isDone(table) || (whole && how.dropAfter > 0 && messages >= how.dropAfter)) break;
      }
      stop.abort();
      if (isDone(table)) return table;
    }
  }

  it("loses nothing", async () => {
    await fc.assert(
      fc.asyncProperty(
        edits,
        readers,
        fc.constantFrom(1, 2, 5, 1000),
        fc.constantFrom(2, 50_000),
        async (list, hows, pageRows, deltaRowsMax) => {
          const ves: string[] = [];
          for (let no = 0; no < 6; no += 1) await add(ves);
          const feed = await Feed.start(world.deps, { pageRows, deltaRowsMax });
          let target: bigint | null = null;
          const isDone = ({ cursor }: FeedTable) => target !== null && cursor !== null && cursor.revision >= target;
          const reading = hows.map((how) => read(feed, how, isDone));
          for (const step of list) await edit(ves, step);
          // Known before it is committed, so that no reader can pass it unnoticed.
          target = (await readFeedState(db)).revision + 1n;
          await edit(ves, { kind: "rename", pick: 0 });
          const tables = await Promise.all(reading);
          const truth = new FeedTable();
          await follow(truth, feed.watch("boot_truth", null, new AbortController().signal), isDone);
          for (const table of tables) expect(sorted(table)).toEqual(sorted(truth));
          await feed.close();
        },
      ),
      { numRuns: 12 },
    );
  });
});

function sorted(table: FeedTable): [string, string][] {
  return [...table.resources].toSorted(([a], [b]) => (a < b ? -1 : 1));
}
