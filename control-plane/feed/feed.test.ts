import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { create, toBinary } from "@bufbuild/protobuf";
import { ProviderCredentialsSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { addBasics, addLm, addMerchant, addProvider, addVe, testWorld, type TestWorld } from "../report/testing.ts";
import { readChanges } from "../store/feed.ts";
import { addTombstones, nextRevision, notifyWallet, pruneTombstones, readFeedState } from "../store/feed_state.ts";
import type { FeedMessage } from "./chunks.ts";
import { Feed, type FeedCursor } from "./feed.ts";
import { FeedTable, follow } from "./testing.ts";
import { WATCHER_QUEUE_MAX } from "./watcher.ts";

describe.each(openTestDatabases())("the feed on $name", ({ name, open }) => {
  let db: Database;
  let world: TestWorld;
  let feed: Feed;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
    feed = await Feed.start(world.deps);
  });
  afterAll(async () => {
    await feed.close();
    await db.close();
  });
  let stop: AbortController;
  beforeEach(() => {
    stop = new AbortController();
    return () => stop.abort();
  });

  const watch = (cursor: FeedCursor | null = null): AsyncGenerator<FeedMessage> =>
    feed.watch(`boot_${(count += 1)}`, cursor, stop.signal);
  const at = async (): Promise<bigint> => (await readFeedState(db)).revision;

  async function fresh(): Promise<FeedTable> {
    const table = new FeedTable();
    const target = await at();
    await follow(table, watch(), ({ cursor }) => cursor !== null && cursor.revision >= target);
    return table;
  }

  async function renameVe(id: string, name: string): Promise<void> {
    await db.tx(async (tx) => {
      const revision = await nextRevision(tx);
      await tx.query("update virtual_endpoint set name = $2, revision = $3 where id = $1", [id, name, revision]);
    });
  }

  async function removeLm(id: string): Promise<void> {
    await db.tx(async (tx) => {
      const revision = await nextRevision(tx);
      await tx.query("delete from logical_model where id = $1", [id]);
      await addTombstones(tx, revision, [id]);
    });
  }

  it("sends a snapshot of what nodes may know", async () => {
    const secret = create(ProviderCredentialsSchema, { apiKey: "sk-up" });
    await addProvider(
      db,
      "prov_keyed",
      "mer_a",
      world.deps.secrets.seal(toBinary(ProviderCredentialsSchema, secret), "prov_keyed"),
    );
    await addProvider(db, "prov_broken", "mer_a", new Uint8Array([1, 2, 3]));
    await addVe(world, "ve_a");
    await addVe(world, "ve_t", { template: true });
    await addLm(db, "lm_a", "ve_a", "pm_a");
    await addLm(db, "lm_t", "ve_t", "pm_a");
    await db.query("update access_key set revoked_at = now() where id = 'key_ve_t'");
    const table = await fresh();
    expect([...table.resources.keys()]).toEqual([
      "prov_a",
      "prov_broken",
      "prov_keyed",
      "pm_a",
      "ve_a",
      "key_ve_a",
      "lm_a",
    ]);
    const get = (id: string) => JSON.parse(table.resources.get(id)!).value;
    expect(get("prov_keyed")).toMatchObject({
      baseUrl: "http://up.test/v1",
      headers: { "x-a": "b" },
      credentials: { apiKey: "sk-up" },
      disabled: false,
    });
    expect(get("prov_broken")).toMatchObject({ disabled: true });
    expect(get("pm_a")).toMatchObject({ providerId: "prov_a", maxOutputTokens: "4096n", price: { id: "price_pm_a" } });
    expect(get("ve_a")).toMatchObject({
      checkoutUrl: "http://pay.test/checkout?ve_id=ve_a",
      lowBalanceCredits: "0",
      exhaustedStatus: 429,
      disabled: false,
      passthroughProviderId: "",
    });
    expect(Object.keys(get("ve_a").pinSecret)).toHaveLength(32);
    expect(Object.keys(get("key_ve_a").digest)).toHaveLength(32);
    expect(get("lm_a")).toMatchObject({
      veId: "ve_a",
      targets: [{ physicalModelId: "pm_a", weight: 1 }],
      deadlines: { firstByteMs: 5 },
    });
  });

  it("sends changes to several watchers at once, and removals", async () => {
    await addVe(world, "ve_b");
    await addLm(db, "lm_b", "ve_b", "pm_a");
    const target = (await at()) + 3n;
    const tables = [new FeedTable(), new FeedTable(), new FeedTable()];
    const following = tables.map((table) =>
      follow(table, watch(), ({ cursor }) => cursor !== null && cursor.revision >= target),
    );
    await renameVe("ve_b", "renamed");
    await removeLm("lm_b");
    await db.tx(async (tx) => {
      const revision = await nextRevision(tx);
      await tx.query("update access_key set revoked_at = now(), revision = $1 where id = 'key_ve_b'", [revision]);
    });
    await Promise.all(following);
    for (const table of tables) {
      expect(JSON.parse(table.resources.get("ve_b")!).value.name).toBe("renamed");
      expect(table.resources.has("lm_b")).toBe(false);
      expect(table.resources.has("key_ve_b")).toBe(false);
      expect(table.snapshots).toBe(1);
    }
  });

  it("goes on from a cursor without a snapshot, and speaks first when nothing is new", async () => {
    const table = await fresh();
    const first = await watch(table.cursor).next();
    expect(first.value).toMatchObject({ event: { case: "checkpoint", value: table.cursor } });
    await renameVe("ve_a", "again");
    await removeLm("lm_a");
    const target = await at();
    await follow(table, watch(table.cursor), ({ cursor }) => cursor!.revision >= target);
    expect(table).toMatchObject({ snapshots: 1, deltas: 1 });
    expect(JSON.parse(table.resources.get("ve_a")!).value.name).toBe("again");
    expect(table.resources).toEqual((await fresh()).resources);
  });

  it("starts over for a cursor of another epoch, of the future, or older than the tombstones", async () => {
    const { cursor } = await fresh();
    const first = async (from: FeedCursor) => ((await watch(from).next()).value as FeedMessage).event!.case;
    expect(await first({ ...cursor!, epoch: "ep_other" })).toBe("snapshotBegin");
    expect(await first({ ...cursor!, revision: cursor!.revision + 1n })).toBe("snapshotBegin");
    await addLm(db, "lm_gone", "ve_a", "pm_a");
    const before = await at();
    await removeLm("lm_gone");
    expect(await first({ ...cursor!, revision: before })).toBe("delta");
    await db.tx((tx) => pruneTombstones(tx, new Date(Date.now() + 60_000), 1000));
    expect(await first({ ...cursor!, revision: before })).toBe("snapshotBegin");
    expect(await first({ ...cursor!, revision: await at() })).toBe("checkpoint");
  });

  it("finds a change whose notification was lost at the next one", async () => {
    const table = await fresh();
    const stream = watch(table.cursor);
    await stream.next();
    await db.query("update feed_state set revision = revision + 1");
    await db.query(
      "update virtual_endpoint set name = 'unheard', revision = (select revision from feed_state) where id = 've_a'",
    );
    await addVe(world, "ve_heard");
    const target = await at();
    await follow(table, stream, ({ cursor }) => cursor!.revision >= target);
    expect(JSON.parse(table.resources.get("ve_a")!).value.name).toBe("unheard");
    expect(table.resources.has("ve_heard")).toBe(true);
  });

  // PGlite has no connection to lose. The time limit is below that of the slow timer, which would also find the change.
  const readsAgain = async () => {
    const table = await fresh();
    const stream = watch(table.cursor);
    await stream.next();
    await db.query(
      "update virtual_endpoint set name = 'missed', revision = (select revision + 1 from feed_state) where id = 've_a'",
    );
    await db.query("update feed_state set revision = revision + 1");
    const target = await at();
    const ended = await db.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid() and query ilike 'listen%'`,
    );
    expect(ended.length).toBeGreaterThan(0);
    await follow(table, stream, ({ cursor }) => cursor!.revision >= target);
    expect(JSON.parse(table.resources.get("ve_a")!).value.name).toBe("missed");
  };
  if (name === "postgres") it("reads again when its connection was lost", { timeout: 8000 }, readsAgain);

  it("ends streams when the database turns out to be another one", async () => {
    const table = await fresh();
    const stream = watch(table.cursor);
    await stream.next();
    await db.query("update feed_state set epoch = 'ep_restored'");
    await renameVe("ve_a", "restored");
    await expect(stream.next()).rejects.toMatchObject({ code: "unavailable" });
    const next = await watch(table.cursor).next();
    expect(next.value).toMatchObject({ event: { case: "snapshotBegin", value: { epoch: "ep_restored" } } });
  });

  it("pushes top-ups to all, and recalls to the boots meant", async () => {
    const pushes = async (boot: string, wanted: number): Promise<object[]> => {
      const seen: object[] = [];
      for await (const { event } of feed.watch(boot, null, stop.signal)) {
        if (event?.case === "snapshotEnd") ready();
        if (event?.case === "wallet") seen.push(event.value);
        if (seen.length === wanted) break;
      }
      return seen;
    };
    let waiting = 2;
    let ready: () => void = () => {};
    const bothReady = new Promise<void>((resolve) => {
      ready = () => {
        waiting -= 1;
        if (waiting === 0) resolve();
      };
    });
    const both = [pushes("boot_x", 2), pushes("boot_y", 1)];
    await bothReady;
    await db.tx((tx) => notifyWallet(tx, "ve_a", "recall", ["boot_x"]));
    await db.tx((tx) => notifyWallet(tx, "ve_a", "topped_up"));
    const toppedUp = { veId: "ve_a", recall: false, toppedUp: true };
    expect(await Promise.all(both)).toEqual([[{ veId: "ve_a", recall: true, toppedUp: false }, toppedUp], [toppedUp]]);
  });

  it("disconnects a watcher that does not keep up, which then goes on from its cursor", async () => {
    const table = new FeedTable();
    const slow = watch();
    while (table.cursor === null) table.apply((await slow.next()).value as FeedMessage);
    const other = new FeedTable();
    const pushes = WATCHER_QUEUE_MAX + 5;
    let heard = 0;
    let started: () => void = () => {};
    const hasStarted = new Promise<void>((resolve) => {
      started = resolve;
    });
    const keepsUp = (async () => {
      for await (const message of watch()) {
        other.apply(message);
        if (message.event?.case === "snapshotEnd") started();
        if (message.event?.case === "wallet") heard += 1;
        if (heard === pushes) break;
      }
    })();
    await hasStarted;
    for (let sent = 0; sent < pushes; sent += 100) {
      const batch = Math.min(100, pushes - sent);
      await db.tx(async (tx) => {
        for (let no = 0; no < batch; no += 1) await notifyWallet(tx, `ve_${sent + no}`, "topped_up");
      });
    }
    await keepsUp;
    await expect(slow.next()).rejects.toMatchObject({ code: "unavailable" });
    await renameVe("ve_a", "after");
    const target = await at();
    await follow(table, watch(table.cursor), ({ cursor }) => cursor!.revision >= target);
    expect(table.snapshots).toBe(1);
  });

  it("shows the VEs of a disabled merchant as disabled", async () => {
    await addMerchant(db, "mer_off");
    await addVe(world, "ve_off", { merchantId: "mer_off" });
    await db.tx(async (tx) => {
      const revision = await nextRevision(tx);
      await tx.query("update merchant set disabled = true where id = 'mer_off'");
      await tx.query("update virtual_endpoint set revision = $1 where merchant_id = 'mer_off'", [revision]);
    });
    expect(JSON.parse((await fresh()).resources.get("ve_off")!).value.disabled).toBe(true);
  });

  it("tells when there are more changes than asked for", async () => {
    expect(await readChanges(db, 0n, 3)).toMatchObject({ tooMany: true });
    const all = await readChanges(db, 0n, 1000);
    expect(all.tooMany).toBe(false);
    expect(await readChanges(db, 0n, all.upserts.length + all.removedIds.length)).toMatchObject({ tooMany: false });
  });

  it("ends streams when it closes", async () => {
    const own = await Feed.start(world.deps);
    const stream = own.watch("boot_last", null, stop.signal);
    const table = new FeedTable();
    while (table.cursor === null) table.apply((await stream.next()).value as FeedMessage);
    const ended = expect(
      (async () => {
        for (;;) if ((await stream.next()).done === true) return;
      })(),
    ).rejects.toMatchObject({ code: "unavailable" });
    await own.close();
    await ended;
  });
});
