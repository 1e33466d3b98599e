import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { periodOf, Period as CorePeriod } from "../../core/periods.ts";
import { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { PhysicalModelConfig } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { LimitKind, Period, type PhysicalModel } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { WALLET_CHANNEL, type WalletHint } from "../store/feed_state.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Catalogue, type Clients, clientsOf, makeCatalogue, reportUsage } from "./test_fixture.ts";

const { TOKENS, IMAGES } = UnitKind;

describe.each(openTestDatabases())("limits of Physical Models on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let made: Catalogue;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
    made = await makeCatalogue(api, "limits");
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  type NewModel = Parameters<Clients["providers"]["createPhysicalModel"]>[0];
  type ModelChange = Parameters<Clients["providers"]["updatePhysicalModel"]>[0];
  async function make(init: NewModel = {}): Promise<PhysicalModel> {
    const request = { providerId: made.providerId, upstreamName: `m${(count += 1)}`, ...init };
    return (await api.providers.createPhysicalModel(request)).physicalModel!;
  }
  const change = async (init: ModelChange) => (await api.providers.updatePhysicalModel(init)).physicalModel!;
  const get = async (id: string) => (await api.providers.getPhysicalModel({ id })).physicalModel!;
  const ms = (time: Timestamp | undefined) => (time === undefined ? null : timestampMs(time));
  const use = (id: string, used: string) =>
    db.query("update limit_account set used = $2 where physical_model_id = $1", [id, used]);
  /** As the nodes get it. */
  async function config(id: string): Promise<PhysicalModelConfig> {
    const node = cp.client(ConfigFeedService, cp.nodeToken);
    const { resources } = await node.getConfig({ pageSize: 1000 });
    const found = resources.find(({ kind }) => kind.case === "physicalModel" && kind.value.id === id);
    return found!.kind.value as PhysicalModelConfig;
  }

  test("a model has none unless they are set", async () => {
    const model = await make();
    expect(model.unitLimit).toBeUndefined();
    expect(model.creditLimit).toBeUndefined();
    expect(model.limitStates).toEqual([]);
    expect(await config(model.id)).toMatchObject({ unitLimitUnit: 0, creditLimited: false });
  });

  test("both are set when it is made, and shown with where they stand", async () => {
    const before = cp.deps.now();
    const model = await make({
      unitLimit: { unit: TOKENS, quantity: 1000n, resetPeriod: Period.DAILY },
      creditLimit: { credits: "2.50" },
    });
    expect(model.unitLimit).toMatchObject({ unit: TOKENS, quantity: 1000n, resetPeriod: Period.DAILY });
    expect(model.creditLimit).toMatchObject({ credits: "2.5", resetPeriod: Period.UNSPECIFIED });
    const [units, credits] = model.limitStates;
    expect(units).toMatchObject({
      kind: LimitKind.UNITS,
      unit: TOKENS,
      limit: "1000",
      used: "0",
      remaining: "1000",
      exhausted: false,
    });
    expect(ms(units!.periodEndTime)).toBe(periodOf(CorePeriod.DAILY, "UTC", before).endMs);
    expect(ms(units!.periodStartTime)).toBeGreaterThanOrEqual(before);
    expect(credits).toMatchObject({ kind: LimitKind.CREDITS, unit: 0, limit: "2.5", used: "0", remaining: "2.5" });
    expect(credits!.periodEndTime).toBeUndefined();
    expect(await get(model.id)).toEqual(model);
    const listed = await api.providers.listPhysicalModels({ pageSize: 1000 });
    expect(listed.physicalModels.find(({ id }) => id === model.id)).toEqual(model);
    expect(await config(model.id)).toMatchObject({ unitLimitUnit: TOKENS, creditLimited: true });
  });

  test("what requests use is counted in both kinds", async () => {
    await change({
      id: made.pmId,
      unitLimit: { unit: TOKENS, quantity: 150n },
      creditLimit: { credits: "0.005", resetPeriod: Period.MONTHLY },
    });
    await reportUsage(cp, api, made);
    expect((await get(made.pmId)).limitStates).toMatchObject([
      { limit: "150", used: "100", remaining: "50", exhausted: false },
      { limit: "0.005", used: "0.005", remaining: "0", exhausted: true },
    ]);
  });

  test("another amount keeps the count; another unit or period starts it anew", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 100n, resetPeriod: Period.DAILY } });
    await use(id, "60");
    const [first] = (await get(id)).limitStates;
    const raised = await change({ id, unitLimit: { unit: TOKENS, quantity: 200n, resetPeriod: Period.DAILY } });
    expect(raised.limitStates).toMatchObject([{ limit: "200", used: "60", remaining: "140" }]);
    expect(raised.limitStates[0]!.periodStartTime).toEqual(first!.periodStartTime);
    const lowered = await change({ id, unitLimit: { unit: TOKENS, quantity: 10n, resetPeriod: Period.DAILY } });
    expect(lowered.limitStates).toMatchObject([{ limit: "10", used: "60", remaining: "0", exhausted: true }]);
    const weekly = await change({ id, unitLimit: { unit: TOKENS, quantity: 10n, resetPeriod: Period.WEEKLY } });
    expect(weekly.limitStates).toMatchObject([{ used: "0", remaining: "10", exhausted: false }]);
    await use(id, "3");
    const images = await change({ id, unitLimit: { unit: IMAGES, quantity: 10n, resetPeriod: Period.WEEKLY } });
    expect(images.limitStates).toMatchObject([{ unit: IMAGES, used: "0" }]);
    expect((await config(id)).unitLimitUnit).toBe(IMAGES);
  });

  test("what is not named stays, and each can be removed", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 5n }, creditLimit: { credits: "1" } });
    const renamed = await change({ id, maxOutputTokens: 7n });
    expect(renamed.limitStates).toHaveLength(2);
    const without = await change({ id, removeUnitLimit: true });
    expect(without.unitLimit).toBeUndefined();
    expect(without.creditLimit).toMatchObject({ credits: "1" });
    expect(without.limitStates).toHaveLength(1);
    expect(await config(id)).toMatchObject({ unitLimitUnit: 0, creditLimited: true });
    const bare = await change({ id, removeCreditLimit: true, removeUnitLimit: true });
    expect(bare.limitStates).toEqual([]);
    expect(await config(id)).toMatchObject({ unitLimitUnit: 0, creditLimited: false });
  });

  test("a model with limits can be deleted", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 5n }, creditLimit: { credits: "1" } });
    await api.providers.deletePhysicalModel({ id });
    expect(await db.query("select 1 from limit_account where physical_model_id = $1", [id])).toEqual([]);
  });

  test("a change of limits tells the nodes: to ask again, or to give back what is too much now", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 100n } });
    await db.query("update limit_account set leased = 80 where physical_model_id = $1", [id]);
    const hints: WalletHint[] = [];
    const stop = await db.listen(
      WALLET_CHANNEL,
      (payload) => hints.push(JSON.parse(payload) as WalletHint),
      () => {},
    );
    // Those of other tests may still be on their way.
    const last = () => hints.findLast((hint) => hint.limit?.physicalModelId === id);
    const heard = (expected: unknown) => vi.waitFor(() => expect(last()).toEqual(expected), 10_000);
    const limit = { physicalModelId: id, kind: LimitKind.UNITS };
    await change({ id, unitLimit: { unit: TOKENS, quantity: 200n } });
    await heard({ veId: "", limit, kind: "topped_up" });
    await change({ id, unitLimit: { unit: TOKENS, quantity: 79n } });
    await heard({ veId: "", limit, kind: "recall" });
    await stop();
  });

  const wrong: readonly [Pick<NewModel, "unitLimit" | "creditLimit">, string][] = [
    [{ unitLimit: { unit: 0 as UnitKind, quantity: 1n } }, "unit_limit.unit"],
    [{ unitLimit: { unit: 99 as UnitKind, quantity: 1n } }, "unit_limit.unit"],
    [{ unitLimit: { unit: TOKENS, quantity: 0n } }, "unit_limit.quantity"],
    [{ unitLimit: { unit: TOKENS, quantity: -5n } }, "unit_limit.quantity"],
    [{ unitLimit: { unit: TOKENS, quantity: 1n, resetPeriod: 9 as Period } }, "unit_limit.reset_period"],
    [{ creditLimit: { credits: "0.000" } }, "credit_limit.credits"],
    [{ creditLimit: { credits: "" } }, "credit_limit.credits"],
    [{ creditLimit: { credits: "-1" } }, "credit_limit.credits"],
    [{ creditLimit: { credits: "1.0000000000001" } }, "credit_limit.credits"],
  ];
  test.each(wrong)("refuses case %# of wrong limits", async (limits, field) => {
    const failures = [
      await failureOf(api.providers.createPhysicalModel({ providerId: made.providerId, upstreamName: "x", ...limits })),
      await failureOf(api.providers.updatePhysicalModel({ id: made.pmId, ...limits })),
    ];
    for (const failure of failures)
      expect(failure).toMatchObject({ reason: "invalid_field", info: { metadata: { field } } });
  });

  test("refuses to set and remove in one call", async () => {
    const both = [
      [{ unitLimit: { unit: TOKENS, quantity: 1n }, removeUnitLimit: true }, "remove_unit_limit"],
      [{ creditLimit: { credits: "1" }, removeCreditLimit: true }, "remove_credit_limit"],
    ] as const;
    for (const [request, field] of both)
      expect(await failureOf(api.providers.updatePhysicalModel({ id: made.pmId, ...request }))).toMatchObject({
        reason: "invalid_field",
        info: { metadata: { field } },
      });
  });

  test("the largest limit is kept exactly", async () => {
    const quantity = 2n ** 63n - 1n;
    const credits = "999999999999999999.999999999999";
    const model = await make({ unitLimit: { unit: TOKENS, quantity }, creditLimit: { credits } });
    expect(model.unitLimit!.quantity).toBe(quantity);
    expect(model.limitStates.map(({ limit }) => limit)).toEqual([String(quantity), credits]);
  });

  test("the merchant's time zone decides, and a new one moves the end and keeps the count", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 100n, resetPeriod: Period.DAILY } });
    await use(id, "60");
    for (const zone of ["Asia/Tokyo", "America/New_York", "UTC"]) {
      await api.merchants.updateMerchant({ timeZone: zone });
      const now = cp.deps.now();
      const [state] = (await get(id)).limitStates;
      expect(state).toMatchObject({ used: "60" });
      expect(ms(state!.periodEndTime)).toBe(periodOf(CorePeriod.DAILY, zone, now).endMs);
    }
  });

  test("a period that is over counts nothing, also before anybody has begun the new one", async () => {
    const { id } = await make({ unitLimit: { unit: TOKENS, quantity: 100n, resetPeriod: Period.DAILY } });
    await use(id, "100");
    expect((await get(id)).limitStates).toMatchObject([{ exhausted: true }]);
    cp.clock.offsetMs = 86_400_000;
    try {
      const present = periodOf(CorePeriod.DAILY, "UTC", cp.deps.now());
      const [state] = (await get(id)).limitStates;
      expect(state).toMatchObject({ used: "0", remaining: "100", exhausted: false });
      expect([ms(state!.periodStartTime), ms(state!.periodEndTime)]).toEqual([present.startMs, present.endMs]);
    } finally {
      cp.clock.offsetMs = 0;
    }
  });
});
