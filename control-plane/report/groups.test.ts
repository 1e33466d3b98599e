/** Reports of many nodes at once: what they leave behind is what they would have left behind one after the other. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { create } from "@bufbuild/protobuf";
import { formatCredits } from "../../core/credits.ts";
import { ReportUsageRequestSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { usageReportService } from "../api/usage_report_service.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { available } from "../domain/wallet.ts";
import { readWallet } from "../store/wallet.ts";
import {
  addBasics,
  addVe,
  callContext,
  encode,
  NO_HINTS,
  NODE,
  record,
  reporter,
  type ReportInit,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

const NODES = 40;

describe.each(openTestDatabases())("groups of reports on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await db.close();
  });

  /** Nodes that have reported once, and share one service from now on. */
  async function nodes(name: string): Promise<{ all: TestNode[]; send: (init: ReportInit) => Promise<number> }> {
    const all = Array.from({ length: NODES }, (_, i) => new TestNode(reporter(world.deps), `${name}_${i}`));
    for (const node of all) await node.send([]);
    const service = usageReportService(world.deps, NO_HINTS);
    const send = async (init: ReportInit) =>
      (await service.reportUsage(create(ReportUsageRequestSchema, init), callContext(NODE))).status!;
    return { all, send };
  }

  it("count each record of a hot wallet once, also when reports come twice at a time", async () => {
    await addVe(world, "ve_hot", { credits: "100" });
    const { all, send } = await nodes("hot");
    for (let round = 0n; round < 3n; round += 1n) {
      const reports = all.map((node) =>
        node.cut([encode(record(round + 1n, "ve_hot", 1000, price))], [{ veId: "ve_hot", want: "1" }]),
      );
      const statuses = await Promise.all([...reports, ...reports.toReversed()].map(send));
      expect(statuses.filter((status) => status === 1)).toHaveLength(NODES);
      expect(statuses.filter((status) => status === 2)).toHaveLength(NODES);
    }
    const wallet = (await readWallet(db, "ve_hot"))!;
    expect([wallet.settled, available(wallet), wallet.debt - wallet.escrowed].map(formatCredits)).toEqual([
      "120",
      "0",
      "20",
    ]);
  });

  it("try each alone when a group fails", async () => {
    await addVe(world, "ve_bad", { credits: "1000" });
    const { all, send } = await nodes("bad");
    const reports = all.map((node) => node.cut([encode(record(1n, "ve_bad", 1000, price))]));
    // The cause of one report's transfer is taken: whatever transaction it is in fails.
    await db.query(
      `insert into transfer (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, posted_at)
       values ('tr_taken', 'mer_a', 've_other', 'wallet', 'usage', 1, 'use:bad_7:2:ve_bad', now())`,
    );
    const results = await Promise.allSettled(reports.map(send));
    expect(results.filter(({ status }) => status === "rejected")).toHaveLength(1);
    expect(results[7]!.status).toBe("rejected");
    expect(formatCredits((await readWallet(db, "ve_bad"))!.settled)).toBe(String(NODES - 1));
    await db.query("alter table transfer disable trigger transfer_append_only");
    await db.query("delete from transfer where id = 'tr_taken'");
    await db.query("alter table transfer enable trigger transfer_append_only");
    expect(await send(reports[7]!)).toBe(1);
  });
});
