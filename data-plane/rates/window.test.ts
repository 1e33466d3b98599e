import fc from "fast-check";
import { expect, test } from "vitest";
import { SlidingWindow, TICK_MS, WINDOW_MS } from "./window.ts";

test("what was used leaves after a minute, and a tick later at most", () => {
  const window = new SlidingWindow();
  window.add(1_000, 3);
  window.add(31_000, 4);
  expect(window.used(1_000 + WINDOW_MS)).toBe(7);
  expect(window.used(1_000 + WINDOW_MS + TICK_MS)).toBe(4);
  expect(window.freeInMs(61_100, 4)).toBe(30_000);
  expect(window.emptyInMs(61_100)).toBe(30_000);
  expect(window.used(91_100)).toBe(0);
  expect(window.emptyInMs(91_100)).toBe(0);
  expect(window.left).toBe(7);
});

test("what is taken back goes from where it was added, and not twice", () => {
  const window = new SlidingWindow();
  const tick = window.add(0, 5);
  window.add(50_000, 2);
  window.remove(tick, 3);
  expect(window.used(50_000)).toBe(4);
  window.remove(tick, 30);
  expect(window.used(50_000)).toBe(2);
  window.remove(tick + 1, 1);
  expect(window.used(200_000)).toBe(0);
  window.remove(tick, 1);
  expect(window.used(200_000)).toBe(0);
});

test("counts like a list of everything, whatever is added and taken back", () => {
  const step = fc.record({
    ms: fc.oneof(fc.nat(200), fc.nat(90_000)),
    amount: fc.nat(1_000),
    back: fc.option(fc.record({ which: fc.nat(50), part: fc.double({ min: 0, max: 2, noNaN: true }) })),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 1_500 }), (steps) => {
      const window = new SlidingWindow();
      const list: { tick: number; amount: number }[] = [];
      let now = 5_000;
      for (const { ms, amount, back } of steps) {
        now += ms;
        const tick = window.add(now, amount);
        list.push({ tick, amount });
        if (back !== null) {
          const one = list[back.which % list.length]!;
          const others = list.filter((each) => each.tick === one.tick);
          const taken = Math.min(
            Math.floor(one.amount * back.part),
            others.reduce((sum, each) => sum + each.amount, 0),
          );
          window.remove(one.tick, Math.floor(one.amount * back.part));
          others[0]!.amount = others.reduce((sum, each) => sum + each.amount, 0) - taken;
          for (const each of others.slice(1)) each.amount = 0;
        }
        const first = Math.floor(now / TICK_MS) - WINDOW_MS / TICK_MS;
        const expected = list.reduce((sum, each) => sum + (each.tick >= first ? each.amount : 0), 0);
        expect(window.used(now)).toBe(expected);
      }
    }),
    { numRuns: 60 },
  );
});
