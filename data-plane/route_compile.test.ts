import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Meter, METERS_OF_KIND, UnitKind, UnitSource } from "../core/meters.ts";
import { compileDetailedPrice, type MeterPrice, priceUsage } from "../core/pricing.ts";
import { type Price, PriceSchema } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import { admissionRates, compilePrice, RejectError } from "./route_compile.ts";

const PICO = 10n ** 12n;

function price(...meters: [Meter, string, object?][]): Price {
  const value = { meters: meters.map(([meter, creditPerUnit, more]) => ({ meter, creditPerUnit, ...more })) };
  return create(PriceSchema, { id: "price_a", kind: { case: "detailed", value } });
}

test("rates for admission are the dearest over thresholds, sizes and qualities", () => {
  const compiled = compilePrice(
    price(
      [Meter.INPUT_TOKENS, "1"],
      [Meter.OUTPUT_TOKENS, "10"],
      [Meter.INPUT_TOKENS, "2", { aboveInputTokens: 200_000n }],
      [Meter.REASONING_TOKENS, "20", { aboveInputTokens: 200_000n }],
      [Meter.CACHE_WRITE_LONG_TOKENS, "3"],
      [Meter.IMAGE_OUTPUT_TOKENS, "40"],
      [Meter.IMAGES, "5"],
      [Meter.IMAGES, "7", { size: "1024x1536" }],
      [Meter.IMAGES, "6", { quality: "high" }],
      [Meter.SECONDS, "0.5"],
      [Meter.CHARACTERS, "0.25"],
      [Meter.REQUESTS, "8"],
      [Meter.TOOL_CALLS, "9"],
    ),
  );
  expect(admissionRates(compiled!)).toStrictEqual({
    input: 2n * PICO,
    output: 20n * PICO,
    dearInput: 3n * PICO,
    dearOutput: 40n * PICO,
    request: 8n * PICO,
    image: 7n * PICO,
    second: PICO / 2000n,
    character: PICO / 4n,
    toolCall: 9n * PICO,
  });
});

test("whatever a request comes to, its dearest rates cover it", () => {
  const tokens = METERS_OF_KIND[UnitKind.TOKENS];
  const output: readonly Meter[] = [
    Meter.OUTPUT_TOKENS,
    Meter.REASONING_TOKENS,
    Meter.AUDIO_OUTPUT_TOKENS,
    Meter.IMAGE_OUTPUT_TOKENS,
  ];
  const amount = fc.nat(10 ** 6).map(String);
  const named = fc.uniqueArray(fc.tuple(fc.constantFrom(...tokens), fc.constantFrom(0, 10, 100), amount), {
    selector: ([meter, above]) => `${meter}:${above}`,
  });
  const used = fc.array(fc.tuple(fc.constantFrom(...tokens), fc.nat(200)), { maxLength: 10 });
  fc.assert(
    fc.property(named, used, (list, quantities) => {
      const meters = list.map(([meter, aboveInputTokens, creditPerUnit]): MeterPrice => ({
        meter,
        aboveInputTokens,
        creditPerUnit,
        perUnits: 1n,
      }));
      for (const meter of [Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS])
        if (!list.some(([each, above]) => each === meter && above === 0))
          meters.push({ meter, creditPerUnit: "1", perUnits: 1n });
      const compiled = compileDetailedPrice("x", meters);
      const { dearInput, dearOutput } = admissionRates(compiled);
      let bound = 0n;
      for (const [meter, quantity] of quantities)
        bound += (output.includes(meter) ? dearOutput : dearInput) * BigInt(quantity);
      const units = quantities.map(([meter, quantity]) => ({ meter, quantity, source: UnitSource.REPORTED }));
      expect(priceUsage(compiled, units) <= bound).toBe(true);
    }),
  );
});

test("a price of anything is kept, and one that this node cannot read is rejected", () => {
  expect(compilePrice(undefined)).toBeNull();
  expect(compilePrice(price([Meter.IMAGES, "1"]))!.id).toBe("price_a");
  expect(() => compilePrice(price([99 as Meter, "1"]))).toThrow(RejectError);
  expect(() => compilePrice(price([Meter.IMAGES, "1", { size: "1024x1024" }]))).toThrow(RejectError);
});
