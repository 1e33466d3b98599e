import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Meter, UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { OnDisconnect, ProviderCredentialsSchema, ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { fromBinary } from "@bufbuild/protobuf";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf, makeCatalogue, UPSTREAM_KEY } from "./test_fixture.ts";

describe.each(openTestDatabases())("ProviderService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  const create = (name: string, more: object = {}) =>
    api.providers.createProvider({ name, format: ProviderFormat.OPENAI, baseUrl: "http://127.0.0.1:9/v1", ...more });

  test("stores a Provider and shows everything but its credentials", async () => {
    const { provider } = await create("stored", {
      baseUrl: "http://127.0.0.1:9/v1///",
      credentials: { apiKey: UPSTREAM_KEY },
      headers: { "OpenAI-Project": "proj_1" },
      region: "eu",
      apiVersion: "2024",
    });
    expect(provider).toMatchObject({
      name: "stored",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1:9/v1",
      hasCredentials: true,
      onDisconnect: OnDisconnect.CANCEL_ESTIMATE,
      headers: { "OpenAI-Project": "proj_1" },
      region: "eu",
      apiVersion: "2024",
      disabled: false,
      etag: "1",
    });
    expect(provider!.id).toMatch(/^prov_[a-z2-7]{26}$/);
    expect((await api.providers.getProvider({ id: provider!.id })).provider).toStrictEqual(provider);
    expect(JSON.stringify(cp.responses)).not.toContain(UPSTREAM_KEY);
  });

  test("keeps credentials encrypted for this Provider alone", async () => {
    const { provider } = await create("sealed", { credentials: { apiKey: UPSTREAM_KEY } });
    const [row] = await db.query<{ credentials: Uint8Array }>("select credentials from provider where id = $1", [
      provider!.id,
    ]);
    expect(Buffer.from(row!.credentials).includes(UPSTREAM_KEY)).toBe(false);
    const plain = cp.deps.secrets.open(row!.credentials, provider!.id);
    expect(fromBinary(ProviderCredentialsSchema, plain).apiKey).toBe(UPSTREAM_KEY);
    expect(() => cp.deps.secrets.open(row!.credentials, "prov_other")).toThrow(/sealed for another/);
  });

  test.each([
    ["nonsense", "invalid_field"],
    ["ftp://api.example.com", "invalid_field"],
    ["https://user:pw@api.example.com/v1", "invalid_field"],
    ["https://api.example.com/v1?x=1", "invalid_field"],
    ["https://api.example.com/v1#f", "invalid_field"],
    ["http://169.254.169.254/latest", "address_not_allowed"],
    ["http://[::ffff:169.254.169.254]/", "address_not_allowed"],
    ["http://2852039166/", "address_not_allowed"],
    ["http://[fe80::1]/v1", "address_not_allowed"],
  ])("refuses the base URL %s as %s", async (baseUrl, reason) => {
    const failure = await failureOf(create("bad url", { baseUrl }));
    expect(failure.reason).toBe(reason);
    expect(failure.info.metadata["field"]).toBe("base_url");
  });

  test.each([
    "Authorization",
    "X-API-Key",
    "cookie",
    "Host",
    "content-length",
    "connection",
    "transfer-encoding",
    "X-Auth-Token",
  ])("refuses the header %s", async (name) => {
    const failure = await failureOf(create("bad header", { headers: { [name]: "v" } }));
    expect(failure.reason).toBe("invalid_field");
    expect(failure.info.metadata["field"]).toBe(`headers["${name.toLowerCase()}"]`);
  });

  test("refuses a key that cannot stand in a header, without repeating it", async () => {
    const failure = await failureOf(create("bad key", { credentials: { apiKey: "sk-broken\nsecond" } }));
    expect(failure).toMatchObject({ reason: "invalid_field", info: { metadata: { field: "credentials.api_key" } } });
    expect(failure.message).not.toContain("sk-broken");
  });

  test("names are unique within the merchant", async () => {
    await create("twice");
    expect((await failureOf(create("twice"))).reason).toBe("name_taken");
    const other = await cp.makeMerchant("names");
    const theirs = await clientsOf(cp, other.token).providers.createProvider({
      name: "twice",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1:9",
    });
    expect(theirs.provider!.name).toBe("twice");
  });

  test("updates what is present, and nothing else", async () => {
    const { provider } = await create("changing", { credentials: { apiKey: UPSTREAM_KEY }, headers: { a: "1" } });
    const id = provider!.id;
    const renamed = (await api.providers.updateProvider({ id, etag: provider!.etag, name: "changed" })).provider!;
    expect(renamed).toMatchObject({ name: "changed", hasCredentials: true, headers: { a: "1" }, etag: "2" });
    const cleared = (
      await api.providers.updateProvider({
        id,
        headers: {},
        credentials: {},
        disabled: true,
        onDisconnect: OnDisconnect.DRAIN,
      })
    ).provider!;
    expect(cleared).toMatchObject({
      hasCredentials: false,
      headers: {},
      disabled: true,
      onDisconnect: OnDisconnect.DRAIN,
      etag: "3",
    });
    expect((await failureOf(api.providers.updateProvider({ id, etag: "1", name: "late" }))).reason).toBe(
      "etag_mismatch",
    );
    expect((await failureOf(api.providers.deleteProvider({ id, etag: "2" }))).reason).toBe("etag_mismatch");
    await api.providers.deleteProvider({ id, etag: "3" });
    expect((await failureOf(api.providers.getProvider({ id }))).reason).toBe("not_found");
  });

  test("what is in use is not deleted, and says by whom", async () => {
    const { providerId, pmId, lmId } = await makeCatalogue(api, "in use");
    expect(await failureOf(api.providers.deleteProvider({ id: providerId }))).toMatchObject({
      reason: "in_use",
      info: { metadata: { used_by: pmId } },
    });
    expect(await failureOf(api.providers.deletePhysicalModel({ id: pmId }))).toMatchObject({
      reason: "in_use",
      info: { metadata: { used_by: lmId } },
    });
    await api.models.deleteLogicalModel({ id: lmId });
    await api.providers.deletePhysicalModel({ id: pmId });
    await api.providers.deleteProvider({ id: providerId });
    const gone = await db.query<{ id: string }>("select id from tombstone where id = any($1::text[]) order by id", [
      [lmId, pmId, providerId],
    ]);
    expect(gone.map(({ id }) => id)).toStrictEqual([lmId, pmId, providerId]);
  });

  test("prices are versions: the present one is shown, the old ones are listed", async () => {
    const { pmId } = await makeCatalogue(api, "priced");
    const before = (await api.providers.getPhysicalModel({ id: pmId })).physicalModel!;
    expect(before.price).toMatchObject({
      physicalModelId: pmId,
      kind: { case: "simple", value: { creditPerUnit: "0.05", perUnits: 1000n } },
    });
    const meters = [
      { meter: Meter.INPUT_TOKENS, creditPerUnit: "1", perUnits: 1_000_000n },
      { meter: Meter.OUTPUT_TOKENS, creditPerUnit: "4", perUnits: 1_000_000n },
    ];
    const after = (
      await api.providers.updatePhysicalModel({ id: pmId, price: { case: "detailedPrice", value: { meters } } })
    ).physicalModel!;
    expect(after.price!.kind.case).toBe("detailed");
    const renamed = (await api.providers.updatePhysicalModel({ id: pmId, name: "priced again" })).physicalModel!;
    expect(renamed.price!.id).toBe(after.price!.id);
    const first = await api.providers.listPrices({ physicalModelId: pmId, pageSize: 1 });
    expect(first.prices.map(({ id }) => id)).toStrictEqual([after.price!.id]);
    const second = await api.providers.listPrices({
      physicalModelId: pmId,
      pageSize: 1,
      pageToken: first.nextPageToken,
    });
    expect(second.prices.map(({ id }) => id)).toStrictEqual([before.price!.id]);
    expect(second.nextPageToken).toBe("");
  });

  test("refuses prices that are not exact, and limits that are not enforced", async () => {
    const { providerId, pmId } = await makeCatalogue(api, "refused");
    const simple = { creditPerUnit: "0.000000000001", unit: UnitKind.TOKENS, perUnits: 1000n };
    const inexact = await failureOf(
      api.providers.createPhysicalModel({
        providerId,
        upstreamName: "x",
        price: { case: "simplePrice", value: simple },
      }),
    );
    expect(inexact).toMatchObject({
      reason: "price_not_exact",
      info: { metadata: { field: "simple_price.credit_per_unit" } },
    });
    const meters = [
      { meter: Meter.INPUT_TOKENS, creditPerUnit: "1" },
      { meter: Meter.OUTPUT_TOKENS, creditPerUnit: "0.000000000001", perUnits: 10n },
    ];
    const detailed = await failureOf(
      api.providers.updatePhysicalModel({ id: pmId, price: { case: "detailedPrice", value: { meters } } }),
    );
    expect(detailed).toMatchObject({
      reason: "price_not_exact",
      info: { metadata: { field: "detailed_price.meters[1].credit_per_unit" } },
    });
    const half = await failureOf(
      api.providers.updatePhysicalModel({
        id: pmId,
        price: { case: "detailedPrice", value: { meters: meters.slice(0, 1) } },
      }),
    );
    expect(half).toMatchObject({ reason: "invalid_field", info: { metadata: { field: "detailed_price.meters" } } });
    const bySize = [{ meter: Meter.IMAGES, creditPerUnit: "1", size: "1024x1024" }];
    const noOther = await failureOf(
      api.providers.updatePhysicalModel({ id: pmId, price: { case: "detailedPrice", value: { meters: bySize } } }),
    );
    expect(noOther).toMatchObject({ reason: "invalid_field", info: { metadata: { field: "detailed_price.meters" } } });
    const ofTokens = [...meters.slice(0, 1), { meter: Meter.OUTPUT_TOKENS, creditPerUnit: "1", quality: "high" }];
    const misplaced = await failureOf(
      api.providers.updatePhysicalModel({ id: pmId, price: { case: "detailedPrice", value: { meters: ofTokens } } }),
    );
    expect(misplaced.info.metadata["field"]).toBe("detailed_price.meters[1].quality");
  });

  test("a Physical Model is named after its upstream name, and listed by Provider", async () => {
    const { provider } = await create("lister");
    const providerId = provider!.id;
    const { physicalModel } = await api.providers.createPhysicalModel({ providerId, upstreamName: "only-here" });
    expect(physicalModel).toMatchObject({ name: "only-here", upstreamName: "only-here", maxOutputTokens: 0n });
    expect(physicalModel!.price).toBeUndefined();
    const listed = await api.providers.listPhysicalModels({ providerId });
    expect(listed.physicalModels).toStrictEqual([physicalModel]);
    const all = await api.providers.listPhysicalModels({});
    expect(all.physicalModels.length).toBeGreaterThan(1);
    expect(
      (await failureOf(api.providers.createPhysicalModel({ providerId: "prov_nobody", upstreamName: "x" }))).reason,
    ).toBe("not_found");
  });

  test("a Provider and a model to it made at the same time never leave a model without one", async () => {
    const { provider } = await create("racing");
    const outcomes = await Promise.allSettled([
      api.providers.createPhysicalModel({ providerId: provider!.id, upstreamName: "racer" }),
      api.providers.deleteProvider({ id: provider!.id }),
    ]);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });
});
