import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AdmissionRates } from "../route_types.ts";
import {
  admissionOf,
  outputTokensAt,
  outputTokensCovered,
  type RequestSize,
  SLICE_TOKENS,
  sliceCost,
  STREAM_OUTPUT_TOKENS,
  UNNAMED_OUTPUT_TOKENS,
} from "./estimate.ts";

/** Nothing here is made but text. */
const NO_MEDIA = { image: 0n, second: 0n, character: 0n, toolCall: 0n };
const RATES: AdmissionRates = { ...NO_MEDIA, input: 10n, output: 100n, dearInput: 20n, dearOutput: 300n, request: 5n };
const DEAR: AdmissionRates = { ...NO_MEDIA, input: 40n, output: 50n, dearInput: 80n, dearOutput: 50n, request: 0n };
const FREE: AdmissionRates = { ...NO_MEDIA, input: 0n, output: 0n, dearInput: 0n, dearOutput: 0n, request: 0n };
const target = (rates: AdmissionRates, maxOutputTokens = 0) => ({ rates, maxOutputTokens });
const size = (fields: Partial<RequestSize> = {}): RequestSize => ({
  inputTokens: 100,
  images: 0,
  characters: 0,
  seconds: 0,
  mediaInputTokens: 0,
  mediaOutputTokens: 0,
  hasOutput: true,
  stream: false,
  outputTokensMax: 0,
  answers: 1,
  ...fields,
});

describe("BALANCED", () => {
  const input = 100n * 10n + 5n;

  test("holds a token per byte and the longest answer, of the dearest target", () => {
    expect(admissionOf(size(), [target(RATES)], false)).toEqual({
      amount: input + 100n * BigInt(UNNAMED_OUTPUT_TOKENS),
      minimum: input,
    });
    expect(admissionOf(size(), [target(RATES, 900)], false).amount).toBe(input + 90_000n);
    expect(admissionOf(size({ outputTokensMax: 10 }), [target(RATES, 900)], false).amount).toBe(input + 1000n);
    expect(admissionOf(size({ inputTokens: 300_000 }), [target(RATES), target(DEAR)], false).amount).toBe(
      300_000n * 40n + 50n * BigInt(UNNAMED_OUTPUT_TOKENS),
    );
    expect(admissionOf(size({ answers: 3, outputTokensMax: 10 }), [target(RATES)], false).amount).toBe(input + 3000n);
  });

  test("a stream holds what is expected, and grows", () => {
    const amount = (max: number) =>
      admissionOf(size({ stream: true, outputTokensMax: max }), [target(RATES)], false).amount;
    expect(amount(0)).toBe(input + 100n * BigInt(STREAM_OUTPUT_TOKENS));
    expect(amount(100_000)).toBe(amount(0));
    expect(amount(7)).toBe(input + 700n);
  });

  test("an empty wallet begins nothing, even where only output costs", () => {
    const output: AdmissionRates = { ...FREE, output: 3n, dearOutput: 3n };
    expect(admissionOf(size(), [target(output)], false).minimum).toBe(1n);
  });

  test("an answer may overdraw by one slice", () => {
    expect(outputTokensCovered(size(), [target(RATES)], false, input)).toBe(SLICE_TOKENS);
    expect(outputTokensCovered(size({ answers: 4 }), [target(RATES)], false, input)).toBe(SLICE_TOKENS / 4);
    expect(outputTokensCovered(size(), [target(RATES)], false, input + 1000n)).toBe(SLICE_TOKENS + 10);
  });

  test("embeddings hold their input", () => {
    expect(admissionOf(size({ hasOutput: false }), [target(RATES), target(DEAR)], false)).toEqual({
      amount: 4000n,
      minimum: 4000n,
    });
  });

  test("a free price holds nothing", () => {
    expect(admissionOf(size(), [target(FREE)], false)).toEqual({ amount: 0n, minimum: 0n });
    expect(outputTokensCovered(size(), [target(FREE)], false, 0n)).toBeNull();
  });
});

describe("STRICT", () => {
  test("holds a token per byte and the longest answer, at the dearest meters", () => {
    const input = 100n * 20n + 5n;
    expect(admissionOf(size({ outputTokensMax: 7 }), [target(RATES, 900)], true)).toEqual({
      amount: input + 2100n,
      minimum: input + 300n,
    });
    expect(admissionOf(size(), [target(RATES, 900)], true).amount).toBe(input + 300n * 900n);
    expect(admissionOf(size(), [target(RATES)], true).amount).toBe(input + 300n * BigInt(UNNAMED_OUTPUT_TOKENS));
  });

  test("property: an answer within what is covered never costs more than what is held", () => {
    const rate = fc.bigInt(0n, 10_000n);
    const targets = fc.array(
      fc.record({
        rates: fc
          .record({ input: rate, output: rate, dearInput: rate, dearOutput: rate, request: rate })
          .map((tokens) => ({ ...NO_MEDIA, ...tokens })),
        maxOutputTokens: fc.nat(5000),
      }),
      { minLength: 1, maxLength: 4 },
    );
    fc.assert(
      fc.property(
        targets,
        fc.nat(5000),
        fc.nat(9000),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(100),
        (list, bytes, max, answers, share) => {
          const request = size({ inputTokens: bytes, outputTokensMax: max, answers });
          const { amount, minimum } = admissionOf(request, list, true);
          expect(minimum <= amount).toBe(true);
          const held = minimum + ((amount - minimum) * BigInt(share)) / 100n;
          const covered = outputTokensCovered(request, list, true, held);
          for (const { rates } of list) {
            const tokens = covered ?? 1_000_000;
            if (rates.dearOutput === 0n) continue;
            const worst = BigInt(bytes) * rates.dearInput + rates.request + BigInt(tokens * answers) * rates.dearOutput;
            expect(worst <= held).toBe(true);
          }
        },
      ),
    );
  });
});

test("a stream's thresholds follow from what is held", () => {
  expect(sliceCost(RATES, false)).toBe(BigInt(SLICE_TOKENS) * RATES.output);
  expect(sliceCost(RATES, true)).toBe(BigInt(SLICE_TOKENS) * RATES.dearOutput);
  expect(outputTokensAt(1000n, 200n, 10n, 80n)).toBe(60);
  expect(outputTokensAt(1000n, 200n, 10n, 100n)).toBe(80);
  expect(outputTokensAt(100n, 200n, 10n, 100n)).toBe(0);
  expect(outputTokensAt(0n, 0n, 0n, 100n)).toBe(Number.MAX_SAFE_INTEGER);
});
