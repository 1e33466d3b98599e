/** Budgets that start again: a clock that is moved by hand, real stores. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type MerchantService, UpdateMerchantRequestSchema } from "../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { Period } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import type { VirtualEndpoint } from "../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import {
  CreateVirtualEndpointRequestSchema,
  UpdateVirtualEndpointRequestSchema,
} from "../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import { Auditor } from "./audit/auditor.ts";
import { merchantService } from "./api/merchant_service.ts";
import { virtualEndpointService } from "./api/virtual_endpoint_service.ts";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { beginPeriods, PERIOD_ROWS_MAX, resetBudgets } from "./period_jobs.ts";
import { startMaintenance } from "./maintenance.ts";
import {
  addBasics,
  addMerchant,
  callContext,
  encode,
  NO_HINTS,
  OF_MERCHANT,
  record,
  reporter,
  T0,
  TestNode,
  testWorld,
  type TestWorld,
} from "./report/testing.ts";
import { WALLET_CHANNEL } from "./store/feed_state.ts";
import { readWallet } from "./store/wallet.ts";

type NewVe = MessageInitShape<typeof CreateVirtualEndpointRequestSchema>;
type VeChange = MessageInitShape<typeof UpdateVirtualEndpointRequestSchema>;

/** The calls of the merchant on this world's clock. */
function callsOf(world: TestWorld) {
  const ctx = callContext(OF_MERCHANT);
  const ves = virtualEndpointService(world.deps, NO_HINTS);
  const merchants: ServiceImpl<typeof MerchantService> = merchantService(world.deps);
  const ve = (answer: unknown) => (answer as { virtualEndpoint: VirtualEndpoint }).virtualEndpoint;
  return {
    create: async (init: NewVe) =>
      ve(await ves.createVirtualEndpoint(create(CreateVirtualEndpointRequestSchema, init), ctx)),
    update: async (init: VeChange) =>
      ve(await ves.updateVirtualEndpoint(create(UpdateVirtualEndpointRequestSchema, init), ctx)),
    get: async (id: string) =>
      ve(await ves.getVirtualEndpoint({ $typeName: "tokenbill.v1.GetVirtualEndpointRequest", id }, ctx)),
    zone: (timeZone: string) => merchants.updateMerchant(create(UpdateMerchantRequestSchema, { timeZone }), ctx),
  };
}

const next = (ve: VirtualEndpoint) =>
  ve.nextBudgetResetTime === undefined ? null : new Date(timestampMs(ve.nextBudgetResetTime)).toISOString();

describe.each(openTestDatabases())("budgets that start again on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let calls: ReturnType<typeof callsOf>;

  /** Each test has its own database, since the job concerns all VEs. */
  async function fresh(): Promise<void> {
    db = await open();
    world = testWorld(db);
    calls = callsOf(world);
    await addMerchant(db);
  }
  const goTo = (iso: string) => world.advance(Date.parse(iso) - world.deps.now());
  const left = async (veId: string) => (await calls.get(veId)).wallet!.creditRemaining;
  const resets = async (veId: string) =>
    (
      await db.query<{ reference: string; credits: string }>(
        "select reference, credits::text from transfer where ve_id = $1 and reference like 'reset:%' order by n",
        [veId],
      )
    ).map(({ reference, credits }) => [reference.slice(`reset:${veId}:`.length), Number(credits)]);
  const spend = (veId: string, credits: number) =>
    db.query("update wallet set settled = settled + $2 where ve_id = $1", [veId, String(credits)]);

  describe("by the clock", () => {
    beforeAll(fresh);
    afterAll(() => db.close());

    it("fills up at midnight of the merchant's zone, once, and never before", async () => {
      await calls.zone("Europe/Berlin");
      const ve = await calls.create({ name: "daily", budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      expect(ve.wallet!.creditRemaining).toBe("5");
      expect(next(ve)).toBe("2026-11-23T23:00:00.000Z");
      await spend(ve.id, 4);
      goTo("2026-11-23T22:59:59.999Z");
      await beginPeriods(world.deps);
      expect(await left(ve.id)).toBe("1");
      world.advance(1);
      await beginPeriods(world.deps);
      expect(await left(ve.id)).toBe("5");
      await beginPeriods(world.deps);
      expect(await resets(ve.id)).toEqual([["2026-11-23T23:00:00.000Z", 4]]);
      expect(next(await calls.get(ve.id))).toBe("2026-11-24T23:00:00.000Z");
    });

    it("keeps what was bought beyond the budget, and posts nothing then", async () => {
      const ve = await calls.create({
        name: "rich",
        creditBudget: "20",
        budgetReset: { credits: "5", resetPeriod: Period.DAILY },
      });
      goTo("2026-11-24T23:00:00Z");
      await beginPeriods(world.deps);
      expect(await left(ve.id)).toBe("20");
      expect(await resets(ve.id)).toEqual([]);
      expect(next(await calls.get(ve.id))).toBe("2026-11-25T23:00:00.000Z");
    });

    it("fills once for all the periods that nobody was there for", async () => {
      const ve = await calls.create({ name: "away", budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      await spend(ve.id, 5);
      goTo("2026-12-03T10:00:00Z");
      await beginPeriods(world.deps);
      expect(await resets(ve.id)).toEqual([["2026-12-02T23:00:00.000Z", 5]]);
      expect(next(await calls.get(ve.id))).toBe("2026-12-03T23:00:00.000Z");
    });

    it("goes through the ends of months and summer time", async () => {
      const monthly = await calls.create({
        name: "monthly",
        budgetReset: { credits: "9", resetPeriod: Period.MONTHLY },
      });
      const weekly = await calls.create({ name: "weekly", budgetReset: { credits: "2", resetPeriod: Period.WEEKLY } });
      expect(next(monthly)).toBe("2026-12-31T23:00:00.000Z");
      expect(next(weekly)).toBe("2026-12-06T23:00:00.000Z");
      goTo("2027-03-20T12:00:00Z");
      await beginPeriods(world.deps);
      expect(next(await calls.get(weekly.id))).toBe("2027-03-21T23:00:00.000Z");
      // The clocks go forward on Sunday 28 March: Monday begins an hour earlier, and so does April.
      goTo("2027-03-21T23:00:00Z");
      await beginPeriods(world.deps);
      expect(next(await calls.get(weekly.id))).toBe("2027-03-28T22:00:00.000Z");
      expect(next(await calls.get(monthly.id))).toBe("2027-03-31T22:00:00.000Z");
      await spend(monthly.id, 9);
      goTo("2027-03-31T21:59:59Z");
      await beginPeriods(world.deps);
      expect(await left(monthly.id)).toBe("0");
      goTo("2027-03-31T22:00:00Z");
      await beginPeriods(world.deps);
      expect(await left(monthly.id)).toBe("9");
      expect((await resets(monthly.id)).at(-1)).toEqual(["2027-03-31T22:00:00.000Z", 9]);
    });
  });

  describe("by what merchants set", () => {
    beforeAll(fresh);
    afterAll(() => db.close());

    it("copies a template's, which is never filled itself", async () => {
      const template = await calls.create({
        name: "plan",
        template: true,
        budgetReset: { credits: "7", resetPeriod: Period.MONTHLY },
      });
      expect(template.wallet!.creditRemaining).toBe("0");
      expect(next(template)).toBeNull();
      const copy = await calls.create({ name: "user", veTemplateId: template.id });
      expect(copy.budgetReset).toMatchObject({ credits: "7", resetPeriod: Period.MONTHLY });
      expect(copy.wallet!.creditRemaining).toBe("7");
      expect(next(copy)).toBe("2026-12-01T00:00:00.000Z");
      const own = await calls.create({
        name: "user 2",
        veTemplateId: template.id,
        creditBudget: "1",
        budgetReset: { credits: "3", resetPeriod: Period.DAILY },
      });
      expect(own.budgetReset).toMatchObject({ credits: "3", resetPeriod: Period.DAILY });
      expect(own.wallet!.creditRemaining).toBe("1");
      const changed = await calls.update({ id: template.id, budgetReset: { credits: "8", resetPeriod: Period.DAILY } });
      expect(next(changed)).toBeNull();
      goTo("2026-12-01T00:00:00Z");
      await beginPeriods(world.deps);
      expect((await calls.get(template.id)).wallet!.creditBudget).toBe("0");
    });

    it("is set, changed and removed by updates, from the next period on", async () => {
      const ve = await calls.create({ name: "updated" });
      expect(ve.budgetReset).toBeUndefined();
      expect(next(ve)).toBeNull();
      const set = await calls.update({ id: ve.id, budgetReset: { credits: "4", resetPeriod: Period.DAILY } });
      expect(set.wallet!.creditRemaining).toBe("0");
      expect(next(set)).toBe("2026-12-02T00:00:00.000Z");
      expect((await calls.update({ id: ve.id, name: "still" })).budgetReset).toEqual(set.budgetReset);
      // Due, but not done yet, when only the amount changes: it is not lost.
      goTo("2026-12-02T00:00:00.500Z");
      await calls.update({ id: ve.id, budgetReset: { credits: "6", resetPeriod: Period.DAILY } });
      await beginPeriods(world.deps);
      expect(await left(ve.id)).toBe("6");
      const weekly = await calls.update({ id: ve.id, budgetReset: { credits: "6", resetPeriod: Period.WEEKLY } });
      expect(next(weekly)).toBe("2026-12-07T00:00:00.000Z");
      const removed = await calls.update({ id: ve.id, removeBudgetReset: true });
      expect(removed.budgetReset).toBeUndefined();
      expect(next(removed)).toBeNull();
      goTo("2026-12-07T00:00:00Z");
      await beginPeriods(world.deps);
      expect(await resets(ve.id)).toHaveLength(1);
    });

    it("refuses an amount of 0, both a reset and its removal, and no period", async () => {
      const { id } = await calls.create({ name: "refused" });
      const budgetReset = { credits: "1", resetPeriod: Period.DAILY };
      const zero = { credits: "0.000", resetPeriod: Period.DAILY };
      await expect(calls.create({ name: "x", budgetReset: zero })).rejects.toMatchObject({
        code: "invalid_field",
        field: "budget_reset.credits",
      });
      await expect(calls.update({ id, budgetReset: zero })).rejects.toMatchObject({ field: "budget_reset.credits" });
      await expect(calls.update({ id, budgetReset, removeBudgetReset: true })).rejects.toMatchObject({
        code: "invalid_field",
        field: "remove_budget_reset",
      });
    });

    it("a new time zone moves the end of the period, and is no reason to fill twice", async () => {
      const ve = await calls.create({ name: "mover", budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      expect(next(ve)).toBe("2026-12-08T00:00:00.000Z");
      await calls.zone("america/new_york");
      expect(next(await calls.get(ve.id))).toBe("2026-12-07T05:00:00.000Z");
      goTo("2026-12-07T05:00:00Z");
      await spend(ve.id, 2);
      await beginPeriods(world.deps);
      expect(await resets(ve.id)).toEqual([["2026-12-07T05:00:00.000Z", 2]]);
      // There and back within the period: its fill was.
      await calls.zone("UTC");
      await calls.zone("America/New_York");
      expect(next(await calls.get(ve.id))).toBe("2026-12-08T05:00:00.000Z");
      await expect(calls.zone("Mars/Olympus")).rejects.toMatchObject({ code: "invalid_field", field: "time_zone" });
    });

    it("a clock that goes back fills no period twice", async () => {
      const ve = await calls.create({ name: "clock", budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      await spend(ve.id, 5);
      goTo("2026-12-08T05:00:01Z");
      await beginPeriods(world.deps);
      await spend(ve.id, 5);
      // Another replica's clock is behind, and a merchant changes the period there and back.
      world.advance(-5000);
      await calls.update({ id: ve.id, budgetReset: { credits: "5", resetPeriod: Period.WEEKLY } });
      await calls.update({ id: ve.id, budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      expect(next(await calls.get(ve.id))).toBe("2026-12-08T05:00:00.000Z");
      world.advance(5000);
      await beginPeriods(world.deps);
      expect(await resets(ve.id)).toEqual([["2026-12-08T05:00:00.000Z", 5]]);
      expect(next(await calls.get(ve.id))).toBe("2026-12-09T05:00:00.000Z");
    });
  });

  describe("with money and replicas", () => {
    beforeAll(fresh);
    afterAll(() => db.close());

    it("pays debt first, tells the nodes, and agrees with the ledger", async () => {
      await db.query("delete from merchant");
      const price = await addBasics(db);
      const ve = await calls.create({ name: "debtor", budgetReset: { credits: "5", resetPeriod: Period.DAILY } });
      await new TestNode(reporter(world.deps), "boot_d").send([
        encode(record(1n, ve.id, 7000, price, { accessKeyId: "key_d" })),
      ]);
      expect(await left(ve.id)).toBe("0");
      const hints: string[] = [];
      const stop = await db.listen(
        WALLET_CHANNEL,
        (payload) => hints.push(payload),
        () => {},
      );
      goTo("2026-11-24T00:00:00Z");
      await beginPeriods(world.deps);
      const told = () => hints.map((hint) => JSON.parse(hint) as unknown);
      await vi.waitFor(() => expect(told()).toEqual([{ veId: ve.id, kind: "topped_up" }]), 10_000);
      await stop();
      expect((await calls.get(ve.id)).wallet).toMatchObject({ creditBudget: "10", creditRemaining: "3", debt: "0" });
      const ledger = await db.query(
        "select sum(credits) filter (where credit_account = 'wallet') - sum(credits) filter (where debit_account = 'wallet') as balance from transfer where ve_id = $1",
        [ve.id],
      );
      expect(Number(ledger[0]!["balance"])).toBe(3);
    });

    it("fills many, in batches, once each, whatever replicas do", async () => {
      const count = PERIOD_ROWS_MAX + 3;
      const ids: string[] = [];
      for (let n = 0; n < count; n += 1) {
        const budgetReset = { credits: "1", resetPeriod: Period.WEEKLY };
        ids.push((await calls.create({ name: `n${n}`, creditBudget: "0", budgetReset })).id);
      }
      goTo("2026-11-30T00:00:00Z");
      const done = await Promise.all([1, 2, 3, 4].map(() => resetBudgets(world.deps)));
      // Some may have been passed over while another replica held them; none are left.
      expect(done.reduce((sum, n) => sum + n, 0)).toBeGreaterThanOrEqual(count);
      expect(await resetBudgets(world.deps)).toBe(0);
      for (const id of ids) expect((await readWallet(db, id))!.purchased).toBe(1_000_000_000_000n);
      const [posted] = await db.query<{ n: bigint }>(
        "select count(*) as n from transfer where reference like 'reset:%T00:00:00.000Z' and ve_id = any($1::text[])",
        [ids],
      );
      expect(posted!.n).toBe(BigInt(count));
    });
  });
});

it("starts a period within two seconds by the maintenance", async () => {
  const [pglite] = openTestDatabases();
  const db = await pglite!.open();
  const world = testWorld(db);
  await addMerchant(db);
  const calls = callsOf(world);
  const ve = await calls.create({
    name: "prompt",
    creditBudget: "0",
    budgetReset: { credits: "1", resetPeriod: Period.DAILY },
  });
  const auditor = new Auditor(world.deps);
  const jobs = startMaintenance(world.deps, auditor);
  world.advance(Date.parse("2026-11-24T00:00:00Z") - T0);
  const began = performance.now();
  while ((await calls.get(ve.id)).wallet!.creditRemaining === "0" && performance.now() - began < 20_000)
    await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await calls.get(ve.id)).wallet!.creditRemaining).toBe("1");
  await jobs.close();
  await auditor.close();
  await db.close();
});
