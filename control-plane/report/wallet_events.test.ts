import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { audit } from "../audit.ts";
import type { Database, SqlValue, Tx } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { resetBudgets } from "../period_jobs.ts";
import { adjustWallet } from "../store/wallet.ts";
import {
  addBasics,
  addVe,
  encode,
  MERCHANT,
  record,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

/** Counts statements. */
function counting(db: Database, texts: string[]): Database {
  const seen = (tx: Tx): Tx => ({
    query: <Row>(text: string, params?: readonly SqlValue[]) => {
      texts.push(text);
      return tx.query<Row>(text, params);
    },
  });
  return {
    dialect: db.dialect,
    tx: (fn) => db.tx((tx) => fn(seen(tx))),
    snapshot: (fn) => db.snapshot((tx) => fn(seen(tx))),
    query: seen(db).query,
    script: (tx, text) => db.script(tx, text),
    listen: (channel, onNotify, onReady) => db.listen(channel, onNotify, onReady),
    close: () => db.close(),
  };
}

describe.each(openTestDatabases())("wallet events on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await db.close();
  });

  async function newVe(credits: string, low = "0"): Promise<string> {
    const id = `ve_${(count += 1)}`;
    await addVe(world, id, { credits, low });
    return id;
  }
  const newNode = (on = world) => new TestNode(reporter(on.deps), `boot_${(count += 1)}`);
  /** One record of a whole number of Credits. */
  const spend = (node: TestNode, veId: string, credits: number, leases: Parameters<TestNode["send"]>[1] = []) =>
    node.send([encode(record(node.recordNo + 1n, veId, credits * 1000, price, { id: `usg_${(count += 1)}` }))], leases);
  const adjust = (veId: string, credits: string) =>
    db.tx((tx) =>
      adjustWallet(tx, {
        veId,
        merchantId: MERCHANT,
        credits: parseCredits(credits),
        reason: "test",
        transferId: world.deps.newId("tr_"),
        now: world.deps.now(),
      }),
    );
  async function events(veId: string): Promise<string[]> {
    const rows = await db.query<{ type: string }>("select type from webhook_event where ve_id = $1 order by n", [veId]);
    return rows.map(({ type }) => type);
  }

  it("tells once that a wallet is low, then once that it is exhausted, with what a merchant needs", async () => {
    const ve = await newVe("10", "4");
    const node = newNode();
    await spend(node, ve, 6);
    expect(await events(ve)).toEqual([]);
    await spend(node, ve, 1);
    await spend(node, ve, 1);
    expect(await events(ve)).toEqual(["wallet.low"]);
    await spend(node, ve, 3);
    await spend(node, ve, 1);
    await node.send([], [{ veId: ve, want: "1", need: "1" }]);
    expect(await events(ve)).toEqual(["wallet.low", "wallet.exhausted"]);
    const [row] = await db.query(
      "select merchant_id, session_id, body, fanned_out from webhook_event where ve_id = $1",
      [ve],
    );
    expect(row).toMatchObject({ merchant_id: MERCHANT, session_id: "", fanned_out: false });
    expect(JSON.parse(row!["body"] as string)).toEqual({
      type: "wallet.low",
      timestamp: new Date(world.deps.now()).toISOString(),
      data: {
        ve_id: ve,
        credit_remaining: "3",
        low_balance_credits: "4",
        checkout_url: `http://pay.test/checkout?ve_id=${ve}`,
      },
    });
  });

  it("tells again after a top-up, an adjustment or a budget reset, and not before", async () => {
    const ve = await newVe("10", "4");
    const node = newNode();
    await spend(node, ve, 10);
    // Still low: it did not fall there from above.
    await adjust(ve, "2");
    await spend(node, ve, 1);
    expect(await events(ve)).toEqual(["wallet.exhausted"]);
    await spend(node, ve, 1);
    expect(await events(ve)).toEqual(["wallet.exhausted", "wallet.exhausted"]);
    await adjust(ve, "9");
    await spend(node, ve, 6);
    expect((await events(ve)).slice(2)).toEqual(["wallet.low"]);
    await adjust(ve, "-1");
    await spend(node, ve, 1);
    expect((await events(ve)).slice(3)).toEqual([]);
    await db.query(
      "update virtual_endpoint set budget_reset_credits = 20, budget_reset_period = 1, next_budget_reset_at = $2 where id = $1",
      [ve, new Date(world.deps.now())],
    );
    expect(await resetBudgets(world.deps)).toBe(1);
    await spend(node, ve, 17);
    expect((await events(ve)).slice(3)).toEqual(["wallet.low"]);
  });

  it("takes a refused request for an exhausted wallet, whatever is left", async () => {
    const ve = await newVe("10");
    const node = newNode();
    await node.send([], [{ veId: ve, want: "4", need: "1" }]);
    expect(await events(ve)).toEqual([]);
    const refused = await node.send([], [{ veId: ve, want: "60", need: "50" }]);
    expect(refused.leases).toMatchObject([{ granted: "10", creditRemaining: "10" }]);
    for (let i = 0; i < 3; i += 1) await node.send([], [{ veId: ve, want: "60", need: "50" }]);
    // What it gives back makes it no better: only Credits that come in do.
    await node.send([], [{ veId: ve, release: "10" }]);
    await node.send([], [{ veId: ve, want: "60", need: "50" }]);
    expect(await events(ve)).toEqual(["wallet.exhausted"]);
    await adjust(ve, "1");
    await node.send([], [{ veId: ve, want: "60", need: "50" }]);
    expect(await events(ve)).toEqual(["wallet.exhausted", "wallet.exhausted"]);
  });

  it("waits for what other nodes may give back before it says exhausted", async () => {
    const ve = await newVe("10");
    const [holder, asker] = [newNode(), newNode()];
    await holder.send([], [{ veId: ve, need: "10" }]);
    const asked = asker.send([], [{ veId: ve, need: "5" }]);
    await expect
      .poll(async () => (await db.query("select from lease where boot_id = $1", [asker.boot])).length)
      .toBe(1);
    expect(await events(ve)).toEqual([]);
    await asked;
    expect(await events(ve)).toEqual(["wallet.exhausted"]);
  });

  it("says nothing while the needs of a wallet are met, nor of one that is disabled or deleted", async () => {
    const ve = await newVe("10", "1");
    const node = newNode();
    for (const need of ["1", "2", "3"]) await node.send([], [{ veId: ve, need, want: need }]);
    expect(await events(ve)).toEqual([]);
    await db.query("update virtual_endpoint set disabled = true where id = $1", [ve]);
    await node.send([], [{ veId: ve, need: "50" }]);
    expect(await events(ve)).toEqual([]);
    await db.query("delete from access_key where ve_id = $1", [ve]);
    await db.query("delete from virtual_endpoint where id = $1", [ve]);
    await spend(node, ve, 10);
    await node.send([], [{ veId: ve, need: "50" }]);
    expect(await events(ve)).toEqual([]);
  });

  it("tells again when the low balance was lowered in between", async () => {
    const ve = await newVe("10", "8");
    const node = newNode();
    await spend(node, ve, 4);
    await db.query("update virtual_endpoint set low_balance = 3 where id = $1", [ve]);
    await spend(node, ve, 1);
    await spend(node, ve, 3);
    expect(await events(ve)).toEqual(["wallet.low", "wallet.low"]);
  });

  it("tells once however many nodes report at the same moment", async () => {
    const ve = await newVe("100", "50");
    const nodes = Array.from({ length: 8 }, () => newNode());
    const together = reporter(world.deps);
    const all = nodes.map((node) => new TestNode(together, node.boot));
    await Promise.all(all.map((node) => node.send([], [])));
    const rounds = (credits: number) => Promise.all(all.map((node) => spend(node, ve, credits)));
    await rounds(5);
    await rounds(2);
    expect(await events(ve)).toEqual(["wallet.low"]);
    await rounds(5);
    await rounds(5);
    expect(await events(ve)).toEqual(["wallet.low", "wallet.exhausted"]);
  });

  it("needs no statement more while nothing changes", async () => {
    const ve = await newVe("100", "50");
    const texts: string[] = [];
    const counted = { ...world, deps: { ...world.deps, db: counting(db, texts) } };
    const node = newNode(counted);
    const statements = async (credits: number): Promise<number> => {
      texts.length = 0;
      await spend(node, ve, credits, [{ veId: ve, want: "1" }]);
      return texts.length;
    };
    await statements(1);
    const usual = await statements(1);
    expect(await statements(48)).toBe(usual);
    expect(await statements(5)).toBe(usual + 1);
    expect(texts.filter((text) => text.includes("webhook"))).toHaveLength(1);
    expect(await statements(1)).toBe(usual);
  });
});
