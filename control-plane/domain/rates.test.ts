import { describe, expect, test } from "vitest";
import { COLD_MS, grantRate, type RateFigure, RateKind, type RateMoment, type RateReport } from "./rates.ts";

const NOW = 1_000_000;

function report(fields: Partial<RateReport> = {}): RateReport {
  return { subjectId: "key_a", kind: RateKind.REQUESTS, limit: 100, used: 0, held: 0, want: 0, ...fields };
}

function other(fields: Partial<RateFigure> = {}): RateFigure {
  return { used: 0, held: 0, want: 0, unmet: 0, since: 0, at: NOW, ...fields };
}

function moment(fields: Partial<RateMoment> = {}): RateMoment {
  return { now: NOW, draw: 0, nodes: 2, since: 0, final: false, ...fields };
}

describe("grantRate", () => {
  test.each<[string, Partial<RateReport>, Partial<RateFigure>[], number, number, number]>([
    ["alone: half of what is free", {}, [], 0, 50, 100],
    ["what it wants, if that is more", { want: 80 }, [], 0, 80, 100],
    ["all there is, if it wants more", { want: 200 }, [], 0, 100, 100],
    ["a part for each that uses the limit", { used: 10 }, [{ used: 10 }], 0, 20, 80],
    ["what others hold is not free", { want: 50 }, [{ used: 10, held: 70 }], 0, 20, 90],
    ["nothing is left", { used: 60, want: 5 }, [{ used: 40 }], 0.99, 0, 0],
    ["more than the limit was used", { used: 60, want: 5 }, [{ used: 60 }], 0.99, 0, 0],
    ["what others lack is left for them", {}, [{ used: 90, unmet: 4, want: 4 }], 0, 2, 10],
    ["at least one while there is one", {}, [{ used: 99 }], 0, 1, 1],
    ["who is behind its part comes first", { used: 90, want: 4 }, [{ used: 5, want: 4, unmet: 4 }], 0.99, 0, 5],
    ["and gets it", { used: 5, want: 4 }, [{ used: 90, want: 4, unmet: 4 }], 0, 4, 5],
    ["what it holds and wants it keeps", { used: 90, held: 3, want: 4 }, [{ used: 5, want: 4, unmet: 4 }], 0, 3, 5],
    ["what it does not want it loses", { used: 90, held: 3 }, [{ used: 5, want: 5, unmet: 5 }], 0, 0, 5],
    ["by the draw, what cannot be divided", { used: 49, want: 2 }, [{ used: 50, want: 2, unmet: 2 }], 0, 1, 1],
  ])("%s", (_, given, others, draw, allowance, remaining) => {
    expect(grantRate(report(given), others.map(other), moment({ draw }))).toMatchObject({ allowance, remaining });
  });

  test("of tokens a node gets all it wants or nothing", () => {
    const kind = RateKind.TOKENS;
    const given = report({ kind, limit: 1_000, used: 440, want: 100 });
    const others = [other({ used: 440, want: 100, unmet: 100 })];
    expect(grantRate(given, others, moment({ draw: 0.3 })).allowance).toBe(0);
    expect(grantRate(given, others, moment({ draw: 0.6 })).allowance).toBe(100);
  });

  test.each([
    [RateKind.REQUESTS, 59_999, 60_000],
    [RateKind.TOKENS, 59_999, 60_000],
    [RateKind.CONCURRENT, 9_999, 10_000],
  ])("of kind %i, what a silent node has counts until it is %i ms old", (kind, counts, gone) => {
    const given = report({ kind, used: 10 });
    expect(grantRate(given, [other({ used: 50, at: NOW - counts })], moment()).remaining).toBe(40);
    expect(grantRate(given, [other({ used: 50, at: NOW - gone })], moment()).remaining).toBe(90);
  });

  test("what a silent node wants is forgotten sooner", () => {
    const lacking = (at: number) => [other({ used: 90, want: 9, unmet: 9, at })];
    expect(grantRate(report(), lacking(NOW - 999), moment()).allowance).toBe(1);
    expect(grantRate(report(), lacking(NOW - 1_000), moment()).allowance).toBe(2);
  });

  test("a node that stops or has forgotten the limit gets nothing", () => {
    expect(grantRate(report({ want: 5 }), [], moment({ final: true })).allowance).toBe(0);
    expect(grantRate(report({ limit: 0 }), [other()], moment({ draw: 0.9 }))).toMatchObject({
      allowance: 0,
      remaining: 0,
    });
  });

  test("what nodes that have not reported may be using already is kept for them, for a moment", () => {
    const given = report({ used: 10, want: 90 });
    const since = NOW - COLD_MS + 1;
    expect(grantRate(given, [], moment({ nodes: 4, since })).allowance).toBe(100 - 10 - 3 * 25);
    expect(grantRate(given, [other({ used: 20, since })], moment({ nodes: 4, since })).allowance).toBe(
      100 - 30 - 2 * 25,
    );
    // Long since in use by one of them: who begins now knows whether little is left.
    expect(grantRate(given, [other({ used: 20 })], moment({ nodes: 4, since })).allowance).toBe(70);
    expect(grantRate(given, [], moment({ nodes: 4, since: since - 1 })).allowance).toBe(90);
    // Each serves one at least.
    expect(grantRate(report({ limit: 3, used: 1, want: 2 }), [], moment({ nodes: 8, since })).allowance).toBe(0);
  });
});
