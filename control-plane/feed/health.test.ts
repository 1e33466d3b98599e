import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HealthCause } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { healthService } from "../api/health_service.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { ENTRY_MS_MAX, type SeenNote } from "../health/board.ts";
import { packHints } from "../health/exchange.ts";
import { addBasics, callContext, NODE, OF_MERCHANT, testWorld, type TestWorld } from "../report/testing.ts";
import { HEALTH_CHANNEL, HINT_BYTES_MAX } from "../store/health_hint.ts";
import { Feed, type FeedCursor } from "./feed.ts";

const { FAILURE, UNSPECIFIED } = HealthCause;

function note(subjectId: string, more: Partial<SeenNote> = {}): SeenNote {
  return { subjectId, coolMs: 5_000, cause: FAILURE, failurePercent: 50, firstContentMs: 300, ...more };
}

it("hints are as few as fit into notifications", () => {
  const notes = Array.from({ length: 1000 }, (_, i) => note(`pm_${"é".repeat(28)}${i}`));
  const hints = packHints("boot_a", notes);
  for (const hint of hints) expect(Buffer.byteLength(hint)).toBeLessThanOrEqual(HINT_BYTES_MAX);
  expect(hints.length).toBeLessThan(14);
  const ids = hints.flatMap((hint) => (JSON.parse(hint) as { notes: [string][] }).notes.map(([id]) => id));
  expect(ids).toEqual(notes.map(({ subjectId }) => subjectId));
  expect(packHints("boot_a", [])).toEqual([]);
});

describe.each(openTestDatabases())("health in the feed on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  /** Two replicas on one database. */
  let feeds: Feed[];
  let stop: AbortController;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
    feeds = [await Feed.start(world.deps), await Feed.start(world.deps)];
  });
  afterAll(async () => {
    for (const feed of feeds) await feed.close();
    await db.close();
  });
  beforeEach(() => {
    // Nothing of the test before holds any more.
    world.advance(2 * ENTRY_MS_MAX);
    stop = new AbortController();
    return () => stop.abort();
  });

  interface Watching {
    /** The kinds of events in the order they came, without repetitions. */
    readonly kinds: string[];
    readonly notes: { subjectId: string; coolMs: number; cause: HealthCause; bootId: string }[];
    readonly open: Promise<void>;
  }

  function watch(feed: Feed, bootId: string, cursor: FeedCursor | null = null): Watching {
    const opened = Promise.withResolvers<void>();
    const watching: Watching = { kinds: [], notes: [], open: opened.promise };
    void (async () => {
      for await (const { event } of feed.watch(bootId, cursor, stop.signal)) {
        const kind = event?.case ?? "";
        if (watching.kinds.at(-1) !== kind) watching.kinds.push(kind);
        if (event?.case === "health") watching.notes.push(...(event.value.notes as Watching["notes"]));
        if (kind === "snapshotEnd" || kind === "checkpoint") opened.resolve();
      }
    })().catch(opened.reject);
    return watching;
  }

  it("brings a note to the nodes of every replica, but not back to its origin", async () => {
    const [origin, near, far] = [watch(feeds[0]!, "boot_a"), watch(feeds[0]!, "boot_b"), watch(feeds[1]!, "boot_c")];
    await Promise.all([origin.open, near.open, far.open]);
    await feeds[0]!.health.share("boot_a", [note("pm_a"), note("prov_a", { coolMs: 0, cause: UNSPECIFIED })]);
    for (const { notes } of [near, far]) {
      await expect
        .poll(() => notes)
        .toMatchObject([
          { subjectId: "pm_a", coolMs: 5_000, cause: FAILURE, failurePercent: 50, bootId: "boot_a" },
          { subjectId: "prov_a", coolMs: 0, cause: UNSPECIFIED, firstContentMs: 300, bootId: "boot_a" },
        ]);
    }
    await feeds[1]!.health.share("boot_c", [note("pm_a", { coolMs: 0 })]);
    await expect.poll(() => origin.notes).toMatchObject([{ subjectId: "pm_a", coolMs: 0, cause: FAILURE }]);
    await expect.poll(() => near.notes.length).toBe(3);
    expect(far.notes).toHaveLength(2);
    for (const feed of feeds) expect(feed.health.board.health("pm_a")).toMatchObject({ coolUntilMs: 0 });
  });

  it("gives a node that comes later what still holds, after its table, also when it goes on from a cursor", async () => {
    await feeds[0]!.health.share("boot_a", [note("pm_a"), note("pm_b", { coolMs: 60_000 })]);
    await expect.poll(() => feeds[1]!.health.board.health("pm_b")).not.toBeNull();
    world.advance(10_000);
    const late = watch(feeds[1]!, "boot_late");
    await expect
      .poll(() => late.notes)
      .toMatchObject([
        { subjectId: "pm_a", coolMs: 0, cause: UNSPECIFIED, failurePercent: 25 },
        { subjectId: "pm_b", coolMs: 50_000, cause: FAILURE },
      ]);
    expect(late.kinds).toEqual(["snapshotBegin", "snapshotChunk", "snapshotEnd", "health"]);
    const [row] = await db.query<{ epoch: string; revision: bigint }>("select epoch, revision from feed_state");
    const again = watch(feeds[1]!, "boot_late", row!);
    await expect.poll(() => again.notes.length).toBe(2);
    expect(again.kinds).toEqual(["checkpoint", "health"]);
    const origin = watch(feeds[0]!, "boot_a", row!);
    await origin.open;
    await feeds[0]!.health.share("boot_b", [note("pm_c")]);
    await expect.poll(() => origin.notes).toMatchObject([{ subjectId: "pm_c" }]);
  });

  it("takes a thousand notes at once, in messages of bounded size", async () => {
    const other = watch(feeds[1]!, "boot_b");
    await other.open;
    const notes = Array.from({ length: 1000 }, (_, i) => note(`pm_${i}_${"x".repeat(50)}`));
    await feeds[0]!.health.share("boot_a", notes);
    await expect.poll(() => other.notes.length).toBe(1000);
  });

  it("is no trouble when a notification is not ours, or there is nothing to tell", async () => {
    await db.query("select pg_notify($1, 'what?')", [HEALTH_CHANNEL]);
    await db.query(`select pg_notify($1, '{"bootId":"x","notes":[5]}')`, [HEALTH_CHANNEL]);
    await feeds[0]!.health.share("boot_a", []);
    await feeds[0]!.health.share("boot_a", [note("pm_z")]);
    await expect.poll(() => feeds[1]!.health.board.health("pm_z")).not.toBeNull();
  });

  it("is for nodes only, and their note counts here even if the others cannot be told", async () => {
    const request = { bootId: "boot_a", notes: [note("pm_alone")] } as never;
    const service = healthService(feeds[0]!.health);
    await expect(service.shareHealth(request, callContext(OF_MERCHANT))).rejects.toMatchObject({ code: "wrong_scope" });
    const broken = await Feed.start({
      ...world.deps,
      db: {
        ...db,
        query: (text: string, params: never) =>
          text.includes("pg_notify") ? Promise.reject(new Error("away")) : db.query(text, params),
        listen: (...args: Parameters<Database["listen"]>) => db.listen(...args),
      } as Database,
    });
    const near = watch(broken, "boot_b");
    await near.open;
    await expect(healthService(broken.health).shareHealth(request, callContext(NODE))).rejects.toThrow("away");
    await expect.poll(() => near.notes).toMatchObject([{ subjectId: "pm_alone" }]);
    stop.abort();
    await broken.close();
  });
});
