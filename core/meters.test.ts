import { describe, expect, it } from "vitest";
import { formatCredits } from "./credits.ts";
import { Meter, METER_SLOTS, UnitKind, unitsOfKind, UnitSource, type UnitQuantity } from "./meters.ts";

const of = (meter: Meter, quantity: number): UnitQuantity => ({ meter, quantity, source: UnitSource.REPORTED });

describe("unitsOfKind", () => {
  // Each meter has a quantity of its own, so that every sum tells which were taken: 2 ** meter.
  const every = Array.from({ length: METER_SLOTS - 1 }, (_, index) => of((index + 1) as Meter, 2 ** (index + 1)));

  it.each([
    [UnitKind.TOKENS, "28926"],
    [UnitKind.IMAGES, "256"],
    [UnitKind.SECONDS, "0.512"],
    [UnitKind.CHARACTERS, "1024"],
    [UnitKind.REQUESTS, "34816"],
  ] as const)("of kind %d comes to %s", (kind, expected) => {
    expect(formatCredits(unitsOfKind(every, kind))).toBe(expected);
  });

  it("is 0 without a meter of the kind, and counts estimates like reports", () => {
    expect(unitsOfKind([], UnitKind.TOKENS)).toBe(0n);
    expect(unitsOfKind([of(Meter.IMAGES, 3)], UnitKind.TOKENS)).toBe(0n);
    const estimated = { ...of(Meter.OUTPUT_TOKENS, 7), source: UnitSource.ESTIMATED };
    expect(formatCredits(unitsOfKind([estimated, of(Meter.INPUT_TOKENS, 5)], UnitKind.TOKENS))).toBe("12");
  });

  it("loses nothing of large quantities", () => {
    const large = [of(Meter.INPUT_TOKENS, Number.MAX_SAFE_INTEGER), of(Meter.OUTPUT_TOKENS, Number.MAX_SAFE_INTEGER)];
    expect(formatCredits(unitsOfKind(large, UnitKind.TOKENS))).toBe("18014398509481982");
    expect(formatCredits(unitsOfKind([of(Meter.SECONDS, 1)], UnitKind.SECONDS))).toBe("0.001");
  });
});
