/** Routing that survives, as merchants and API users see it: two nodes, one control plane, the official SDK. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttemptKind, AttemptResult, ExclusionReason, Outcome, type TokenBill } from "../../clients/ts/src/index.ts";
import { parseCredits } from "../../core/credits.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const messages = [{ role: "user" as const, content: "one two three" }];
const HEDGE_MS = 300;

let system: System;
let upstream: Upstream;
let tb: TokenBill;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ nodes: 2 });
  tb = await system.api();
});
afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

interface Settings {
  readonly hedgeAfterMs?: number;
  readonly firstContentMs?: number;
}

/** A shop with two models, one behind the other. */
async function openTiers(models: readonly [string, string], settings: Settings = {}): Promise<Shop> {
  const shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: models });
  const { logicalModels } = await tb.logicalModels.listLogicalModels({ veId: shop.veId });
  const [first, second] = shop.physicalModelIds;
  const own = settings.firstContentMs === undefined ? {} : { deadlines: { firstContentMs: settings.firstContentMs } };
  await tb.logicalModels.updateLogicalModel({
    id: logicalModels[0]!.id,
    targets: {
      targets: [
        { physicalModelId: first!, tier: 0, weight: 1, ...own },
        { physicalModelId: second!, tier: 1, weight: 1 },
      ],
    },
    routing: { hedgeAfterMs: settings.hedgeAfterMs ?? 0 },
  });
  await tb.virtualEndpoints.updateVirtualEndpoint({ id: shop.veId, explainHeaders: true });
  for (const node of system.nodes) await untilServed(node, shop);
  return shop;
}

async function requestsOf(shop: Shop, count: number) {
  return until("every request is reported", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 100 });
    return requests.length === count && requests;
  });
}

/** The answer as text, and its headers. */
async function ask(shop: Shop, stream: boolean): Promise<{ text: string; headers: Headers }> {
  const { chat } = system.nodes[0]!.openai(shop.key, { maxRetries: 0 });
  if (!stream) {
    const { data, response } = await chat.completions.create({ model: shop.model, messages }).withResponse();
    return { text: data.choices[0]!.message.content ?? "", headers: response.headers };
  }
  const { data, response } = await chat.completions.create({ model: shop.model, messages, stream }).withResponse();
  let text = "";
  for await (const chunk of data) text += chunk.choices[0]?.delta.content ?? "";
  return { text, headers: response.headers };
}

describe("a hedged stream", () => {
  test("is served by the faster target, both calls are billed, and the log shows them", async () => {
    // Accepted after the hedge began, and then it never has content.
    const slow = `slow-${process.pid}~delayMs=${HEDGE_MS + 200}~hang=content`;
    const shop = await openTiers([slow, `fast-${process.pid}~delayMs=1500`], { hedgeAfterMs: HEDGE_MS });
    const { text, headers } = await ask(shop, true);
    expect(text).toContain("simulated");
    expect(headers.get("x-tokenbill-physical-model")).toBe(shop.physicalModelIds[1]);
    const requests = await requestsOf(shop, 2);
    const served = requests.find(({ outcome }) => outcome === Outcome.COMPLETED)!;
    const lost = requests.find(({ outcome }) => outcome === Outcome.HEDGE_LOST)!;
    expect(lost.hedgeOf).toBe(served.id);
    expect(lost.physicalModelId).toBe(shop.physicalModelIds[0]);
    expect(served.id).toBe(headers.get("x-request-id"));
    expect(served.attempts.map(({ kind, result }) => [kind, result])).toEqual([
      [AttemptKind.FIRST, AttemptResult.HEDGE_LOST],
      [AttemptKind.HEDGE, AttemptResult.SERVED],
    ]);
    expect(served.attempts[1]!.credits).toBe(served.credits);
    expect(parseCredits(lost.credits)).toBeGreaterThan(0n);
    const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
    expect(parseCredits(wallet!.settled)).toBe(parseCredits(lost.credits) + parseCredits(served.credits));
  });
});

describe("what fails before content is not seen by the client", () => {
  test.each([
    ["an error inside a 200", "errorFrame=content", AttemptResult.BAD_ANSWER, "error_frame"],
    ["a broken frame", "brokenFrame=content", AttemptResult.BAD_ANSWER, "broken_frame"],
    ["an empty stream", "end=content", AttemptResult.BAD_ANSWER, "empty"],
    ["a break", "reset=content", AttemptResult.BAD_ANSWER, ""],
    ["nothing but silence", "hang=content", AttemptResult.FIRST_CONTENT_TIMEOUT, ""],
  ])("%s", async (name, behaviour, result, detail) => {
    const shop = await openTiers([`bad-${process.pid}-${name.length}~${behaviour}`, "simulated-model"], {
      firstContentMs: 400,
    });
    const { text, headers } = await ask(shop, true);
    expect(text).toContain("simulated");
    expect(headers.get("x-tokenbill-attempts")).toBe("2");
    expect(headers.get("x-tokenbill-credits")).toBe(null);
    const [request] = await requestsOf(shop, 1);
    const [failed, served] = request!.attempts;
    expect(failed).toMatchObject({ result, kind: AttemptKind.FIRST });
    if (detail !== "") expect(failed!.detail).toBe(detail);
    expect(served).toMatchObject({ result: AttemptResult.SERVED, kind: AttemptKind.FALLBACK });
    expect(served!.firstContentUs).toBeGreaterThan(0n);
  });
});

test("a JSON answer says what it cost, as the ledger does", async () => {
  const shop = await openTiers(["simulated-model", "simulated-model"]);
  const { headers } = await ask(shop, false);
  const [request] = await requestsOf(shop, 1);
  expect(headers.get("x-tokenbill-credits")).toBe(request!.credits);
  expect(headers.get("x-tokenbill-model")).toBe("simulated-model");
});

test("DryRun tells what a request would meet, before and after a target began to fail", async () => {
  const shop = await openTiers([`dead-${process.pid}~status=503`, "simulated-model"]);
  const dryRun = () => tb.logicalModels.dryRun({ veId: shop.veId, model: shop.model });
  const before = await dryRun();
  expect(before.errorCode).toBe("");
  expect(before.targets.map(({ probability }) => probability)).toEqual([1, 0]);
  for (let i = 0; i < 4; i++) await ask(shop, false);
  const after = await until("the control plane has heard of it", async () => {
    const answer = await dryRun();
    return answer.targets[1]!.probability === 1 && answer;
  });
  expect(after.targets[0]!.exclusions.map(({ reason }) => reason)).toEqual([ExclusionReason.MODEL_COOLING]);
  expect(after.targets[0]!.healthShare).toBeLessThan(1);
  await expect(tb.logicalModels.dryRun({ veId: shop.veId, model: "another" })).rejects.toThrow("model");
});
