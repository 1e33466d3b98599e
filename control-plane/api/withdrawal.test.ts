/** Taking Credits out of a wallet while nodes hold leases of it. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AdjustCreditsRequestSchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { formatCredits } from "../../core/credits.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { Feed } from "../feed/feed.ts";
import {
  addBasics,
  addVe,
  callContext,
  OF_MERCHANT,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "../report/testing.ts";
import { readWallet } from "../store/wallet.ts";
import { RECALL_WAIT_MS } from "../credit_recall.ts";
import { virtualEndpointService } from "./virtual_endpoint_service.ts";

describe.each(openTestDatabases())("withdrawals on $name", ({ open }) => {
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

  const adjust = async (init: MessageInitShape<typeof AdjustCreditsRequestSchema>) =>
    virtualEndpointService(world.deps, feed).adjustCredits(
      create(AdjustCreditsRequestSchema, { reason: "lowered", ...init }),
      callContext(OF_MERCHANT),
    );
  const purchased = async (veId: string) => formatCredits((await readWallet(db, veId))!.purchased);

  /** A node that holds `credits` of a VE, and gives back `release` each time that it is asked. */
  async function holder(veId: string, credits: string, release: string) {
    const node = new TestNode(reporter(world.deps, feed), `boot_${(count += 1)}`);
    await node.send([], [{ veId, need: credits }]);
    const stop = new AbortController();
    const seen = { recalls: 0 };
    const watching = (async () => {
      for await (const { event } of feed.watch(node.boot, null, stop.signal)) {
        if (event?.case !== "wallet" || event.value.recall !== true || event.value.veId !== veId) continue;
        seen.recalls += 1;
        await node.send([], [{ veId, release }]);
      }
    })();
    const close = async () => {
      stop.abort();
      await watching;
    };
    return { seen, close };
  }

  it("takes out what is there without asking anybody", async () => {
    await addVe(world, "ve_a", { credits: "10" });
    const node = await holder("ve_a", "4", "4");
    await adjust({ veId: "ve_a", credits: "-6" });
    await node.close();
    expect(await purchased("ve_a")).toBe("4");
    expect(node.seen.recalls).toBe(0);
  });

  it("asks idle leases back, from every node, and takes them out", async () => {
    await addVe(world, "ve_b", { credits: "10" });
    const nodes = [await holder("ve_b", "5", "5"), await holder("ve_b", "5", "5")];
    await adjust({ veId: "ve_b", credits: "-10" });
    for (const node of nodes) await node.close();
    expect(await purchased("ve_b")).toBe("0");
    expect(nodes.map(({ seen }) => seen.recalls)).toEqual([1, 1]);
    const [transfer] = await db.query(
      "select reason, credits::text from transfer where ve_id = 've_b' and credit_account = 'adjustment'",
    );
    expect(transfer).toEqual({ reason: "lowered", credits: "10.000000000000" });
  });

  it("refuses what live requests hold, when the time is up, and changes nothing", async () => {
    await addVe(world, "ve_c", { credits: "10" });
    const node = await holder("ve_c", "8", "3");
    const began = performance.now();
    await expect(adjust({ veId: "ve_c", credits: "-6" })).rejects.toMatchObject({
      code: "insufficient_credits",
      metadata: { available: "5", escrowed: "5" },
    });
    expect(performance.now() - began).toBeGreaterThanOrEqual(RECALL_WAIT_MS - 20);
    await node.close();
    expect(await purchased("ve_c")).toBe("10");
  });

  it("refuses at once what the wallet does not hold at all", async () => {
    await addVe(world, "ve_d", { credits: "10" });
    const node = await holder("ve_d", "8", "8");
    await expect(adjust({ veId: "ve_d", credits: "-10.000000000001" })).rejects.toMatchObject({
      code: "insufficient_credits",
    });
    await node.close();
    expect(node.seen.recalls).toBe(0);
  });

  it("is done once, however often it is repeated with a request id", async () => {
    await addVe(world, "ve_e", { credits: "10" });
    const node = await holder("ve_e", "8", "8");
    const request = { veId: "ve_e", credits: "-7", requestId: "once" };
    const answers = [await adjust(request), await adjust(request)];
    await node.close();
    expect(answers[1]).toEqual(answers[0]);
    expect(await purchased("ve_e")).toBe("3");
  });
});
