/** Prices by size and quality of images, and above thresholds of input tokens. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatCredits } from "./credits.ts";
import { Meter, METERS_OF_KIND, PARENT_METER, UnitKind, type UnitQuantity, UnitSource } from "./meters.ts";
import {
  compileDetailedPrice,
  compileSimplePrice,
  dearestRate,
  INPUT_METERS,
  inputTokens,
  type MeterPrice,
  PriceError,
  priceUsage,
  samePrice,
} from "./pricing.ts";

type More = Partial<Pick<MeterPrice, "size" | "quality" | "aboveInputTokens" | "perUnits">>;
const at = (meter: Meter, creditPerUnit: string, more: More = {}): MeterPrice => ({
  meter,
  creditPerUnit,
  perUnits: 1n,
  ...more,
});
const used = (meter: Meter, quantity: number, more: { size?: string; quality?: string } = {}): UnitQuantity => ({
  meter,
  quantity,
  source: UnitSource.REPORTED,
  ...more,
});
const cost = (prices: readonly MeterPrice[], ...units: UnitQuantity[]): string =>
  formatCredits(priceUsage(compileDetailedPrice("price_x", prices), units));

function refusal(...prices: MeterPrice[]): string {
  try {
    compileDetailedPrice("price_x", prices);
  } catch (error) {
    if (error instanceof PriceError && error.code === "price_invalid") return error.field;
    throw error;
  }
  return "";
}

const PICTURES = [
  at(Meter.IMAGES, "1"),
  at(Meter.IMAGES, "2", { quality: "high" }),
  at(Meter.IMAGES, "3", { size: "1024x1536" }),
  at(Meter.IMAGES, "5", { size: "1024x1536", quality: "high" }),
];
const IN_OUT = [at(Meter.INPUT_TOKENS, "1"), at(Meter.OUTPUT_TOKENS, "10")];

describe("images", () => {
  test.each([
    ["", "", "2"],
    ["1024x1024", "low", "2"],
    ["1024x1024", "high", "4"],
    ["1024x1536", "", "6"],
    ["1024x1536", "low", "6"],
    ["1024x1536", "high", "10"],
    ["", "high", "4"],
  ])("two of size '%s' and quality '%s' cost %s", (size, quality, credits) => {
    expect(cost(PICTURES, used(Meter.IMAGES, 2, { size, quality }))).toBe(credits);
  });

  test("size and quality are left out where they are not known", () => {
    expect(cost(PICTURES, used(Meter.IMAGES, 1))).toBe("1");
  });
});

describe("thresholds", () => {
  const prices = [
    ...IN_OUT,
    at(Meter.CACHED_INPUT_TOKENS, "0.1"),
    at(Meter.INPUT_TOKENS, "2", { aboveInputTokens: 100 }),
    at(Meter.OUTPUT_TOKENS, "15", { aboveInputTokens: 100 }),
    at(Meter.INPUT_TOKENS, "3", { aboveInputTokens: 200 }),
  ];

  test.each([
    [100, "110"],
    [101, "217"],
    [200, "415"],
    [201, "618"],
  ])("%i tokens of input and one of output", (input, credits) => {
    expect(cost(prices, used(Meter.INPUT_TOKENS, input), used(Meter.OUTPUT_TOKENS, 1))).toBe(
      // All of the request costs what the highest threshold below its input says.
      credits,
    );
  });

  test.each(INPUT_METERS)("meter %i counts as input", (meter) => {
    expect(inputTokens([used(meter, 7), used(Meter.OUTPUT_TOKENS, 9)])).toBe(7);
    const priced = [...IN_OUT, at(Meter.OUTPUT_TOKENS, "20", { aboveInputTokens: 100 })];
    const output = used(Meter.OUTPUT_TOKENS, 1);
    const free = INPUT_METERS.map((input) => at(input, "0"));
    const all = [...priced.filter((price) => price.meter === Meter.OUTPUT_TOKENS), ...free];
    expect(cost(all, used(meter, 100), output)).toBe("10");
    expect(cost(all, used(meter, 101), output)).toBe("20");
  });

  test("a meter that a threshold does not name costs what it costs below", () => {
    expect(cost(prices, used(Meter.INPUT_TOKENS, 150), used(Meter.CACHED_INPUT_TOKENS, 100))).toBe("460");
    expect(cost(IN_OUT.concat(prices.slice(3)), used(Meter.CACHE_WRITE_TOKENS, 300))).toBe("300");
  });

  test("they may be named in any order", () => {
    expect(samePrice(compileDetailedPrice("a", prices), compileDetailedPrice("b", prices.toReversed()))).toBe(true);
  });
});

describe("what is refused, by its field", () => {
  test.each([
    ["meters[2].size", [...IN_OUT, at(Meter.SECONDS, "1", { size: "1" })]],
    ["meters[2].quality", [...IN_OUT, at(Meter.SECONDS, "1", { quality: "hd" })]],
    ["meters[0].size", [at(Meter.INPUT_TOKENS, "1", { size: "1024x1024" })]],
    ["meters[0].above_input_tokens", [at(Meter.IMAGES, "1", { aboveInputTokens: 5 })]],
    ["meters[0].above_input_tokens", [at(Meter.TOOL_CALLS, "1", { aboveInputTokens: 5 })]],
    ["meters[2].above_input_tokens", [...IN_OUT, at(Meter.INPUT_TOKENS, "1", { aboveInputTokens: -5 })]],
    ["meters[4].meter", [...PICTURES, at(Meter.IMAGES, "9", { size: "1024x1536", quality: "high" })]],
    ["meters[4].meter", [...PICTURES, at(Meter.IMAGES, "9", { size: "" })]],
    ["meters[3].meter", [...IN_OUT, ...[1, 2].map(() => at(Meter.INPUT_TOKENS, "1", { aboveInputTokens: 5 }))]],
    ["meters", PICTURES.slice(1)],
    ["meters", [at(Meter.INPUT_TOKENS, "1", { aboveInputTokens: 5 })]],
    ["meters", [IN_OUT[0]!, at(Meter.OUTPUT_TOKENS, "1", { aboveInputTokens: 5 })]],
  ])("%s", (field, prices) => {
    expect(refusal(...prices)).toBe(field);
  });

  test("an inexact rate anywhere", () => {
    const inexact = at(Meter.INPUT_TOKENS, "0.000000000001", { perUnits: 10n, aboveInputTokens: 5 });
    expect(() => compileDetailedPrice("x", [...IN_OUT, inexact])).toThrow(
      expect.objectContaining({ code: "price_not_exact", field: "meters[2].credit_per_unit" }) as Error,
    );
  });
});

const SIZES = ["", "1024x1024", "1024x1536"];
const QUALITIES = ["", "low", "high"];
const THRESHOLDS = [0, 10, 100, 1000];
const TOKENS = METERS_OF_KIND[UnitKind.TOKENS];

const amount = fc.integer({ min: 0, max: 10 ** 9 }).map((pico) => formatCredits(BigInt(pico)));
/** Any price that is not refused, in any order. */
const anyPrice = fc
  .record({
    base: fc.tuple(amount, amount, amount),
    tokens: fc.uniqueArray(fc.tuple(fc.constantFrom(...TOKENS), fc.constantFrom(...THRESHOLDS), amount), {
      selector: ([meter, threshold]) => `${meter}:${threshold}`,
      maxLength: 12,
    }),
    images: fc.uniqueArray(fc.tuple(fc.constantFrom(...SIZES), fc.constantFrom(...QUALITIES), amount), {
      selector: ([size, quality]) => `${size}:${quality}`,
      maxLength: 9,
    }),
  })
  .map(({ base: [input, output, image], tokens, images }): MeterPrice[] => {
    const listed = [
      ...tokens.map(([meter, aboveInputTokens, credit]) => at(meter, credit, { aboveInputTokens })),
      ...images.map(([size, quality, credit]) => at(Meter.IMAGES, credit, { size, quality })),
    ];
    const has = (meter: Meter) =>
      listed.some((price) => price.meter === meter && !price.aboveInputTokens && !price.size && !price.quality);
    if (!has(Meter.INPUT_TOKENS)) listed.push(at(Meter.INPUT_TOKENS, input));
    if (!has(Meter.OUTPUT_TOKENS)) listed.push(at(Meter.OUTPUT_TOKENS, output));
    if (!has(Meter.IMAGES)) listed.unshift(at(Meter.IMAGES, image));
    return listed;
  });
const unit = fc.oneof(
  fc.tuple(fc.constantFrom(...TOKENS), fc.nat(600)).map(([meter, quantity]) => used(meter, quantity)),
  fc
    .record({
      quantity: fc.nat(9),
      size: fc.constantFrom(...SIZES, "9x9"),
      quality: fc.constantFrom(...QUALITIES, "auto"),
    })
    .map(({ quantity, size, quality }) => used(Meter.IMAGES, quantity, { size, quality })),
);
const anyUsage = fc.array(unit, { maxLength: 12 });

/** What one unit costs by the words of the schema, looked up anew each time. */
function naiveRate(prices: readonly MeterPrice[], { meter, size = "", quality = "" }: UnitQuantity, input: number) {
  const find = (wanted: Meter, threshold: number, ofSize = "", ofQuality = ""): string | undefined =>
    prices.find(
      (price) =>
        price.meter === wanted &&
        (price.aboveInputTokens ?? 0) === threshold &&
        (price.size ?? "") === ofSize &&
        (price.quality ?? "") === ofQuality,
    )?.creditPerUnit;
  if (meter === Meter.IMAGES)
    return (
      find(meter, 0, size, quality) ?? find(meter, 0, size) ?? find(meter, 0, "", quality) ?? find(meter, 0) ?? "0"
    );
  for (const threshold of THRESHOLDS.toReversed()) {
    if (threshold === 0 || threshold >= input) continue;
    const above = find(meter, threshold);
    if (above !== undefined) return above;
  }
  for (let wanted: Meter | undefined = meter; wanted !== undefined; wanted = PARENT_METER[wanted]) {
    const below = find(wanted, 0);
    if (below !== undefined) return below;
  }
  return "0";
}

/** Credits in picocredits, by hand. */
function pico(text: string): bigint {
  const [whole = "0", fraction = ""] = text.split(".");
  return BigInt(whole + fraction.padEnd(12, "0"));
}

describe("whatever the price and the usage", () => {
  test("the cost is what a naive reading of the schema says", () => {
    fc.assert(
      fc.property(anyPrice, anyUsage, (prices, units) => {
        const input = inputTokens(units);
        let sum = 0n;
        for (const each of units) sum += pico(naiveRate(prices, each, input)) * BigInt(each.quantity);
        expect(priceUsage(compileDetailedPrice("x", prices), units)).toBe(sum);
      }),
      { numRuns: 400 },
    );
  });

  test("nothing costs more than the dearest rate of its meter", () => {
    fc.assert(
      fc.property(anyPrice, anyUsage, (prices, units) => {
        const price = compileDetailedPrice("x", prices);
        let bound = 0n;
        for (const each of units) bound += dearestRate(price, [each.meter]) * BigInt(each.quantity);
        expect(priceUsage(price, units) <= bound).toBe(true);
      }),
    );
  });

  test("units of one request cost the same however they are split, as long as they are summed together", () => {
    fc.assert(
      fc.property(anyPrice, anyUsage, (prices, units) => {
        const price = compileDetailedPrice("x", prices);
        const halves = units.flatMap((each) => {
          const half = Math.floor(each.quantity / 2);
          return [
            { ...each, quantity: half },
            { ...each, quantity: each.quantity - half },
          ];
        });
        expect(priceUsage(price, halves.toReversed())).toBe(priceUsage(price, units));
      }),
    );
  });

  test("requests on the same side of every threshold add up", () => {
    const small = fc.array(
      unit.map((each) => (each.meter === Meter.IMAGES ? each : { ...each, quantity: 0 })),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(anyPrice, small, anyUsage, (prices, pictures, units) => {
        const price = compileDetailedPrice("x", prices);
        expect(priceUsage(price, [...pictures, ...units])).toBe(priceUsage(price, pictures) + priceUsage(price, units));
      }),
    );
  });

  test("more input never chooses a lower threshold", () => {
    const rising = [
      ...IN_OUT,
      at(Meter.OUTPUT_TOKENS, "20", { aboveInputTokens: 10 }),
      at(Meter.OUTPUT_TOKENS, "30", { aboveInputTokens: 100 }),
    ].map((price) => (price.meter === Meter.INPUT_TOKENS ? { ...price, creditPerUnit: "0" } : price));
    const price = compileDetailedPrice("x", rising);
    fc.assert(
      fc.property(fc.nat(300), fc.nat(300), (input, more) => {
        const one = (tokens: number) =>
          priceUsage(price, [used(Meter.INPUT_TOKENS, tokens), used(Meter.OUTPUT_TOKENS, 1)]);
        expect(one(input) <= one(input + more)).toBe(true);
      }),
    );
  });

  test("a price is the same as itself in another order, and not as one with another rate", () => {
    fc.assert(
      fc.property(anyPrice, fc.nat(), (prices, pick) => {
        const price = compileDetailedPrice("x", prices);
        expect(samePrice(price, compileDetailedPrice("y", prices.toReversed()))).toBe(true);
        const index = pick % prices.length;
        const dearer = prices.with(index, { ...prices[index]!, creditPerUnit: "7" });
        expect(samePrice(price, compileDetailedPrice("x", dearer))).toBe(false);
      }),
    );
  });
});

test("a simple price is the same as a detailed one that says the same", () => {
  const simple = compileSimplePrice("a", { unit: UnitKind.TOKENS, creditPerUnit: "50", perUnits: 1000n });
  const same = [at(Meter.INPUT_TOKENS, "0.05"), at(Meter.OUTPUT_TOKENS, "0.050")];
  expect(samePrice(simple, compileDetailedPrice("b", same))).toBe(true);
  expect(samePrice(simple, compileDetailedPrice("b", [...same, at(Meter.REQUESTS, "0")]))).toBe(false);
});
