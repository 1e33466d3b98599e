/** What a checkout page is shown: packs, ways to pay, the wallet, automatic top-ups. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CheckoutOffer, PaymentMethod, PaymentProcessor } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { type Clients, makeCatalogue, reportUsage } from "./test_fixture.ts";
import { openShop, type Shop, shopOf, STRIPE } from "./testing_shop.ts";

const USD = (amount: string) => ({ currency: "USD", amount });
const WECHAT = {
  kind: {
    case: "wechatPay",
    value: {
      merchantNumber: "1900000001",
      certificateSerialNo: "ABCDEF0123",
      privateKey: "pem",
      apiV3Key: "k".repeat(32),
    },
  },
} as const;

const ids = (offer: CheckoutOffer): string[] => offer.creditPacks.map(({ id }) => id);

async function offerTo(client: Clients, id: string): Promise<CheckoutOffer> {
  return (await client.checkout.getCheckoutSession({ id })).offer!;
}

describe.each(openTestDatabases())("offers on $name", ({ open }) => {
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

  test("a fresh home offers examples, for the sandbox", async () => {
    const { id, payer } = await shop.open(await shop.makeVe());
    const offer = await offerTo(payer, id);
    expect(offer.merchantName).toBe("shop");
    expect(offer.creditPacks).toMatchObject([
      { id: "pack_example_10", price: USD("10.00"), credits: "1000000", bonusCredits: "0" },
      { id: "pack_example_50", price: USD("50.00"), credits: "5000000" },
      { id: "pack_example_100", price: USD("100.00"), credits: "10000000" },
    ]);
    expect(offer.paymentMethods).toMatchObject([
      { paymentAccountId: "sandbox", processor: PaymentProcessor.SANDBOX, method: PaymentMethod.SANDBOX, test: true },
    ]);
    expect(Number(offer.time!.seconds)).toBeCloseTo(shop.cp.deps.now() / 1000, -1);
    expect(await shop.api.accounts.listPaymentAccounts({})).toMatchObject({ paymentAccounts: [] });
  });

  test("the wallet is shown to merchants, and to payers who came by a link", async () => {
    const catalogue = await makeCatalogue(shop.api, "wallet");
    await reportUsage(shop.cp, shop.api, catalogue);
    await db.query("update usage_daily set day = day - 29 where ve_id = $1", [catalogue.veId]);
    await reportUsage(shop.cp, shop.api, catalogue);
    await db.query("update usage_daily set day = day - 10 where ve_id = $1 and day < current_date - 20", [
      catalogue.veId,
    ]);
    const [seeing, blind] = [await shop.open(catalogue.veId), await shop.open(catalogue.veId, { showWallet: false })];
    const shown = {
      veName: "wallet",
      // What was used before the last 30 days does not count.
      requests: 1n,
      creditsSpent: "0.005",
      wallet: { creditBudget: "10.5", creditRemaining: "10.49" },
    };
    expect((await offerTo(seeing.payer, seeing.id)).payerWallet).toMatchObject(shown);
    expect((await offerTo(blind.payer, blind.id)).payerWallet).toBeUndefined();
    expect((await offerTo(shop.api, blind.id)).payerWallet).toMatchObject(shown);
  });

  test("a VE that was closed meanwhile is offered nothing", async () => {
    const [disabled, frozen, deleted] = [await shop.makeVe(), await shop.makeVe(), await shop.makeVe()];
    const sessions = [await shop.open(disabled), await shop.open(frozen), await shop.open(deleted)];
    await shop.api.ves.updateVirtualEndpoint({ id: disabled, disabled: true });
    await db.query("update virtual_endpoint set frozen = true where id = $1", [frozen]);
    await shop.api.ves.deleteVirtualEndpoint({ id: deleted });
    for (const { id, payer } of sessions)
      expect(await offerTo(payer, id)).toMatchObject({ merchantName: "shop", creditPacks: [], paymentMethods: [] });
  });

  test("packs are those of the template, else those for all, as they are sorted", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("packs"));
    const { packs } = seller.api;
    const [gold, silver] = [await seller.makeVe({ template: true }), await seller.makeVe({ template: true })];
    const make = async (fields: object): Promise<string> =>
      (await packs.createCreditPack({ price: USD("5"), credits: "5", ...fields })).creditPack!.id;
    const twenty = await make({ price: USD("20") });
    const three = await make({ price: USD("3"), bonusCredits: "0.5", label: "Starter" });
    const first = await make({ price: USD("900"), position: -1 });
    const off = await make({ disabled: true });
    const golden = await make({ veTemplateId: gold });
    const off2 = await make({ veTemplateId: silver, disabled: true });
    const offered = async (fields: object): Promise<CheckoutOffer> => {
      const { id, payer } = await seller.open(await seller.makeVe(fields));
      return offerTo(payer, id);
    };
    const forAll = await offered({});
    expect(ids(forAll)).toStrictEqual([first, three, twenty]);
    expect(forAll.creditPacks[1]).toMatchObject({ label: "Starter", credits: "5", bonusCredits: "0.5", etag: "" });
    expect(ids(await offered({ veTemplateId: gold }))).toStrictEqual([golden]);
    // All that this template has is disabled.
    expect(ids(await offered({ veTemplateId: silver }))).toStrictEqual([first, three, twenty]);
    for (const id of [twenty, three, first, golden]) await packs.updateCreditPack({ id, disabled: true });
    // Whoever has packs is offered no examples, even if none is enabled.
    expect(ids(await offered({}))).toStrictEqual([]);
    expect([off, off2].every((id) => id.startsWith("pack_"))).toBe(true);
  });

  test("automatic top-ups are offered where the wallet is shown", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("auto"));
    const veId = await seller.makeVe();
    const [seeing, blind] = [await seller.open(veId), await seller.open(veId, { showWallet: false })];
    expect((await offerTo(seeing.payer, seeing.id)).autoTopUp).toBeUndefined();
    await seller.api.accounts.updateCheckoutSettings({
      displayName: " Shop & Co ",
      autoTopUpOffered: true,
      autoTopUpThresholdCredits: "100.50",
      autoTopUpDailyMax: USD("20"),
    });
    const offer = await offerTo(seeing.payer, seeing.id);
    expect(offer.merchantName).toBe("Shop & Co");
    expect(offer.autoTopUp).toMatchObject({
      thresholdCredits: "100.5",
      dailyMax: USD("20.00"),
      enabled: false,
      savedMethodLabel: "",
    });
    expect((await offerTo(blind.payer, blind.id)).autoTopUp).toBeUndefined();
    await agree(seller, veId);
    await seller.api.accounts.updateCheckoutSettings({ autoTopUpOffered: false });
    // Who agreed sees to what, so that it can be ended.
    expect((await offerTo(seeing.payer, seeing.id)).autoTopUp).toMatchObject({
      thresholdCredits: "7",
      dailyMax: USD("30.00"),
      enabled: true,
      savedMethodLabel: "Visa 4242",
    });
  });

  /** As if a payer had saved a card at the sandbox. */
  async function agree({ api, cp, merchant }: Shop, veId: string): Promise<void> {
    const { creditPack } = await api.packs.createCreditPack({ price: USD("10"), credits: "10" });
    const now = new Date(cp.deps.now());
    await db.query(
      `insert into payment_account (id, merchant_id, processor, name, methods, test, hint, created_at, updated_at)
       values ('pay_agreed', $1, 3, 'Sandbox', '{7}', true, 'sandbox', $2, $2)`,
      [merchant.id, now],
    );
    await db.query(
      `insert into auto_top_up (ve_id, merchant_id, enabled, threshold, pack_id, currency, daily_minor, account_id, credentials,
         label, try_at, created_at, updated_at)
       values ($1, $2, true, 7, $3, 'USD', 3000, 'pay_agreed', '', 'Visa 4242', $4, $4, $4)`,
      [veId, merchant.id, creditPack!.id, now],
    );
  }

  test("real accounts end the sandbox for everybody, and are offered as they are set up", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("real"));
    const { accounts } = seller.api;
    const veId = await seller.makeVe();
    const { id, payer } = await seller.open(veId);
    const { paymentAccount: stripe } = await accounts.createPaymentAccount({ name: "s", credentials: STRIPE });
    const { paymentAccount: wechat } = await accounts.createPaymentAccount({ name: "w", credentials: WECHAT });
    const offer = await offerTo(payer, id);
    expect(offer.paymentMethods).toMatchObject([
      {
        paymentAccountId: stripe!.id,
        method: PaymentMethod.STRIPE_CHECKOUT,
        canSave: true,
        currencies: [],
        test: false,
      },
      { paymentAccountId: wechat!.id, method: PaymentMethod.WECHAT_NATIVE, currencies: ["CNY"], authorizeUrl: "" },
      {
        paymentAccountId: wechat!.id,
        method: PaymentMethod.WECHAT_JSAPI,
        authorizeUrl: `https://wechat.test/${wechat!.id}?to=${shop.cp.url}/checkout/${id}`,
      },
    ]);
    expect(offer.creditPacks).toStrictEqual([]);
    await accounts.updatePaymentAccount({ id: stripe!.id, disabled: true });
    await accounts.updatePaymentAccount({ id: wechat!.id, methods: { methods: [PaymentMethod.WECHAT_NATIVE] } });
    expect((await offerTo(payer, id)).paymentMethods.map(({ method }) => method)).toStrictEqual([
      PaymentMethod.WECHAT_NATIVE,
    ]);
    const other = await shop.open(await shop.makeVe());
    expect(await offerTo(other.payer, other.id)).toMatchObject({ paymentMethods: [], creditPacks: [] });
    for (const { id: account } of [stripe!, wechat!]) await accounts.deletePaymentAccount({ id: account });
    expect((await offerTo(other.payer, other.id)).paymentMethods).toHaveLength(1);
  });
});

test("the sandbox is offered beside real accounts where a setting says so, but no examples", async () => {
  const [{ open }] = openTestDatabases() as [ReturnType<typeof openTestDatabases>[0]];
  const db = await open();
  const shop = await openShop(db, { env: { SANDBOX_PAYMENTS: "always", PUBLIC_URL: "https://pay.example.com" } });
  const { id, payer } = await shop.open(await shop.makeVe());
  expect((await offerTo(payer, id)).creditPacks).toHaveLength(3);
  await shop.api.accounts.createPaymentAccount({ name: "s", credentials: STRIPE });
  expect(await offerTo(payer, id)).toMatchObject({
    creditPacks: [],
    paymentMethods: [{ method: PaymentMethod.STRIPE_CHECKOUT }, { method: PaymentMethod.SANDBOX }],
  });
  await shop.cp.close();
  await db.close();
});
