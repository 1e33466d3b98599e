/** Routing, deadlines and rate limits: what merchants set, what they read, and what nodes get. */

import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { Resource } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import { StickySource } from "../../proto/gen/tokenbill/v1/logical_model_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Catalogue, type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

const LIMITS = { requestsPerMinute: 60, tokensPerMinute: 1_000_000_000_000n, concurrentRequests: 7 };
const FEWER = { requestsPerMinute: 5 };
const ONLY_FEWER = { requestsPerMinute: 5, tokensPerMinute: 0n, concurrentRequests: 0 };
const DEADLINES = { connectMs: 1, firstByteMs: 2, idleMs: 3, totalMs: 4, firstContentMs: 5 };
const STICKY = { sources: [StickySource.HEADER, StickySource.USER], header: "X-Session" };

describe.each(openTestDatabases())("routing settings on $name", ({ open }) => {
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

  /** As nodes get it. */
  async function config(id: string): Promise<NonNullable<Resource["kind"]["value"]>> {
    const node = cp.client(ConfigFeedService, cp.nodeToken);
    const { resources } = await node.getConfig({ pageSize: 1000 });
    return resources.find(({ kind }) => kind.value?.id === id)!.kind.value!;
  }
  const revision = async (): Promise<bigint> =>
    (await db.query<{ revision: bigint }>("select revision from feed_state"))[0]!.revision;
  let count = 0;
  type NewLm = Parameters<Clients["models"]["createLogicalModel"]>[0];
  const createLm = (init: NewLm = {}) =>
    api.models.createLogicalModel({
      veId: one.veId,
      name: `m${(count += 1)}`,
      targets: [{ physicalModelId: one.pmId, weight: 1 }],
      ...init,
    });

  test("a Logical Model keeps its routing, and deadlines of its own and of its targets", async () => {
    const init = {
      targets: [
        { physicalModelId: one.pmId, weight: 1, deadlines: { connectMs: 9, firstContentMs: 8 } },
        { physicalModelId: two.pmId, tier: 1, deadlines: {} },
      ],
      deadlines: DEADLINES,
      routing: { hedgeAfterMs: 250, sticky: STICKY },
    };
    const lm = (await createLm(init)).logicalModel!;
    expect(lm).toMatchObject({ deadlines: DEADLINES, routing: init.routing });
    expect(lm.targets[0]!.deadlines).toMatchObject({ connectMs: 9, firstByteMs: 0, idleMs: 0, firstContentMs: 8 });
    expect(lm.targets[1]!.deadlines).toBeUndefined();
    expect((await api.models.getLogicalModel({ id: lm.id })).logicalModel).toStrictEqual(lm);
    const { logicalModels } = await api.models.listLogicalModels({ veId: one.veId, pageSize: 1000 });
    expect(logicalModels.find(({ id }) => id === lm.id)).toStrictEqual(lm);
    const { targets, deadlines, routing } = lm;
    expect(await config(lm.id)).toMatchObject({ targets, deadlines, routing });
  });

  test("an update replaces the routing whole, and leaves it alone when it says nothing of it", async () => {
    const { id } = (await createLm({ routing: { hedgeAfterMs: 1, sticky: STICKY } })).logicalModel!;
    const renamed = (await api.models.updateLogicalModel({ id, name: "renamed" })).logicalModel!;
    expect(renamed.routing).toMatchObject({ hedgeAfterMs: 1, sticky: STICKY });
    const before = await revision();
    const hedged = (await api.models.updateLogicalModel({ id, routing: { hedgeAfterMs: 2 } })).logicalModel!;
    expect(hedged.routing).toMatchObject({ hedgeAfterMs: 2 });
    expect(hedged.routing!.sticky).toBeUndefined();
    expect(await revision()).toBe(before + 1n);
    const plain = (await api.models.updateLogicalModel({ id, routing: {} })).logicalModel!;
    expect(plain.routing).toBeUndefined();
    expect(await config(id)).not.toHaveProperty("routing");
  });

  test("a row from before all this reads as having none of it", async () => {
    const { id } = (await createLm()).logicalModel!;
    await db.query(
      `update logical_model set deadlines = '{"connect_ms":1,"first_byte_ms":2,"idle_ms":3,"total_ms":4}' where id = $1`,
      [id],
    );
    const { logicalModel } = await api.models.getLogicalModel({ id });
    expect(logicalModel!.deadlines).toMatchObject({ ...DEADLINES, firstContentMs: 0 });
    expect(await config(id)).toMatchObject({ deadlines: { totalMs: 4, firstContentMs: 0 } });
  });

  const target = (more: object) => ({ targets: [{ physicalModelId: one.pmId, weight: 1, ...more }] });
  test.each<[string, () => NewLm, string, string]>([
    [
      "a total of one target",
      () => target({ deadlines: { totalMs: 1 } }),
      "targets[0].deadlines.total_ms",
      "Logical Model's",
    ],
    [
      "a deadline of a target out of range",
      () => target({ deadlines: { idleMs: -1 } }),
      "targets[0].deadlines.idle_ms",
      "0",
    ],
    [
      "a first content that is too late",
      () => ({ deadlines: { firstContentMs: 3_600_001 } }),
      "deadlines.first_content_ms",
      "3600000",
    ],
    ["a negative hedge", () => ({ routing: { hedgeAfterMs: -1 } }), "routing.hedge_after_ms", "0"],
    ["sticky routing by nothing", () => ({ routing: { sticky: {} } }), "routing.sticky.sources", "STICKY_SOURCE_USER"],
    [
      "one source twice",
      () => ({ routing: { sticky: { sources: [StickySource.USER, StickySource.USER] } } }),
      "routing.sticky.sources",
      "once",
    ],
    [
      "an unknown source",
      () => ({ routing: { sticky: { sources: [9 as StickySource] } } }),
      "routing.sticky.sources[0]",
      "STICKY_SOURCE_HEADER",
    ],
    [
      "a source that needs a header without one",
      () => ({ routing: { sticky: { sources: [StickySource.HEADER] } } }),
      "routing.sticky.header",
      "STICKY_SOURCE_HEADER needs",
    ],
    [
      "a header that no source looks at",
      () => ({ routing: { sticky: { sources: [StickySource.USER], header: "x-session" } } }),
      "routing.sticky.header",
      "leave the header out",
    ],
    [
      "a header that cannot be sent",
      () => ({ routing: { sticky: { sources: [StickySource.HEADER], header: "x session" } } }),
      "routing.sticky.header",
      "valid header name",
    ],
  ])("refuses %s", async (_what, init, field, remedy) => {
    const failure = await failureOf(createLm(init()));
    expect(failure).toMatchObject({ reason: "invalid_field", info: { metadata: { field } } });
    expect(failure.message).toContain(remedy);
    const { targets, deadlines, routing } = init();
    const update = { id: one.lmId, deadlines, routing, targets: targets && { targets } };
    const again = await failureOf(api.models.updateLogicalModel(update));
    expect(again.info.metadata["field"]).toBe(targets === undefined ? field : `targets.${field}`);
  });

  test("a VE, an access key and a Physical Model have rate limits, and nodes get them", async () => {
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "limited", rateLimits: LIMITS });
    const { accessKey: key } = await api.ves.createAccessKey({ veId: ve!.id, rateLimits: FEWER });
    const { physicalModel: pm } = await api.providers.createPhysicalModel({
      providerId: one.providerId,
      upstreamName: "limited",
      rateLimits: LIMITS,
    });
    expect(ve!.rateLimits).toMatchObject(LIMITS);
    expect(key!.rateLimits).toMatchObject(ONLY_FEWER);
    expect(pm!.rateLimits).toMatchObject(LIMITS);
    expect((await api.ves.getVirtualEndpoint({ id: ve!.id })).virtualEndpoint).toStrictEqual(ve);
    expect((await api.ves.listAccessKeys({ veId: ve!.id })).accessKeys).toStrictEqual([key]);
    expect((await api.providers.getPhysicalModel({ id: pm!.id })).physicalModel).toStrictEqual(pm);
    for (const { id, rateLimits } of [ve!, key!, pm!]) expect(await config(id)).toMatchObject({ rateLimits });

    const changes = [
      async (rateLimits: object) => (await api.ves.updateVirtualEndpoint({ id: ve!.id, rateLimits })).virtualEndpoint!,
      async (rateLimits: object) => (await api.ves.updateAccessKey({ id: key!.id, rateLimits })).accessKey!,
      async (rateLimits: object) =>
        (await api.providers.updatePhysicalModel({ id: pm!.id, rateLimits })).physicalModel!,
    ];
    for (const change of changes) {
      const before = await revision();
      const changed = await change({ concurrentRequests: 3 });
      expect(changed.rateLimits).toMatchObject({ requestsPerMinute: 0, tokensPerMinute: 0n, concurrentRequests: 3 });
      expect(await revision()).toBe(before + 1n);
      expect(await config(changed.id)).toMatchObject({ rateLimits: { requestsPerMinute: 0, concurrentRequests: 3 } });
      // An empty message means none.
      expect((await change({})).rateLimits).toBeUndefined();
      expect(await config(changed.id)).not.toHaveProperty("rateLimits");
    }
  });

  test("other changes leave rate limits alone, and limits out of range are refused", async () => {
    const { pmId, veId } = await makeCatalogue(api, "kept");
    await api.providers.updatePhysicalModel({ id: pmId, rateLimits: FEWER });
    const renamed = await api.providers.updatePhysicalModel({ id: pmId, name: "kept too" });
    expect(renamed.physicalModel!.rateLimits).toMatchObject(FEWER);
    await api.ves.updateVirtualEndpoint({ id: veId, rateLimits: FEWER, explainHeaders: true });
    const { virtualEndpoint } = await api.ves.updateVirtualEndpoint({ id: veId, name: "kept too" });
    expect(virtualEndpoint).toMatchObject({ rateLimits: FEWER, explainHeaders: true });
    const failure = await failureOf(api.ves.updateVirtualEndpoint({ id: veId, rateLimits: { tokensPerMinute: -1n } }));
    expect(failure.info.metadata["field"]).toBe("rate_limits.tokens_per_minute");
  });

  test("a VE explains itself in headers if it is told to", async () => {
    const { virtualEndpoint: plain } = await api.ves.createVirtualEndpoint({ name: "plain" });
    expect(plain!.explainHeaders).toBe(false);
    expect(await config(plain!.id)).toMatchObject({ explainHeaders: false });
    const changed = await api.ves.updateVirtualEndpoint({ id: plain!.id, explainHeaders: true });
    expect(changed.virtualEndpoint!.explainHeaders).toBe(true);
    expect(await config(plain!.id)).toMatchObject({ explainHeaders: true });
  });

  test("a template gives its rate limits, headers and its models' routing, unless others are given", async () => {
    const { virtualEndpoint: template } = await api.ves.createVirtualEndpoint({
      name: "template",
      template: true,
      rateLimits: LIMITS,
      explainHeaders: true,
    });
    const routing = { hedgeAfterMs: 250, sticky: STICKY };
    const targets = [{ physicalModelId: one.pmId, weight: 1, deadlines: { idleMs: 6 } }];
    await createLm({ veId: template!.id, routing, targets, deadlines: DEADLINES });
    const from = { veTemplateId: template!.id };
    const { virtualEndpoint: child } = await api.ves.createVirtualEndpoint({ name: "child", ...from });
    expect(child).toMatchObject({ rateLimits: LIMITS, explainHeaders: true });
    const { logicalModels } = await api.models.listLogicalModels({ veId: child!.id });
    expect(logicalModels).toMatchObject([{ routing, targets, deadlines: DEADLINES }]);
    const other = { rateLimits: FEWER, explainHeaders: false };
    const { virtualEndpoint: own } = await api.ves.createVirtualEndpoint({ name: "own", ...from, ...other });
    expect(own).toMatchObject({ rateLimits: ONLY_FEWER, explainHeaders: false });
    const { virtualEndpoint: free } = await api.ves.createVirtualEndpoint({ name: "free", ...from, rateLimits: {} });
    expect(free!.rateLimits).toBeUndefined();
  });

  test("an access key can be renamed and limited until it is revoked", async () => {
    const { veId, keyId: id } = await makeCatalogue(api, "keyed");
    const limited = (await api.ves.updateAccessKey({ id, rateLimits: FEWER })).accessKey!;
    expect(limited).toMatchObject({ veId, name: "keyed", rateLimits: ONLY_FEWER });
    const renamed = (await api.ves.updateAccessKey({ id, name: "laptop" })).accessKey!;
    expect(renamed).toMatchObject({ name: "laptop", rateLimits: ONLY_FEWER, prefix: limited.prefix });
    expect((await api.ves.listAccessKeys({ veId })).accessKeys).toStrictEqual([renamed]);
    const stale = await failureOf(api.ves.updateAccessKey({ id, name: "phone", etag: limited.etag }));
    expect([stale.code, stale.reason]).toEqual([Code.Aborted, "etag_mismatch"]);
    const named = (await api.ves.updateAccessKey({ id, name: "phone", etag: renamed.etag })).accessKey!;
    expect([named.name, named.etag === renamed.etag]).toEqual(["phone", false]);
    await api.ves.revokeAccessKey({ id });
    const before = await revision();
    const failure = await failureOf(api.ves.updateAccessKey({ id, rateLimits: {} }));
    expect(failure).toMatchObject({
      code: Code.InvalidArgument,
      reason: "invalid_field",
      info: { metadata: { field: "id", rule: "revoked" } },
    });
    expect(failure.message).toContain("CreateAccessKey");
    expect(await revision()).toBe(before);
    expect((await failureOf(api.ves.updateAccessKey({ id: "key_nobody" }))).reason).toBe("not_found");
  });

  test("creates are safe to repeat, with all of it", async () => {
    const request = { requestId: "routed", veId: one.veId, name: "repeated", routing: { hedgeAfterMs: 5 } };
    const targets = [{ physicalModelId: one.pmId, weight: 1 }];
    const first = await api.models.createLogicalModel({ ...request, targets });
    expect(await api.models.createLogicalModel({ ...request, targets })).toStrictEqual(first);
    const other = { ...request, targets, routing: { hedgeAfterMs: 6 } };
    expect((await failureOf(api.models.createLogicalModel(other))).reason).toBe("request_id_reused");
  });
});
