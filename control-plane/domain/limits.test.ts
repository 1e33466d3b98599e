import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import { Meter, UnitKind, UnitSource } from "../../core/meters.ts";
import { Period } from "../../core/periods.ts";
import { LEASE_TTL_MS } from "./leases.ts";
import { afterPlans, type LimitAsk, type LimitLease, type LimitPlan, limitWrites, planLimits } from "./limit_plan.ts";
import {
  asWallet,
  changeLimit,
  isExhausted,
  type LimitAccount,
  LimitKind,
  moveLimit,
  newLimit,
  rollOver,
} from "./limits.ts";
import type { PricedUsage } from "./report.ts";
import { available } from "./wallet.ts";

const { UNITS, CREDITS } = LimitKind;
const NOON = Date.UTC(2026, 10, 24, 12);
const MIDNIGHT = Date.UTC(2026, 10, 25);
const DAY_MS = 86_400_000;
const n = parseCredits;

const OWNER = { physicalModelId: "pm_a", merchantId: "mer_a", timeZone: "UTC" };
const TOKENS_A_DAY = { kind: UNITS, unit: UnitKind.TOKENS, period: Period.DAILY, amount: n("100") } as const;
const CREDITS_FOR_EVER = { kind: CREDITS, unit: 0, period: 0, amount: n("5") } as const;

function account(more: Partial<LimitAccount> = {}): LimitAccount {
  return { ...newLimit(OWNER, TOKENS_A_DAY, NOON), ...more };
}

function usage(tokens: number, arriveMs: number, more: Partial<PricedUsage> = {}): PricedUsage {
  return {
    recordNo: 1n,
    id: "usg_1",
    veId: "ve_a",
    accessKeyId: "key_a",
    logicalModel: "m",
    physicalModelId: "pm_a",
    priceId: "price_a",
    units: [{ meter: Meter.OUTPUT_TOKENS, quantity: tokens, source: UnitSource.REPORTED }],
    nodeCredits: "0",
    arriveUs: arriveMs * 1000,
    merchantId: "mer_a",
    credits: n("0.5"),
    body: new Uint8Array(),
    ...more,
  };
}

function lease(bootId: string, amount: string, more: Partial<LimitLease> = {}): LimitLease {
  return { physicalModelId: "pm_a", kind: UNITS, bootId, amount: n(amount), ttlMs: LEASE_TTL_MS, live: true, ...more };
}

interface Ask {
  want?: string;
  need?: string;
  release?: string;
}

function plan(
  read: LimitAccount,
  leases: LimitLease[],
  records: PricedUsage[],
  { want = "0", need = "0", release = "0" }: Ask = {},
  { nowMs = NOON, final = false } = {},
): LimitPlan {
  const ask: LimitAsk = { physicalModelId: "pm_a", kind: read.kind, want: n(want), need: n(need), release: n(release) };
  const report = { bootId: "boot_a", records, asks: [ask], final, granting: !final };
  return planLimits({ accounts: [read], leases }, report, nowMs)[0]!;
}

describe("periods of a limit", () => {
  it("counts from when it is set, until the period of the merchant's zone ends", () => {
    const limit = newLimit({ ...OWNER, timeZone: "Asia/Tokyo" }, TOKENS_A_DAY, NOON);
    expect(limit).toMatchObject({ used: 0n, leased: 0n, countsFromMs: NOON, endsMs: Date.UTC(2026, 10, 24, 15) });
    expect(newLimit(OWNER, CREDITS_FOR_EVER, NOON).endsMs).toBeNull();
  });

  it("begins anew when the period is over, and leases stay", () => {
    const used = account({ used: n("70"), leased: n("20") });
    expect(rollOver(used, MIDNIGHT - 1)).toBe(used);
    const next = rollOver(used, MIDNIGHT);
    expect(next).toMatchObject({ used: 0n, leased: n("20"), countsFromMs: MIDNIGHT, endsMs: MIDNIGHT + DAY_MS });
    // Nobody was there for two days: the present one counts from its own start.
    expect(rollOver(used, MIDNIGHT + 2 * DAY_MS + 5)).toMatchObject({ countsFromMs: MIDNIGHT + 2 * DAY_MS });
    const forEver = newLimit(OWNER, CREDITS_FOR_EVER, NOON);
    expect(rollOver(forEver, MIDNIGHT + 1000 * DAY_MS)).toBe(forEver);
  });

  it.each([
    ["the amount alone keeps the count", { amount: n("7") }, { used: n("70"), leased: n("20"), amount: n("7") }],
    ["another period starts it anew", { period: Period.MONTHLY }, { used: 0n, leased: n("20") }],
    ["no period any more, too", { period: 0 as const }, { used: 0n, leased: n("20"), endsMs: null }],
    ["another unit ends the leases as well", { unit: UnitKind.IMAGES }, { used: 0n, leased: 0n }],
  ])("%s", (_what, terms, expected) => {
    const used = account({ used: n("70"), leased: n("20"), countsFromMs: NOON - 1000 });
    const after = changeLimit(used, { ...TOKENS_A_DAY, ...terms }, NOON);
    expect(after).toMatchObject(expected);
    expect(after.countsFromMs).toBe(expected.used === 0n ? NOON : NOON - 1000);
  });

  it("a new time zone moves the end and keeps the count; what was over already is over", () => {
    const used = account({ used: n("70") });
    const moved = moveLimit(used, "Asia/Tokyo", NOON);
    expect(moved).toMatchObject({ used: n("70"), endsMs: Date.UTC(2026, 10, 24, 15), timeZone: "Asia/Tokyo" });
    expect(moveLimit(used, "Asia/Tokyo", MIDNIGHT + 1)).toMatchObject({ used: 0n, countsFromMs: MIDNIGHT });
  });
});

describe("planLimits", () => {
  it("counts the units of the limit's kind, and our Credits", () => {
    const images = { meter: Meter.IMAGES, quantity: 9, source: UnitSource.REPORTED };
    const record = usage(30, NOON);
    const mixed = { ...record, units: [...record.units, images] };
    expect(plan(account(), [], [mixed]).after.used).toBe(n("30"));
    const credits = { ...newLimit(OWNER, CREDITS_FOR_EVER, NOON) };
    expect(plan(credits, [], [mixed, usage(1, NOON)]).after.used).toBe(n("1"));
  });

  it("counts what arrived in the present period alone, and the lease shrinks all the same", () => {
    const read = account({ leased: n("50"), countsFromMs: NOON });
    const records = [usage(10, NOON), usage(5, NOON - 1)];
    const done = plan(read, [lease("boot_a", "50")], records);
    expect(done.after).toMatchObject({ used: n("10"), leased: n("35") });
    expect(done.lease).toBe(n("35"));
  });

  it("begins a new period that a report finds over, before it counts", () => {
    const read = account({ used: n("100"), leased: n("20") });
    const records = [usage(10, MIDNIGHT), usage(7, MIDNIGHT - 1)];
    const done = plan(read, [lease("boot_a", "20")], records, {}, { nowMs: MIDNIGHT + 5 });
    expect(limitWrites([done]).begun).toEqual([{ physicalModelId: "pm_a", kind: UNITS }]);
    expect(done.after).toMatchObject({ used: n("10"), leased: n("3"), countsFromMs: MIDNIGHT });
    expect(limitWrites([plan(read, [], [])]).begun).toEqual([]);
  });

  it("counts nothing of another merchant or another model", () => {
    const others = [usage(10, NOON, { merchantId: "mer_b" }), usage(10, NOON, { physicalModelId: "pm_b" })];
    expect(plan(account(), [], others).after.used).toBe(0n);
  });

  it("what is used beyond the limit is counted, and nothing is granted then", () => {
    const read = account({ used: n("90"), leased: n("10") });
    const done = plan(read, [lease("boot_a", "10")], [usage(25, NOON)], { want: "10", need: "1" });
    expect(done.after).toMatchObject({ used: n("115"), leased: 0n });
    expect(isExhausted(done.after)).toBe(true);
    expect(done).toMatchObject({ lease: 0n, grant: { credits: 0n, recall: false }, asking: true });
  });

  it("grants what is left, shared as a wallet is", () => {
    const done = plan(account(), [lease("boot_b", "0")], [], { want: "1000" });
    // Two nodes: half of what is available, shared.
    expect(done.lease).toBe(n("25"));
    expect(done.after.leased).toBe(n("25"));
  });

  it("asks others to give back only what would help", () => {
    const others = [lease("boot_b", "40")];
    const full = account({ used: n("60"), leased: n("40") });
    expect(plan(full, others, [], { need: "30" }).grant.recall).toBe(true);
    expect(plan(full, others, [], { need: "41" }).grant.recall).toBe(false);
    // The limit was lowered to 70: of the 40 that would come back, 10 can be granted.
    const lowered = { ...full, amount: n("70") };
    expect(plan(lowered, others, [], { need: "10" }).grant.recall).toBe(true);
    expect(plan(lowered, others, [], { need: "11" }).grant.recall).toBe(false);
    expect(plan(full, [lease("boot_b", "40", { live: false })], [], { need: "1" }).grant.recall).toBe(false);
  });

  it("gives everything back with the last report", () => {
    const read = account({ used: n("10"), leased: n("40") });
    const done = plan(read, [lease("boot_a", "40")], [usage(5, NOON)], { want: "9" }, { final: true });
    expect(done).toMatchObject({ lease: 0n, freed: true, asking: false });
    expect(done.after).toMatchObject({ used: n("15"), leased: 0n });
  });

  it("counts from the present when a clock that was ahead began the period", () => {
    const early = rollOver(account(), MIDNIGHT);
    const report = { bootId: "boot_a", records: [usage(5, NOON - 1)], asks: [], final: false, granting: true };
    const [done] = planLimits({ accounts: [early], leases: [] }, report, NOON);
    expect(done!.after).toEqual({ ...early, used: n("5") });
    expect(planLimits({ accounts: [early], leases: [] }, report, MIDNIGHT)[0]!.after.used).toBe(0n);
  });

  it("a lowered limit shows debt until leases come back", () => {
    const lowered = account({ amount: n("60"), used: n("50"), leased: n("40") });
    expect(asWallet(lowered).debt).toBe(n("30"));
    const done = plan(lowered, [lease("boot_a", "40")], [], { release: "40" });
    expect(asWallet(done.after)).toMatchObject({ debt: 0n, escrowed: 0n });
    expect(available(asWallet(done.after))).toBe(n("10"));
  });
});

describe("several reports of one transaction", () => {
  it("each sees what the ones before it left, and all is written once", () => {
    const read = account({ used: n("10"), leased: n("50") });
    const report = (bootId: string, tokens: number, need: string, release: string) => ({
      bootId,
      records: [usage(tokens, NOON)],
      asks: [{ physicalModelId: "pm_a", kind: UNITS, want: 0n, need: n(need), release: n(release) }],
      final: false,
      granting: true,
    });
    const ground = { accounts: [read], leases: [lease("boot_a", "30"), lease("boot_b", "20")] };
    const first = planLimits(ground, report("boot_a", 5, "0", "25"), NOON);
    const second = planLimits(afterPlans(ground, first), report("boot_c", 1, "60", "0"), NOON);
    // 100, less 16 that are used and 20 that boot_b holds: without what boot_a gave back it would not be there.
    expect(second[0]!.lease).toBe(n("60"));
    const writes = limitWrites([...first, ...second]);
    expect(writes.accounts).toEqual([{ ...read, used: n("16"), leased: n("80") }]);
    expect(writes.ends).toEqual([{ physicalModelId: "pm_a", kind: UNITS, bootId: "boot_a" }]);
    expect(writes.leases).toMatchObject([{ bootId: "boot_c", amount: n("60") }]);
    // The node that came first is there for the next, as long as it asks.
    const asking = planLimits(ground, { ...report("boot_c", 0, "1", "0"), records: [] }, NOON);
    const next = afterPlans(ground, asking).leases.filter(({ live }) => live);
    expect(next.map(({ bootId }) => bootId).toSorted()).toEqual(["boot_a", "boot_b", "boot_c"]);
  });
});

describe("any reports of any boots", () => {
  const step = fc.record({
    boot: fc.nat(3),
    tokens: fc.array(fc.record({ tokens: fc.nat(60), agoMs: fc.nat(3 * DAY_MS) }), { maxLength: 4 }),
    want: fc.nat(80),
    need: fc.nat(40),
    release: fc.nat(30),
    final: fc.boolean(),
    advanceMs: fc.oneof(fc.nat(1000), fc.nat(2 * DAY_MS)),
    amount: fc.option(fc.integer({ min: 1, max: 200 }), { freq: 5 }),
  });

  it("used is the sum of the period's records, leased the sum of the leases, and no more is granted than is left", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let now = NOON;
        let limit = newLimit(OWNER, TOKENS_A_DAY, now);
        const leases = new Map<string, bigint>();
        const arrived: { ms: number; tokens: bigint }[] = [];
        for (const { boot, tokens, want, need, release, final, advanceMs, amount } of steps) {
          now += advanceMs;
          if (amount !== null) limit = changeLimit(limit, { ...TOKENS_A_DAY, amount: n(String(amount)) }, now);
          const bootId = `boot_${boot}`;
          const records = tokens.map((one) => usage(one.tokens, now - one.agoMs));
          const all = [...leases].map(([id, held]) => ({ ...lease(id, "0"), amount: held }));
          const ask = {
            physicalModelId: "pm_a",
            kind: UNITS,
            want: n(`${want}`),
            need: n(`${need}`),
            release: n(`${release}`),
          };
          const report = { bootId, records, asks: [ask], final, granting: !final };
          const done = planLimits({ accounts: [limit], leases: all }, report, now)[0]!;
          limit = done.after;
          leases.set(bootId, done.lease);
          for (const one of tokens) arrived.push({ ms: now - one.agoMs, tokens: n(String(one.tokens)) });
          // A record counts if it arrived in the period that it was reported in.
          if (done.before.endsMs !== done.after.endsMs) arrived.splice(0, arrived.length - tokens.length);
          const counted = arrived.filter(({ ms }) => ms >= limit.countsFromMs);
          expect(limit.used).toBe(counted.reduce((sum, one) => sum + one.tokens, 0n));
          expect(limit.leased).toBe([...leases.values()].reduce((sum, held) => sum + held, 0n));
          const wallet = asWallet(limit);
          expect(available(wallet)).toBeGreaterThanOrEqual(0n);
          expect(wallet.debt === 0n || available(wallet) === 0n).toBe(true);
          // Use and leases beyond the amount may come from requests and from a lowered limit, never from a grant.
          if (wallet.debt > 0n) expect(done.grant.credits).toBe(0n);
          if (final) expect(done.lease).toBe(0n);
        }
      }),
      { numRuns: 300 },
    );
  });
});
