/** What an upstream sends at once, or in one frame, is not beyond the promise of one slice either. */

import { describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { Outcome } from "./outcome.ts";
import { startGateway } from "./testing.ts";
import { chunk, DONE } from "./testing_upstream.ts";

const WALLET = parseCredits("0.1");
/** 256 output tokens at 0.002. */
const SLICE = parseCredits("0.512");
const ONE_FRAME = "one frame of 20,000 words";
const ONE_TOKEN_FRAMES = Array.from({ length: 400 }, () => chunk({ content: "w " })).join("");

async function stream(body: string, ve: Record<string, unknown> = {}, left: bigint | null = null) {
  const gateway = await startGateway({ ve });
  gateway.budget.free = WALLET;
  gateway.budget.left = left;
  gateway.upstreams[0]!.always((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(body + chunk({}, "stop") + DONE);
  });
  const text = await (await gateway.chat({ stream: true })).text();
  const settlement = await gateway.journal.settled();
  const { spent } = gateway.budget;
  await gateway.close();
  return { text, settlement, spent };
}

describe.each([
  [ONE_FRAME, chunk({ content: "word ".repeat(20_000) })],
  ["400 frames of one token in one read", ONE_TOKEN_FRAMES],
])("%s", (what, body) => {
  test.each([
    ["not heard of", null],
    ["heard of as ample", parseCredits("1000")],
  ])("BALANCED, the wallet was %s: one slice at most", async (__, left) => {
    const { text, settlement, spent } = await stream(body, {}, left);
    expect(settlement.outcome).toBe(Outcome.BUDGET_CUT);
    expect(spent).toBeLessThanOrEqual(WALLET + SLICE);
    expect(spent).toBeGreaterThan(0n);
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toContain("insufficient_quota");
    if (what !== ONE_FRAME) expect(text.split("w ").length).toBeLessThan(320);
  });

  test("STRICT: nothing", async () => {
    const { settlement, spent } = await stream(body, { budgetMode: 2 });
    expect(settlement.outcome).toBe(Outcome.BUDGET_CUT);
    expect(spent).toBeLessThanOrEqual(WALLET);
    expect(spent).toBeGreaterThan(0n);
  });
});

test("an estimate above what was reserved takes the rest from a wallet that has it", async () => {
  const gateway = await startGateway({});
  gateway.upstreams[0]!.always((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(chunk({ content: "word ".repeat(20_000) }) + chunk({}, "stop") + DONE);
  });
  await (await gateway.chat({ stream: true })).text();
  const settlement = await gateway.journal.settled();
  expect(settlement.outcome).toBe(Outcome.COMPLETED);
  expect(gateway.budget.spent).toBeGreaterThan(20_000n * parseCredits("0.002"));
  await gateway.close();
});
