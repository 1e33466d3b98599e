/** Whatever happens, a VE is never charged beside a charge that is under way, nor for more than the day's maximum. */

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Period, periodOf } from "../core/periods.ts";
import { topUpAutomatically } from "./auto_top_ups.ts";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { CHARGE_LOST_MS, LOOK_AGAIN_MS } from "./domain/auto_top_up.ts";
import { CheckoutState } from "./domain/checkout.ts";
import { testWorld, type TestWorld } from "./report/testing.ts";
import { NEW_METHOD_REST_MS } from "./saved_methods.ts";
import { deleteAutoTopUp } from "./store/auto_top_up.ts";
import { addCustomer, addShop, Died, FakeEngine, PRICE_MINOR, saveCard, type Script } from "./testing_auto_top_ups.ts";

const ZONE = "Asia/Kathmandu";
const DAILY_MINOR = 2500n;
const DAY_MS = 86_400_000;
const REPLICAS_MAX = 3;

interface Session {
  readonly id: string;
  readonly state: number;
  readonly created_at: Date;
  readonly unsettled: boolean;
}

type End = "fulfil" | "fail" | "expire" | "expire_unsettled";

type Command =
  | {
      readonly kind: "run";
      readonly waitMs: number;
      /** First the wallet runs low. */
      readonly spend: boolean;
      readonly replicas: number;
      readonly scripts: readonly (Script | "slow")[];
    }
  | { readonly kind: "release" }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "end"; readonly how: End }
  | { readonly kind: "save" }
  | { readonly kind: "renew" };

const script = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Script>("fulfil") },
  { weight: 4, arbitrary: fc.constant<Script>("pending") },
  { weight: 2, arbitrary: fc.constant("slow" as const) },
  fc.constantFrom<Script>("die_before", "die_after", "die_fulfilled", { refuse: "no" }, { decline: "card_declined" }),
);
const run = fc.record({
  kind: fc.constant("run" as const),
  waitMs: fc.constantFrom(0, LOOK_AGAIN_MS, LOOK_AGAIN_MS, 60_000, CHARGE_LOST_MS),
  spend: fc.integer({ min: 0, max: 3 }).map((n) => n > 0),
  replicas: fc.integer({ min: 1, max: REPLICAS_MAX }),
  scripts: fc.array(script, { minLength: REPLICAS_MAX, maxLength: REPLICAS_MAX }),
});
const end = fc.record({
  kind: fc.constant("end" as const),
  how: fc.constantFrom<End>("fulfil", "fail", "expire", "expire_unsettled", "expire_unsettled"),
});
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 12, arbitrary: run },
  { weight: 4, arbitrary: end },
  fc.constantFrom<Command>({ kind: "release" }, { kind: "save" }, { kind: "renew" }, { kind: "wait", ms: DAY_MS / 4 }),
);

describe.each(openTestDatabases())("automatic top-ups on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addShop(db, { timeZone: ZONE, dailyMinor: DAILY_MINOR });
  });
  afterAll(() => db.close());

  const sessionsOf = (veId: string) =>
    db.query<Session>(
      `select s.id, s.state, s.created_at,
         exists (select from payment p where p.session_id = s.id and p.state in (1, 2, 3)) as unsettled
       from checkout_session s where s.ve_id = $1 and s.automatic order by s.n`,
      [veId],
    );
  const isUnderWay = ({ state, unsettled }: Session): boolean => state <= CheckoutState.PAID || unsettled;
  const isWithoutMoney = ({ state, unsettled }: Session): boolean => !unsettled && [5, 6, 7].includes(state);

  /** One VE, and what happens to it. */
  class Story {
    readonly veId = `ve_${(count += 1)}`;
    readonly engine = new FakeEngine(world);
    readonly problems: unknown[] = [];
    private readonly runs: Promise<unknown>[] = [];
    private gate = Promise.withResolvers<void>();
    private charges = 0;

    /** Slow charges wait in the middle, when their session is there. */
    private readonly charge: FakeEngine["charge"] = async (order) => {
      this.charges += 1;
      const slow = (this.engine.scripts[0] as Script | "slow") === "slow";
      if (slow) this.engine.scripts[0] = "fulfil";
      this.engine.meanwhile = slow ? () => this.gate.promise : () => Promise.resolve();
      try {
        return await this.engine.charge(order);
      } catch (error) {
        if (!(error instanceof Died)) this.problems.push(error);
        throw error;
      }
    };

    /** Runs go on while charges of them are slow; all others are over. */
    private async run({ waitMs, spend, replicas, scripts }: Command & { kind: "run" }): Promise<void> {
      world.advance(waitMs);
      if (spend) await this.spend();
      this.engine.scripts.splice(0, Number.POSITIVE_INFINITY, ...(scripts as Script[]));
      const slow = scripts.includes("slow");
      const runs = Array.from({ length: replicas }, () => topUpAutomatically(world.deps, this.charge));
      this.runs.push(...runs);
      if (!slow) await Promise.all(runs);
      else await Promise.race([Promise.all(runs), this.settled()]);
    }

    /** Until every charge that was begun has its session, or the run is over. */
    private async settled(): Promise<void> {
      const begun = this.charges;
      for (let look = 0; look < 20; look += 1) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (this.charges > begun && (await sessionsOf(this.veId)).some(isUnderWay)) return;
      }
    }

    async release(): Promise<void> {
      this.gate.resolve();
      await Promise.all(this.runs.splice(0));
      this.gate = Promise.withResolvers<void>();
    }

    private async spend(): Promise<void> {
      await db.query("update wallet set settled = purchased + debt - 1 where ve_id = $1", [this.veId]);
    }

    private async end(how: End): Promise<void> {
      const underWay = (await sessionsOf(this.veId)).find(isUnderWay);
      // One that a slow charge is about to fulfil is not touched by others.
      if (underWay === undefined || this.runs.length > 0) return;
      if (how === "fulfil") return this.engine.fulfil(underWay.id);
      const state = how === "fail" ? CheckoutState.FAILED : CheckoutState.EXPIRED;
      return this.engine.end(underWay.id, state, "", how === "expire_unsettled");
    }

    async apply(what: Command): Promise<void> {
      switch (what.kind) {
        case "run":
          return this.run(what);
        case "release":
          return this.release();
        case "wait":
          return world.advance(what.ms);
        case "end":
          return this.end(what.how);
        case "save":
          return saveCard(world, this.veId, { payment_method: `pm_${world.deps.newId("")}` });
        case "renew":
          await db.tx((tx) => deleteAutoTopUp(tx, this.veId, new Date(world.deps.now())));
          return saveCard(world, this.veId);
      }
    }

    async check(): Promise<void> {
      expect(this.problems).toEqual([]);
      const sessions = await sessionsOf(this.veId);
      expect(sessions.filter(isUnderWay).length).toBeLessThanOrEqual(1);
      const days = Map.groupBy(
        sessions.filter((session) => !isWithoutMoney(session)),
        ({ created_at: at }) => periodOf(Period.DAILY, ZONE, at.getTime()).startMs,
      );
      for (const ofDay of days.values()) expect(BigInt(ofDay.length) * PRICE_MINOR <= DAILY_MINOR).toBe(true);
    }

    /** When all is over, and somebody saves a card that works, it buys again. */
    async checkGoesOn(): Promise<void> {
      await this.release();
      await this.end("fulfil");
      await saveCard(world, this.veId);
      await this.spend();
      world.advance(DAY_MS + NEW_METHOD_REST_MS);
      const before = this.charges;
      for (let run = 0; run < 3; run += 1) await topUpAutomatically(world.deps, this.charge);
      expect(this.charges).toBeGreaterThan(before);
      await this.check();
    }
  }

  it("never charges twice at a time, nor too much in a day, and always goes on", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 8, maxLength: 16 }), async (commands) => {
        const story = new Story();
        await addCustomer(world, story.veId);
        world.advance(NEW_METHOD_REST_MS);
        try {
          for (const one of commands) {
            await story.apply(one);
            await story.check();
          }
          story.engine.scripts.length = 0;
          await story.checkGoesOn();
        } finally {
          await story.release();
          await db.query("delete from auto_top_up");
        }
      }),
      { numRuns: 12 },
    );
  });
});
