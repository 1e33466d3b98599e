import { describe, expect, test } from "vitest";
import { healthShare, latencyShare, stickyHash, stickyScore } from "./routing.ts";

describe("the share that failures leave", () => {
  test.each([
    [0, 1],
    [10, 1],
    [30, 0.755],
    [50, 0.51],
    [90, 0.02],
    [100, 0.02],
  ])("%i percent: %d", (percent, share) => {
    expect(healthShare(percent)).toBeCloseTo(share, 12);
  });
});

describe("the share that latency leaves", () => {
  test.each([
    [0, 100, 1],
    [1_000, 0, 1],
    [499, 10, 1],
    [1_000, 500, 1],
    [2_000, 500, 0.5],
    [4_000, 1_000, 0.5],
    [60_000, 500, 0.1],
  ])("%i ms beside %i ms: %d", (own, best, share) => {
    expect(latencyShare(own, best)).toBeCloseTo(share, 12);
  });
});

describe("sticky keys", () => {
  test("are hashed alike everywhere, and never to 0", () => {
    expect(stickyHash("")).toBe(0x811c9dc5);
    expect(stickyHash("a")).toBe(0xe40c292c);
    expect(stickyHash("pm_0")).not.toBe(stickyHash("pm_1"));
  });

  test("have a positive score, lower for a larger weight, and none for weight 0", () => {
    const seed = stickyHash("pm_a");
    for (let i = 0; i < 1000; i++) {
      const key = stickyHash(`user-${i}`);
      const score = stickyScore(key, seed, 1);
      expect(score).toBeGreaterThan(0);
      expect(stickyScore(key, seed, 4)).toBeCloseTo(score / 4, 12);
    }
    expect(stickyScore(1, seed, 0)).toBe(Number.POSITIVE_INFINITY);
  });

  test("score the same on every machine", () => {
    expect(stickyScore(stickyHash("user-1"), stickyHash("pm_1"), 3)).toMatchInlineSnapshot(`0.08228389923419874`);
  });
});
