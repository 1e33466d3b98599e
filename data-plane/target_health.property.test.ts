import fc from "fast-check";
import { expect, test } from "vitest";
import { type FailureKind, HEALTH_DEFAULTS, RETRY_AFTER_MS_MAX, TRIAL_MS_MAX } from "./health.ts";
import { choose, lastResort } from "./router.ts";
import { coolUntil, TargetHealth } from "./target_health.ts";
import { groupOf } from "./testing_router.ts";

const KINDS: readonly FailureKind[] = ["failure", "connection", "rate_limit", "account", "model", "ignore"];
const TARGETS = 4;

const at = fc.nat(TARGETS - 1);
const ms = fc.oneof(fc.constant(0), fc.nat(100_000));
const step = fc.oneof(
  fc.record({ what: fc.constant("begin" as const), at }),
  fc.record({ what: fc.constant("succeed" as const), at, ms }),
  fc.record({ what: fc.constant("fail" as const), at, kind: fc.constantFrom(...KINDS), ms }),
  fc.record({ what: fc.constant("release" as const), at }),
  fc.record({ what: fc.constant("pass" as const), ms }),
  fc.record({
    what: fc.constant("adopt" as const),
    at,
    provider: fc.boolean(),
    coolMs: ms,
    cause: fc.nat(4),
    failurePercent: fc.nat(100),
    firstContentMs: ms,
  }),
);

test("whatever happens, cooldowns and shares stay within their bounds, and a choice is one that can be used", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), fc.boolean(), (steps, stream) => {
      const group = groupOf(Array.from({ length: TARGETS }, (_, i) => [i >> 1, i % 2] as [number, number]));
      const { pms } = group;
      const health = new TargetHealth(HEALTH_DEFAULTS);
      let now = 1_000_000;
      let draws = 0;
      const random = (): number => (draws++ % 10) / 10;
      for (const each of steps) {
        if (each.what === "pass") {
          now += each.ms;
          continue;
        }
        const pm = pms[each.at]!;
        if (each.what === "begin") health.begin(pm, now);
        else if (each.what === "release") health.release(pm);
        else if (each.what === "fail") health.fail(pm, each.kind, each.ms, now);
        else if (each.what === "adopt") (each.provider ? pm.provider : pm).health.adopt(each, now);
        else {
          health.succeed(pm, now, stream, each.ms);
          // At once, unless the upstream wants to be left alone for a while.
          expect(health.available(pm, Math.max(now, coolUntil(pm)))).toBe(true);
        }
        for (const { health: one } of [pm, pm.provider]) {
          one.refreshShare(now);
          expect(one.coolUntil - now).toBeLessThanOrEqual(RETRY_AFTER_MS_MAX);
          expect(one.share).toBeGreaterThanOrEqual(0.02);
          expect(one.share).toBeLessThanOrEqual(1);
          expect(one.failing(now)).toBeGreaterThanOrEqual(0);
          expect(one.failing(now)).toBeLessThanOrEqual(1);
        }
        const sticky = draws % 3;
        const chosen = choose(group, null, random, now, stream, sticky);
        if (chosen !== null) expect(health.available(chosen, now)).toBe(true);
        else expect(lastResort(group, null, now)).not.toBeNull();
      }
      // In the end everything is tried again, and has its whole weight.
      now += TRIAL_MS_MAX + 1;
      for (const pm of pms) {
        expect(health.available(pm, now)).toBe(true);
        expect(pm.health.dimUntil).toBeLessThan(now);
      }
    }),
    { numRuns: 300 },
  );
});
