/** Limits of Physical Models: passed over when reached, held while a request runs, settled with what it used. */

import { afterEach, describe, expect, test } from "vitest";
import { UnitKind } from "../core/meters.ts";
import { limitAccount, LimitKind, UNIT } from "./budget/accounts.ts";
import { STREAM_OUTPUT_TOKENS } from "./budget/estimate.ts";
import { AttemptResult, Outcome } from "./outcome.ts";
import { delta, type Gateway, type GatewayOptions, PRICE, resource, startGateway } from "./testing.ts";
import type { FakeLimit } from "./testing_fakes.ts";
import { error, hang, reset } from "./testing_upstream.ts";
import { ATTEMPTS_MAX, LIMIT_ENTRIES_MAX } from "./trail.ts";

let gateway: Gateway;
afterEach(() => gateway.close());

const MILLION = 1_000_000n * UNIT;
const units = (pm: number): string => limitAccount(`pm_${pm}`, LimitKind.UNITS);
const credits = (pm: number): string => limitAccount(`pm_${pm}`, LimitKind.CREDITS);
const { SERVED, LIMIT_REACHED, STATUS, CONNECTION_ERROR, CLIENT_GONE, TOTAL_TIMEOUT } = AttemptResult;

/** Two upstreams, of which the first has a limit of tokens. */
async function start(limit: Partial<FakeLimit> = {}, options: GatewayOptions = {}): Promise<FakeLimit> {
  gateway = await startGateway({ upstreams: 2, ...options });
  return limitPm(0, { unitLimitUnit: UnitKind.TOKENS }, limit);
}

function limitPm(n: number, fields: Record<string, unknown>, limit: Partial<FakeLimit> = {}): FakeLimit {
  const pm = { id: `pm_${n}`, providerId: `prov_${n}`, upstreamName: `up-${n}`, price: PRICE, ...fields };
  delta(gateway.table, [resource("physicalModel", pm)]);
  const made = { free: MILLION, ...limit };
  if (fields["unitLimitUnit"] !== undefined) gateway.budget.limits.set(units(n), made);
  if (fields["creditLimited"] === true) gateway.budget.limits.set(credits(n), made);
  return made;
}

const results = (): number[] => gateway.journal.settlements[0]!.attempts.map(({ result }) => result);
const errorOf = async (response: Response): Promise<any> => ((await response.json()) as any).error;

describe("what is held and what is settled", () => {
  test("tokens: the body and the expected output; then what the record says", async () => {
    const limit = await start();
    expect((await gateway.chat({ max_tokens: 50 })).status).toBe(200);
    const [settlement] = gateway.journal.settlements;
    const body = JSON.stringify({ model: "gpt", messages: [{ role: "user", content: "Hi" }], max_tokens: 50 });
    expect(gateway.budget.limitHolds[0]).toMatchObject({ held: BigInt(body.length + 50) * UNIT });
    const used = settlement!.units.reduce((sum, { meter, quantity }) => (meter === 11 ? sum : sum + quantity), 0);
    expect(used).toBeGreaterThan(0);
    expect(settlement!.limits).toEqual([{ account: units(0), amount: BigInt(used) * UNIT }]);
    expect(limit.free).toBe(MILLION - BigInt(used) * UNIT);
  });

  test("a stream holds what is expected of it", async () => {
    await start();
    await (await gateway.chat({ stream: true })).text();
    const body = JSON.stringify({ model: "gpt", messages: [{ role: "user", content: "Hi" }], stream: true });
    expect(gateway.budget.limitHolds[0]!.held).toBe(BigInt(body.length + STREAM_OUTPUT_TOKENS) * UNIT);
  });

  test("requests: one each; Credits: as the wallet, at this target's price; both together", async () => {
    gateway = await startGateway();
    limitPm(0, { unitLimitUnit: UnitKind.REQUESTS, creditLimited: true });
    await (await gateway.chat()).text();
    const [settlement] = gateway.journal.settlements;
    expect(gateway.budget.limitHolds.map(({ account, held }) => [account, held])).toEqual([
      [units(0), UNIT],
      [credits(0), gateway.budget.reservations[0]!.held],
    ]);
    expect(settlement!.limits).toEqual([
      { account: units(0), amount: UNIT },
      { account: credits(0), amount: settlement!.credits },
    ]);
  });

  test("an attempt that fails gives everything back, and so does a request that nothing is billed for", async () => {
    const limit = await start();
    gateway.upstreams[0]!.next(error(500));
    expect((await gateway.chat()).status).toBe(200);
    expect(results()).toEqual([STATUS, SERVED]);
    expect(limit.free).toBe(MILLION);
    expect(gateway.journal.settlements[0]).not.toHaveProperty("limits");
    gateway.upstreams[0]!.next(error(400));
    expect((await gateway.chat()).status).toBe(400);
    expect(limit.free).toBe(MILLION);
  });

  test("a Physical Model without limits asks for nothing", async () => {
    gateway = await startGateway();
    await (await gateway.chat()).text();
    expect(gateway.budget.limitHolds).toEqual([]);
    expect(gateway.journal.settlements[0]).not.toHaveProperty("limits");
  });
});

describe("a limit that is reached", () => {
  test("is passed over, and the cascade goes on", async () => {
    await start({ free: 0n });
    const response = await gateway.chat();
    expect(response.status).toBe(200);
    // Told only where there was more than one call.
    expect(response.headers.get("x-tokenbill-attempts")).toBeNull();
    expect(results()).toEqual([LIMIT_REACHED, SERVED]);
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
    expect(gateway.journal.settlements[0]).toMatchObject({ physicalModelId: "pm_1", outcome: Outcome.COMPLETED });
  });

  test("less than what is expected will do, as long as it covers the input", async () => {
    const limit = await start({ free: 100n * UNIT });
    await (await gateway.chat()).text();
    expect(results()).toEqual([SERVED]);
    expect(gateway.budget.limitHolds[0]!.held).toBe(100n * UNIT);
    limit.free = 20n * UNIT;
    await (await gateway.chat()).text();
    expect(gateway.journal.settlements[1]!.attempts.map(({ result }) => result)).toEqual([LIMIT_REACHED, SERVED]);
  });

  test("one of two limits is enough, and what was held of the other goes back", async () => {
    gateway = await startGateway({ upstreams: 2 });
    const both = limitPm(0, { unitLimitUnit: UnitKind.REQUESTS, creditLimited: true });
    const money: FakeLimit = { free: 0n };
    gateway.budget.limits.set(credits(0), money);
    await (await gateway.chat()).text();
    expect(results()).toEqual([LIMIT_REACHED, SERVED]);
    expect([both.free, money.free]).toEqual([MILLION, 0n]);
  });

  test("is no failure: health stays as it was, and a trial is not used up", async () => {
    const limit = await start({ free: 0n });
    for (let n = 0; n < 5; n++) await (await gateway.chat()).text();
    const pm = gateway.table.physicalModel("pm_0")!;
    expect([pm.health.failures, pm.health.coolUntil]).toEqual([0, 0]);
    pm.health.coolUntil = 1;
    await (await gateway.chat()).text();
    limit.free = MILLION;
    await (await gateway.chat()).text();
    expect(gateway.upstreams[0]!.seen).toHaveLength(1);
  });

  test("is not the last resort: another target that cools down is tried", async () => {
    await start({ free: 0n });
    const [a, b] = ["pm_0", "pm_1"].map((id) => gateway.table.physicalModel(id)!);
    a!.health.coolUntil = Number.MAX_SAFE_INTEGER - 1;
    b!.health.coolUntil = Number.MAX_SAFE_INTEGER;
    expect((await gateway.chat()).status).toBe(200);
    expect(results()).toEqual([LIMIT_REACHED, SERVED]);
  });

  test("does not use up attempts: what stands behind many of them is reached, and the record stays small", async () => {
    const count = LIMIT_ENTRIES_MAX + ATTEMPTS_MAX;
    const targets = Array.from({ length: count }, (_, n) => ({ tier: Math.max(0, n - count + 3), weight: 1 }));
    gateway = await startGateway({ upstreams: count, targets });
    for (let n = 0; n < count - 2; n++) limitPm(n, { unitLimitUnit: UnitKind.REQUESTS }, { free: 0n });
    gateway.upstreams[count - 2]!.next(reset);
    expect((await gateway.chat()).status).toBe(200);
    expect(results().slice(-2)).toEqual([CONNECTION_ERROR, SERVED]);
    expect(results().filter((result) => result === LIMIT_REACHED)).toHaveLength(LIMIT_ENTRIES_MAX);
  });
});

describe("when every target is at its limit", () => {
  const cases: [retryMs: number, retryAfter: string, shouldRetry: string | null][] = [
    [Number.POSITIVE_INFINITY, "60", "false"],
    [7_200_000, "60", "false"],
    [30_500, "31", null],
    [250, "1", null],
  ];
  test.each(cases)("429, and no hint to pay; hope in %d ms", async (retryMs, retryAfter, shouldRetry) => {
    await start({ free: 0n, retryMs }, { upstreams: 1 });
    const response = await gateway.chat();
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe(retryAfter);
    expect(response.headers.get("x-should-retry")).toBe(shouldRetry);
    expect(await errorOf(response)).toMatchObject({ type: "rate_limit_error", code: "model_limit_reached" });
    const [settlement] = gateway.journal.settlements;
    expect(settlement).toMatchObject({
      outcome: Outcome.UPSTREAM_ERROR,
      errorCode: "model_limit_reached",
      credits: 0n,
    });
    expect(settlement!.physicalModelId).toBe("");
  });

  test("the first of them to start again counts", async () => {
    await start({ free: 0n, retryMs: Number.POSITIVE_INFINITY });
    limitPm(1, { creditLimited: true }, { free: 0n, retryMs: 20_000 });
    const response = await gateway.chat();
    expect([response.status, response.headers.get("retry-after")]).toEqual([429, "20"]);
  });

  test("with another that failed, it is a failure", async () => {
    await start({ free: 0n });
    gateway.upstreams[1]!.next(error(500));
    expect((await gateway.chat()).status).toBe(503);
    gateway.upstreams[1]!.next(error(429));
    const response = await gateway.chat();
    expect((await errorOf(response)).code).toBe("rate_limit_exceeded");
  });

  test("limits that cannot be asked about are another thing", async () => {
    await start({ free: 0n, failure: "unavailable" });
    expect((await gateway.chat()).status).toBe(200);
    limitPm(1, { creditLimited: true }, { free: 0n });
    const response = await gateway.chat();
    expect(response.status).toBe(503);
    expect(await errorOf(response)).toMatchObject({ type: "service_unavailable_error", code: "limit_unavailable" });
  });
});

describe("while the control plane is asked", () => {
  const asked = async (): Promise<() => void> => {
    const { budget } = gateway;
    while (budget.limitPending!.length === 0) await new Promise((done) => setImmediate(done));
    return budget.limitPending!.shift()!;
  };

  async function startAsking(options: GatewayOptions = {}): Promise<FakeLimit> {
    const limit = await start({ free: 50n * UNIT }, options);
    limit.free = 100n * UNIT;
    gateway.budget.limitPending = [];
    return limit;
  }

  test("the request waits, then goes on with what there is", async () => {
    await startAsking();
    const response = gateway.chat();
    (await asked())();
    expect((await response).status).toBe(200);
    expect(results()).toEqual([SERVED]);
  });

  test.each([1, 2, 3])("a client that leaves ends it at once, whatever its Provider says: %d", async (onDisconnect) => {
    const limit = await startAsking({ provider: { onDisconnect } });
    const leaving = new AbortController();
    const response = gateway.chat({}, leaving.signal).catch(() => "gone");
    const answer = await asked();
    leaving.abort();
    expect(await response).toBe("gone");
    expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.CLIENT_GONE, credits: 0n });
    expect(results()).toEqual([CLIENT_GONE]);
    // The answer comes too late, and what it brings goes back.
    answer();
    expect(gateway.budget.limitHolds).toMatchObject([{ settled: 1, spent: 0n }]);
    expect([limit.free, gateway.upstreams[0]!.seen.length]).toEqual([100n * UNIT, 0]);
  });

  test("the deadline of the whole counts", async () => {
    await startAsking({ deadlines: { totalMs: 80, connectMs: 10, firstByteMs: 10 } });
    const response = await gateway.chat();
    expect(response.status).toBe(504);
    expect(results()).toEqual([TOTAL_TIMEOUT]);
    (await asked())();
    expect(gateway.budget.limitHolds).toMatchObject([{ settled: 1, spent: 0n }]);
  });

  test("what came of the attempt before is not told again", async () => {
    gateway = await startGateway({ upstreams: 2 });
    limitPm(1, { unitLimitUnit: UnitKind.TOKENS }, { free: 100n * UNIT });
    gateway.budget.limitPending = [];
    gateway.upstreams[0]!.next(error(500));
    const leaving = new AbortController();
    const response = gateway.chat({}, leaving.signal).catch(() => "gone");
    const answer = await asked();
    leaving.abort();
    await response;
    const { attempts, httpStatus } = await gateway.journal.settled();
    expect(attempts.map(({ result, httpStatus: status }) => [result, status])).toEqual([
      [STATUS, 500],
      [CLIENT_GONE, 0],
    ]);
    expect(httpStatus).toBe(0);
    answer();
  });

  test("a deadline of the attempt before does not", async () => {
    gateway = await startGateway({ upstreams: 2, deadlines: { firstByteMs: 40 } });
    limitPm(1, { unitLimitUnit: UnitKind.TOKENS }, { free: 100n * UNIT });
    gateway.budget.limitPending = [];
    gateway.upstreams[0]!.next(hang);
    const response = gateway.chat();
    const answer = await asked();
    await new Promise((done) => setTimeout(done, 120));
    answer();
    expect((await response).status).toBe(200);
    expect(results()).toEqual([AttemptResult.FIRST_BYTE_TIMEOUT, SERVED]);
  });

  test("a node that stops gives it back", async () => {
    await startAsking();
    const response = gateway.chat();
    const answer = await asked();
    gateway.pipeline.abortAll();
    expect((await response).status).toBe(503);
    answer();
    expect(gateway.budget.limitHolds).toMatchObject([{ settled: 1, spent: 0n }]);
  });

  test("a model that is taken away meanwhile is passed over", async () => {
    await startAsking();
    const response = gateway.chat();
    const answer = await asked();
    delta(gateway.table, [], ["pm_0"]);
    answer();
    expect((await response).status).toBe(200);
    expect(results()).toEqual([LIMIT_REACHED, SERVED]);
    expect(gateway.budget.limitHolds).toMatchObject([{ settled: 1, spent: 0n }]);
  });
});
