import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UnitKind } from "../../core/meters.ts";
import { compileSimplePrice } from "../../core/pricing.ts";
import { PriceChangeKindSchema } from "../../proto/gen/tokenbill/v1/price_import_pb.ts";
import { DomainError } from "./errors.ts";
import { checkDistinct, type ImportEntry, type ImportModel, planImport, PriceChangeKind } from "./price_import.ts";

const price = (creditPerUnit: string, perUnits = 1n) =>
  compileSimplePrice("", { unit: UnitKind.TOKENS, creditPerUnit, perUnits });
const entry = (upstreamName: string, more: Partial<ImportEntry> = {}): ImportEntry => ({
  providerId: "",
  upstreamName,
  price: price("1"),
  maxOutputTokens: 0n,
  ...more,
});
const model = (upstreamName: string, more: Partial<ImportModel> = {}): ImportModel => ({
  providerId: "prov_a",
  upstreamName,
  price: null,
  maxOutputTokens: 0n,
  ...more,
});

test("the kinds of changes equal the schema's", () => {
  const numbers = PriceChangeKindSchema.values.map(({ localName, number }) => [localName, number]);
  expect({ UNSPECIFIED: 0, ...PriceChangeKind }).toStrictEqual(Object.fromEntries(numbers));
});

describe("the most precise entry counts", () => {
  test.each<[string, ImportEntry[], number]>([
    ["a whole name", [entry("gpt-4*"), entry("gpt-4o"), entry("gpt-4o*")], 1],
    ["the longer of two beginnings", [entry("gpt-*"), entry("gpt-4*"), entry("*")], 1],
    ["one of the Provider, however short", [entry("gpt-4o"), entry("*", { providerId: "prov_a" })], 1],
    ["a whole name of the Provider", ["*", "gpt-4o"].map((name) => entry(name, { providerId: "prov_a" })), 1],
    ["none of another Provider", [entry("gpt-4o", { providerId: "prov_b" })], -1],
    ["none with another name", [entry("gpt-4"), entry("gpt-4o-*"), entry("GPT-4o")], -1],
    ["a star elsewhere is a star", [entry("*-4o"), entry("gpt*4o")], -1],
    ["whatever the name", [entry("*")], 0],
  ])("%s", (_, entries, fits) => {
    const { changes, unused } = planImport(entries, [model("gpt-4o")]);
    expect(changes[0]!.entry).toBe(fits);
    expect(unused.includes(fits)).toBe(false);
  });

  test("an entry that more precise ones keep from every model is not unused", () => {
    expect(planImport([entry("*"), entry("a"), entry("b")], [model("a")]).unused).toStrictEqual([2]);
  });

  test("in whatever order they come", () => {
    const names = fc.uniqueArray(fc.tuple(fc.constantFrom("", "prov_a"), fc.stringMatching(/^a{0,4}\*?$/)), {
      selector: (pair) => pair.join(),
      minLength: 1,
    });
    fc.assert(
      fc.property(names, fc.stringMatching(/^a{1,5}$/), (pairs, name) => {
        const entries = pairs.map(([providerId, upstreamName]) => entry(upstreamName, { providerId }));
        const chosen = (list: readonly ImportEntry[]) => list[planImport(list, [model(name)]).changes[0]!.entry];
        expect(chosen(entries.toReversed())).toBe(chosen(entries));
      }),
    );
  });
});

describe("what becomes of a model", () => {
  const kindOf = (of: Partial<ImportModel>, by: Partial<ImportEntry> = {}) =>
    planImport([entry("m", by)], [model("m", of)]).changes[0];

  test.each([
    ["it had no price", { price: null }, {}, PriceChangeKind.NEW, true, 0n],
    ["another price", { price: price("2") }, {}, PriceChangeKind.CHANGED, true, 0n],
    ["the same price", { price: price("1") }, {}, PriceChangeKind.SAME, false, 0n],
    ["the same price in other words", { price: price("1000", 1000n) }, {}, PriceChangeKind.SAME, false, 0n],
    ["another bound alone", { price: price("1") }, { maxOutputTokens: 9n }, PriceChangeKind.CHANGED, false, 9n],
    [
      "a bound that stays",
      { price: price("1"), maxOutputTokens: 7n },
      { maxOutputTokens: 0n },
      PriceChangeKind.SAME,
      false,
      7n,
    ],
  ])("%s", (_, of, by, kind, newPrice, maxOutputTokens) => {
    expect(kindOf(of, by)).toStrictEqual({ kind, entry: 0, newPrice, maxOutputTokens });
  });

  test("no entry fits it", () => {
    const { changes } = planImport([entry("x")], [model("m", { price: price("2"), maxOutputTokens: 5n })]);
    const stays = { kind: PriceChangeKind.NOT_NAMED, entry: -1, newPrice: false, maxOutputTokens: 5n };
    expect(changes).toStrictEqual([stays]);
  });
});

test("two entries for the same are refused, naming both", () => {
  checkDistinct([entry("a"), entry("a*"), entry("a", { providerId: "prov_a" })]);
  const twice = () => checkDistinct([entry("b"), entry("a"), entry("a")]);
  expect(twice).toThrow(DomainError);
  expect(twice).toThrow(/^entries\[2\]\.upstream_name: .*entries\[1\]/);
});
