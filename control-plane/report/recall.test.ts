import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ReportUsageResponse } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { parseCredits } from "../../core/credits.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { Feed } from "../feed/feed.ts";
import { notifyWallet } from "../store/feed_state.ts";
import { adjustWallet } from "../store/wallet.ts";
import { addBasics, addVe, passServiceTime, reporter, TestNode, testWorld, type TestWorld } from "./testing.ts";

describe.each(openTestDatabases())("recall of leases on $name", ({ open }) => {
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
    expect(await audit(db, { deep: true })).toEqual([]);
    await feed.close();
    await db.close();
  });

  const newNode = () => new TestNode(reporter(world.deps, feed), `boot_${(count += 1)}`);
  const granted = (answer: ReportUsageResponse) => answer.leases[0]!.granted;

  /** Resolves when the feed recalls this VE from this boot. */
  async function recalled(boot: string, veId: string): Promise<void> {
    const stop = new AbortController();
    for await (const { event } of feed.watch(boot, null, stop.signal)) {
      if (event?.case === "wallet" && event.value.recall === true && event.value.veId === veId) break;
    }
    stop.abort();
  }

  it("asks the holder to give back, and grants what comes", async () => {
    await addVe(world, "ve_a", { credits: "10" });
    const [holder, other] = [newNode(), newNode()];
    await holder.send([], [{ veId: "ve_a", need: "9" }]);
    const gaveBack = recalled(holder.boot, "ve_a").then(() => holder.send([], [{ veId: "ve_a", release: "6" }]));
    const answer = await other.send([], [{ veId: "ve_a", need: "5" }]);
    await gaveBack;
    expect(granted(answer)).toBe("5");
    expect(answer).toMatchObject({ status: 1, lastSeq: 1n });
  });

  it("grants what there is when nothing comes back in time", async () => {
    await addVe(world, "ve_b", { credits: "10" });
    const [holder, other] = [newNode(), newNode()];
    await holder.send([], [{ veId: "ve_b", need: "9" }]);
    expect(granted(await other.send([], [{ veId: "ve_b", need: "5" }]))).toBe("1");
  });

  it("does not wait when the others hold too little", async () => {
    await addVe(world, "ve_c", { credits: "10" });
    const [holder, other] = [newNode(), newNode()];
    await holder.send([], [{ veId: "ve_c", need: "9" }]);
    let recalls = 0;
    const stop = new AbortController();
    const events = feed.watch(holder.boot, null, stop.signal);
    const watching = (async () => {
      for await (const { event } of events) if (event?.case === "wallet" && event.value.recall === true) recalls += 1;
    })();
    expect(granted(await other.send([], [{ veId: "ve_c", need: "11" }]))).toBe("1");
    stop.abort();
    await watching;
    expect(recalls).toBe(0);
  });

  it("grants at once when the wallet is topped up meanwhile", async () => {
    await addVe(world, "ve_d", { credits: "10" });
    const [holder, other] = [newNode(), newNode()];
    await holder.send([], [{ veId: "ve_d", need: "9" }]);
    const toppedUp = recalled(holder.boot, "ve_d").then(() =>
      db.tx(async (tx) => {
        await adjustWallet(tx, {
          veId: "ve_d",
          merchantId: "mer_a",
          credits: parseCredits("20"),
          reason: "",
          transferId: "tr_top",
          now: world.deps.now(),
        });
        await notifyWallet(tx, "ve_d", "topped_up");
      }),
    );
    const answer = await other.send([], [{ veId: "ve_d", need: "5" }]);
    await toppedUp;
    expect(granted(answer)).toBe("5");
  });

  it("does not ask boots that fell silent", async () => {
    await addVe(world, "ve_e", { credits: "10" });
    const [holder, other] = [newNode(), newNode()];
    await holder.send([], [{ veId: "ve_e", need: "9" }]);
    await passServiceTime(world, 31_000);
    expect(granted(await other.send([], [{ veId: "ve_e", need: "5" }]))).toBe("1");
  });
});
