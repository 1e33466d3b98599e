import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Meter, UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { PriceChangeKind } from "../../proto/gen/tokenbill/v1/price_import_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf } from "./test_fixture.ts";

const simple = (creditPerUnit: string, perUnits = 0n) => ({
  case: "simplePrice" as const,
  value: { creditPerUnit, unit: UnitKind.TOKENS, perUnits },
});

describe.each(openTestDatabases())("ImportPrices on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let count = 0;
  let providerId: string;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });
  // A merchant for each test: an import is about all that a merchant has.
  beforeEach(async () => {
    count += 1;
    api = clientsOf(cp, (await cp.makeMerchant(`merchant ${count}`)).token);
    providerId = await makeProvider("one");
  });

  async function makeProvider(name: string): Promise<string> {
    const provider = { name, format: ProviderFormat.OPENAI, baseUrl: "http://127.0.0.1:9/v1" };
    return (await api.providers.createProvider(provider)).provider!.id;
  }

  async function makeModel(upstreamName: string, price?: ReturnType<typeof simple>, provider = providerId) {
    const name = `${upstreamName} at ${provider}`;
    const { physicalModel } = await api.providers.createPhysicalModel({
      providerId: provider,
      name,
      upstreamName,
      price: price ?? { case: undefined },
    });
    return physicalModel!.id;
  }

  const model = async (id: string) => (await api.providers.getPhysicalModel({ id })).physicalModel!;
  const versions = async (id: string) => (await api.providers.listPrices({ physicalModelId: id })).prices.length;

  test("shows what would change, and then changes just that", async () => {
    const other = await makeProvider("two");
    const fresh = await makeModel("gpt-4o");
    const cheap = await makeModel("gpt-4o-mini", simple("1"));
    const equal = await makeModel("o3", simple("0.05", 1000n));
    const bounded = await makeModel("o4", simple("9"));
    const elsewhere = await makeModel("gpt-4o", simple("4"), other);
    const left = await makeModel("claude", simple("3"));
    const entries = [
      { upstreamName: "gpt-4o*", price: simple("2") },
      { upstreamName: "o3", price: simple("0.00005") },
      { upstreamName: "o4", price: simple("9"), maxOutputTokens: 4096n },
      { providerId: other, upstreamName: "*", price: simple("5") },
      { upstreamName: "nobody", price: simple("1") },
    ];
    const preview = await api.providers.importPrices({ entries, preview: true });
    const { NEW, CHANGED, SAME, NOT_NAMED } = PriceChangeKind;
    const expected = [
      [fresh, NEW, 0, 0n],
      [cheap, CHANGED, 0, 0n],
      [equal, SAME, 1, 0n],
      [bounded, CHANGED, 2, 4096n],
      [elsewhere, CHANGED, 3, 0n],
      [left, NOT_NAMED, -1, 0n],
    ];
    const seen = (changes: (typeof preview)["changes"]) =>
      changes.map((change) => [change.physicalModelId, change.kind, change.entry, change.maxOutputTokensAfter]);
    expect(seen(preview.changes)).toStrictEqual(expected);
    expect(preview.unusedEntries).toStrictEqual([4]);
    expect(preview.changes[0]).toMatchObject({ upstreamName: "gpt-4o", after: { id: "", physicalModelId: fresh } });
    expect(preview.changes[0]!.before).toBeUndefined();
    expect((await model(fresh)).price).toBeUndefined();

    const done = await api.providers.importPrices({ entries });
    expect(seen(done.changes)).toStrictEqual(expected);
    const after = await model(cheap);
    expect(after).toMatchObject({ etag: "2", price: { kind: { value: { creditPerUnit: "2" } } } });
    expect(done.changes[1]).toMatchObject({ before: { physicalModelId: cheap }, after: { id: after.price!.id } });
    expect(after.price!.id).toMatch(/^price_[a-z2-7]{26}$/);
    expect(await model(fresh)).toMatchObject({ etag: "2", price: { id: done.changes[0]!.after!.id } });
    expect(await model(equal)).toMatchObject({ etag: "1", price: { kind: { value: { creditPerUnit: "0.05" } } } });
    expect(await model(bounded)).toMatchObject({ etag: "2", maxOutputTokens: 4096n });
    expect(await model(left)).toMatchObject({ etag: "1" });
    expect(await Promise.all([fresh, cheap, equal, bounded, elsewhere, left].map(versions))).toStrictEqual([
      1, 2, 1, 1, 2, 1,
    ]);
  });

  test("imported once more, nothing changes, not even a revision", async () => {
    const id = await makeModel("m");
    const entries = [{ upstreamName: "m", price: simple("2"), maxOutputTokens: 7n }];
    await api.providers.importPrices({ entries });
    const revision = () => db.query("select revision from feed_state");
    const before = await revision();
    const { changes } = await api.providers.importPrices({ entries });
    expect(changes).toMatchObject([
      { kind: PriceChangeKind.SAME, maxOutputTokensBefore: 7n, maxOutputTokensAfter: 7n },
    ]);
    expect(changes[0]!.after).toStrictEqual(changes[0]!.before);
    expect([await revision(), await versions(id)]).toStrictEqual([before, 1]);
  });

  test("prices with sizes, qualities and thresholds arrive whole", async () => {
    const id = await makeModel("m");
    const meters = [
      { meter: Meter.INPUT_TOKENS, creditPerUnit: "1", perUnits: 1000n },
      { meter: Meter.OUTPUT_TOKENS, creditPerUnit: "2", perUnits: 1000n },
      { meter: Meter.INPUT_TOKENS, creditPerUnit: "3", perUnits: 1000n, aboveInputTokens: 200_000n },
      { meter: Meter.IMAGES, creditPerUnit: "1" },
      { meter: Meter.IMAGES, creditPerUnit: "2", size: "1024x1024", quality: "high" },
    ];
    const price = { case: "detailedPrice" as const, value: { meters } };
    await api.providers.importPrices({ entries: [{ upstreamName: "m", price }] });
    expect((await model(id)).price!.kind).toMatchObject({ case: "detailed", value: { meters } });
    const again = await api.providers.importPrices({ entries: [{ upstreamName: "m", price }] });
    expect(again.changes[0]!.kind).toBe(PriceChangeKind.SAME);
  });

  test("a retry gets the first answer, and another catalogue is no retry", async () => {
    const id = await makeModel("m");
    const request = { requestId: "import-1", entries: [{ upstreamName: "m", price: simple("2") }] };
    const first = await api.providers.importPrices(request);
    expect(await api.providers.importPrices(request)).toStrictEqual(first);
    expect(await versions(id)).toBe(1);
    const other = { ...request, entries: [{ upstreamName: "m", price: simple("3") }] };
    expect((await failureOf(api.providers.importPrices(other))).reason).toBe("request_id_reused");
    // A preview remembers nothing.
    await api.providers.importPrices({ ...other, preview: true });
  });

  test("two at once leave one price, and one version more", async () => {
    const ids = await Promise.all(["a", "b", "c"].map((name) => makeModel(name, simple("1"))));
    const entries = [{ upstreamName: "*", price: simple("2") }];
    await Promise.all([1, 2, 3].map(() => api.providers.importPrices({ entries })));
    expect(await Promise.all(ids.map(versions))).toStrictEqual([2, 2, 2]);
  });

  test.each([
    ["nothing", [], "entries"],
    ["no price", [{ upstreamName: "m" }], "entries[0]"],
    ["no name", [{ upstreamName: "", price: simple("1") }], "entries[0].upstream_name"],
    [
      "an inexact price",
      [{ upstreamName: "m", price: simple("0.000000000001", 10n) }],
      "entries[0].simple_price.credit_per_unit",
    ],
    ["a malformed price", [{ upstreamName: "m", price: simple("1e3") }], "entries[0].simple_price.credit_per_unit"],
    [
      "two of the same",
      [
        { upstreamName: "m", price: simple("1") },
        { upstreamName: "m", price: simple("2") },
      ],
      "entries[1].upstream_name",
    ],
    [
      "a detailed price without output",
      [
        { upstreamName: "m", price: simple("1") },
        {
          upstreamName: "n",
          price: {
            case: "detailedPrice" as const,
            value: { meters: [{ meter: Meter.INPUT_TOKENS, creditPerUnit: "1" }] },
          },
        },
      ],
      "entries[1].detailed_price.meters",
    ],
    [
      "a size of tokens",
      [
        {
          upstreamName: "m",
          price: {
            case: "detailedPrice" as const,
            value: { meters: [{ meter: Meter.INPUT_TOKENS, creditPerUnit: "1", size: "1" }] },
          },
        },
      ],
      "entries[0].detailed_price.meters[0].size",
    ],
    [
      "an unknown Provider",
      [
        { upstreamName: "m", price: simple("1") },
        { providerId: "prov_x", upstreamName: "m", price: simple("1") },
      ],
      "entries[1].provider_id",
    ],
  ])("refuses %s, naming the field, and changes nothing", async (_, entries, field) => {
    const id = await makeModel("m");
    for (const preview of [true, false]) {
      const { info } = await failureOf(api.providers.importPrices({ entries, preview }));
      expect(info.metadata["field"]).toBe(field);
    }
    expect(await versions(id)).toBe(0);
  });
});
