import { describe, expect, test } from "vitest";
import { Meter } from "../../core/meters.ts";
import { compileDetailedPrice } from "../../core/pricing.ts";
import { inputCost, outputCost, outputCovered, turnAdmission, type TurnPrice } from "./turn_cost.ts";

/** In picocredits per token: text in 1, image in 3, text out 2, audio in 10, audio out 20; a turn 5. */
const NO_MEDIA = { image: 0n, second: 0n, character: 0n, toolCall: 0n };
const PRICE: TurnPrice = {
  price: compileDetailedPrice(
    "p",
    (
      [
        [Meter.INPUT_TOKENS, 1],
        [Meter.OUTPUT_TOKENS, 2],
        [Meter.AUDIO_INPUT_TOKENS, 10],
        [Meter.AUDIO_OUTPUT_TOKENS, 20],
        [Meter.IMAGE_INPUT_TOKENS, 3],
        [Meter.REQUESTS, 5],
      ] as const
    ).map(([meter, pico]) => ({ meter, creditPerUnit: `0.${String(pico).padStart(12, "0")}`, perUnits: 1n })),
  ),
  rates: { input: 1n, output: 2n, dearInput: 10n, dearOutput: 20n, request: 5n, ...NO_MEDIA },
  maxOutputTokens: 0,
};
const INPUT = { text: 100, audio: 10, image: 2 };

test("BALANCED costs each kind of input as what it is, STRICT all of it as the dearest", () => {
  expect(inputCost(PRICE, INPUT, false)).toBe(100n + 100n + 6n + 5n);
  expect(inputCost(PRICE, INPUT, true)).toBe(1120n + 5n);
  expect(outputCost(PRICE, { text: 3, audio: 4 })).toBe(86n);
});

describe("what a turn holds", () => {
  test.each([
    ["BALANCED, no limit: 1024 tokens", 0, 0, false, true, 211n + 1024n * 20n, 211n],
    ["BALANCED, the client's limit", 50, 0, false, true, 211n + 1000n, 211n],
    ["STRICT, no limit: the longest that is assumed", 0, 0, true, true, 1125n + 4096n * 20n, 1145n],
    ["STRICT, the model's longest", 0, 300, true, true, 1125n + 6000n, 1145n],
    ["STRICT, begun by the upstream: all or nothing", 0, 300, true, false, 1125n + 6000n, 1125n + 6000n],
  ])("%s", (_, asked, maxOutputTokens, strict, limitable, amount, minimum) => {
    const price = { ...PRICE, maxOutputTokens };
    expect(turnAdmission(price, INPUT, asked, strict, limitable)).toEqual({ amount, minimum });
  });

  test("a free price holds nothing, and an empty wallet begins nothing that costs", () => {
    const rates = { input: 0n, output: 0n, dearInput: 0n, dearOutput: 0n, request: 0n, ...NO_MEDIA };
    const free = { price: compileDetailedPrice("f", []), rates, maxOutputTokens: 0 };
    expect(turnAdmission(free, INPUT, 0, false, true)).toEqual({ amount: 0n, minimum: 0n });
    const onlyOutput = { ...free, rates: { ...rates, output: 1n, dearOutput: 1n } };
    expect(turnAdmission(onlyOutput, INPUT, 0, false, true).minimum).toBe(1n);
  });
});

test("STRICT: an answer is never longer than what is held, and never forbidden", () => {
  expect(outputCovered(PRICE, INPUT, 0, 1125n + 415n)).toBe(20);
  expect(outputCovered(PRICE, INPUT, 10, 1125n + 415n)).toBe(10);
  expect(outputCovered(PRICE, INPUT, 0, 0n)).toBe(1);
});
