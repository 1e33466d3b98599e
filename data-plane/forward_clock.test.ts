import fc from "fast-check";
import { expect, test } from "vitest";
import { forwardClock, STEP_MS } from "./forward_clock.ts";

const HOUR_MS = 3_600_000;

/** Two clocks of a machine that a test moves by hand. */
function machine() {
  const at = { wall: 1_700_000_000_000, monotonic: 50 };
  const now = forwardClock(
    () => at.wall,
    () => at.monotonic,
  );
  const begin = now();
  return {
    passed: () => now() - begin,
    pass(ms: number): void {
      at.wall += ms;
      at.monotonic += ms;
    },
    set(ms: number): void {
      at.wall += ms;
    },
  };
}

test("it is the wall clock, to begin with", () => {
  expect(
    forwardClock(
      () => 1_000,
      () => 7,
    )(),
  ).toBe(1_000);
});

test("a wall clock that jumps forward and back again does not stop it", () => {
  const { passed, pass, set } = machine();
  pass(1_000);
  expect(passed()).toBe(1_000);
  set(HOUR_MS);
  expect(passed()).toBe(HOUR_MS + 1_000);
  set(-HOUR_MS);
  expect(passed()).toBe(HOUR_MS + 1_000);
  for (let s = 1; s <= 60; s++) {
    pass(1_000);
    expect(passed()).toBe(HOUR_MS + 1_000 + s * 1_000);
  }
  set(HOUR_MS);
  expect(passed()).toBe(2 * HOUR_MS + 61_000);
});

test("set back first: it goes on, and sleep of the machine counts from there", () => {
  const { passed, pass, set } = machine();
  set(-HOUR_MS);
  pass(5_000);
  expect(passed()).toBe(5_000);
  // Suspended for a minute: only the wall clock knows.
  set(60_000);
  expect(passed()).toBe(65_000);
});

test("clocks that are read a moment apart do not make it run faster", () => {
  const { passed, pass, set } = machine();
  for (let n = 0; n < 1_000; n++) {
    set(n % 2 === 0 ? STEP_MS / 2 : -STEP_MS / 2);
    pass(1);
    expect(passed()).toBe(n + 1);
  }
});

test("property: it never goes back, never stands still, and never loses more than a step of any time that passed", () => {
  const move = fc.record({
    ms: fc.integer({ min: 0, max: HOUR_MS }),
    step: fc.integer({ min: -HOUR_MS, max: HOUR_MS }),
  });
  fc.assert(
    fc.property(fc.array(move, { maxLength: 50 }), (moves) => {
      const { passed, pass, set } = machine();
      let least = 0;
      let before = 0;
      for (const { ms, step } of moves) {
        pass(ms);
        least += ms;
        expect(passed()).toBeGreaterThanOrEqual(least);
        set(step);
        if (step > STEP_MS) least += step - STEP_MS;
        const after = passed();
        expect(after).toBeGreaterThanOrEqual(Math.max(before, least));
        before = after;
      }
    }),
  );
});
