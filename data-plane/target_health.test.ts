import { beforeEach, describe, expect, test } from "vitest";
import { type Health, HEALTH_DEFAULTS, HealthCause } from "./health.ts";
import { RouteTable } from "./route_table.ts";
import type { RoutePm } from "./route_types.ts";
import { choose, lastResort } from "./router.ts";
import { TargetHealth } from "./target_health.ts";
import { delta, gatewayResources, resource, snapshot, VE } from "./testing.ts";
import { groupOf } from "./testing_router.ts";

const T = 1_000_000;
const { cooldownMs, accountMs, failuresToCool, providerFailuresToCool } = HEALTH_DEFAULTS;

let health: TargetHealth;
/** Three at one Provider. */
let pms: readonly RoutePm[];
let told: { id: string; cooldown: boolean; cooling: boolean }[];

beforeEach(() => {
  ({ pms } = groupOf(
    [
      [0, 1],
      [0, 1],
      [0, 1],
    ],
    { providerId: "prov_0" },
  ));
  told = [];
  health = new TargetHealth(HEALTH_DEFAULTS, {
    changed: (id: string, { coolUntil }: Health, cooldown: boolean) =>
      void told.push({ id, cooldown, cooling: coolUntil !== 0 }),
  });
});

const areWell = (now = T) => pms.map((pm) => health.available(pm, now));

describe("a Provider", () => {
  test("cools down with all its models when several of them fail in a row", () => {
    for (let i = 0; i < providerFailuresToCool; i++) {
      expect(areWell()).toEqual([true, true, true]);
      health.fail(pms[i % 2]!, "failure", 0, T);
      if (i === 1) health.release(pms[0]!);
    }
    expect(areWell(T + cooldownMs - 1)).toEqual([false, false, false]);
    expect(pms[2]!.health.coolUntil).toBe(0);
  });

  test("is well while one of its models is sick, however often that fails", () => {
    for (let i = 0; i < 50; i++) health.fail(pms[0]!, "failure", 0, T);
    expect(areWell()).toEqual([false, true, true]);
    expect(pms[1]!.provider.health.share).toBe(1);
  });

  test("is well while others succeed in between", () => {
    for (let i = 0; i < 50; i++) {
      health.fail(pms[0]!, "failure", 0, T);
      health.fail(pms[1]!, "failure", 0, T);
      health.succeed(pms[2]!, T, false, 0);
    }
    expect(areWell()).toEqual([false, false, true]);
  });

  test("cools down when it cannot be connected to, through whichever model", () => {
    for (let i = 1; i < failuresToCool; i++) health.fail(pms[0]!, "connection", 0, T);
    health.fail(pms[0]!, "failure", 0, T);
    expect(pms[0]!.provider.health.coolUntil).toBe(0);
    health.succeed(pms[1]!, T, false, 0);
    for (let i = 0; i < failuresToCool; i++) health.fail(pms[1]!, "connection", 0, T);
    expect(areWell()).toEqual([false, false, false]);
    expect(pms[2]!.provider.health.dimUntil).toBeGreaterThan(T);
  });

  test("cools down when it refuses our account, which is not held against the model", () => {
    health.fail(pms[0]!, "account", 0, T);
    expect(areWell(T + accountMs - 1)).toEqual([false, false, false]);
    expect([pms[0]!.health.failures, pms[0]!.health.coolUntil]).toEqual([0, 0]);
    expect(pms[0]!.provider.health.cause).toBe(HealthCause.ACCOUNT);
  });

  test("is tried by one request at a time, and well again after a success", () => {
    health.fail(pms[0]!, "account", 0, T);
    const due = T + accountMs;
    expect(areWell(due)).toEqual([true, true, true]);
    health.begin(pms[1]!, due);
    expect(areWell(due)).toEqual([false, false, false]);
    health.release(pms[1]!);
    expect(areWell(due)).toEqual([true, true, true]);
    health.begin(pms[2]!, due);
    health.succeed(pms[2]!, due, true, 100);
    expect(areWell(due)).toEqual([true, true, true]);
  });

  test.each(["rate_limit", "model"] as const)("has nothing to do with %s", (kind) => {
    for (let i = 0; i < 50; i++) for (const pm of pms.slice(0, 2)) health.fail(pm, kind, 0, T);
    expect(areWell()).toEqual([false, false, true]);
  });
});

test("what says nothing changes nothing", () => {
  for (let i = 0; i < 50; i++) health.fail(pms[0]!, "ignore", 9_000, T);
  expect(areWell()).toEqual([true, true, true]);
  expect(told).toEqual([]);
});

test("others hear of cooldowns that begin and end, of each subject by its id", () => {
  for (let i = 0; i < 10; i++) health.fail(pms[0]!, "failure", 0, T);
  expect(told.filter(({ cooldown }) => cooldown)).toEqual([{ id: "pm_0", cooldown: true, cooling: true }]);
  told.length = 0;
  health.fail(pms[0]!, "failure", 0, T + cooldownMs);
  health.succeed(pms[0]!, T + 20_000, false, 0);
  expect(told.filter(({ cooldown }) => cooldown)).toEqual([
    { id: "pm_0", cooldown: true, cooling: true },
    { id: "pm_0", cooldown: true, cooling: false },
  ]);
  told.length = 0;
  health.fail(pms[1]!, "account", 0, T + 20_000);
  expect(told).toMatchObject([{ id: "prov_0", cooldown: true, cooling: true }]);
});

test("the last resort is the target whose Provider too will be well first", () => {
  const group = groupOf([
    [0, 1],
    [0, 1],
  ]);
  const [a, b] = group.pms;
  health.fail(a!, "account", 0, T);
  health.fail(a!, "rate_limit", 1_000, T);
  health.fail(b!, "rate_limit", 30_000, T);
  expect(choose(group, null, () => 0, T)).toBeNull();
  expect(lastResort(group, null, T)).toBe(b);
});

test("a Provider with new credentials and a model with a new name are tried at once", () => {
  const table = new RouteTable();
  snapshot(table, gatewayResources(["https://a.example"], {}));
  const [pm] = table.logicalModel(table.ve(VE)!, "gpt")!.spec.group.pms;
  health.fail(pm!, "account", 0, T);
  health.fail(pm!, "model", 0, T);
  expect(health.available(pm!, T)).toBe(false);
  const provider = { id: "prov_0", format: 1, baseUrl: "https://a.example/v1" };
  delta(table, [resource("provider", { ...provider, credentials: { apiKey: "sk-upstream-secret-0" } })]);
  expect(pm!.provider.health.available(T)).toBe(false);
  delta(table, [resource("provider", { ...provider, credentials: { apiKey: "sk-mended" } })]);
  expect(pm!.provider.health.available(T)).toBe(true);
  expect(table.cooling()).toEqual({ providers: 1, physicalModels: 1 });
  delta(table, [resource("physicalModel", { id: "pm_0", providerId: "prov_0", upstreamName: "mended" })]);
  expect(health.available(pm!, T)).toBe(true);
});
