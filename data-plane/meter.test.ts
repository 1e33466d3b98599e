import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Meter, UnitSource } from "../core/meters.ts";
import { estimateTokens, estimateUnits, unitsFromUsage } from "./meter.ts";

/** Meter name -> quantity, REQUESTS left out. */
function read(usage: unknown, hasOutput = true, hasContent = true): Record<string, number> | null {
  const units = unitsFromUsage(usage, hasOutput, hasContent);
  if (units === null) return null;
  expect(units.every(({ source }) => source === UnitSource.REPORTED)).toBe(true);
  expect(units.filter(({ meter }) => meter === Meter.REQUESTS)).toMatchObject([{ quantity: 1 }]);
  const name = (wanted: number) => Object.entries(Meter).find(([, n]) => n === wanted)![0];
  return Object.fromEntries(
    units.filter(({ meter }) => meter !== Meter.REQUESTS).map(({ meter, quantity }) => [name(meter), quantity]),
  );
}

const usage = (prompt: unknown, completion: unknown, more: Record<string, unknown> = {}) => ({
  prompt_tokens: prompt,
  completion_tokens: completion,
  ...more,
});

describe("usage objects", () => {
  const cases: [string, unknown, Record<string, number> | null][] = [
    ["plain", usage(10, 5, { total_tokens: 15 }), { INPUT_TOKENS: 10, OUTPUT_TOKENS: 5 }],
    [
      "cached is a part of the prompt",
      usage(10, 5, { prompt_tokens_details: { cached_tokens: 4 } }),
      { INPUT_TOKENS: 6, CACHED_INPUT_TOKENS: 4, OUTPUT_TOKENS: 5 },
    ],
    [
      "cache writes and audio are parts of the prompt",
      usage(10, 5, { prompt_tokens_details: { cached_tokens: 1, cache_write_tokens: 2, audio_tokens: 3 } }),
      { INPUT_TOKENS: 4, CACHED_INPUT_TOKENS: 1, CACHE_WRITE_TOKENS: 2, AUDIO_INPUT_TOKENS: 3, OUTPUT_TOKENS: 5 },
    ],
    [
      "reasoning and audio are parts of the completion",
      usage(1, 50, { completion_tokens_details: { reasoning_tokens: 30, audio_tokens: 5 }, total_tokens: 51 }),
      { INPUT_TOKENS: 1, OUTPUT_TOKENS: 15, REASONING_TOKENS: 30, AUDIO_OUTPUT_TOKENS: 5 },
    ],
    [
      "reasoning outside the completion, by the total",
      usage(10, 5, { completion_tokens_details: { reasoning_tokens: 3 }, total_tokens: 18 }),
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 5, REASONING_TOKENS: 3 },
    ],
    [
      "reasoning outside the completion, since it is larger",
      usage(10, 5, { completion_tokens_details: { reasoning_tokens: 300 } }),
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 5, REASONING_TOKENS: 300 },
    ],
    [
      "DeepSeek's cache hits",
      usage(10, 5, { prompt_cache_hit_tokens: 8, prompt_cache_miss_tokens: 2 }),
      { INPUT_TOKENS: 2, CACHED_INPUT_TOKENS: 8, OUTPUT_TOKENS: 5 },
    ],
    [
      "details of null",
      usage(10, 5, { prompt_tokens_details: null, completion_tokens_details: null }),
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 5 },
    ],
    [
      "parts larger than the whole are cut to it",
      usage(10, 5, { prompt_tokens_details: { cached_tokens: 8, audio_tokens: 8 } }),
      { INPUT_TOKENS: 0, CACHED_INPUT_TOKENS: 8, AUDIO_INPUT_TOKENS: 2, OUTPUT_TOKENS: 5 },
    ],
    ["a reported zero is zero", usage(10, 0), { INPUT_TOKENS: 10, OUTPUT_TOKENS: 0 }],
    [
      "a missing completion follows from the total",
      { prompt_tokens: 10, total_tokens: 14 },
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 4 },
    ],
    [
      "a negative completion follows from the total",
      usage(10, -1, { total_tokens: 14 }),
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 4 },
    ],
    [
      "a missing prompt follows from the total",
      { completion_tokens: 4, total_tokens: 14 },
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 4 },
    ],
    [
      "broken parts are left out",
      usage(10, 5, { prompt_tokens_details: { cached_tokens: "4", audio_tokens: 1.5 } }),
      { INPUT_TOKENS: 10, OUTPUT_TOKENS: 5 },
    ],
    [
      "Responses names",
      {
        input_tokens: 3,
        output_tokens: 4,
        input_tokens_details: { cached_tokens: 1 },
        output_tokens_details: { reasoning_tokens: 2 },
      },
      { INPUT_TOKENS: 2, CACHED_INPUT_TOKENS: 1, OUTPUT_TOKENS: 2, REASONING_TOKENS: 2 },
    ],
    ["null", null, null],
    ["a string", "10", null],
    ["nothing known", {}, null],
    ["only a prompt", { prompt_tokens: 10 }, null],
    ["negative", usage(-10, 5), null],
    ["not integers", usage(1.5, 5), null],
    ["absurd", usage(10, 9_007_199_254_740_991), null],
    ["strings", usage("10", "5"), null],
    ["all zeros with content", usage(0, 0, { total_tokens: 0 }), null],
  ];
  test.each(cases)("%s", (_, object, expected) => {
    expect(read(object)).toEqual(expected);
  });

  test("all zeros without content are believed", () => {
    expect(read(usage(0, 0), true, false)).toEqual({ INPUT_TOKENS: 0, OUTPUT_TOKENS: 0 });
  });

  test("embeddings have no output", () => {
    expect(read({ prompt_tokens: 7, total_tokens: 7 }, false)).toEqual({ INPUT_TOKENS: 7 });
  });

  test("property: the meters are disjoint and add up", () => {
    const n = fc.nat(1000);
    fc.assert(
      fc.property(n, n, n, n, n, n, n, (prompt, completion, cached, write, audioIn, reasoning, audioOut) => {
        const units = read(
          usage(prompt, completion, {
            prompt_tokens_details: { cached_tokens: cached, cache_write_tokens: write, audio_tokens: audioIn },
            completion_tokens_details: { reasoning_tokens: reasoning, audio_tokens: audioOut },
          }),
          true,
          false,
        )!;
        const sum = (...names: string[]) => names.reduce((total, name) => total + (units[name] ?? 0), 0);
        expect(sum("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "CACHE_WRITE_TOKENS", "AUDIO_INPUT_TOKENS")).toBe(prompt);
        expect(sum("OUTPUT_TOKENS", "REASONING_TOKENS", "AUDIO_OUTPUT_TOKENS")).toBe(
          completion < reasoning ? completion + reasoning : completion,
        );
        expect(Object.values(units).every((quantity) => quantity >= 0)).toBe(true);
      }),
    );
  });
});

describe("estimates", () => {
  test("are marked as such", () => {
    expect(estimateUnits(101, 7, true)).toEqual([
      { meter: Meter.INPUT_TOKENS, quantity: 101, source: UnitSource.ESTIMATED },
      { meter: Meter.OUTPUT_TOKENS, quantity: 7, source: UnitSource.ESTIMATED },
      { meter: Meter.REQUESTS, quantity: 1, source: UnitSource.REPORTED },
    ]);
    expect(estimateUnits(4, 0, false).map(({ meter }) => meter)).toEqual([Meter.INPUT_TOKENS, Meter.REQUESTS]);
  });

  test("a piece of a stream is at least one token", () => {
    expect([estimateTokens(0, 0), estimateTokens(3, 3), estimateTokens(400, 3)]).toEqual([0, 3, 100]);
  });
});
