/** Units of every kind, from a node's record to what merchants see. */

import { randomUUID } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  ReportStatus,
  UsageRecordSchema,
  UsageReportService,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Meter, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { Endpoint, Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { clientsOf, makeCatalogue } from "./test_fixture.ts";

const { REPORTED } = UnitSource;

describe.each(openTestDatabases())("units on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("sizes, thresholds and the newest meters are priced alike, summed and shown", async () => {
    const api = clientsOf(cp, cp.merchantToken);
    const { veId, keyId, lmId, pmId } = await makeCatalogue(api, "units");
    const meters = [
      { meter: Meter.INPUT_TOKENS, creditPerUnit: "0.001" },
      { meter: Meter.OUTPUT_TOKENS, creditPerUnit: "0.01" },
      { meter: Meter.CACHE_WRITE_LONG_TOKENS, creditPerUnit: "0.002", aboveInputTokens: 100n },
      { meter: Meter.IMAGES, creditPerUnit: "1" },
      { meter: Meter.IMAGES, creditPerUnit: "2", size: "1024x1536", quality: "high" },
      { meter: Meter.TOOL_CALLS, creditPerUnit: "0.5" },
    ];
    const price = { case: "detailedPrice" as const, value: { meters } };
    const { physicalModel } = await api.providers.updatePhysicalModel({ id: pmId, price });
    const units = [
      { meter: Meter.INPUT_TOKENS, quantity: 60n, source: REPORTED },
      { meter: Meter.CACHE_WRITE_LONG_TOKENS, quantity: 50n, source: REPORTED },
      { meter: Meter.IMAGES, quantity: 1n, source: REPORTED, size: "1024x1024", quality: "high" },
      { meter: Meter.IMAGES, quantity: 2n, source: REPORTED, size: "1024x1536", quality: "high" },
      { meter: Meter.TOOL_CALLS, quantity: 3n, source: REPORTED },
    ];
    // 60 at 0.001, 50 at 0.002, since 110 are above the threshold; an image at 1, two at 2; three calls.
    const credits = "6.66";
    const id = cp.deps.newId("usg_");
    const record = create(UsageRecordSchema, {
      recordNo: 1n,
      id,
      veId,
      accessKeyId: keyId,
      logicalModelId: lmId,
      logicalModel: "gpt",
      endpoint: Endpoint.RESPONSES,
      physicalModelId: pmId,
      priceId: physicalModel!.price!.id,
      units,
      credits,
      outcome: Outcome.COMPLETED,
      httpStatus: 200,
      arriveUnixUs: BigInt(cp.deps.now()) * 1000n,
    });
    const { status } = await cp.client(UsageReportService, cp.nodeToken).reportUsage({
      nodeId: "node-1",
      bootId: `boot_${randomUUID()}`,
      seq: 1n,
      firstRecordNo: 1n,
      records: [toBinary(UsageRecordSchema, record)],
    });
    expect(status).toBe(ReportStatus.APPLIED);
    // The control plane came to the same figure, or it would say so.
    expect((await clientsOf(cp, cp.operatorToken).audit.listAlarms({})).alarms).toStrictEqual([]);

    const shown = (await api.usage.getRequest({ id })).request!;
    expect(shown).toMatchObject({ credits, endpoint: Endpoint.RESPONSES });
    expect(shown.units).toMatchObject(units);
    const { rows } = await api.usage.summarizeUsage({ filter: { veId } });
    const sums = new Map(rows.flatMap((row) => row.units.map(({ meter, quantity }) => [meter, quantity])));
    expect(rows).toMatchObject([{ credits }]);
    expect(
      [Meter.CACHE_WRITE_LONG_TOKENS, Meter.IMAGES, Meter.TOOL_CALLS].map((meter) => sums.get(meter)),
    ).toStrictEqual([50n, 3n, 3n]);
  });
});
