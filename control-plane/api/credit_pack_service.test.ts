import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf } from "../testing.ts";
import { CREDIT_PACKS_PER_MERCHANT_MAX } from "./credit_pack_service.ts";
import { openShop, type Shop, shopOf } from "./testing_shop.ts";

const USD = (amount: string) => ({ currency: "USD", amount });

describe.each(openTestDatabases())("CreditPackService on $name", ({ open }) => {
  let db: Database;
  let shop: Shop;
  beforeAll(async () => {
    db = await open();
    shop = await openShop(db);
  });
  afterAll(async () => {
    await shop.cp.close();
    await db.close();
  });

  test("a pack is made, read, changed and deleted", async () => {
    const { packs } = shop.api;
    const template = await shop.makeVe({ template: true });
    const request = {
      requestId: "one",
      veTemplateId: template,
      label: "Starter",
      price: USD("50"),
      credits: "5000000.10",
      bonusCredits: "0.000000000001",
      customAmount: { minAmount: "1", maxAmount: "100.5" },
      position: -3,
    };
    const { creditPack: made } = await packs.createCreditPack(request);
    expect(made).toMatchObject({
      veTemplateId: template,
      label: "Starter",
      price: USD("50.00"),
      credits: "5000000.1",
      bonusCredits: "0.000000000001",
      customAmount: { minAmount: "1.00", maxAmount: "100.50" },
      disabled: false,
      position: -3,
      etag: "1",
    });
    expect(made!.id).toMatch(/^pack_[a-z2-7]{26}$/);
    expect((await packs.createCreditPack(request)).creditPack).toStrictEqual(made);
    const { id } = made!;
    expect((await packs.getCreditPack({ id })).creditPack).toStrictEqual(made);
    const changed = await packs.updateCreditPack({
      id,
      etag: "1",
      label: "",
      price: { currency: "JPY", amount: "500" },
      removeCustomAmount: true,
      bonusCredits: "0",
      disabled: true,
      position: 0,
    });
    expect(changed.creditPack).toMatchObject({
      label: "",
      price: { currency: "JPY", amount: "500" },
      credits: "5000000.1",
      bonusCredits: "0",
      disabled: true,
      etag: "2",
    });
    expect(changed.creditPack!.customAmount).toBeUndefined();
    expect((await failureOf(packs.updateCreditPack({ id, etag: "1", label: "x" }))).reason).toBe("etag_mismatch");
    expect((await failureOf(packs.deleteCreditPack({ id, etag: "1" }))).reason).toBe("etag_mismatch");
    expect((await packs.listCreditPacks({ veTemplateId: template })).creditPacks).toHaveLength(1);
    await packs.deleteCreditPack({ id, etag: "2" });
    const calls = [packs.getCreditPack({ id }), packs.updateCreditPack({ id }), packs.deleteCreditPack({ id })];
    for (const { reason } of await Promise.all(calls.map(failureOf))) expect(reason).toBe("not_found");
  });

  const FINE = { price: USD("10"), credits: "10" };

  test.each<[string, object, string]>([
    ["no price", { price: undefined }, "price"],
    ["a price of nothing", { price: USD("0.00") }, "price.amount"],
    ["a currency that there is not", { price: { currency: "ABC", amount: "1" } }, "price.currency"],
    ["a currency in small letters", { price: { currency: "usd", amount: "1" } }, "price.currency"],
    ["more decimals than the currency has", { price: USD("1.005") }, "price.amount"],
    ["decimals of a currency without", { price: { currency: "JPY", amount: "1.5" } }, "price.amount"],
    ["a negative price", { price: USD("-1") }, "price.amount"],
    ["a price that no processor takes", { price: { currency: "BHD", amount: "999999999999" } }, "price.amount"],
    ["no Credits", { credits: "0" }, "credits"],
    ["Credits that are not exact", { credits: "1.0000000000001" }, "credits"],
    ["Credits as a power", { credits: "1e9" }, "credits"],
    ["a bonus below 0", { bonusCredits: "-1" }, "bonus_credits"],
    ["bounds the wrong way round", { customAmount: { minAmount: "20", maxAmount: "5" } }, "custom_amount.max_amount"],
    ["a lower bound of 0", { customAmount: { minAmount: "0", maxAmount: "50" } }, "custom_amount.min_amount"],
    ["a bound that is none", { customAmount: { minAmount: "1", maxAmount: "" } }, "custom_amount.max_amount"],
    ["a price below its bounds", { customAmount: { minAmount: "11", maxAmount: "50" } }, "price.amount"],
    ["a price above its bounds", { customAmount: { minAmount: "1", maxAmount: "9.99" } }, "price.amount"],
    [
      "an amount that brings nothing",
      { credits: "0.000000000001", customAmount: { minAmount: "9", maxAmount: "10" } },
      "custom_amount.min_amount",
    ],
    [
      "an amount that no wallet can hold",
      {
        price: USD("0.01"),
        credits: "999999999999999999",
        customAmount: { minAmount: "0.01", maxAmount: "999999999999" },
      },
      "custom_amount.max_amount",
    ],
    ["a label with a line break", { label: "a\nb" }, "label"],
    ["a label that is too long", { label: "x".repeat(65) }, "label"],
  ])("%s is refused", async (_name, fields, field) => {
    const failure = await failureOf(shop.api.packs.createCreditPack({ ...FINE, ...fields }));
    expect(failure).toMatchObject({ code: Code.InvalidArgument, info: { metadata: { field } } });
    expect(failure.message).not.toContain("ASCII");
  });

  test("its template must be one of the merchant's", async () => {
    const create = (veTemplateId: string) => shop.api.packs.createCreditPack({ ...FINE, veTemplateId });
    const other = shopOf(shop.cp, await shop.cp.makeMerchant("templates"));
    for (const id of ["ve_none", await other.makeVe({ template: true })]) {
      const failure = await failureOf(create(id));
      expect(failure).toMatchObject({ reason: "not_found", info: { metadata: { field: "ve_template_id" } } });
    }
    const plain = await failureOf(create(await shop.makeVe()));
    expect(plain).toMatchObject({ reason: "invalid_field", info: { metadata: { field: "ve_template_id" } } });
  });

  test("a change is held against what stays", async () => {
    const { packs } = shop.api;
    const { creditPack } = await packs.createCreditPack({
      ...FINE,
      customAmount: { minAmount: "5", maxAmount: "20" },
    });
    const { id } = creditPack!;
    const attempts: [object, string][] = [
      [{ price: USD("4") }, "price.amount"],
      [{ price: { currency: "EUR", amount: "10" } }, "custom_amount"],
      [{ removeCustomAmount: true, customAmount: { minAmount: "1", maxAmount: "2" } }, "remove_custom_amount"],
      [{ credits: "0" }, "credits"],
    ];
    for (const [fields, field] of attempts)
      expect((await failureOf(packs.updateCreditPack({ id, ...fields }))).info.metadata["field"]).toBe(field);
    const euros = { price: { currency: "EUR", amount: "10" }, customAmount: { minAmount: "2", maxAmount: "30" } };
    expect((await packs.updateCreditPack({ id, ...euros })).creditPack).toMatchObject({
      price: { currency: "EUR", amount: "10.00" },
      customAmount: { minAmount: "2.00", maxAmount: "30.00" },
    });
  });

  test("what an automatic top-up buys stays a fixed price in its currency", async () => {
    const { packs } = shop.api;
    const { id } = (await packs.createCreditPack(FINE)).creditPack!;
    const veId = await shop.makeVe();
    const now = new Date();
    await db.query(
      `insert into payment_account (id, merchant_id, processor, name, methods, test, hint, created_at, updated_at)
       values ('pay_buyer', $1, 3, 'Sandbox', '{7}', true, 'sandbox', $2, $2)`,
      [shop.merchant.id, now],
    );
    await db.query(
      `insert into auto_top_up (ve_id, merchant_id, enabled, threshold, pack_id, currency, daily_minor, account_id, credentials,
         label, try_at, created_at, updated_at)
       values ($1, $2, true, 7, $3, 'USD', 3000, 'pay_buyer', '', 'Visa 4242', $4, $4, $4)`,
      [veId, shop.merchant.id, id, now],
    );
    for (const call of [
      () => packs.deleteCreditPack({ id }),
      () => packs.updateCreditPack({ id, customAmount: { minAmount: "1", maxAmount: "20" } }),
      () => packs.updateCreditPack({ id, price: { currency: "EUR", amount: "10" } }),
    ])
      expect(await failureOf(call())).toMatchObject({ reason: "in_use", info: { metadata: { used_by: veId } } });
    expect((await packs.updateCreditPack({ id, price: USD("12"), disabled: true })).creditPack!.etag).toBe("2");
    await db.query("delete from auto_top_up");
    await packs.deleteCreditPack({ id });
  });

  test("a merchant has at most so many, however many are made at once", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("many"));
    await db.query(
      `insert into credit_pack (id, merchant_id, label, currency, amount_minor, credits, created_at, updated_at)
       select 'pack_' || i, $1, '', 'USD', 100, 1, now(), now() from generate_series(1, $2::int) as i`,
      [seller.merchant.id, CREDIT_PACKS_PER_MERCHANT_MAX - 2],
    );
    const made = await Promise.allSettled(Array.from({ length: 5 }, () => seller.api.packs.createCreditPack(FINE)));
    expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
    expect(await failureOf(seller.api.packs.createCreditPack(FINE))).toMatchObject({
      reason: "limit_reached",
      info: { metadata: { limit: "credit_packs_per_merchant", max: "100" } },
    });
    const first = await seller.api.packs.listCreditPacks({ pageSize: 60 });
    const second = await seller.api.packs.listCreditPacks({ pageSize: 60, pageToken: first.nextPageToken });
    const ids = [...first.creditPacks, ...second.creditPacks].map(({ id }) => id);
    expect(new Set(ids).size).toBe(100);
    expect(second.nextPageToken).toBe("");
  });
});
