import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CreditsFormatError, formatCredits, parseCredits } from "./credits.ts";
import { Meter, METERS_OF_KIND, UnitKind, type UnitQuantity, UnitSource } from "./meters.ts";
import { compileDetailedPrice, compileSimplePrice, PriceError, priceUsage, pricesKind } from "./pricing.ts";

function units(...pairs: [Meter, number][]): UnitQuantity[] {
  return pairs.map(([meter, quantity]) => ({ meter, quantity, source: UnitSource.REPORTED }));
}

function simple(creditPerUnit: string, perUnits: bigint, unit: UnitKind = UnitKind.TOKENS) {
  return compileSimplePrice("price_x", { unit, creditPerUnit, perUnits });
}

function detailed(...prices: [Meter, string, bigint?][]) {
  return compileDetailedPrice(
    "price_x",
    prices.map(([meter, creditPerUnit, perUnits = 1n]) => ({ meter, creditPerUnit, perUnits })),
  );
}

/** The code and field of the PriceError that `fn` throws. */
function refusal(fn: () => unknown): { code: string; field: string } {
  try {
    fn();
  } catch (error) {
    if (error instanceof PriceError) return { code: error.code, field: error.field };
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("a simple price", () => {
  test.each([
    ["0.05", 1000n, units([Meter.INPUT_TOKENS, 12], [Meter.OUTPUT_TOKENS, 30]), "0.0021"],
    ["1", 1_000_000n, units([Meter.OUTPUT_TOKENS, 1]), "0.000001"],
    ["0.05", 1000n, units([Meter.CACHED_INPUT_TOKENS, 1], [Meter.REASONING_TOKENS, 1]), "0.0001"],
    ["3", 0n, units([Meter.INPUT_TOKENS, 2]), "6"],
    ["0", 1n, units([Meter.INPUT_TOKENS, 1_000_000]), "0"],
    ["0.05", 1000n, units([Meter.IMAGES, 3]), "0"],
    ["0.05", 1000n, [], "0"],
  ])("%s Credits per %s tokens", (creditPerUnit, perUnits, usage, credits) => {
    expect(formatCredits(priceUsage(simple(creditPerUnit, perUnits), usage))).toBe(credits);
  });

  test("seconds are counted in thousandths", () => {
    const price = simple("0.006", 1n, UnitKind.SECONDS);
    expect(formatCredits(priceUsage(price, units([Meter.SECONDS, 1500])))).toBe("0.009");
  });

  test("what would not be exact is refused, naming the field", () => {
    const field = "credit_per_unit";
    expect(refusal(() => simple("0.000000000001", 10n))).toEqual({ code: "price_not_exact", field });
    expect(refusal(() => simple("0.0000000001", 1n, UnitKind.SECONDS))).toEqual({ code: "price_not_exact", field });
    expect(simple("0.00000000001", 10n).rates[Meter.INPUT_TOKENS]).toBe(1n);
  });

  test.each([-1n, 3n, 20n, 10_000_000_000n])("per_units %s is refused", (perUnits) => {
    expect(refusal(() => simple("1", perUnits))).toEqual({ code: "price_invalid", field: "per_units" });
  });

  test("negative and malformed amounts and unknown kinds are refused", () => {
    expect(refusal(() => simple("-1", 1n))).toEqual({ code: "price_invalid", field: "credit_per_unit" });
    expect(() => simple("1e-3", 1n)).toThrow(CreditsFormatError);
    expect(refusal(() => simple("1", 1n, 0 as UnitKind))).toEqual({ code: "price_invalid", field: "unit" });
  });
});

describe("a detailed price", () => {
  test("a token meter that is not named costs what its parent costs", () => {
    const price = detailed([Meter.INPUT_TOKENS, "1"], [Meter.OUTPUT_TOKENS, "10"], [Meter.CACHED_INPUT_TOKENS, "0.1"]);
    expect(formatCredits(priceUsage(price, units([Meter.CACHED_INPUT_TOKENS, 1])))).toBe("0.1");
    expect(formatCredits(priceUsage(price, units([Meter.CACHE_WRITE_TOKENS, 1])))).toBe("1");
    expect(formatCredits(priceUsage(price, units([Meter.AUDIO_INPUT_TOKENS, 1])))).toBe("1");
    expect(formatCredits(priceUsage(price, units([Meter.REASONING_TOKENS, 1])))).toBe("10");
    expect(formatCredits(priceUsage(price, units([Meter.AUDIO_OUTPUT_TOKENS, 1])))).toBe("10");
    expect(formatCredits(priceUsage(price, units([Meter.IMAGES, 1])))).toBe("0");
  });

  test("what a meter costs is refused if it is said twice, or of no known meter", () => {
    expect(refusal(() => detailed([Meter.IMAGES, "1"], [Meter.IMAGES, "2"])).field).toBe("meters[1].meter");
    expect(refusal(() => detailed([0 as Meter, "1"])).field).toBe("meters[0].meter");
    expect(refusal(() => detailed([99 as Meter, "1"])).field).toBe("meters[0].meter");
  });

  test("input and output must both be named if any token meter is", () => {
    expect(refusal(() => detailed([Meter.INPUT_TOKENS, "1"])).code).toBe("price_invalid");
    expect(refusal(() => detailed([Meter.REASONING_TOKENS, "1"])).code).toBe("price_invalid");
    expect(detailed([Meter.INPUT_TOKENS, "1"], [Meter.OUTPUT_TOKENS, "0"]).rates[Meter.OUTPUT_TOKENS]).toBe(0n);
  });
});

test("a price says which kinds of usage it covers, zero included", () => {
  expect(pricesKind(simple("0", 1n), UnitKind.TOKENS)).toBe(true);
  expect(pricesKind(simple("1", 1n), UnitKind.IMAGES)).toBe(false);
  expect(pricesKind(detailed([Meter.REQUESTS, "1"]), UnitKind.TOKENS)).toBe(true);
});

describe("whatever the price and the usage", () => {
  const tokenMeters = METERS_OF_KIND[UnitKind.TOKENS];
  const rate = fc.record({ digits: fc.bigInt({ min: 0n, max: 10n ** 9n }), power: fc.integer({ min: 0, max: 6 }) });
  const usage = fc.array(
    fc.record({
      meter: fc.constantFrom(...tokenMeters),
      quantity: fc.integer({ min: 0, max: 2 ** 40 }),
      source: fc.constantFrom(...Object.values(UnitSource)),
    }),
    { maxLength: 20 },
  );
  /** A price of `digits` * 10^-(6+power) Credits per 10^power tokens: always exact at 12 decimals when digits end there. */
  const price = rate.map(({ digits, power }) => {
    const perUnits = 10n ** BigInt(power);
    return { perUnits, creditPerUnit: formatCredits(digits * perUnits) };
  });

  test("the cost is the sum of quantity x price / per_units, by schoolbook arithmetic", () => {
    fc.assert(
      fc.property(price, usage, ({ creditPerUnit, perUnits }, used) => {
        const quantity = used.reduce((sum, unit) => sum + BigInt(unit.quantity), 0n);
        const cost = priceUsage(simple(creditPerUnit, perUnits), used);
        expect(cost * perUnits).toBe(parseCredits(creditPerUnit) * quantity);
      }),
    );
  });

  test("order and batching do not matter, to the last digit", () => {
    fc.assert(
      fc.property(price, usage, fc.nat(), ({ creditPerUnit, perUnits }, used, at) => {
        const compiled = simple(creditPerUnit, perUnits);
        const cut = used.length === 0 ? 0 : at % used.length;
        const parts = priceUsage(compiled, used.slice(cut)) + priceUsage(compiled, used.slice(0, cut));
        expect(parts).toBe(priceUsage(compiled, used));
        expect(priceUsage(compiled, used.toReversed())).toBe(priceUsage(compiled, used));
      }),
    );
  });

  test("a detailed price with one number everywhere is the simple price", () => {
    fc.assert(
      fc.property(price, usage, ({ creditPerUnit, perUnits }, used) => {
        const same = detailed(
          [Meter.INPUT_TOKENS, creditPerUnit, perUnits],
          [Meter.OUTPUT_TOKENS, creditPerUnit, perUnits],
        );
        expect(priceUsage(same, used)).toBe(priceUsage(simple(creditPerUnit, perUnits), used));
      }),
    );
  });

  test("a price is exact or refused, never rounded", () => {
    const any = fc.record({ pico: fc.bigInt({ min: 0n, max: 10n ** 20n }), power: fc.integer({ min: 0, max: 9 }) });
    fc.assert(
      fc.property(any, ({ pico, power }) => {
        const perUnits = 10n ** BigInt(power);
        const make = () => simple(formatCredits(pico), perUnits);
        if (pico % perUnits === 0n) expect(make().rates[Meter.INPUT_TOKENS]! * perUnits).toBe(pico);
        else expect(refusal(make).code).toBe("price_not_exact");
      }),
    );
  });
});
