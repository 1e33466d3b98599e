import { describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import { Meter, UnitKind, UnitSource } from "../../core/meters.ts";
import { compileDetailedPrice, compileSimplePrice } from "../../core/pricing.ts";
import { type Known, lastUses, placeReport, rollUp, sortRecords, spendByVe, type Usage } from "./report.ts";

const price = compileSimplePrice("price_a", { unit: UnitKind.TOKENS, creditPerUnit: "0.5", perUnits: 1000n });
const known: Known = {
  merchants: new Map([
    ["ve_a", "mer_a"],
    ["ve_b", "mer_b"],
  ]),
  prices: new Map([["price_a", { merchantId: "mer_a", price }]]),
};
const DAY_US = 86_400_000_000;
const T = 20_000 * DAY_US;

function usage(recordNo: bigint, more: Partial<Usage> = {}): Usage {
  return {
    recordNo,
    id: `usg_${recordNo}`,
    veId: "ve_a",
    accessKeyId: "key_a",
    logicalModel: "gpt",
    physicalModelId: "pm_a",
    priceId: "price_a",
    units: [{ meter: Meter.OUTPUT_TOKENS, quantity: 10, source: UnitSource.REPORTED }],
    nodeCredits: "0.005",
    arriveUs: T,
    ...more,
  };
}

const body = new Uint8Array([1]);
const sort = (...usages: (Usage | "undecodable")[]) =>
  sortRecords(
    1n,
    usages.map((each) => ({ body, usage: each })),
    known,
  );

describe("sortRecords", () => {
  it("prices what it knows", () => {
    const { priced, quarantined, mismatches } = sort(usage(1n), usage(2n, { priceId: "", nodeCredits: "" }));
    expect(priced.map((each) => each.credits)).toEqual([parseCredits("0.005"), 0n]);
    expect(priced[0]!.merchantId).toBe("mer_a");
    expect([quarantined, mismatches]).toEqual([[], []]);
  });

  it("takes images of several sizes in one request, each at its price", () => {
    const images = compileDetailedPrice("price_i", [
      { meter: Meter.IMAGES, creditPerUnit: "1", perUnits: 1n },
      { meter: Meter.IMAGES, creditPerUnit: "4", perUnits: 1n, size: "1024x1536" },
    ]);
    const units = ["1024x1024", "1024x1536"].map((size) => ({
      meter: Meter.IMAGES,
      quantity: 2,
      source: UnitSource.REPORTED,
      size,
    }));
    const prices = new Map([["price_i", { merchantId: "mer_a", price: images }]]);
    const record = { body, usage: usage(1n, { priceId: "price_i", units, nodeCredits: "10" }) };
    const { priced, mismatches } = sortRecords(1n, [record], { ...known, prices });
    expect(priced.map(({ credits }) => credits)).toEqual([parseCredits("10")]);
    expect(mismatches).toEqual([]);
    expect(rollUp(priced)[0]!.units[Meter.IMAGES]).toBe(4n);
  });

  it.each([
    ["0.0050", false],
    ["0.005000000001", true],
    ["", true],
    ["-0.005", true],
    ["1e-3", true],
  ])("compares with the node's figure %s", (nodeCredits, differs) => {
    expect(sort(usage(1n, { nodeCredits })).mismatches).toHaveLength(differs ? 1 : 0);
  });

  it.each([
    ["record_no", { recordNo: 2n }],
    ["bad_id", { id: "" }],
    ["bad_id", { id: "x".repeat(65) }],
    ["bad_id", { physicalModelId: "pm a" }],
    ["bad_units", { units: [{ meter: 16 as Meter, quantity: 1, source: UnitSource.REPORTED }] }],
    [
      "bad_units",
      { units: [1, 1].map((quantity) => ({ meter: Meter.IMAGES, quantity, source: UnitSource.REPORTED })) },
    ],
    [
      "bad_units",
      {
        units: [1, 1].map((quantity) => ({
          meter: Meter.IMAGES,
          quantity,
          source: UnitSource.REPORTED,
          size: "1024x1024",
          quality: "high",
        })),
      },
    ],
    ["bad_units", { units: [{ meter: Meter.IMAGES, quantity: 0.5, source: UnitSource.REPORTED }] }],
    ["bad_time", { arriveUs: 0 }],
    ["unknown_ve", { veId: "ve_x" }],
    ["unknown_price", { priceId: "price_x" }],
    ["unknown_price", { veId: "ve_b" }],
  ] satisfies [string, Partial<Usage>][])("sets aside as %s: %o", (reason, more) => {
    expect(sort(usage(1n, more), usage(2n))).toMatchObject({
      priced: [{ recordNo: 2n }],
      quarantined: [{ recordNo: 1n, reason, body }],
    });
  });

  it("sets a cost aside that no wallet could hold", () => {
    const dear = compileSimplePrice("price_d", {
      unit: UnitKind.TOKENS,
      creditPerUnit: "100000000000000000",
      perUnits: 1n,
    });
    const more = { merchants: known.merchants, prices: new Map([["price_d", { merchantId: "mer_a", price: dear }]]) };
    const sorted = sortRecords(
      1n,
      [
        {
          body,
          usage: usage(1n, { priceId: "price_d", units: [{ meter: Meter.OUTPUT_TOKENS, quantity: 11, source: 1 }] }),
        },
      ],
      more,
    );
    expect(sorted.quarantined).toMatchObject([{ reason: "excessive" }]);
  });

  it("makes model names storable", () => {
    const long = ["x".repeat(255), "\u{1f600}".repeat(255)];
    const names = ["a\0b", "a\ud83d", ...long.map((start) => `${start}\u{1f600}\u{1f601}`)].map(
      (logicalModel) => sort(usage(1n, { logicalModel })).priced[0]!.logicalModel,
    );
    expect(names).toEqual(["a\ufffdb", "a\ufffd", ...long.map((start) => `${start}\u{1f600}`)]);
  });
});

describe("sums", () => {
  const estimated = [{ meter: Meter.INPUT_TOKENS, quantity: 4, source: UnitSource.ESTIMATED }];
  const { priced } = sort(
    usage(1n),
    usage(2n, { arriveUs: T + DAY_US - 1 }),
    usage(3n, { arriveUs: T + DAY_US, units: estimated, nodeCredits: "0.002" }),
    usage(4n, { accessKeyId: "key_b", arriveUs: T + 5 }),
  );

  it("adds up by VE", () => {
    expect(spendByVe(priced)).toEqual(new Map([["ve_a", parseCredits("0.017")]]));
  });

  it("rolls up by day of arrival in UTC, and by key", () => {
    const rows = rollUp(priced).map(({ day, accessKeyId, requests, estimatedRequests, credits, units }) => [
      day,
      accessKeyId,
      requests,
      estimatedRequests,
      credits,
      units[Meter.OUTPUT_TOKENS],
      units[Meter.INPUT_TOKENS],
    ]);
    expect(rows).toEqual([
      [20_000, "key_a", 2, 0, parseCredits("0.01"), 20n, 0n],
      [20_001, "key_a", 1, 1, parseCredits("0.002"), 0n, 4n],
      [20_000, "key_b", 1, 0, parseCredits("0.005"), 10n, 0n],
    ]);
  });

  it("finds the last use of each key", () => {
    expect(lastUses(priced)).toEqual([
      { keyId: "key_a", veId: "ve_a", usedUs: T + DAY_US },
      { keyId: "key_b", veId: "ve_a", usedUs: T + 5 },
    ]);
  });
});

describe("placeReport", () => {
  const cursor = { lastSeq: 4n, lastRecordNo: 10n };
  it.each([
    [5n, 11n, 2, "apply"],
    [5n, 0n, 0, "apply"],
    [5n, 10n, 2, "gap"],
    [5n, 12n, 2, "gap"],
    [6n, 11n, 2, "gap"],
    [4n, 11n, 2, "duplicate"],
    [1n, 0n, 0, "duplicate"],
  ] as const)("seq %i from record %i with %i records: %s", (seq, first, records, expected) => {
    expect(placeReport(cursor, seq, first, records)).toBe(expected);
  });
});
