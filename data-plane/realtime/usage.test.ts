import { expect, test } from "vitest";
import fc from "fast-check";
import { Meter, type UnitQuantity } from "../../core/meters.ts";
import { compileDetailedPrice } from "../../core/pricing.ts";
import { USAGE } from "./testing.ts";
import { estimatedTurnUnits, transcriptionUnits, turnUnits } from "./usage.ts";

const NAMES = new Map(Object.entries(Meter).map(([name, meter]) => [meter as number, name]));

function named(units: readonly UnitQuantity[] | null): Record<string, number> | null {
  if (units === null) return null;
  return Object.fromEntries(units.map(({ meter, quantity }) => [NAMES.get(meter), quantity]));
}

const cases: readonly [string, unknown, Record<string, number> | null][] = [
  [
    "cached text and audio are cached input, and not once more text and audio",
    USAGE,
    {
      INPUT_TOKENS: 59,
      CACHED_INPUT_TOKENS: 64,
      AUDIO_INPUT_TOKENS: 9,
      OUTPUT_TOKENS: 30,
      AUDIO_OUTPUT_TOKENS: 91,
      REQUESTS: 1,
    },
  ],
  [
    "no details: all of it is text",
    { input_tokens: 7, output_tokens: 3, total_tokens: 10 },
    { INPUT_TOKENS: 7, OUTPUT_TOKENS: 3, REQUESTS: 1 },
  ],
  [
    "cached tokens of an unknown kind are text, then audio",
    {
      input_tokens: 30,
      output_tokens: 0,
      input_token_details: { text_tokens: 10, audio_tokens: 20, cached_tokens: 15 },
    },
    { INPUT_TOKENS: 0, CACHED_INPUT_TOKENS: 15, AUDIO_INPUT_TOKENS: 15, OUTPUT_TOKENS: 0, REQUESTS: 1 },
  ],
  [
    "images, cached and not",
    {
      input_tokens: 900,
      output_tokens: 5,
      input_token_details: {
        text_tokens: 100,
        image_tokens: 800,
        cached_tokens: 300,
        cached_tokens_details: { image_tokens: 300 },
      },
      output_token_details: { text_tokens: 5, reasoning_tokens: 2 },
    },
    {
      INPUT_TOKENS: 100,
      CACHED_INPUT_TOKENS: 300,
      IMAGE_INPUT_TOKENS: 500,
      OUTPUT_TOKENS: 3,
      REASONING_TOKENS: 2,
      REQUESTS: 1,
    },
  ],
  [
    "totals that only the details tell",
    { input_token_details: { text_tokens: 4, audio_tokens: 6 }, output_token_details: { audio_tokens: 8 } },
    { INPUT_TOKENS: 4, AUDIO_INPUT_TOKENS: 6, OUTPUT_TOKENS: 0, AUDIO_OUTPUT_TOKENS: 8, REQUESTS: 1 },
  ],
  [
    "one that the total tells",
    { total_tokens: 9, output_tokens: 4 },
    { INPUT_TOKENS: 5, OUTPUT_TOKENS: 4, REQUESTS: 1 },
  ],
  [
    "a reported zero without content",
    { input_tokens: 0, output_tokens: 0 },
    { INPUT_TOKENS: 0, OUTPUT_TOKENS: 0, REQUESTS: 1 },
  ],
  ["none", null, null],
  ["nonsense", { input_tokens: -1, output_tokens: "3" }, null],
];

test.each(cases)("%s", (_, usage, expected) => expect(named(turnUnits(usage, false))).toEqual(expected));

test("only zeros although there was content are no usage", () => {
  expect(turnUnits({ input_tokens: 0, output_tokens: 0 }, true)).toBeNull();
});

test("whatever the details say, the meters of a direction add up to its total", () => {
  const n = fc.integer({ min: 0, max: 5000 });
  const kinds = fc.record({ text_tokens: n, audio_tokens: n, image_tokens: n }, { requiredKeys: [] });
  const details = fc.record(
    { text_tokens: n, audio_tokens: n, image_tokens: n, cached_tokens: n, cached_tokens_details: kinds },
    { requiredKeys: [] },
  );
  const out = fc.record({ text_tokens: n, audio_tokens: n, reasoning_tokens: n }, { requiredKeys: [] });
  fc.assert(
    fc.property(n, n, details, out, (input, output, inDetails, outDetails) => {
      const usage = {
        input_tokens: input,
        output_tokens: output,
        input_token_details: inDetails,
        output_token_details: outDetails,
      };
      const units = turnUnits(usage, false)!;
      const sum = (meters: readonly number[]): number =>
        units.filter(({ meter }) => meters.includes(meter)).reduce((all, { quantity }) => all + quantity, 0);
      expect(sum([1, 2, 6, 13])).toBe(input);
      expect(sum([4, 5, 7])).toBe(output);
      expect(units.every(({ quantity }) => Number.isSafeInteger(quantity) && quantity >= 0)).toBe(true);
    }),
  );
});

const PER_TOKEN = [Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS].map((meter) => ({
  meter,
  creditPerUnit: "1",
  perUnits: 1000n,
}));
const TOKENS_ONLY = compileDetailedPrice("p", PER_TOKEN);
const WITH_SECONDS = compileDetailedPrice("q", [
  ...PER_TOKEN,
  { meter: Meter.SECONDS, creditPerUnit: "0.006", perUnits: 1n },
]);

test("transcriptions: seconds where they have a price, else tokens of audio", () => {
  const usage = { type: "duration", seconds: 12.345 };
  expect(transcriptionUnits(usage, WITH_SECONDS)).toEqual([{ meter: Meter.SECONDS, quantity: 12_345, source: 1 }]);
  expect(transcriptionUnits(usage, TOKENS_ONLY)).toEqual([
    { meter: Meter.AUDIO_INPUT_TOKENS, quantity: 124, source: 2 },
  ]);
  const tokens = { type: "tokens", input_tokens: 14, output_tokens: 8, input_token_details: { audio_tokens: 14 } };
  expect(named(transcriptionUnits(tokens, TOKENS_ONLY))).toEqual({
    INPUT_TOKENS: 0,
    AUDIO_INPUT_TOKENS: 14,
    OUTPUT_TOKENS: 8,
  });
  expect(transcriptionUnits({ type: "duration", seconds: -1 }, WITH_SECONDS)).toBeNull();
  expect(transcriptionUnits(undefined, WITH_SECONDS)).toBeNull();
});

test("estimates say that they are", () => {
  expect(estimatedTurnUnits({ text: 5, audio: 6, image: 0 }, { text: 7, audio: 8 })).toEqual([
    { meter: Meter.INPUT_TOKENS, quantity: 5, source: 2 },
    { meter: Meter.AUDIO_INPUT_TOKENS, quantity: 6, source: 2 },
    { meter: Meter.OUTPUT_TOKENS, quantity: 7, source: 2 },
    { meter: Meter.AUDIO_OUTPUT_TOKENS, quantity: 8, source: 2 },
    { meter: Meter.REQUESTS, quantity: 1, source: 1 },
  ]);
});
