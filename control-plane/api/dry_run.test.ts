import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StickySource } from "../../proto/gen/tokenbill/v1/logical_model_pb.ts";
import {
  DryRunRequestSchema,
  type DryRunResponse,
  DryRunResponseSchema,
  ExclusionReason,
  ExclusionReasonSchema,
} from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { Period } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { WalletState } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { type LiveView, NOTHING_KNOWN, type RateTerms } from "../domain/dry_run.ts";
import { callContext } from "../report/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { logicalModelService } from "./logical_model_service.ts";
import { type Catalogue, type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

const FORMAT_OF_A_NEWER_RELEASE = 99;

describe.each(openTestDatabases())("DryRun on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let merchantId: string;
  let one: Catalogue;
  let two: Catalogue;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
    merchantId = (await api.merchants.getMerchant({})).merchant!.id;
    one = await makeCatalogue(api, "one");
    two = await makeCatalogue(api, "two");
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  type NewLm = Parameters<Clients["models"]["createLogicalModel"]>[0];
  /** The name of a new Logical Model of VE one. */
  async function model(init: NewLm): Promise<string> {
    const name = `model-${(count += 1)}`;
    await api.models.createLogicalModel({ veId: one.veId, name, ...init });
    return name;
  }
  const both = () => [
    { physicalModelId: one.pmId, weight: 3 },
    { physicalModelId: two.pmId, weight: 1 },
  ];
  /** As the service answers where nodes have seen something. */
  async function seen(live: LiveView, request: MessageInitShape<typeof DryRunRequestSchema>): Promise<DryRunResponse> {
    const ctx = callContext({ kind: "merchant", merchantId, tokenId: "tok" });
    const answer = logicalModelService(cp.deps, live).dryRun(create(DryRunRequestSchema, request), ctx);
    return create(DryRunResponseSchema, (await answer) as MessageInitShape<typeof DryRunResponseSchema>);
  }
  const reasons = ({ targets }: DryRunResponse) =>
    targets.map(({ exclusions }) => exclusions.map(({ reason }) => ExclusionReasonSchema.value[reason]!.localName));

  test("tells the targets, their probabilities and the wallet", async () => {
    const name = await model({ targets: [...both(), { physicalModelId: await plainModel(), tier: 1, weight: 1 }] });
    const answer = await api.models.dryRun({ veId: one.veId, model: name });
    expect(answer).toMatchObject({
      logicalModelId: expect.stringMatching(/^lm_/),
      targets: [
        {
          physicalModelId: one.pmId,
          providerId: one.providerId,
          tier: 0,
          weight: 3,
          healthShare: 1,
          probability: 0.75,
        },
        {
          physicalModelId: two.pmId,
          providerId: two.providerId,
          tier: 0,
          weight: 1,
          healthShare: 1,
          probability: 0.25,
        },
        { tier: 1, probability: 0, exclusions: [{ reason: ExclusionReason.EARLIER_TIER }] },
      ],
      errorCode: "",
      errorMessage: "",
      wallet: { creditRemaining: "10.5", state: WalletState.OK },
    });
  });

  test("is a read: plain GET works", async () => {
    const message = encodeURIComponent(JSON.stringify({ veId: one.veId, model: "gpt" }));
    const url = `${cp.url}/tokenbill.v1.LogicalModelService/DryRun?connect=v1&encoding=json&message=${message}`;
    const response = await fetch(url, { headers: { authorization: `Bearer ${cp.merchantToken}` } });
    expect(await response.json()).toMatchObject({ targets: [{ physicalModelId: one.pmId, probability: 1 }] });
  });

  async function plainModel(): Promise<string> {
    const { physicalModel } = await api.providers.createPhysicalModel({
      providerId: one.providerId,
      upstreamName: `plain-${(count += 1)}`,
      price: { case: "simplePrice", value: { creditPerUnit: "1", unit: 1 } },
    });
    return physicalModel!.id;
  }

  test("names what is not there, and templates, which answer nothing", async () => {
    const unknown = await failureOf(api.models.dryRun({ veId: one.veId, model: "nope" }));
    expect(unknown).toMatchObject({ code: Code.NotFound, info: { metadata: { field: "model" } } });
    expect((await failureOf(api.models.dryRun({ veId: "ve_nobody", model: "gpt" }))).reason).toBe("not_found");
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "template", template: true });
    const template = await failureOf(api.models.dryRun({ veId: ve!.id, model: "gpt" }));
    expect(template).toMatchObject({
      reason: "invalid_field",
      info: { metadata: { field: "ve_id", rule: "template" } },
    });
  });

  test("says what stops a request: a disabled or frozen VE, an empty wallet", async () => {
    const { veId } = await makeCatalogue(api, "stopped");
    await api.ves.adjustCredits({ veId, credits: "-10.5", reason: "test" });
    const empty = await api.models.dryRun({ veId, model: "gpt" });
    expect(empty).toMatchObject({
      errorCode: "insufficient_quota",
      errorMessage: expect.stringContaining(`/checkout?ve_id=${veId}`),
      wallet: { state: WalletState.EXHAUSTED },
      targets: [{ probability: 1 }],
    });
    await api.ves.updateVirtualEndpoint({ id: veId, disabled: true });
    expect((await api.models.dryRun({ veId, model: "gpt" })).errorCode).toBe("invalid_api_key");
    await api.ves.updateVirtualEndpoint({ id: veId, disabled: false, frozen: true });
    expect(await api.models.dryRun({ veId, model: "gpt" })).toMatchObject({
      errorCode: "invalid_api_key",
      errorMessage: expect.stringContaining("disputed"),
    });
  });

  test("an empty wallet stops nothing that is free", async () => {
    const { veId, pmId } = await makeCatalogue(api, "free");
    await api.ves.adjustCredits({ veId, credits: "-10.5", reason: "test" });
    const price = { case: "simplePrice", value: { creditPerUnit: "0", unit: 1 } } as const;
    await api.providers.updatePhysicalModel({ id: pmId, price });
    expect((await api.models.dryRun({ veId, model: "gpt" })).errorCode).toBe("");
  });

  test("passes over what is disabled, or at a limit, and tells when that is over", async () => {
    const [off, spent, rich] = [await plainModel(), await plainModel(), await plainModel()];
    const targets = [off, spent, rich].map((physicalModelId) => ({ physicalModelId, weight: 1 }));
    const name = await model({ targets });
    await api.providers.updatePhysicalModel({ id: off, disabled: true });
    for (const id of [spent, rich])
      await api.providers.updatePhysicalModel({ id, creditLimit: { credits: "5", resetPeriod: Period.DAILY } });
    await db.query("update limit_account set used = 5 where physical_model_id = $1", [spent]);
    const answer = await api.models.dryRun({ veId: one.veId, model: name });
    const byId = new Map(answer.targets.map((one) => [one.physicalModelId, one]));
    expect(byId.get(off)!.exclusions).toMatchObject([{ reason: ExclusionReason.MODEL_DISABLED }]);
    const [limit] = byId.get(spent)!.exclusions;
    expect(limit!.reason).toBe(ExclusionReason.CREDIT_LIMIT_REACHED);
    expect(timestampMs(limit!.endTime!)).toBeGreaterThan(cp.deps.now());
    expect(byId.get(rich)!.probability).toBe(1);

    await db.query("update limit_account set used = 5 where physical_model_id = $1", [rich]);
    expect((await api.models.dryRun({ veId: one.veId, model: name })).errorCode).toBe("model_limit_reached");
    cp.clock.offsetMs = 25 * 3600 * 1000;
    try {
      expect((await api.models.dryRun({ veId: one.veId, model: name })).errorCode).toBe("");
    } finally {
      cp.clock.offsetMs = 0;
    }
  });

  test("knows Providers that are disabled, and formats and prices that came to be unusable", async () => {
    const { veId, providerId, pmId } = await makeCatalogue(api, "unusable");
    const run = async () => reasons(await api.models.dryRun({ veId, model: "gpt" }));
    await api.providers.updateProvider({ id: providerId, disabled: true });
    expect(await run()).toEqual([["PROVIDER_DISABLED"]]);
    await api.providers.updateProvider({ id: providerId, disabled: false });
    await db.query("update provider set format = $2 where id = $1", [providerId, FORMAT_OF_A_NEWER_RELEASE]);
    await db.query("update physical_model set price_id = null where id = $1", [pmId]);
    expect(await run()).toEqual([["NO_PRICE", "FORMAT_NOT_ROUTABLE"]]);
    expect((await api.models.dryRun({ veId, model: "gpt" })).errorCode).toBe("no_available_target");
  });

  test("a sticky key has its one target, if the model sticks", async () => {
    const routing = { sticky: { sources: [StickySource.USER] } };
    const sticky = await model({ targets: both(), routing });
    const loose = await model({ targets: both() });
    const probabilities = async (name: string, stickyKey: string) =>
      (await api.models.dryRun({ veId: one.veId, model: name, stickyKey })).targets.map(
        ({ probability }) => probability,
      );
    for (const key of ["ada", "bob", "eve"]) {
      const first = await probabilities(sticky, key);
      expect(first.toSorted()).toEqual([0, 1]);
      expect(await probabilities(sticky, key)).toEqual(first);
    }
    expect(await probabilities(sticky, "")).toEqual([0.75, 0.25]);
    expect(await probabilities(loose, "ada")).toEqual([0.75, 0.25]);
  });

  test("shows what nodes see: health by Physical Model and Provider, and rates of what has limits", async () => {
    const name = await model({ targets: both() });
    const until = cp.deps.now() + 30_000;
    const cooling: LiveView = {
      ...NOTHING_KNOWN,
      health: (id) =>
        id === two.providerId ? { coolUntilMs: until, cause: "account", failurePercent: 0, firstContentMs: 0 } : null,
    };
    const cooled = await seen(cooling, { veId: one.veId, model: name });
    expect(reasons(cooled)).toEqual([[], ["PROVIDER_COOLING"]]);
    expect(timestampMs(cooled.targets[1]!.exclusions[0]!.endTime!)).toBe(until);
    expect(cooled.targets[1]!.exclusions[0]!.detail).toContain("account");
    const failing: LiveView = {
      ...NOTHING_KNOWN,
      health: (id) => (id === one.pmId ? { coolUntilMs: 0, cause: "", failurePercent: 90, firstContentMs: 0 } : null),
    };
    const [sick, well] = (await seen(failing, { veId: one.veId, model: name })).targets;
    expect(sick!.healthShare).toBeCloseTo(0.02, 10);
    expect(sick!.probability).toBeCloseTo(0.06 / 1.06, 10);
    expect(well!.probability).toBeCloseTo(1 / 1.06, 10);

    const asked: [string, RateTerms][] = [];
    const limited: LiveView = {
      ...NOTHING_KNOWN,
      rates: (subject, limits) => {
        asked.push([subject, limits]);
        return { remainingRequests: 0, remainingTokens: null, remainingConcurrent: null };
      },
    };
    const { veId, pmId } = await makeCatalogue(api, "rates");
    expect((await seen(limited, { veId, model: "gpt" })).errorCode).toBe("");
    expect(asked).toEqual([]);
    await api.providers.updatePhysicalModel({ id: pmId, rateLimits: { requestsPerMinute: 3, tokensPerMinute: 4n } });
    const throttled = await seen(limited, { veId, model: "gpt" });
    expect(reasons(throttled)).toEqual([["RATE_LIMITED"]]);
    expect(throttled.errorCode).toBe("rate_limit_exceeded");
    expect(asked).toEqual([[pmId, { requestsPerMinute: 3, tokensPerMinute: 4, concurrentRequests: 0 }]]);
    await api.ves.updateVirtualEndpoint({ id: veId, rateLimits: { requestsPerMinute: 9 } });
    expect((await seen(limited, { veId, model: "gpt" })).errorMessage).toContain("The VE has no requests per minute");
  });
});
