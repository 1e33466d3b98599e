import { describe, expect, it, test } from "vitest";
import { healthShare, latencyShare, stickyHash, stickyScore } from "./routing.ts";

test.each([
  [0, 1],
  [10, 1],
  [30, 0.755],
  [50, 0.51],
  [70, 0.265],
  [90, 0.02],
  [100, 0.02],
])("of a target that fails %d of a hundred calls %d counts", (percent, share) => {
  expect(healthShare(percent)).toBeCloseTo(share, 10);
});

test.each([
  [0, 100, 1, "its own time is not known"],
  [9000, 0, 1, "no sibling's is"],
  [499, 10, 1, "it is fast enough for anybody"],
  [500, 10, 0.1, "it is slow"],
  [2000, 1000, 1, "it takes twice as long"],
  [4000, 1000, 0.5, "it takes four times as long"],
  [60_000, 1000, 0.1, "it takes for ever"],
  [700, 700, 1, "it is the best itself"],
])("of a target with %d ms next to one with %d ms %d counts: %s", (own, best, share) => {
  expect(latencyShare(own, best)).toBeCloseTo(share, 10);
});

describe("sticky routing", () => {
  const KEYS = 30_000;

  interface Target {
    readonly id: string;
    readonly weight: number;
  }

  function winner(key: string, targets: readonly Target[]): string {
    const hash = stickyHash(key);
    const scored = targets.map(({ id, weight }) => ({ id, score: stickyScore(hash, stickyHash(id), weight) }));
    return scored.toSorted((a, b) => a.score - b.score)[0]!.id;
  }

  const winners = (targets: readonly Target[]): string[] =>
    Array.from({ length: KEYS }, (_, i) => winner(`user-${i}`, targets));

  const A = { id: "pm_a", weight: 1 };
  const B = { id: "pm_b", weight: 2 };
  const C = { id: "pm_c", weight: 7 };

  it("gives targets what their weights say, over many keys", () => {
    const won = winners([A, B, C]);
    const chiSquare = [A, B, C].reduce((sum, { id, weight }) => {
      const expected = (KEYS * weight) / 10;
      return sum + (won.filter((one) => one === id).length - expected) ** 2 / expected;
    }, 0);
    // Two degrees of freedom: beyond 13.8 once in a thousand times, and these keys are always the same.
    expect(chiSquare).toBeLessThan(13.8);
  });

  it("moves no key between targets that stay as they are", () => {
    const before = winners([A, B, C]);
    const without = winners([A, B]);
    const heavier = winners([A, { ...B, weight: 4 }, C]);
    for (let i = 0; i < KEYS; i++) {
      if (before[i] !== "pm_c") expect(without[i]).toBe(before[i]);
      if (heavier[i] !== "pm_b") expect(heavier[i]).toBe(before[i]);
    }
  });

  it("has a finite score for every hash", () => {
    for (const hash of [1, 0x7fffffff, 0x80000000, 0xffffffff]) {
      for (const seed of [1, 0xffffffff]) {
        const score = stickyScore(hash, seed, 1_000_000);
        expect(Number.isFinite(score) && score > 0).toBe(true);
      }
    }
    // The one input that mixes to 0.
    expect(stickyScore(0, 0, 1)).toBeCloseTo(Math.log(2 ** 33), 6);
    expect(stickyHash("")).toBe(0x811c9dc5);
  });
});
