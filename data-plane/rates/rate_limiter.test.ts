import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RateKindSchema } from "../../proto/gen/tokenbill/node/v1/rate_limit_service_pb.ts";
import { RateLimiter, type RateLine } from "./rate_limiter.ts";
import { isRefusal, type RateHold, RateKind, type RateLimits, type RateRefusal } from "./rates.ts";

const KEY = "key_a";
const NONE: RateLimits = { requestsPerMinute: 0, tokensPerMinute: 0, concurrentRequests: 0 };
const requests = (limit: number): RateLimits => ({ ...NONE, requestsPerMinute: limit });
const tokens = (limit: number): RateLimits => ({ ...NONE, tokensPerMinute: limit });
const concurrent = (limit: number): RateLimits => ({ ...NONE, concurrentRequests: limit });

class Clock {
  ms = 1_000_000;
}

function limiterAt(clock: Clock, subjectsMax?: number): RateLimiter {
  const options = { now: () => clock.ms, random: () => 0.5 };
  return new RateLimiter(subjectsMax === undefined ? options : { ...options, subjectsMax });
}

function hold(result: RateHold | RateRefusal): RateHold {
  if (isRefusal(result)) throw new Error(`refused: ${JSON.stringify(result)}`);
  return result;
}

function refusal(result: RateHold | RateRefusal): RateRefusal {
  if (!isRefusal(result)) throw new Error("admitted");
  return result;
}

/** Answers everything that is due as a control plane would that has so much for this node. */
function answer(limiter: RateLimiter, allowance: number, remaining = allowance): RateLine[] {
  const lines = limiter.due(100);
  limiter.answered(
    lines,
    lines.map(() => ({ allowance, remaining })),
    10_000,
  );
  return lines;
}

test("the kinds are those of the schema", () => {
  const sent = RateKindSchema.values.filter(({ number }) => number !== 0);
  expect(RateKind).toEqual(
    Object.fromEntries(sent.map(({ name, number }) => [name.replace("RATE_KIND_", ""), number])),
  );
});

describe("a node that knows nothing of the others", () => {
  test.each([
    [600, 8, 75],
    [600, 7, 85],
    [5, 8, 1],
    [100, 1, 100],
  ])("of %i requests, one of %i nodes admits %i", (limit, nodes, share) => {
    const limiter = limiterAt(new Clock());
    limiter.setNodes(nodes);
    for (let i = 0; i < share; i++) hold(limiter.take(KEY, requests(limit), 0, 0));
    expect(refusal(limiter.take(KEY, requests(limit), 0, 0))).toMatchObject({ kind: RateKind.REQUESTS, limit });
  });

  test("admits one request of more tokens than its share when it has none", () => {
    const limiter = limiterAt(new Clock());
    limiter.setNodes(8);
    hold(limiter.take(KEY, tokens(8_000), 3_000, 10));
    expect(refusal(limiter.take(KEY, tokens(8_000), 1, 1)).kind).toBe(RateKind.TOKENS);
  });

  test("goes by its share again when what it was told is too old", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    limiter.setNodes(2);
    hold(limiter.take(KEY, requests(4), 0, 0));
    answer(limiter, 0);
    refusal(limiter.take(KEY, requests(4), 0, 0));
    clock.ms += 10_000;
    hold(limiter.take(KEY, requests(4), 0, 0));
    refusal(limiter.take(KEY, requests(4), 0, 0));
  });
});

test("a node does not use its share of what is said to be tight, until it is told what it may use", () => {
  const clock = new Clock();
  const limiter = limiterAt(clock);
  limiter.setTight([{ subject: KEY, kind: RateKind.REQUESTS }]);
  let needs = 0;
  limiter.onNeed = () => needs++;
  refusal(limiter.take(KEY, requests(100), 0, 0));
  expect(needs).toBe(1);
  hold(limiter.take("key_b", requests(100), 0, 0));
  clock.ms += 3_000;
  hold(limiter.take(KEY, requests(100), 0, 0));
});

describe("a node that was told what it may use", () => {
  test("uses that and no more; what leaves the window may be used again", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    hold(limiter.take(KEY, requests(100), 0, 0));
    answer(limiter, 2, 60);
    hold(limiter.take(KEY, requests(100), 0, 0));
    hold(limiter.take(KEY, requests(100), 0, 0));
    expect(refusal(limiter.take(KEY, requests(100), 0, 0)).retryMs).toBe(200);
    clock.ms += 60_100;
    limiter.take(KEY, requests(100), 0, 0);
    const [line] = answer(limiter, 0, 0);
    expect(line!.figures.used).toBe(1);
  });

  test("says that it needs more before it has none, and reports everything once", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    let needs = 0;
    limiter.onNeed = () => needs++;
    for (let i = 0; i < 40; i++) hold(limiter.take(KEY, requests(1_000), 0, 0));
    expect(needs).toBe(1);
    const [line, more] = answer(limiter, 40, 900);
    expect(more).toBeUndefined();
    // It knows of no other node, so all of the limit is its share until it is told.
    expect(line!.figures).toEqual({ used: 40, held: 960, want: 40 });
    expect(limiter.due(100)).toEqual([]);
    for (let i = 0; i < 30; i++) hold(limiter.take(KEY, requests(1_000), 0, 0));
    expect(needs).toBe(2);
    expect(limiter.due(100)[0]!.figures).toMatchObject({ used: 70, held: 10 });
  });

  test("a limit that is changed counts at once", () => {
    const limiter = limiterAt(new Clock());
    for (let i = 0; i < 3; i++) hold(limiter.take(KEY, requests(10), 0, 0));
    answer(limiter, 7);
    refusal(limiter.take(KEY, requests(3), 0, 0));
    expect(limiter.due(100)[0]!.account.limit).toBe(3);
    hold(limiter.take(KEY, requests(10), 0, 0));
    hold(limiter.take(KEY, NONE, 5_000, 5_000));
  });

  test("a limit that is raised is not refused any more, and each node takes its part of it until it is told", () => {
    const limiter = limiterAt(new Clock());
    limiter.setNodes(2);
    for (let i = 0; i < 2; i++) hold(limiter.take(KEY, requests(4), 0, 0));
    answer(limiter, 0, 0);
    refusal(limiter.take(KEY, requests(4), 0, 0));
    for (let i = 0; i < 3; i++) hold(limiter.take(KEY, requests(10), 0, 0));
    const refused = refusal(limiter.take(KEY, requests(10), 0, 0));
    // The rest is with the other node, not a minute away.
    expect(refused.retryMs).toBe(200);
    expect(limiter.view(KEY, requests(10)).remainingRequests).toBe(3);
  });

  test("a limit that is lowered leaves as much less as it was lowered by", () => {
    const limiter = limiterAt(new Clock());
    for (let i = 0; i < 2; i++) hold(limiter.take(KEY, requests(600), 0, 0));
    answer(limiter, 300, 590);
    hold(limiter.take(KEY, requests(13), 0, 0));
    expect(limiter.view(KEY, requests(13)).remainingRequests).toBe(2);
    hold(limiter.take(KEY, requests(11), 0, 0));
    expect(refusal(limiter.take(KEY, requests(3), 0, 0)).retryMs).toBeGreaterThan(200);
    expect(limiter.view(KEY, requests(3)).remainingRequests).toBe(0);
  });
});

test("a request takes all counts or none", () => {
  const limiter = limiterAt(new Clock());
  const limits = { requestsPerMinute: 10, tokensPerMinute: 100, concurrentRequests: 2 };
  hold(limiter.take(KEY, limits, 60, 10));
  expect(refusal(limiter.take(KEY, limits, 60, 10)).kind).toBe(RateKind.TOKENS);
  hold(limiter.take(KEY, limits, 10, 10));
  expect(refusal(limiter.take(KEY, limits, 10, 10)).kind).toBe(RateKind.CONCURRENT);
  expect(limiter.view(KEY, limits)).toMatchObject({ remainingRequests: 8, remainingTokens: 30 });
  expect(limiter.stats.refusals).toEqual({ REQUESTS: 0, TOKENS: 1, CONCURRENT: 1 });
});

test("what a request cannot be: input beyond the limit is too large, an expectation beyond it is lowered", () => {
  const limiter = limiterAt(new Clock());
  const refused = refusal(limiter.take(KEY, tokens(100), 500, 101));
  expect(refused).toMatchObject({ kind: RateKind.TOKENS, limit: 100, tooLarge: true });
  hold(limiter.take(KEY, tokens(100), 500, 100)).settle(500);
  expect(limiter.view(KEY, tokens(100)).remainingTokens).toBe(0);
});

describe("the end of a request", () => {
  test("the real count replaces the expected one, up and down", () => {
    const limiter = limiterAt(new Clock());
    const less = hold(limiter.take(KEY, tokens(1_000), 300, 10));
    const more = hold(limiter.take(KEY, tokens(1_000), 300, 10));
    less.settle(100);
    expect(limiter.view(KEY, tokens(1_000)).remainingTokens).toBe(600);
    more.settle(350);
    expect(limiter.view(KEY, tokens(1_000)).remainingTokens).toBe(550);
  });

  test("frees the place of a running request, once", () => {
    const limiter = limiterAt(new Clock());
    const first = hold(limiter.take(KEY, concurrent(2), 0, 0));
    hold(limiter.take(KEY, concurrent(2), 0, 0));
    expect(limiter.refuses(KEY, concurrent(2), 0)).toBe(true);
    first.settle(5);
    first.settle(5);
    first.release();
    hold(limiter.take(KEY, concurrent(2), 0, 0));
    refusal(limiter.take(KEY, concurrent(2), 0, 0));
  });

  test("released, it never was", () => {
    const limiter = limiterAt(new Clock());
    const limits = { requestsPerMinute: 1, tokensPerMinute: 10, concurrentRequests: 1 };
    const held = hold(limiter.take(KEY, limits, 10, 10));
    held.release();
    held.release();
    held.settle(10);
    expect(limiter.view(KEY, limits)).toMatchObject({ remainingRequests: 1, remainingTokens: 10 });
    hold(limiter.take(KEY, limits, 10, 10));
  });
});

describe("what clients are told", () => {
  test("when to try again: when own use makes room", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    hold(limiter.take(KEY, requests(2), 0, 0));
    clock.ms += 20_000;
    hold(limiter.take(KEY, requests(2), 0, 0));
    expect(refusal(limiter.take(KEY, requests(2), 0, 0)).retryMs).toBe(40_100);
    expect(limiter.view(KEY, requests(2))).toMatchObject({ remainingRequests: 0, resetRequestsMs: 60_100 });
  });

  test("what is left over all nodes, less own use since", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    expect(limiter.view(KEY, requests(100))).toEqual({
      remainingRequests: 100,
      remainingTokens: 0,
      resetRequestsMs: 0,
      resetTokensMs: 0,
    });
    hold(limiter.take(KEY, requests(100), 0, 0));
    answer(limiter, 10, 40);
    hold(limiter.take(KEY, requests(100), 0, 0));
    expect(limiter.view(KEY, requests(100)).remainingRequests).toBe(39);
    clock.ms += 1_000;
    expect(limiter.view(KEY, requests(100)).resetRequestsMs).toBe(59_100);
  });
});

describe("memory", () => {
  test("a subject that is not used any more is reported as forgotten once", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    hold(limiter.take(KEY, requests(10), 0, 0)).settle(0);
    answer(limiter, 5);
    clock.ms += 61_000;
    limiter.unanswered(limiter.due(100));
    limiter.unanswered(limiter.due(100));
    expect(limiter.stats.subjects).toBe(0);
    clock.ms += 61_000;
    expect(limiter.due(100)).toEqual([]);
  });

  test("one with a request that runs is kept", () => {
    const clock = new Clock();
    const limiter = limiterAt(clock);
    const held = hold(limiter.take(KEY, tokens(100), 10, 10));
    clock.ms += 120_000;
    limiter.due(100);
    expect(limiter.stats.subjects).toBe(1);
    held.settle(60);
    expect(limiter.view(KEY, tokens(100)).remainingTokens).toBe(50);
  });

  test("beyond the most, the first seen without a request makes room", () => {
    const limiter = limiterAt(new Clock(), 3);
    const running = hold(limiter.take("key_0", requests(1), 0, 0));
    for (let i = 1; i <= 5; i++) hold(limiter.take(`key_${i}`, requests(1), 0, 0)).settle(0);
    expect(limiter.stats.subjects).toBe(3);
    refusal(limiter.take("key_0", requests(1), 0, 0));
    running.release();
    hold(limiter.take("key_0", requests(1), 0, 0));
  });
});

test("by its own figures no window is ever over what the node may use, whatever happens", () => {
  const command = fc.record({
    ms: fc.oneof(fc.nat(50), fc.nat(20_000)),
    amount: fc.integer({ min: 0, max: 120 }),
    end: fc.option(fc.record({ which: fc.nat(20), release: fc.boolean(), part: fc.nat(2) })),
    grant: fc.option(fc.nat(100)),
    lose: fc.boolean(),
  });
  const limits = { requestsPerMinute: 40, tokensPerMinute: 1_000, concurrentRequests: 12 };
  fc.assert(
    fc.property(fc.array(command, { maxLength: 200 }), (commands) => {
      const clock = new Clock();
      const limiter = limiterAt(clock);
      const holds: { held: RateHold; amount: number; at: number; live: boolean }[] = [];
      const admitted: { at: number; tokens: number }[] = [];
      for (const { ms, amount, end, grant, lose } of commands) {
        clock.ms += ms;
        if (grant !== null) {
          const lines = limiter.due(100);
          if (lose) limiter.unanswered(lines);
          else {
            // What others leave: never more than the limit in sum.
            const grants = lines.map(({ account, figures }) => {
              const free = Math.max(0, account.limit - figures.used);
              return { allowance: Math.min(free, grant), remaining: free };
            });
            limiter.answered(lines, grants, 10_000);
          }
        }
        const result = limiter.take(KEY, limits, amount, 0);
        if (!isRefusal(result)) {
          const entry = { at: clock.ms, tokens: amount };
          admitted.push(entry);
          holds.push({ held: result, amount, at: admitted.length - 1, live: true });
        }
        if (end !== null && holds.length > 0) {
          const one = holds[end.which % holds.length]!;
          if (end.release) one.held.release();
          else one.held.settle(Math.floor((one.amount * end.part) / 2));
          if (one.live && end.release) admitted[one.at] = { at: 0, tokens: 0 };
          else if (one.live) admitted[one.at]!.tokens = Math.floor((one.amount * end.part) / 2);
          one.live = false;
        }
        const recent = admitted.filter(({ at }) => at > clock.ms - 60_000);
        expect(recent.length).toBeLessThanOrEqual(limits.requestsPerMinute);
        expect(recent.reduce((sum, each) => sum + each.tokens, 0)).toBeLessThanOrEqual(limits.tokensPerMinute);
        expect(holds.filter(({ live }) => live).length).toBeLessThanOrEqual(limits.concurrentRequests);
        const view = limiter.view(KEY, limits);
        expect(Math.min(view.remainingRequests, view.remainingTokens)).toBeGreaterThanOrEqual(0);
      }
    }),
    { numRuns: 200 },
  );
});
