import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PaymentMethod, PaymentProcessor } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { PaymentCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf } from "../testing.ts";
import { PAYMENT_ACCOUNTS_PER_MERCHANT_MAX } from "./payment_account_service.ts";
import { openShop, SANDBOX_CHOICE, type Shop, shopOf, STRIPE } from "./testing_shop.ts";

const stripe = (secretKey: string) => ({ kind: { case: "stripe" as const, value: { secretKey } } });
const WECHAT = {
  kind: {
    case: "wechatPay" as const,
    value: {
      merchantNumber: "1900000001",
      certificateSerialNo: "ABCDEF0123",
      privateKey: "-----BEGIN PRIVATE KEY----- secret",
      apiV3Key: "v3key".padEnd(32, "x"),
    },
  },
};

describe.each(openTestDatabases())("PaymentAccountService on $name", ({ open }) => {
  let db: Database;
  let shop: Shop;
  beforeAll(async () => {
    db = await open();
    shop = await openShop(db, { env: { SANDBOX_PAYMENTS: "always" } });
  });
  afterAll(async () => {
    await shop.cp.close();
    await db.close();
  });

  test("an account is made, and its credentials are never seen again", async () => {
    const { accounts } = shop.api;
    const request = {
      requestId: "one",
      name: "Stripe",
      credentials: {
        kind: { case: "stripe" as const, value: { secretKey: "sk_live_acme1234", webhookSecret: "whsec_5" } },
      },
    };
    const { paymentAccount: made } = await accounts.createPaymentAccount(request);
    const { id } = made!;
    expect(made).toMatchObject({
      processor: PaymentProcessor.STRIPE,
      name: "Stripe",
      test: false,
      disabled: false,
      methods: [PaymentMethod.STRIPE_CHECKOUT, PaymentMethod.STRIPE_SAVED],
      hint: "1234",
      notificationUrl: `${shop.cp.url}/webhooks/stripe/${id}`,
      etag: "1",
    });
    expect(id).toMatch(/^pay_[a-z2-7]{26}$/);
    expect((await accounts.createPaymentAccount(request)).paymentAccount).toStrictEqual(made);
    expect((await accounts.getPaymentAccount({ id })).paymentAccount).toStrictEqual(made);
    const { paymentAccount: wechat } = await accounts.createPaymentAccount({
      name: "WeChat",
      credentials: WECHAT,
      methods: { methods: [PaymentMethod.WECHAT_NATIVE] },
      disabled: true,
    });
    expect(wechat).toMatchObject({
      methods: [PaymentMethod.WECHAT_NATIVE],
      disabled: true,
      hint: "1900000001",
      notificationUrl: `${shop.cp.url}/webhooks/wechat/${wechat!.id}`,
    });
    expect((await accounts.listPaymentAccounts({})).paymentAccounts).toStrictEqual([made, wechat]);

    const [row] = await db.query<{ credentials: Uint8Array }>("select credentials from payment_account where id = $1", [
      id,
    ]);
    const opened = fromBinary(PaymentCredentialsSchema, shop.cp.deps.secrets.open(row!.credentials, id));
    expect(opened.kind.value).toMatchObject({ secretKey: "sk_live_acme1234", webhookSecret: "whsec_5" });
    const everything = [...shop.cp.responses, ...shop.cp.logLines, Buffer.from(row!.credentials).toString("latin1")];
    for (const secret of ["sk_live_acme", "whsec_5", "BEGIN PRIVATE", "v3key"])
      expect(everything.join("\n")).not.toContain(secret);
  });

  test("what is wrong is named", async () => {
    const attempts: [object, string][] = [
      [{ credentials: undefined }, "credentials"],
      [{ credentials: {} }, "credentials"],
      [{ credentials: stripe("nonsense") }, "credentials.stripe.secret_key"],
      [{ credentials: stripe("") }, "credentials.stripe.secret_key"],
      [{ name: " " }, "name"],
      [{ methods: { methods: [PaymentMethod.WECHAT_NATIVE] } }, "methods.methods[0]"],
      [{ methods: { methods: [PaymentMethod.STRIPE_CHECKOUT, PaymentMethod.STRIPE_CHECKOUT] } }, "methods.methods"],
      [{ methods: { methods: [0] } }, "methods.methods[0]"],
    ];
    for (const [fields, field] of attempts) {
      const request = { name: "x", credentials: STRIPE, ...fields };
      const failure = await failureOf(shop.api.accounts.createPaymentAccount(request));
      expect(failure, JSON.stringify(fields)).toMatchObject({ reason: "invalid_field", info: { metadata: { field } } });
    }
  });

  test("keys may be replaced, the account may not", async () => {
    const { accounts } = shop.api;
    const { paymentAccount } = await accounts.createPaymentAccount({ name: "k", credentials: stripe("sk_live_keys1") });
    const { id } = paymentAccount!;
    const { paymentAccount: rolled } = await accounts.updatePaymentAccount({
      id,
      etag: "1",
      credentials: stripe("sk_live_keys98765"),
      name: "rolled",
    });
    expect(rolled).toMatchObject({ name: "rolled", hint: "8765", etag: "2" });
    // Another account; the same one in test mode; another processor.
    for (const credentials of [stripe("sk_live_other1"), stripe("sk_test_keys1"), WECHAT]) {
      const failure = await failureOf(accounts.updatePaymentAccount({ id, credentials }));
      expect(failure).toMatchObject({ info: { metadata: { field: "credentials", rule: "other_account" } } });
    }
    expect((await failureOf(accounts.updatePaymentAccount({ id, etag: "1" }))).reason).toBe("etag_mismatch");
    const { paymentAccount: fewer } = await accounts.updatePaymentAccount({
      id,
      methods: { methods: [PaymentMethod.STRIPE_CHECKOUT] },
      disabled: true,
    });
    expect(fewer).toMatchObject({ methods: [PaymentMethod.STRIPE_CHECKOUT], disabled: true, name: "rolled" });
    const wrong = accounts.updatePaymentAccount({ id, methods: { methods: [PaymentMethod.SANDBOX] } });
    expect((await failureOf(wrong)).info.metadata["field"]).toBe("methods.methods[0]");
    // All that the stored credentials allow can be had again.
    const all = [PaymentMethod.STRIPE_CHECKOUT, PaymentMethod.STRIPE_SAVED];
    expect((await accounts.updatePaymentAccount({ id, methods: { methods: all } })).paymentAccount!.methods).toEqual(
      all,
    );
    await accounts.deletePaymentAccount({ id });
    expect((await failureOf(accounts.getPaymentAccount({ id }))).reason).toBe("not_found");
  });

  test("an account with payments stays", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("used"));
    const { paymentAccount } = await seller.api.accounts.createPaymentAccount({ name: "s", credentials: STRIPE });
    const { creditPack } = await seller.api.packs.createCreditPack({
      price: { currency: "USD", amount: "1" },
      credits: "1",
    });
    const { id, payer } = await seller.open(await seller.makeVe());
    await payer.checkout.startPayment({
      id,
      creditPackId: creditPack!.id,
      paymentAccountId: paymentAccount!.id,
      method: PaymentMethod.STRIPE_CHECKOUT,
    });
    expect((await failureOf(seller.api.accounts.deletePaymentAccount({ id: paymentAccount!.id }))).reason).toBe(
      "in_use",
    );
  });

  test("the sandbox is listed, and can be disabled and nothing else", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("sandbox"));
    const { accounts } = seller.api;
    const { id, payer } = await seller.open(await seller.makeVe());
    await payer.checkout.startPayment({ id, ...SANDBOX_CHOICE });
    const [sandbox] = (await accounts.listPaymentAccounts({})).paymentAccounts;
    expect(sandbox).toMatchObject({ processor: PaymentProcessor.SANDBOX, test: true, hint: "sandbox" });
    const update = (fields: object) => accounts.updatePaymentAccount({ id: sandbox!.id, ...fields });
    const attempts: [string, object][] = [
      ["name", { name: "mine" }],
      ["credentials", { credentials: STRIPE }],
      ["methods", { methods: { methods: [] } }],
    ];
    for (const [field, fields] of attempts)
      expect((await failureOf(update(fields))).info.metadata).toMatchObject({ field, rule: "sandbox" });
    expect((await update({ disabled: true })).paymentAccount).toMatchObject({ disabled: true, name: "Sandbox" });
    expect((await failureOf(accounts.deletePaymentAccount({ id: sandbox!.id }))).reason).toBe("not_available");
  });

  test("a merchant has at most so many", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("many"));
    await db.query(
      `insert into payment_account (id, merchant_id, processor, name, methods, test, hint, created_at, updated_at)
       select 'pay_' || i, $1, case when i = 1 then 3 else 1 end, 'x', '{}', true, '', now(), now()
       from generate_series(1, $2::int) as i`,
      // The sandbox does not count.
      [seller.merchant.id, PAYMENT_ACCOUNTS_PER_MERCHANT_MAX],
    );
    const make = () => seller.api.accounts.createPaymentAccount({ name: "x", credentials: STRIPE });
    const made = await Promise.allSettled([make(), make(), make()]);
    expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect((await failureOf(make())).info.metadata["limit"]).toBe("payment_accounts_per_merchant");
    const page = await seller.api.accounts.listPaymentAccounts({ pageSize: 20 });
    expect(page.paymentAccounts).toHaveLength(20);
    const rest = await seller.api.accounts.listPaymentAccounts({ pageSize: 20, pageToken: page.nextPageToken });
    expect(rest).toMatchObject({ paymentAccounts: [{ hint: "hop1" }], nextPageToken: "" });
  });

  test("checkout settings", async () => {
    const { accounts } = shopOf(shop.cp, await shop.cp.makeMerchant("settings")).api;
    const fresh = (await accounts.getCheckoutSettings({})).checkoutSettings!;
    expect(fresh).toMatchObject({ displayName: "", returnUrlPrefixes: [], autoTopUpOffered: false, etag: "0" });
    expect(fresh.updateTime).toBeUndefined();
    const prefixes = ["https://App.example.com", "http://localhost:3000/a/", "https://app.example.com/"];
    const { checkoutSettings: first } = await accounts.updateCheckoutSettings({
      etag: "0",
      returnUrlPrefixes: { prefixes },
      autoTopUpThresholdCredits: "5.50",
    });
    expect(first).toMatchObject({
      returnUrlPrefixes: ["https://app.example.com/", "http://localhost:3000/a/"],
      autoTopUpThresholdCredits: "5.5",
      etag: "1",
    });
    expect((await accounts.getCheckoutSettings({})).checkoutSettings).toStrictEqual(first);
    const attempts: [object, string][] = [
      [{ autoTopUpOffered: true }, "auto_top_up_daily_max"],
      [{ autoTopUpThresholdCredits: "0" }, "auto_top_up_threshold_credits"],
      [{ autoTopUpDailyMax: { currency: "USD", amount: "0" } }, "auto_top_up_daily_max.amount"],
      [{ autoTopUpDailyMax: { currency: "XYZ", amount: "1" } }, "auto_top_up_daily_max.currency"],
      [
        { returnUrlPrefixes: { prefixes: ["https://a.example/", "http://b.example/"] } },
        "return_url_prefixes.prefixes[1]",
      ],
      [{ returnUrlPrefixes: { prefixes: Array.from({ length: 33 }, () => "x") } }, "return_url_prefixes.prefixes"],
      [{ displayName: "a\tb" }, "display_name"],
    ];
    for (const [fields, field] of attempts)
      expect((await failureOf(accounts.updateCheckoutSettings(fields))).info.metadata["field"]).toBe(field);
    expect((await failureOf(accounts.updateCheckoutSettings({ etag: "0" }))).reason).toBe("etag_mismatch");
    const { checkoutSettings: second } = await accounts.updateCheckoutSettings({
      etag: "1",
      displayName: "Shop",
      returnUrlPrefixes: {},
      autoTopUpOffered: true,
      autoTopUpDailyMax: { currency: "JPY", amount: "3000" },
    });
    expect(second).toMatchObject({
      displayName: "Shop",
      returnUrlPrefixes: [],
      autoTopUpOffered: true,
      autoTopUpDailyMax: { currency: "JPY", amount: "3000" },
      etag: "2",
    });
    // Of several that begin with the same state, one wins.
    const race = await Promise.allSettled(
      ["a", "b", "c"].map((displayName) => accounts.updateCheckoutSettings({ etag: "2", displayName })),
    );
    expect(race.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });
});
