/** What is kept of the payment methods that payers save, and what processors are asked to forget. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { type Details, type ProcessorAccount, ProcessorError } from "./payments/payment.ts";
import { MERCHANT, testWorld, type TestWorld } from "./report/testing.ts";
import {
  FORGET_AGAIN_MS,
  FORGET_ROWS_MAX,
  FORGET_TRIES_MAX,
  forgetSavedMethods,
  methodSaver,
  NEW_METHOD_REST_MS,
  openSavedMethod,
} from "./saved_methods.ts";
import { createSecrets } from "./secrets.ts";
import { changeAutoTopUp, deleteAutoTopUp, findAutoTopUp } from "./store/auto_top_up.ts";
import { ACCOUNT, addPack, addShop, CARD, PACK, saveCard, setTerms } from "./testing_auto_top_ups.ts";

describe.each(openTestDatabases())("saved payment methods on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addShop(db);
    await addPack(db, "pack_open", { min_minor: 1n, max_minor: 9n });
    await addPack(db, "pack_eur", { currency: "EUR" });
    await addPack(db, "pack_dear", { amount_minor: 3001n });
  });
  afterAll(() => db.close());
  afterEach(async () => {
    await db.query("delete from auto_top_up");
    await db.query("delete from forgotten_method");
  });

  const newVe = (): string => `ve_${(count += 1)}`;
  const row = async (veId: string) => (await findAutoTopUp(db, veId))!;

  /** A processor, and what it was asked to forget. */
  function processor(fail: () => void = () => undefined) {
    const forgotten: Details[] = [];
    const account: Pick<ProcessorAccount, "forgetSaved"> = {
      forgetSaved: async (saved) => {
        fail();
        forgotten.push(saved);
      },
    };
    return { forgotten, deps: { ...world.deps, processors: { open: () => account as ProcessorAccount } } };
  }

  it("are sealed for their VE, with the terms and the pack that the payer agreed to", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    const now = world.deps.now();
    expect(await row(ve)).toMatchObject({
      ...{ merchant_id: MERCHANT, enabled: true, threshold: "50.000000000000", pack_id: PACK, currency: "USD" },
      ...{ daily_minor: 3000n, account_id: ACCOUNT, label: "Visa 4242", failures: 0, charging: false, version: 1n },
      ...{ saved_at: new Date(now), try_at: new Date(now + NEW_METHOD_REST_MS) },
    });
    const { credentials } = await row(ve);
    expect(Buffer.from(credentials).includes("pm_secret")).toBe(false);
    expect(openSavedMethod(world.deps, { ve_id: ve, credentials })).toEqual(CARD);
    expect(() => openSavedMethod(world.deps, { ve_id: "ve_other", credentials })).toThrow(/another resource/);
  });

  it("replace what was saved before, with its failures; the earlier one is forgotten", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    await db.query("update auto_top_up set enabled = false, failures = 3, last_failure = 'x', threshold = 7");
    await saveCard(world, ve, { ...CARD, payment_method: "pm_new" });
    expect(await row(ve)).toMatchObject({
      enabled: true,
      failures: 0,
      last_failure: "",
      threshold: "50.000000000000",
      version: 2n,
    });
    const { forgotten, deps } = processor();
    expect([await forgetSavedMethods(deps), await forgetSavedMethods(deps)]).toEqual([1, 0]);
    expect(forgotten).toEqual([CARD]);
  });

  it("that are saved again are not forgotten", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    await saveCard(world, ve, { payment_method: CARD["payment_method"]!, customer: CARD["customer"]! });
    expect(await db.query("select 1 from forgotten_method")).toEqual([]);
    // Nor if another was there in between.
    await saveCard(world, ve, { other: "1" });
    await saveCard(world, ve);
    const { forgotten, deps } = processor();
    expect(await forgetSavedMethods(deps)).toBe(2);
    expect(forgotten).toEqual([{ other: "1" }]);
    expect(await db.query("select 1 from forgotten_method")).toEqual([]);
  });

  it.each([
    ["the payer chose the amount", "pack_open", 3000n],
    ["the pack is of another currency", "pack_eur", 3000n],
    ["the pack costs more than the daily maximum", "pack_dear", 3000n],
    ["the pack was deleted", "pack_gone", 3000n],
    ["no pack is known", null, 3000n],
    ["automatic top-ups are not offered any more", PACK, null],
  ] as const)("are not kept but forgotten where %s", async (_, packId, dailyMinor) => {
    const ve = newVe();
    await setTerms(db, dailyMinor);
    await saveCard(world, ve, CARD, packId);
    await setTerms(db, 3000n);
    expect(await findAutoTopUp(db, ve)).toBeNull();
    const { forgotten, deps } = processor();
    await forgetSavedMethods(deps);
    expect(forgotten).toEqual([CARD]);
  });

  it("are kept or not together with the payment", async () => {
    const ve = newVe();
    const save = methodSaver(world.deps);
    const crash = db.tx(async (tx) => {
      const session = { ve_id: ve, merchant_id: MERCHANT, pack_id: PACK };
      await save(tx, { account_id: ACCOUNT }, session, { label: "Visa 4242", credentials: CARD });
      throw new Error("crash");
    });
    await expect(crash).rejects.toThrow("crash");
    expect(await findAutoTopUp(db, ve)).toBeNull();
  });

  it("leave a charge that is under way alone", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    const at = new Date(world.deps.now() + 12_345);
    await db.query("update auto_top_up set charging = true, try_at = $1", [at]);
    world.advance(1);
    await saveCard(world, ve, { other: "1" });
    expect(await row(ve)).toMatchObject({ charging: true, try_at: at, saved_at: new Date(world.deps.now()) });
    const change = { enabled: true, threshold: 1n, packId: PACK, dailyMax: { currency: "USD", minor: 1n } };
    await db.tx((tx) => changeAutoTopUp(tx, ve, change, new Date(world.deps.now())));
    expect(await row(ve)).toMatchObject({ charging: true, try_at: at });
  });

  it("are asked for again when the processor cannot be reached, and left to it after many times", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    await db.tx((tx) => deleteAutoTopUp(tx, ve, new Date(world.deps.now())));
    let down = true;
    const { forgotten, deps } = processor(() => {
      if (down) throw new ProcessorError("unreachable", "timeout", "it does not answer");
    });
    expect([await forgetSavedMethods(deps), await forgetSavedMethods(deps)]).toEqual([1, 0]);
    world.advance(FORGET_AGAIN_MS);
    down = false;
    expect(await forgetSavedMethods(deps)).toBe(1);
    expect(forgotten).toEqual([CARD]);

    await saveCard(world, ve);
    await db.tx((tx) => deleteAutoTopUp(tx, ve, new Date(world.deps.now())));
    down = true;
    let tried = 0;
    while ((await forgetSavedMethods(deps)) > 0) {
      tried += 1;
      world.advance(FORGET_AGAIN_MS);
    }
    expect(tried).toBe(FORGET_TRIES_MAX);
  });

  it("that cannot be opened, or whose account is gone, are given up", async () => {
    const ve = newVe();
    await saveCard(world, ve);
    await db.tx((tx) => deleteAutoTopUp(tx, ve, new Date(world.deps.now())));
    const { forgotten, deps } = processor();
    const secrets = createSecrets(new Uint8Array(32).fill(8));
    expect(await forgetSavedMethods({ ...deps, secrets })).toBe(1);
    expect(await forgetSavedMethods(deps)).toBe(0);
    expect(forgotten).toEqual([]);
  });

  it("are forgotten once by several replicas, some at a time", async () => {
    for (let n = 0; n < FORGET_ROWS_MAX + 1; n += 1) {
      const ve = newVe();
      await saveCard(world, ve, { n: String(n) });
      await db.tx((tx) => deleteAutoTopUp(tx, ve, new Date(world.deps.now())));
    }
    const { forgotten, deps } = processor();
    const done = await Promise.all([forgetSavedMethods(deps), forgetSavedMethods(deps)]);
    expect(Math.max(...done)).toBeLessThanOrEqual(FORGET_ROWS_MAX);
    while ((await forgetSavedMethods(deps)) > 0);
    expect(new Set(forgotten.map(({ n }) => n)).size).toBe(FORGET_ROWS_MAX + 1);
    expect(forgotten).toHaveLength(FORGET_ROWS_MAX + 1);
  });
});
