import { expect, test } from "vitest";
import { fastRandom } from "./fast_random.ts";

test("numbers are in [0, 1), evenly spread, and another sequence for another seed", () => {
  const buckets = new Float64Array(10);
  const random = fastRandom(4_000_000_000.7);
  for (let i = 0; i < 100_000; i++) {
    const number = random();
    expect(number >= 0 && number < 1).toBe(true);
    buckets[Math.floor(number * 10)]!++;
  }
  const chiSquare = buckets.reduce((sum, seen) => sum + (seen - 10_000) ** 2 / 10_000, 0);
  // The 0.999 quantile for nine degrees of freedom.
  expect(chiSquare).toBeLessThan(27.88);
  expect(fastRandom(1)()).not.toBe(fastRandom(2)());
  expect(fastRandom(1)()).toBe(fastRandom(1)());
});
