import fc from "fast-check";
import { expect, test } from "vitest";
import { Deadline, TICK_MS, TimerWheel } from "./timers.ts";

function fixture() {
  let now = 1_000_000;
  const fired: { name: string; at: number }[] = [];
  const wheel = new TimerWheel(() => now);
  const make = (name: string) => new Deadline({ onDeadline: () => void fired.push({ name, at: now }) });
  const pass = (ms: number) => {
    now += ms;
    wheel.advance();
  };
  return { wheel, fired, make, pass, now: () => now };
}

test("fires at most a tick late, once, and not when cleared", () => {
  const { wheel, fired, make, pass, now } = fixture();
  const [a, b] = [make("a"), make("b")];
  wheel.set(a, now() + 500);
  wheel.set(b, now() + 500);
  wheel.clear(b);
  pass(499);
  expect(fired).toEqual([]);
  pass(1 + TICK_MS);
  expect(fired.map(({ name }) => name)).toEqual(["a"]);
  pass(100_000);
  expect(fired).toHaveLength(1);
  wheel.stop();
});

test("moves later and sooner, beyond the size of the wheel too", () => {
  const { wheel, fired, make, pass, now } = fixture();
  const a = make("a");
  wheel.set(a, now() + 100);
  wheel.set(a, now() + 3_600_000);
  pass(3_599_000);
  expect(fired).toEqual([]);
  wheel.set(a, now() + 200);
  pass(200 + TICK_MS);
  expect(fired).toHaveLength(1);
  wheel.stop();
});

test("owners may set and clear deadlines while others fire", () => {
  let now = 0;
  const seen: string[] = [];
  const wheel = new TimerWheel(() => now);
  const victim = new Deadline({ onDeadline: () => void seen.push("victim") });
  const first = new Deadline({
    onDeadline: () => {
      seen.push("first");
      wheel.clear(victim);
      wheel.set(first, now + 100);
    },
  });
  wheel.set(victim, 100);
  wheel.set(first, 100);
  now = 150;
  wheel.advance();
  now = 300;
  wheel.advance();
  expect(seen.filter((name) => name === "first")).toHaveLength(2);
  expect(seen.filter((name) => name === "victim").length).toBeLessThanOrEqual(1);
  wheel.stop();
});

test("property: any sequence of moves fires each deadline once, in its tick", () => {
  const step = fc.record({ who: fc.nat(5), in: fc.nat(200_000), pass: fc.nat(70_000), clear: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { wheel, fired, make, pass, now } = fixture();
      const all = Array.from({ length: 6 }, (_, i) => make(String(i)));
      const due = new Map<string, number>();
      const settle = (ms: number) => {
        // In small steps, so that lateness shows.
        for (let left = ms; left > 0; left -= 1000) {
          pass(Math.min(left, 1000));
          for (const { name, at } of fired.splice(0)) {
            const wanted = due.get(name)!;
            expect(at).toBeGreaterThanOrEqual(wanted);
            expect(at - wanted).toBeLessThanOrEqual(1000 + TICK_MS);
            due.delete(name);
          }
          for (const at of due.values()) expect(now() - at).toBeLessThan(TICK_MS);
        }
      };
      for (const { who, in: ms, pass: time, clear } of steps) {
        if (clear) {
          wheel.clear(all[who]!);
          due.delete(String(who));
        } else {
          wheel.set(all[who]!, now() + ms);
          due.set(String(who), now() + ms);
        }
        settle(time);
      }
      settle(300_000);
      expect(due.size).toBe(0);
      wheel.stop();
    }),
    { numRuns: 50 },
  );
});
