import { describe, expect, test } from "vitest";
import {
  ADOPTED_FAILURE_MS_MAX,
  FEW_RESULTS,
  Health,
  HEALTH_DEFAULTS,
  HealthCause,
  LATENCY_KEPT_MS,
  SUCCESS_WINS_MS,
  TRIAL_MS_MAX,
} from "./health.ts";

const T = 1_000_000;

function failed(health: Health, now: number, count = 1): void {
  for (let i = 0; i < count; i++) health.fail("failure", 0, now, HEALTH_DEFAULTS);
}

function percent(health: Health, now: number): number {
  return Math.round(100 * health.failing(now));
}

describe("a cooldown", () => {
  test("begins after failures in a row, then lets one trial through at a time", () => {
    const health = new Health();
    for (let i = 1; i < HEALTH_DEFAULTS.failuresToCool; i++) health.fail("failure", 0, 0, HEALTH_DEFAULTS);
    expect(health.available(0)).toBe(true);
    health.fail("failure", 0, 0, HEALTH_DEFAULTS);
    expect(health.available(HEALTH_DEFAULTS.cooldownMs - 1)).toBe(false);
    const due = HEALTH_DEFAULTS.cooldownMs;
    expect(health.available(due)).toBe(true);
    health.begin(due);
    expect(health.available(due)).toBe(false);
    health.release();
    expect(health.available(due)).toBe(true);
    health.begin(due);
    health.fail("failure", 0, due, HEALTH_DEFAULTS);
    expect(health.available(due + 2 * HEALTH_DEFAULTS.cooldownMs - 1)).toBe(false);
    health.begin(due + 2 * HEALTH_DEFAULTS.cooldownMs);
    health.succeed(due + 2 * HEALTH_DEFAULTS.cooldownMs);
    expect(health.available(0)).toBe(true);
  });

  test("a success in between starts the count again; what says nothing does not count", () => {
    const health = new Health();
    for (let i = 0; i < 10; i++) {
      health.fail("failure", 0, 0, HEALTH_DEFAULTS);
      health.fail("ignore", 0, 0, HEALTH_DEFAULTS);
      health.succeed(0);
    }
    expect(health.available(0)).toBe(true);
  });

  test("obeys retry-after up to a minute", () => {
    const health = new Health();
    health.fail("rate_limit", 7_000, 0, HEALTH_DEFAULTS);
    expect([health.available(6_999), health.available(7_000)]).toEqual([false, true]);
    health.fail("rate_limit", 86_400_000, 0, HEALTH_DEFAULTS);
    expect([health.available(59_999), health.available(60_000)]).toEqual([false, true]);
  });

  test("has a longest", () => {
    const health = new Health();
    let now = 0;
    for (let i = 0; i < 20; i++) {
      health.fail("failure", 0, now, HEALTH_DEFAULTS);
      now = Math.max(now, health.coolUntil);
    }
    const before = now;
    health.fail("failure", 0, now, HEALTH_DEFAULTS);
    expect(health.coolUntil - before).toBe(HEALTH_DEFAULTS.cooldownMsMax);
  });

  test("a trial that never ends does not block for ever", () => {
    const health = new Health();
    health.fail("account", 0, 0, HEALTH_DEFAULTS);
    health.begin(60_000);
    expect(health.available(60_000 + TRIAL_MS_MAX + 1)).toBe(true);
  });
});

describe("a cooldown of many requests", () => {
  test("is not doubled by those that began before it", () => {
    const health = new Health();
    failed(health, T, 20);
    expect(health.coolUntil).toBe(T + HEALTH_DEFAULTS.cooldownMs);
    health.begin(health.coolUntil);
    failed(health, health.coolUntil);
    expect(health.coolUntil).toBe(T + 3 * HEALTH_DEFAULTS.cooldownMs);
  });

  test("is made longer by a retry-after that comes late, but never shorter", () => {
    const health = new Health();
    health.fail("rate_limit", 20_000, T, HEALTH_DEFAULTS);
    health.fail("rate_limit", 30_000, T + 1, HEALTH_DEFAULTS);
    expect(health.coolUntil).toBe(T + 30_001);
    health.fail("rate_limit", 1_000, T + 2, HEALTH_DEFAULTS);
    failed(health, T + 3);
    expect([health.coolUntil, health.cause]).toEqual([T + 30_001, HealthCause.RATE_LIMIT]);
  });

  test("is over at once when what it was about may be mended, with a trial first", () => {
    const health = new Health();
    health.retry();
    expect(health.coolUntil).toBe(0);
    health.fail("account", 0, T, HEALTH_DEFAULTS);
    health.retry();
    health.begin(T);
    expect(health.available(T)).toBe(false);
    failed(health, T);
    expect(health.coolUntil).toBe(T + HEALTH_DEFAULTS.cooldownMsMax);
  });
});

describe("the failure average", () => {
  test("hardly minds a failure among many successes", () => {
    const health = new Health();
    for (let i = 0; i < 1000; i++) {
      if (i % 100 === 0) failed(health, T + i);
      else health.succeed(T + i);
      health.refreshShare(T + i);
      expect(health.share).toBeGreaterThan(0.999);
    }
  });

  test("shows within ten calls that half of them fail, and forgets it as they succeed", () => {
    const health = new Health();
    for (let i = 0; i < 5; i++) {
      failed(health, T);
      health.succeed(T);
    }
    health.refreshShare(T);
    expect(health.share).toBeLessThan(0.9);
    for (let i = 0; i < 200; i++) health.fail(i % 2 === 0 ? "failure" : "ignore", 0, T, HEALTH_DEFAULTS);
    expect(percent(health, T)).toBe(100);
    expect(health.share).toBe(0.02);
    for (let i = 0; i < 30; i++) health.succeed(T);
    expect(health.share).toBe(1);
  });

  test("fades with time, so that the share returns without any traffic", () => {
    const health = new Health();
    failed(health, T, 200);
    expect([T, T + 10_000, T + 20_000].map((now) => percent(health, now))).toEqual([100, 50, 25]);
    expect(health.dimUntil - T).toBeGreaterThan(33_000);
    expect(health.dimUntil - T).toBeLessThan(34_000);
    let before = health.share;
    for (let now = T; now < health.dimUntil; now += 500) {
      health.refreshShare(now);
      expect(health.share).toBeGreaterThanOrEqual(before);
      before = health.share;
    }
    health.refreshShare(health.dimUntil);
    expect(health.share).toBe(1);
  });
});

describe("the latency", () => {
  test("is one of streams and one of JSON answers, moves slowly, and is forgotten", () => {
    const health = new Health();
    health.took(true, 1_000, T);
    health.took(false, 8_000, T);
    expect([health.latencyMs(true, T), health.latencyMs(false, T)]).toEqual([1_000, 8_000]);
    health.took(true, 600_000, T);
    expect(health.latencyMs(true, T)).toBeCloseTo(1_300);
    for (let i = 0; i < 30; i++) health.took(true, 600_000, T);
    expect(health.latencyMs(true, T)).toBeGreaterThan(100_000);
    health.took(true, 0, T);
    expect(health.latencyMs(true, T + LATENCY_KEPT_MS - 1)).toBeGreaterThan(100_000);
    expect(health.latencyMs(true, T + LATENCY_KEPT_MS)).toBe(0);
    health.took(true, 700, T + LATENCY_KEPT_MS);
    expect(health.latencyMs(true, T + LATENCY_KEPT_MS)).toBe(700);
  });
});

describe("an upstream that wants to be left alone", () => {
  const left = (health: Health): number[] => {
    health.succeed(T + 1);
    health.adopt({ coolMs: 0, cause: HealthCause.FAILURE, failurePercent: 0, firstContentMs: 0 }, T + 2);
    return [health.coolUntil, Number(health.available(T + 2))];
  };

  test.each(["rate_limit", "failure"] as const)("%s: is, though calls from before still succeed", (kind) => {
    const health = new Health();
    health.fail(kind, 30_000, T, HEALTH_DEFAULTS);
    expect(left(health)).toEqual([T + 30_000, 0]);
    health.begin(T + 30_000);
    health.succeed(T + 30_001);
    expect([health.coolUntil, health.available(T + 30_001)]).toEqual([0, true]);
  });

  test("is also when it does not say for how long, and when another node heard it", () => {
    const health = new Health();
    health.fail("rate_limit", 0, T, HEALTH_DEFAULTS);
    expect(left(health)).toEqual([T + HEALTH_DEFAULTS.rateLimitMs, 0]);
    const other = new Health();
    other.adopt({ coolMs: 9_000, cause: HealthCause.RATE_LIMIT, failurePercent: 0, firstContentMs: 0 }, T);
    expect(left(other)).toEqual([T + 9_000, 0]);
  });

  test("is not when it failed without a wish, or when its settings changed", () => {
    const health = new Health();
    failed(health, T, 3);
    health.succeed(T + 1);
    expect(health.coolUntil).toBe(0);
    health.fail("rate_limit", 30_000, T + 2, HEALTH_DEFAULTS);
    health.retry();
    health.succeed(T + 3);
    expect(health.available(T + 3)).toBe(true);
  });
});

describe("what another node saw", () => {
  const cooling = (coolMs: number, cause: HealthCause = HealthCause.FAILURE, failurePercent = 0) => ({
    coolMs,
    cause,
    failurePercent,
    firstContentMs: 0,
  });

  test("cools down here too, ends in a trial, and a success here ends it", () => {
    const health = new Health();
    health.adopt(cooling(5_000), T);
    expect([health.available(T + 4_999), health.available(T + 5_000)]).toEqual([false, true]);
    health.begin(T + 5_000);
    expect(health.available(T + 5_000)).toBe(false);
    failed(health, T + 5_000);
    expect(health.coolUntil).toBe(T + 15_000);
    health.succeed(T + 6_000);
    expect(health.available(T + 6_000)).toBe(true);
  });

  test("counts for nothing just after a success here", () => {
    const health = new Health();
    health.succeed(T);
    health.adopt(cooling(5_000), T + SUCCESS_WINS_MS - 1);
    expect(health.coolUntil).toBe(0);
    health.adopt(cooling(5_000), T + SUCCESS_WINS_MS);
    expect(health.coolUntil).toBe(T + SUCCESS_WINS_MS + 5_000);
  });

  test("keeps this node away for a limited time only, but a retry-after is obeyed", () => {
    const health = new Health();
    health.adopt(cooling(3_600_000), T);
    expect(health.coolUntil).toBe(T + ADOPTED_FAILURE_MS_MAX);
    health.adopt(cooling(45_000, HealthCause.RATE_LIMIT), T);
    expect([health.coolUntil, health.cause]).toEqual([T + 45_000, HealthCause.RATE_LIMIT]);
    health.adopt(cooling(1_000), T);
    expect(health.coolUntil).toBe(T + 45_000);
    health.adopt({ ...cooling(50_000), cause: 77 }, T + 44_000);
    expect([health.coolUntil, health.cause]).toEqual([T + 44_000 + ADOPTED_FAILURE_MS_MAX, HealthCause.FAILURE]);
  });

  test("brings a trial forward when that node is well again; figures alone do not", () => {
    const health = new Health();
    failed(health, T, 3);
    health.adopt({ coolMs: 0, cause: 0, failurePercent: 3, firstContentMs: 100 }, T + 1);
    expect(health.available(T + 1)).toBe(false);
    health.adopt(cooling(0), T + 1);
    expect(health.available(T + 1)).toBe(true);
    health.begin(T + 1);
    expect(health.available(T + 1)).toBe(false);
  });

  test("is the least that it fails by, while little is known here", () => {
    const health = new Health();
    const seen = (failurePercent: number) => ({ coolMs: 0, cause: 0, failurePercent, firstContentMs: 0 });
    health.adopt(seen(60), T);
    expect(percent(health, T)).toBe(60);
    health.adopt(seen(20), T);
    expect([percent(health, T), percent(health, T + 10_000)]).toEqual([60, 30]);
    for (let i = 0; i <= FEW_RESULTS; i++) health.succeed(T);
    const before = percent(health, T);
    health.adopt(seen(90), T);
    expect(percent(health, T)).toBe(before);
    health.adopt(seen(1_000_000), T + 60_000);
    expect(percent(health, T + 60_000)).toBe(100);
  });

  test("is its latency while none is known here", () => {
    const health = new Health();
    const seen = (firstContentMs: number) => ({ coolMs: 0, cause: 0, failurePercent: 0, firstContentMs });
    health.adopt(seen(900), T);
    expect(health.latencyMs(true, T)).toBe(900);
    health.adopt(seen(300), T);
    expect(health.latencyMs(true, T)).toBe(900);
  });
});

describe("news for other nodes", () => {
  test("are averages that moved, not too often, and not what came from them", () => {
    const health = new Health();
    expect(health.hasNews(T)).toBe(false);
    failed(health, T);
    expect([health.hasNews(T), health.hasNews(T)]).toEqual([true, false]);
    failed(health, T + 1, 5);
    expect([health.hasNews(T + 999), health.hasNews(T + 1_000)]).toEqual([false, true]);
    const other = new Health();
    other.adopt({ coolMs: 5_000, cause: 1, failurePercent: 47, firstContentMs: 800 }, T);
    expect(other.hasNews(T)).toBe(false);
  });

  test("are latencies that changed by a third", () => {
    const health = new Health();
    health.took(true, 1_000, T);
    expect(health.hasNews(T)).toBe(true);
    for (let i = 0; i < 3; i++) health.took(true, 2_000, T + 6_000);
    expect(health.hasNews(T + 6_000)).toBe(false);
    for (let i = 0; i < 3; i++) health.took(true, 2_000, T + 6_000);
    expect(health.hasNews(T + 6_000)).toBe(true);
  });
});
