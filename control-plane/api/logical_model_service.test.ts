import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Catalogue, type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

describe.each(openTestDatabases())("LogicalModelService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let one: Catalogue;
  let two: Catalogue;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
    one = await makeCatalogue(api, "one");
    two = await makeCatalogue(api, "two");
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("keeps targets in order, with tiers, weights and deadlines", async () => {
    const targets = [
      { physicalModelId: two.pmId, tier: 1, weight: 0 },
      { physicalModelId: one.pmId, tier: 0, weight: 5 },
    ];
    const { logicalModel } = await api.models.createLogicalModel({
      veId: one.veId,
      name: "routed",
      targets,
      deadlines: { connectMs: 1, firstByteMs: 2, idleMs: 3, totalMs: 4 },
    });
    expect(logicalModel).toMatchObject({
      veId: one.veId,
      name: "routed",
      targets,
      deadlines: { connectMs: 1, firstByteMs: 2, idleMs: 3, totalMs: 4 },
      etag: "1",
    });
    expect(logicalModel!.id).toMatch(/^lm_[a-z2-7]{26}$/);
    expect((await api.models.getLogicalModel({ id: logicalModel!.id })).logicalModel).toStrictEqual(logicalModel);
  });

  test("updates what is present, with an etag", async () => {
    const { logicalModel } = await api.models.createLogicalModel({
      veId: one.veId,
      name: "updated",
      targets: [{ physicalModelId: one.pmId, weight: 1 }],
    });
    const id = logicalModel!.id;
    const renamed = (await api.models.updateLogicalModel({ id, etag: "1", name: "updated too" })).logicalModel!;
    expect(renamed).toMatchObject({ name: "updated too", targets: [{ physicalModelId: one.pmId }], etag: "2" });
    const moved = (
      await api.models.updateLogicalModel({
        id,
        targets: { targets: [{ physicalModelId: two.pmId, weight: 2 }] },
        deadlines: { totalMs: 9 },
      })
    ).logicalModel!;
    expect(moved).toMatchObject({
      name: "updated too",
      targets: [{ physicalModelId: two.pmId, weight: 2 }],
      deadlines: { totalMs: 9 },
    });
    expect((await failureOf(api.models.updateLogicalModel({ id, etag: "1" }))).reason).toBe("etag_mismatch");
    expect((await failureOf(api.models.deleteLogicalModel({ id, etag: "1" }))).reason).toBe("etag_mismatch");
    await api.models.deleteLogicalModel({ id, etag: "3" });
    expect((await failureOf(api.models.getLogicalModel({ id }))).reason).toBe("not_found");
  });

  test("names are unique within the VE alone", async () => {
    const targets = [{ physicalModelId: one.pmId, weight: 1 }];
    expect((await failureOf(api.models.createLogicalModel({ veId: one.veId, name: "gpt", targets }))).reason).toBe(
      "name_taken",
    );
    const { logicalModel } = await api.models.createLogicalModel({ veId: two.veId, name: "other", targets });
    expect((await failureOf(api.models.updateLogicalModel({ id: logicalModel!.id, name: "gpt" }))).reason).toBe(
      "name_taken",
    );
  });

  test.each([
    [
      "the same model twice",
      (pm: string) => [
        { physicalModelId: pm, weight: 1 },
        { physicalModelId: pm, weight: 1, tier: 1 },
      ],
      "invalid_field",
      "targets[1].physical_model_id",
    ],
    ["no weight above 0", (pm: string) => [{ physicalModelId: pm, weight: 0 }], "invalid_field", "targets"],
    ["no targets", () => [], "invalid_field", "targets"],
    [
      "a tier out of range",
      (pm: string) => [{ physicalModelId: pm, weight: 1, tier: 16 }],
      "invalid_field",
      "targets[0].tier",
    ],
    ["a negative weight", (pm: string) => [{ physicalModelId: pm, weight: -1 }], "invalid_field", "targets[0].weight"],
    [
      "an unknown model",
      (pm: string) => [
        { physicalModelId: pm, weight: 1 },
        { physicalModelId: "pm_nobody", weight: 1 },
      ],
      "not_found",
      "targets[1].physical_model_id",
    ],
  ])("refuses %s", async (_what, targetsOf, reason, field) => {
    const failure = await failureOf(
      api.models.createLogicalModel({ veId: one.veId, name: "refused", targets: targetsOf(one.pmId) }),
    );
    expect(failure).toMatchObject({ reason, info: { metadata: { field } } });
  });

  test("refuses a model without a price, and takes one of whatever format that has any", async () => {
    const { physicalModel: free } = await api.providers.createPhysicalModel({
      providerId: one.providerId,
      upstreamName: "unpriced",
    });
    const unpriced = await failureOf(
      api.models.createLogicalModel({
        veId: one.veId,
        name: "unpriced",
        targets: [{ physicalModelId: free!.id, weight: 1 }],
      }),
    );
    expect(unpriced).toMatchObject({
      reason: "no_price",
      info: { metadata: { field: "targets[0].physical_model_id" } },
    });
    const { provider } = await api.providers.createProvider({
      name: "claude",
      format: ProviderFormat.ANTHROPIC,
      baseUrl: "https://api.anthropic.com",
    });
    const { physicalModel: claude } = await api.providers.createPhysicalModel({
      providerId: provider!.id,
      upstreamName: "claude",
      price: { case: "simplePrice", value: { creditPerUnit: "1", unit: 1 } },
    });
    const { logicalModel } = await api.models.createLogicalModel({
      veId: one.veId,
      name: "format",
      targets: [{ physicalModelId: one.pmId, weight: 1 }],
    });
    const targets = { targets: [{ physicalModelId: claude!.id, weight: 1 }] };
    await api.models.updateLogicalModel({ id: logicalModel!.id, targets });
    await db.query("update provider set format = 99 where id = $1", [provider!.id]);
    const format = await failureOf(api.models.updateLogicalModel({ id: logicalModel!.id, targets }));
    expect(format).toMatchObject({
      reason: "format_not_routable",
      info: { metadata: { field: "targets.targets[0].physical_model_id" } },
    });
  });

  test("another merchant's model is as good as none", async () => {
    const theirs = clientsOf(cp, (await cp.makeMerchant("foreign")).token);
    const foreign = await makeCatalogue(theirs, "foreign");
    const targets = [{ physicalModelId: foreign.pmId, weight: 1 }];
    const failure = await failureOf(api.models.createLogicalModel({ veId: one.veId, name: "stolen", targets }));
    const unknown = await failureOf(
      api.models.createLogicalModel({
        veId: one.veId,
        name: "stolen",
        targets: [{ physicalModelId: "pm_nobody", weight: 1 }],
      }),
    );
    expect(failure).toStrictEqual(unknown);
  });

  test("a model deleted while a Logical Model to it is made never leaves a dangling target", async () => {
    const { physicalModel } = await api.providers.createPhysicalModel({
      providerId: one.providerId,
      upstreamName: "raced",
      price: { case: "simplePrice", value: { creditPerUnit: "1", unit: 1 } },
    });
    const outcomes = await Promise.allSettled([
      api.providers.deletePhysicalModel({ id: physicalModel!.id }),
      api.models.createLogicalModel({
        veId: two.veId,
        name: "raced",
        targets: [{ physicalModelId: physicalModel!.id, weight: 1 }],
      }),
    ]);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });
});
