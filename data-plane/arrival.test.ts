/** When a request arrived is told by the wall clock, durations by the one that does not jump. */

import { expect, test } from "vitest";
import { startGateway } from "./testing.ts";

const HOUR_MS = 3_600_000;
const now = (): number => performance.timeOrigin + performance.now();

test.each([
  ["set forward by an hour since the node started", HOUR_MS],
  ["set back by an hour since the node started", -HOUR_MS],
  ["the same but for jitter", 300],
])("the wall clock was %s", async (_, leadMs) => {
  const gateway = await startGateway({ wallNow: () => now() + leadMs });
  const before = now();
  await (await gateway.chat()).text();
  const { arriveUnixUs, durationUs } = await gateway.journal.settled();
  const expected = before + (Math.abs(leadMs) < HOUR_MS ? 0 : leadMs);
  // Half an hour tells the cases apart, however slow the machine is.
  expect(Math.abs(arriveUnixUs / 1000 - expected)).toBeLessThan(HOUR_MS / 2);
  expect(durationUs).toBeLessThan(HOUR_MS * 500);
  await gateway.close();
});
