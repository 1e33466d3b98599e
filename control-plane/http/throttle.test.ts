import { expect, test } from "vitest";
import { Throttle, type ThrottleLimits } from "./throttle.ts";

const LIMITS: ThrottleLimits = { perMinuteMax: 3, atOncePerAddressMax: 2, atOnceMax: 3, addressesMax: 4 };

function make(limits: Partial<ThrottleLimits> = {}) {
  const clock = { now: 0 };
  const throttle = new Throttle({ ...LIMITS, ...limits }, () => clock.now);
  const pass = (key: string): number => {
    const entered = throttle.enter(key);
    if (typeof entered !== "function") return entered.status;
    entered();
    return 200;
  };
  return { clock, throttle, pass };
}

test("so many a minute from one address, and the minute slides", () => {
  const { clock, throttle, pass } = make();
  expect([1, 2, 3, 4].map(() => pass("a"))).toEqual([200, 200, 200, 429]);
  expect(pass("b")).toBe(200);
  clock.now = 59_000;
  expect(throttle.enter("a")).toEqual({ status: 429, retryAfterS: 1 });
  // A third of the last minute's three still counts at two thirds of the next.
  clock.now = 100_000;
  expect([1, 2, 3].map(() => pass("a"))).toEqual([200, 200, 429]);
  clock.now = 300_000;
  expect(pass("a")).toBe(200);
});

test("so many at once, from one and from all", () => {
  const { throttle, pass } = make({ perMinuteMax: 100 });
  const first = throttle.enter("a") as () => void;
  throttle.enter("a");
  expect(pass("a")).toBe(503);
  throttle.enter("b");
  expect(pass("c")).toBe(503);
  first();
  expect(pass("a")).toBe(200);
});

test("a clock that was set back does not lock anybody out for long", () => {
  const { clock, pass } = make();
  clock.now = 1_000_000;
  [1, 2, 3].forEach(() => pass("a"));
  clock.now = 0;
  expect(pass("a")).toBe(200);
});

test("remembers so many addresses, and never forgets one with something under way", () => {
  const { throttle, pass } = make({ atOncePerAddressMax: 1, atOnceMax: 100 });
  throttle.enter("busy");
  for (let n = 0; n < 1000; n += 1) expect(pass(String(n))).toBe(200);
  expect(pass("busy")).toBe(503);
});
