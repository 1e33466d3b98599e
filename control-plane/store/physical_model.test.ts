import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { addBasics } from "../report/testing.ts";
import { until } from "../../test/support/part.ts";
import { insertPrice, keepTargetModels, lockPhysicalModel } from "./physical_model.ts";

// The embedded database runs one transaction at a time: nothing there can wait for a row.
describe.each(openTestDatabases().filter(({ name }) => name === "postgres"))("Physical Models on $name", ({ open }) => {
  let db: Database;
  let merchantId: string;
  beforeAll(async () => {
    db = await open();
    await addBasics(db);
    const [row] = await db.query<{ merchant_id: string }>("select merchant_id from physical_model where id = 'pm_a'");
    merchantId = row!.merchant_id;
  });
  afterAll(() => db.close());

  it.each([
    ["a target", async () => (await db.tx((tx) => keepTargetModels(tx, merchantId, ["pm_a"])))[0]!],
    ["a locked model", () => db.tx((tx) => lockPhysicalModel(tx, merchantId, "pm_a"))],
  ])("%s that waited for a change of the price has the new price", async (what, read) => {
    const priceId = `price_${what.replaceAll(" ", "_")}`;
    const body = new TextEncoder().encode(what);
    const waiting = await db.tx(async (tx) => {
      await lockPhysicalModel(tx, merchantId, "pm_a");
      await insertPrice(tx, { id: priceId, merchantId, physicalModelId: "pm_a", body, now: new Date() });
      await tx.query("update physical_model set price_id = $1 where id = 'pm_a'", [priceId]);
      const result = read();
      await until("it waits for the row", async () => {
        const rows = await db.query(
          "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        return rows.length > 0;
      });
      return { result };
    });
    expect(await waiting.result).toMatchObject({ price_id: priceId, price_body: body });
  });
});
