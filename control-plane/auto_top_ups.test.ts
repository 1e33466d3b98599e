/** Automatic top-ups: a clock that is moved by hand, an engine that does as it is told, real stores. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { formatCredits } from "../core/credits.ts";
import { RUN_ROWS_OF_MERCHANT_MAX, topUpAutomatically } from "./auto_top_ups.ts";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { CHARGE_LOST_MS, LOOK_AGAIN_MS } from "./domain/auto_top_up.ts";
import { CheckoutState } from "./domain/checkout.ts";
import { remaining } from "./domain/wallet.ts";
import { MERCHANT, T0, testWorld, type TestWorld } from "./report/testing.ts";
import { NEW_METHOD_REST_MS } from "./saved_methods.ts";
import { createSecrets } from "./secrets.ts";
import { changeAutoTopUp, deleteAutoTopUp, findAutoTopUp } from "./store/auto_top_up.ts";
import { findPaymentAccount } from "./store/payment_account.ts";
import { readWallet } from "./store/wallet.ts";
import { ACCOUNT, addCustomer, addShop, CARD, FakeEngine, PACK, saveCard } from "./testing_auto_top_ups.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

describe.each(openTestDatabases())("automatic top-ups on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let engine: FakeEngine;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addShop(db, { timeZone: "America/New_York" });
  });
  afterAll(() => db.close());
  afterEach(async () => {
    await db.query("delete from auto_top_up");
    await db.query("delete from webhook_event");
  });

  const run = () => topUpAutomatically(world.deps, engine.charge);
  const left = async (veId: string) => formatCredits(remaining((await readWallet(db, veId))!));
  const row = async (veId: string) => (await findAutoTopUp(db, veId))!;
  const spendTo = (veId: string, credits: number) =>
    db.query("update wallet set settled = purchased + debt - $2 where ve_id = $1", [veId, credits]);
  const events = async () =>
    (await db.query<{ type: string; body: string }>("select type, body from webhook_event order by n")).map(
      ({ type, body }) => [type, (JSON.parse(body) as { data: Record<string, unknown> }).data] as const,
    );
  const sessions = async (veId: string) =>
    (await db.query<{ id: string }>("select id from checkout_session where ve_id = $1 order by n", [veId])).map(
      ({ id }) => id,
    );

  /** How long it is until it is so late in New York, where it is 07:00 at T0. It is winter. */
  const untilNewYork = (timeOfDayMs: number): number => {
    const nowMs = (7 * HOUR_MS + world.deps.now() - T0) % DAY_MS;
    return (timeOfDayMs - nowMs + DAY_MS) % DAY_MS;
  };

  /** A VE with a saved card, 10 Credits, and a threshold of 50; a new day. */
  async function customer(): Promise<string> {
    engine = new FakeEngine(world);
    const veId = `ve_${(count += 1)}`;
    world.advance(DAY_MS);
    await addCustomer(world, veId);
    world.advance(NEW_METHOD_REST_MS);
    return veId;
  }

  it("buys what was agreed to, with the saved method, before the wallet is empty", async () => {
    const ve = await customer();
    expect(await run()).toBe(1);
    expect(engine.charges).toEqual([
      {
        veId: ve,
        merchantId: MERCHANT,
        saved: CARD,
        choice: {
          ...{ packId: PACK, label: "Ten", currency: "USD", amountMinor: 1000n, credits: 100n * 10n ** 12n, bonus: 0n },
          ...{ account: await findPaymentAccount(db, ACCOUNT), method: 7, wechatCode: "", autoTopUp: false },
          ...{ language: "en", clientAddress: "", merchantName: "The Shop" },
        },
      },
    ]);
    expect(await left(ve)).toBe("110");
    expect(await row(ve)).toMatchObject({ charging: false, failures: 0, last_failure: "", enabled: true, version: 1n });
    expect(await run()).toBe(0);
    expect(await events()).toEqual([]);
    await spendTo(ve, 50);
    expect(await run()).toBe(0);
    await spendTo(ve, 49);
    expect(await run()).toBe(1);
  });

  it("buys nothing right after the payer paid", async () => {
    const ve = await customer();
    await saveCard(world, ve, { ...CARD, payment_method: "pm_new" });
    expect(await run()).toBe(0);
    world.advance(NEW_METHOD_REST_MS);
    expect(await run()).toBe(1);
  });

  it.each([
    ["it is switched off", "auto_top_up set enabled = %"],
    ["the VE is disabled", "virtual_endpoint set disabled = not %"],
    ["the VE is frozen", "virtual_endpoint set frozen = not %"],
    ["the merchant is disabled", "merchant set disabled = not %"],
    ["the pack is disabled", "credit_pack set disabled = not %"],
    ["the account is disabled", "payment_account set disabled = not %"],
  ])("buys nothing while %s", async (_, change) => {
    await customer();
    await db.query(`update ${change.replace("%", "false")}`);
    expect(await run()).toBe(0);
    await db.query(`update ${change.replace("%", "true")}`);
    expect(await run()).toBe(1);
    expect(engine.charges).toHaveLength(1);
  });

  it("rests after failures, 1 and 10 minutes, and is off after three in a row", async () => {
    const ve = await customer();
    engine.scripts.push({ decline: "card_declined" }, { refuse: "account_closed" }, { decline: "expired_card" });
    for (const restMs of [MINUTE_MS, 10 * MINUTE_MS]) {
      expect(await run()).toBe(1);
      world.advance(restMs - 1);
      expect(await run()).toBe(0);
      world.advance(1);
    }
    expect(await row(ve)).toMatchObject({ failures: 2, last_failure: "account_closed", enabled: true, version: 1n });
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 3, last_failure: "expired_card", enabled: false, version: 2n });
    world.advance(48 * HOUR_MS);
    expect(await run()).toBe(0);
    const [first, second] = await sessions(ve);
    const told = await events();
    expect(told).toMatchObject([
      ["auto_top_up.failed", { failure: "card_declined", failures: 1, checkout_session_id: first, ve_id: ve }],
      // It came to no session.
      ["auto_top_up.failed", { failure: "account_closed", failures: 2, checkout_session_id: "" }],
      [
        "auto_top_up.failed",
        { failure: "expired_card", failures: 3, checkout_session_id: second, next_attempt_time: null },
      ],
      [
        "auto_top_up.disabled",
        { failure: "expired_card", failures: 3, daily_max: { currency: "USD", amount: "30.00" } },
      ],
    ]);
    expect(JSON.stringify(told)).not.toContain("pm_secret");
  });

  it("counts only failures in a row", async () => {
    const ve = await customer();
    engine.scripts.push({ decline: "card_declined" }, { decline: "card_declined" }, "fulfil", {
      decline: "card_declined",
    });
    await run();
    world.advance(MINUTE_MS);
    await run();
    world.advance(10 * MINUTE_MS);
    await run();
    expect(await row(ve)).toMatchObject({ failures: 0, last_failure: "", enabled: true });
    await spendTo(ve, 1);
    await run();
    expect(await row(ve)).toMatchObject({ failures: 1, enabled: true });
  });

  it("is off at once when only the payer can mend it", async () => {
    const ve = await customer();
    engine.scripts.push({ decline: "authentication_required" });
    await run();
    expect(await row(ve)).toMatchObject({ enabled: false, failures: 1 });
    expect((await events()).map(([type, { failure }]) => [type, failure])).toEqual([
      ["auto_top_up.failed", "authentication_required"],
      ["auto_top_up.disabled", "authentication_required"],
    ]);
  });

  it("buys no more in a day of the merchant than was agreed to, and says so once", async () => {
    const ve = await customer();
    world.advance(untilNewYork(22 * HOUR_MS));
    for (let bought = 0; bought < 3; bought += 1) {
      expect(await run()).toBe(1);
      await spendTo(ve, 5);
    }
    for (let again = 0; again < 3; again += 1) {
      expect(await run()).toBe(0);
      world.advance(LOOK_AGAIN_MS);
    }
    const next = new Date(world.deps.now() + untilNewYork(0));
    expect(await row(ve)).toMatchObject({
      last_failure: "daily_max_reached",
      failures: 0,
      enabled: true,
      try_at: next,
    });
    expect(await events()).toMatchObject([
      [
        "auto_top_up.failed",
        { failure: "daily_max_reached", next_attempt_time: next.toISOString(), checkout_session_id: "" },
      ],
    ]);
    world.advance(next.getTime() - world.deps.now() - 1);
    expect(await run()).toBe(0);
    world.advance(1);
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ last_failure: "", failures: 0 });
  });

  it("counts what failed as not charged, and what may yet be paid as charged", async () => {
    const ve = await customer();
    await db.query("update auto_top_up set daily_minor = 2999");
    engine.scripts.push({ decline: "card_declined" }, "pending");
    await run();
    world.advance(MINUTE_MS);
    await run();
    const [, pending] = await sessions(ve);
    await engine.end(pending!, CheckoutState.EXPIRED, "", true);
    world.advance(2 * HOUR_MS);
    // Money may come still: nothing else is bought beside it.
    expect(await run()).toBe(0);
    await engine.fulfil(pending!);
    await spendTo(ve, 1);
    world.advance(LOOK_AGAIN_MS);
    expect([await run(), await run()]).toEqual([0, 1]);
    await spendTo(ve, 1);
    expect(await run()).toBe(0);
    expect((await row(ve)).last_failure).toBe("daily_max_reached");
    expect(engine.charges).toHaveLength(3);
  });

  it("waits for a charge that is pending, and accounts for how it ended", async () => {
    const ve = await customer();
    engine.scripts.push("pending", "pending");
    expect(await run()).toBe(1);
    for (let look = 0; look < 3; look += 1) {
      world.advance(LOOK_AGAIN_MS);
      expect(await run()).toBe(0);
    }
    const [first] = await sessions(ve);
    await engine.end(first!, CheckoutState.FAILED, "insufficient_funds");
    world.advance(LOOK_AGAIN_MS);
    expect(await run()).toBe(0);
    expect(await row(ve)).toMatchObject({ failures: 1, last_failure: "insufficient_funds", charging: false });
    expect(await events()).toMatchObject([["auto_top_up.failed", { checkout_session_id: first }]]);
    world.advance(MINUTE_MS);
    expect(await run()).toBe(1);
    const [, second] = await sessions(ve);
    await engine.fulfil(second!);
    world.advance(LOOK_AGAIN_MS);
    expect(await run()).toBe(0);
    expect(await row(ve)).toMatchObject({ failures: 0, last_failure: "", charging: false, last_session_id: second });
    expect(engine.charges).toHaveLength(2);
  });

  it.each([
    ["die_before", 0, 1],
    ["die_fulfilled", 1, 0],
  ] as const)("a process that is gone (%s) is made up for once", async (script, sessionCount, again) => {
    const ve = await customer();
    engine.scripts.push(script);
    expect(await run()).toBe(1);
    expect(await sessions(ve)).toHaveLength(sessionCount);
    world.advance(CHARGE_LOST_MS - 1);
    expect(await run()).toBe(0);
    world.advance(1);
    expect([await run(), await run()]).toEqual([again, 0]);
    expect(await row(ve)).toMatchObject({ charging: false, failures: 0 });
    expect(await left(ve)).toBe("110");
  });

  it("a process that is gone with a payment under way leaves it to those who ask the processor", async () => {
    const ve = await customer();
    engine.scripts.push("die_after");
    await run();
    world.advance(CHARGE_LOST_MS);
    expect(await run()).toBe(0);
    const [only] = await sessions(ve);
    await engine.end(only!, CheckoutState.FAILED, "card_declined");
    world.advance(LOOK_AGAIN_MS);
    expect(await run()).toBe(0);
    expect(await row(ve)).toMatchObject({ failures: 1, last_failure: "card_declined" });
  });

  it("does not take an old session for the end of a charge that was lost", async () => {
    const ve = await customer();
    engine.scripts.push({ decline: "card_declined" }, "die_before");
    await run();
    world.advance(MINUTE_MS);
    await run();
    world.advance(CHARGE_LOST_MS);
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 0, charging: false });
    expect((await events()).length).toBe(1);
  });

  it("a pack that is no longer what was agreed to is not bought", async () => {
    const ve = await customer();
    await db.query("update credit_pack set amount_minor = 3001");
    expect(await run()).toBe(0);
    await db.query("update credit_pack set amount_minor = 1000");
    expect(await row(ve)).toMatchObject({ failures: 1, last_failure: "pack_changed" });
    expect(engine.charges).toEqual([]);
  });

  it("a method that cannot be opened is a failure, and is never sent", async () => {
    const ve = await customer();
    const deps = { ...world.deps, secrets: createSecrets(new Uint8Array(32).fill(8)) };
    expect(await topUpAutomatically(deps, engine.charge)).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 1, last_failure: "saved_method_unreadable" });
    expect(engine.charges).toEqual([]);
  });

  it("what the merchant changes during a charge stays, and does not begin a second one", async () => {
    const ve = await customer();
    const dailyMax = { currency: "USD", minor: 5000n };
    engine.scripts.push({ decline: "card_declined" });
    engine.meanwhile = async () => {
      const change = { enabled: true, threshold: 20n * 10n ** 12n, packId: PACK, dailyMax };
      await db.tx((tx) => changeAutoTopUp(tx, ve, change, new Date(world.deps.now())));
      expect(await run()).toBe(0);
    };
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 1, daily_minor: 5000n, version: 2n, charging: false });
  });

  it("a failure of the method that was replaced meanwhile does not count", async () => {
    const ve = await customer();
    engine.scripts.push({ decline: "authentication_required" }, "pending");
    engine.meanwhile = async () => {
      world.advance(1);
      await saveCard(world, ve, { ...CARD, payment_method: "pm_other" });
      expect(await run()).toBe(0);
    };
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 0, enabled: true, charging: false });
    // Also when that comes to be known later.
    engine.meanwhile = () => Promise.resolve();
    expect(await run()).toBe(1);
    world.advance(1);
    await saveCard(world, ve);
    await engine.end((await sessions(ve))[1]!, CheckoutState.FAILED, "card_declined");
    world.advance(LOOK_AGAIN_MS);
    expect(await run()).toBe(1);
    expect(await row(ve)).toMatchObject({ failures: 0, enabled: true });
    expect(engine.charges.map(({ saved }) => saved["payment_method"])).toEqual([
      "pm_secret_1",
      "pm_other",
      "pm_secret_1",
    ]);
  });

  it("one that is deleted during a charge leaves nothing behind", async () => {
    const ve = await customer();
    engine.meanwhile = async () => {
      await db.tx((tx) => deleteAutoTopUp(tx, ve, new Date(world.deps.now())));
    };
    expect(await run()).toBe(1);
    expect(await findAutoTopUp(db, ve)).toBeNull();
    expect(await left(ve)).toBe("110");
  });

  it("several replicas charge each VE once, a few of one merchant at a time", async () => {
    const first = await customer();
    const all = [first];
    for (let more = 1; more < RUN_ROWS_OF_MERCHANT_MAX + 3; more += 1) {
      all.push(`${first}_${more}`);
      await addCustomer(world, all.at(-1)!);
    }
    world.advance(NEW_METHOD_REST_MS);
    const begun = await Promise.all([run(), run(), run(), run()]);
    expect(Math.max(...begun)).toBeLessThanOrEqual(RUN_ROWS_OF_MERCHANT_MAX);
    while ((await run()) > 0);
    expect(engine.charges.map(({ veId }) => veId).toSorted()).toEqual(all.toSorted());
  });

  it("a replica whose clock is ahead charges nothing twice, also about midnight", async () => {
    const ve = await customer();
    world.advance(untilNewYork(DAY_MS - 2 * MINUTE_MS));
    const ahead = { ...world.deps, now: () => world.deps.now() + 5 * MINUTE_MS };
    let asked = 0;
    engine.meanwhile = async () => {
      asked += await topUpAutomatically(ahead, engine.charge);
    };
    expect(await run()).toBe(1);
    expect(asked).toBe(0);
    engine.meanwhile = () => Promise.resolve();
    for (let bought = 1; bought < 3; bought += 1) {
      await spendTo(ve, 1);
      expect(await run()).toBe(1);
    }
    await spendTo(ve, 1);
    expect(await run()).toBe(0);
    // What a clock that is ahead dates to tomorrow counts today as well.
    const ended = await db.query(
      "update checkout_session set created_at = created_at + interval '5 minutes' returning 1",
    );
    expect(ended.length).toBeGreaterThan(2);
    await db.query("update auto_top_up set try_at = $1", [new Date(world.deps.now())]);
    expect(await run()).toBe(0);
    expect(engine.charges).toHaveLength(3);
  });
});
