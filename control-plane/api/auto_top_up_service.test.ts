import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  type AutoTopUp,
  DeleteAutoTopUpRequestSchema,
  GetAutoTopUpRequestSchema,
  SetAutoTopUpRequestSchema,
} from "../../proto/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import { DeleteVirtualEndpointRequestSchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { topUpAutomatically } from "../auto_top_ups.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import {
  addMerchant,
  addVe,
  callContext,
  MERCHANT,
  NO_HINTS,
  OF_MERCHANT,
  testWorld,
  type TestWorld,
} from "../report/testing.ts";
import { NEW_METHOD_REST_MS } from "../saved_methods.ts";
import { insertCheckoutSession } from "../store/checkout_session.ts";
import { findAutoTopUp } from "../store/auto_top_up.ts";
import { ACCOUNT, addCustomer, addPack, addShop, FakeEngine, PACK, saveCard } from "../testing_auto_top_ups.ts";
import { autoTopUpService } from "./auto_top_up_service.ts";
import type { Principal } from "./context.ts";
import { virtualEndpointService } from "./virtual_endpoint_service.ts";

const OTHER = "mer_other";
const OF_OTHER: Principal = { kind: "merchant", merchantId: OTHER, tokenId: "tok_b" };

describe.each(openTestDatabases())("AutoTopUpService on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addShop(db);
    await addMerchant(db, OTHER);
    await addPack(db, "pack_open", { min_minor: 1n, max_minor: 9n });
    await addPack(db, "pack_off");
    await db.query("update credit_pack set disabled = true where id = 'pack_off'");
    await addPack(db, "pack_other", { merchant_id: OTHER });
  });
  afterAll(() => db.close());
  afterEach(() => db.query("delete from auto_top_up"));

  const service = () => autoTopUpService(world.deps);
  const shown = (answer: unknown) => (answer as { autoTopUp: AutoTopUp }).autoTopUp;
  const get = async (veId: string, who: Principal = OF_MERCHANT) =>
    shown(await service().getAutoTopUp(create(GetAutoTopUpRequestSchema, { veId }), callContext(who)));
  const set = async (init: MessageInitShape<typeof SetAutoTopUpRequestSchema>, who: Principal = OF_MERCHANT) =>
    shown(await service().setAutoTopUp(create(SetAutoTopUpRequestSchema, init), callContext(who)));
  const remove = async (veId: string, who: Principal = OF_MERCHANT) =>
    service().deleteAutoTopUp(create(DeleteAutoTopUpRequestSchema, { veId }), callContext(who));

  async function customer(): Promise<string> {
    const veId = `ve_${(count += 1)}`;
    await addCustomer(world, veId);
    return veId;
  }
  const wish = (veId: string) => ({
    veId,
    enabled: true,
    thresholdCredits: "20.5",
    creditPackId: PACK,
    dailyMax: { currency: "USD", amount: "40" },
  });

  /** Whoever has the secret of a session of this VE. */
  async function payer(veId: string, linked: boolean): Promise<Principal> {
    const id = world.deps.newId("cs_");
    const now = new Date(world.deps.now());
    await insertCheckoutSession(db, {
      ...{ id, merchantId: MERCHANT, veId, linked, automatic: false, metadata: {}, returnUrl: "", now, expiresAt: now },
      secretDigest: new TextEncoder().encode(id),
    });
    return { kind: "payer", merchantId: MERCHANT, sessionId: id };
  }

  it("shows what a payer agreed to, and nothing of the payment method but its name", async () => {
    const ve = await customer();
    const seen = await get(ve);
    expect(seen).toMatchObject({
      ...{ veId: ve, enabled: true, thresholdCredits: "50", creditPackId: PACK, paymentAccountId: ACCOUNT },
      ...{
        dailyMax: { currency: "USD", amount: "30.00" },
        savedMethodLabel: "Visa 4242",
        lastFailure: "",
        failures: 0,
      },
      ...{ lastCheckoutSessionId: "", etag: "1" },
    });
    expect(JSON.stringify(seen, (_, value: unknown) => (typeof value === "bigint" ? "" : value))).not.toContain(
      "pm_secret",
    );
    const engine = new FakeEngine(world);
    world.advance(NEW_METHOD_REST_MS);
    engine.scripts.push({ decline: "card_declined" });
    await topUpAutomatically(world.deps, engine.charge);
    const after = await get(ve);
    expect(after).toMatchObject({ lastFailure: "card_declined", failures: 1, etag: "1" });
    expect(after.lastCheckoutSessionId).toMatch(/^cs_/);
  });

  it("changes it, which makes it try at once", async () => {
    const ve = await customer();
    await db.query("update auto_top_up set enabled = false, failures = 3, last_failure = 'card_declined'");
    expect(await set({ ...wish(ve), etag: "1" })).toMatchObject({
      ...{ enabled: true, thresholdCredits: "20.5", dailyMax: { currency: "USD", amount: "40.00" } },
      ...{ failures: 0, lastFailure: "", etag: "2", savedMethodLabel: "Visa 4242" },
    });
    expect(await topUpAutomatically(world.deps, new FakeEngine(world).charge)).toBe(1);
    await expect(set({ ...wish(ve), etag: "1" })).rejects.toMatchObject({ code: "etag_mismatch" });
    expect((await set({ ...wish(ve), enabled: false, creditPackId: "pack_off" })).enabled).toBe(false);
  });

  it.each([
    ["a threshold of nothing", { thresholdCredits: "0" }, "threshold_credits"],
    ["a maximum of nothing", { dailyMax: { currency: "USD", amount: "0" } }, "daily_max"],
    ["half a cent", { dailyMax: { currency: "USD", amount: "40.005" } }, "daily_max"],
    ["no currency", { dailyMax: { currency: "ZZZ", amount: "40" } }, "daily_max"],
    ["another currency than the pack's", { dailyMax: { currency: "EUR", amount: "40" } }, "daily_max.currency"],
    ["less than the pack costs", { dailyMax: { currency: "USD", amount: "9.99" } }, "daily_max.amount"],
    ["a pack whose amount the payer chooses", { creditPackId: "pack_open" }, "credit_pack_id"],
    ["a pack that is disabled", { creditPackId: "pack_off" }, "credit_pack_id"],
  ])("refuses %s", async (_, more, field) => {
    const ve = await customer();
    await expect(set({ ...wish(ve), ...more })).rejects.toMatchObject({ code: "invalid_field", metadata: { field } });
    expect((await get(ve)).etag).toBe("1");
  });

  it("knows no pack of another merchant", async () => {
    const ve = await customer();
    for (const creditPackId of ["pack_other", "pack_nobody"])
      await expect(set({ ...wish(ve), creditPackId })).rejects.toMatchObject({
        code: "not_found",
        metadata: { field: "credit_pack_id" },
      });
  });

  it("needs a payment method that a payer saved", async () => {
    const ve = `ve_${(count += 1)}`;
    await addVe(world, ve);
    await expect(get(ve)).rejects.toMatchObject({ code: "not_found" });
    await expect(set(wish(ve))).rejects.toMatchObject({ code: "wrong_state" });
    await expect(remove(ve)).rejects.toMatchObject({ code: "not_found" });
  });

  it("is another merchant's to neither see, change nor end", async () => {
    const ve = await customer();
    const noVe = { code: "not_found", message: "there is no VE with this id" };
    await expect(get(ve, OF_OTHER)).rejects.toMatchObject(noVe);
    await expect(set({ ...wish(ve), creditPackId: "pack_other" }, OF_OTHER)).rejects.toMatchObject(noVe);
    await expect(remove(ve, OF_OTHER)).rejects.toMatchObject(noVe);
    expect((await get(ve)).etag).toBe("1");
  });

  it("ends for the merchant, once, and the method is to be forgotten", async () => {
    const ve = await customer();
    await remove(ve);
    await expect(remove(ve)).rejects.toMatchObject({ code: "not_found" });
    expect(await db.query("select 1 from forgotten_method where ve_id = $1", [ve])).toHaveLength(1);
    expect(await topUpAutomatically(world.deps, new FakeEngine(world).charge)).toBe(0);
  });

  it("ends for a payer of this VE who sees the wallet, and for no other", async () => {
    const ve = await customer();
    const other = await customer();
    await expect(remove(ve, await payer(ve, false))).rejects.toMatchObject({ code: "wrong_scope" });
    await expect(remove(ve, await payer(other, true))).rejects.toMatchObject({ code: "not_found" });
    await expect(remove(ve, { kind: "stranger" })).rejects.toMatchObject({ code: "wrong_scope" });
    const linked = await payer(ve, true);
    await expect(remove(ve, { ...linked, merchantId: OTHER } as Principal)).rejects.toMatchObject({
      code: "not_found",
    });
    await expect(get(ve, linked)).rejects.toMatchObject({ code: "wrong_scope" });
    await expect(set(wish(ve), linked)).rejects.toMatchObject({ code: "wrong_scope" });
    expect(await findAutoTopUp(db, ve)).not.toBeNull();
    await remove(ve, linked);
    expect([await findAutoTopUp(db, ve), (await findAutoTopUp(db, other))?.ve_id]).toEqual([null, other]);
    await saveCard(world, ve);
    expect((await get(ve)).etag).toBe("1");
  });

  it("ends with its VE", async () => {
    const ve = await customer();
    const request = create(DeleteVirtualEndpointRequestSchema, { id: ve });
    await virtualEndpointService(world.deps, NO_HINTS).deleteVirtualEndpoint(request, callContext(OF_MERCHANT));
    expect(await findAutoTopUp(db, ve)).toBeNull();
    expect(await db.query("select 1 from forgotten_method where ve_id = $1", [ve])).toHaveLength(1);
  });
});
