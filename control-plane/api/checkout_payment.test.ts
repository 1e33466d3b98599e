/** Payments of a session: what may be chosen, what happens then, and who sees what of it. */

import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CheckoutState, PaymentMethod, PaymentState } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { paymentRefused, unavailable } from "../checkout/processor.ts";
import { failureOf } from "../testing.ts";
import { type Clients, clientsOf } from "./test_fixture.ts";
import { openShop, SANDBOX_CHOICE, type Shop, shopOf } from "./testing_shop.ts";

const USD = (amount: string) => ({ currency: "USD", amount });

describe.each(openTestDatabases())("payments on $name", ({ open }) => {
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
  beforeEach(() => {
    // An hour and a bit: what is throttled is counted anew.
    shop.cp.clock.offsetMs += 3_700_000;
    shop.cp.checkout.failure = null;
    shop.cp.checkout.action = { kind: "redirect", url: "https://processor.test/pay" };
  });

  const pay = (client: Clients, id: string, fields: object = {}) =>
    client.checkout.startPayment({ id, ...SANDBOX_CHOICE, ...fields });

  test("a payer pays, and merchants see more of it than payers", async () => {
    const { id, payer } = await shop.open(await shop.makeVe(), { metadata: { order: "7" } });
    const started = await pay(payer, id, { language: "zh" });
    expect(started).toMatchObject({
      checkoutSession: { state: CheckoutState.PENDING, price: USD("10.00"), credits: "1000000", label: "Example" },
      action: { case: "redirectUrl", value: "https://processor.test/pay" },
    });
    const { account, ...choice } = shop.cp.checkout.choices.at(-1)!;
    expect(choice).toMatchObject({
      amountMinor: 1000n,
      language: "zh",
      merchantName: "shop",
      clientAddress: "127.0.0.1",
      autoTopUp: false,
    });
    // The sandbox's account is made when it is first used.
    const { paymentAccounts } = await shop.api.accounts.listPaymentAccounts({});
    expect(paymentAccounts).toMatchObject([{ id: account.id, name: "Sandbox", test: true, notificationUrl: "" }]);

    expect((await payer.checkout.checkPayment({ id })).checkoutSession!.state).toBe(CheckoutState.PENDING);
    shop.cp.checkout.verdicts.set(id, "paid");
    const paid = (await payer.checkout.checkPayment({ id })).checkoutSession!;
    expect(paid).toMatchObject({ state: CheckoutState.FULFILLED, creditsGranted: "1000000", metadata: {} });
    expect(paid.payTime).toBeDefined();
    expect(paid.payments).toMatchObject([
      { id: started.paymentId, state: PaymentState.FULFILLED, price: USD("10.00"), processorReference: "" },
    ]);
    const { checkoutSession: seen } = await shop.api.checkout.getCheckoutSession({ id });
    expect(seen).toMatchObject({
      metadata: { order: "7" },
      payments: [{ processorReference: `money_${started.paymentId}` }],
      events: [{ cause: "api", detail: "created", fromState: CheckoutState.OPEN, toState: CheckoutState.OPEN }],
    });
    expect((await payer.checkout.getCheckoutSession({ id })).checkoutSession!.events).toStrictEqual([]);
    expect((await failureOf(pay(payer, id))).info.metadata).toMatchObject({ state: "FULFILLED" });
  });

  test("a problem is told to merchants, and to payers that there is one", async () => {
    const { id, payer } = await shop.open(await shop.makeVe());
    await db.query("update checkout_session set problem = 'wrong_amount' where id = $1", [id]);
    expect((await payer.checkout.getCheckoutSession({ id })).checkoutSession!.problem).toBe("review");
    expect((await shop.api.checkout.getCheckoutSession({ id })).checkoutSession!.problem).toBe("wrong_amount");
  });

  test("a merchant's own front end does the same with its token", async () => {
    const { id } = await shop.open(await shop.makeVe());
    await pay(shop.api, id);
    // The merchant's server is not where the payer is.
    expect(shop.cp.checkout.choices.at(-1)!.clientAddress).toBe("");
    const { checkoutSession } = await shop.api.checkout.cancelCheckoutSession({ id });
    expect(checkoutSession!.state).toBe(CheckoutState.CANCELED);
    expect((await failureOf(shop.api.checkout.cancelCheckoutSession({ id }))).reason).toBe("wrong_state");
    expect((await failureOf(pay(shop.api, id))).reason).toBe("wrong_state");
  });

  test.each([
    ["a QR code", { kind: "qr_code", text: "weixin://x" }, { case: "qrCode", value: "weixin://x" }],
    [
      "WeChat's own call",
      {
        kind: "wechat_pay",
        appId: "a",
        timeStamp: "1",
        nonceStr: "n",
        packageValue: "p",
        signType: "RSA",
        paySign: "s",
      },
      { case: "wechatPay", value: { appId: "a", packageValue: "p", signType: "RSA" } },
    ],
    [
      "Virtual Payment",
      { kind: "wechat_virtual", mode: "goods", signData: "{}", paySig: "p", signature: "s" },
      { case: "wechatVirtual", value: { mode: "goods", signData: "{}", paySig: "p", signature: "s" } },
    ],
    ["nothing to do", null, { case: undefined }],
  ] as const)("%s", async (_name, action, expected) => {
    const { id, payer } = await shop.open(await shop.makeVe());
    shop.cp.checkout.action = action;
    expect((await pay(payer, id)).action).toMatchObject(expected);
  });

  test("only what is offered can be chosen", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("choices"));
    const { id, payer } = await seller.open(await seller.makeVe());
    const { paymentAccounts } = await shop.api.accounts.listPaymentAccounts({});
    const attempts: [object, string, string][] = [
      [{ creditPackId: "pack_example_11" }, "credit_pack_id", "not_offered"],
      [{ paymentAccountId: "pay_none" }, "payment_account_id", "not_offered"],
      // Another merchant's.
      [{ paymentAccountId: paymentAccounts[0]!.id }, "payment_account_id", "not_offered"],
      [{ method: PaymentMethod.STRIPE_CHECKOUT }, "method", "not_offered"],
      [{ method: PaymentMethod.UNSPECIFIED }, "method", "enum.not_in"],
      [{ amount: "11" }, "amount", "fixed_price"],
      [{ amount: "10.001" }, "amount", "amount"],
      [{ amount: "-10" }, "amount", "string.pattern"],
      [{ autoTopUp: true }, "auto_top_up", "not_offered"],
      [{ language: "fr" }, "language", "string.in"],
      [{ wechatCode: "x".repeat(257) }, "wechat_code", "string.max_len"],
    ];
    for (const [fields, field, rule] of attempts) {
      const failure = await failureOf(pay(payer, id, fields));
      expect(failure, JSON.stringify(fields)).toMatchObject({
        reason: "invalid_field",
        info: { metadata: { field, rule } },
      });
      // Refused or not, they count.
      shop.cp.clock.offsetMs += 20_000;
    }
    await pay(payer, id, { amount: "10.00" });
    const [sandbox] = (await seller.api.accounts.listPaymentAccounts({})).paymentAccounts;
    await pay(payer, id, { paymentAccountId: sandbox!.id });
    await seller.api.accounts.updatePaymentAccount({ id: sandbox!.id, disabled: true });
    const { offer } = await payer.checkout.getCheckoutSession({ id });
    expect(offer).toMatchObject({ paymentMethods: [], creditPacks: [] });
  });

  test("custom amounts bring Credits in proportion, within their bounds", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("custom"));
    const { creditPack } = await seller.api.packs.createCreditPack({
      price: USD("3"),
      credits: "1",
      bonusCredits: "0.1",
      customAmount: { minAmount: "1", maxAmount: "500" },
    });
    const { id, payer } = await seller.open(await seller.makeVe());
    const choose = (amount: string) => pay(payer, id, { creditPackId: creditPack!.id, amount });
    for (const amount of ["0.99", "500.01"]) {
      const failure = await failureOf(choose(amount));
      expect(failure).toMatchObject({
        message: "amount: give an amount from 1.00 to 500.00 USD",
        info: {
          metadata: { field: "amount", rule: "bounds", min_amount: "1.00", max_amount: "500.00", currency: "USD" },
        },
      });
    }
    expect((await failureOf(choose(""))).info.metadata["rule"]).toBe("required");
    const { checkoutSession } = await choose("100");
    expect(checkoutSession).toMatchObject({
      price: USD("100.00"),
      credits: "33.333333333333",
      bonusCredits: "3.333333333333",
    });
  });

  test("a way to pay must take the currency, and have the code that it needs", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("currencies"));
    const { paymentAccount } = await seller.api.accounts.createPaymentAccount({
      name: "w",
      credentials: {
        kind: {
          case: "wechatPay",
          value: {
            merchantNumber: "1900000001",
            certificateSerialNo: "ABCDEF0123",
            privateKey: "pem",
            apiV3Key: "k".repeat(32),
          },
        },
      },
    });
    const make = async (currency: string): Promise<string> =>
      (await seller.api.packs.createCreditPack({ price: { currency, amount: "10" }, credits: "10" })).creditPack!.id;
    const [usd, cny] = [await make("USD"), await make("CNY")];
    const { id, payer } = await seller.open(await seller.makeVe());
    const choice = { paymentAccountId: paymentAccount!.id, method: PaymentMethod.WECHAT_JSAPI };
    const wrong = await failureOf(pay(payer, id, { ...choice, creditPackId: usd, wechatCode: "code" }));
    expect(wrong.info.metadata).toMatchObject({ field: "method", rule: "currency" });
    const codeless = await failureOf(pay(payer, id, { ...choice, creditPackId: cny }));
    expect(codeless.info.metadata["field"]).toBe("wechat_code");
    await pay(payer, id, { ...choice, creditPackId: cny, wechatCode: "code" });
    expect(shop.cp.checkout.choices.at(-1)).toMatchObject({ wechatCode: "code", currency: "CNY" });
  });

  test("automatic top-ups need an offer, a link, a method that can be saved and a pack that fits", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("automatic"));
    const veId = await seller.makeVe();
    await seller.api.accounts.updateCheckoutSettings({
      autoTopUpOffered: true,
      autoTopUpThresholdCredits: "1",
      autoTopUpDailyMax: USD("20"),
    });
    const make = async (fields: object): Promise<string> =>
      (await seller.api.packs.createCreditPack({ credits: "10", price: USD("20"), ...fields })).creditPack!.id;
    const [linked, blind] = [await seller.open(veId), await seller.open(veId, { showWallet: false })];
    const example = await failureOf(pay(linked.payer, linked.id, { autoTopUp: true }));
    expect(example.info.metadata).toMatchObject({ field: "auto_top_up", rule: "fixed_price" });
    const fits = await make({});
    const rules: [string, object, string][] = [
      ["daily_max", { price: USD("20.01") }, ""],
      ["daily_max", { price: { currency: "EUR", amount: "10" } }, ""],
      ["fixed_price", { customAmount: { minAmount: "1", maxAmount: "30" } }, "10"],
    ];
    for (const [rule, fields, amount] of rules) {
      const creditPackId = await make(fields);
      const refused = await failureOf(pay(linked.payer, linked.id, { autoTopUp: true, creditPackId, amount }));
      expect(refused.info.metadata).toMatchObject({ field: "auto_top_up", rule });
    }
    const unlinked = await failureOf(pay(blind.payer, blind.id, { autoTopUp: true, creditPackId: fits }));
    expect(unlinked.info.metadata["rule"]).toBe("not_offered");
    await pay(linked.payer, linked.id, { autoTopUp: true, creditPackId: fits });
    expect(shop.cp.checkout.choices.at(-1)!.autoTopUp).toBe(true);
  });

  test("nothing is started for a VE that was closed, nor after the session's time", async () => {
    const [frozen, late] = [await shop.makeVe(), await shop.makeVe()];
    const [first, second] = [await shop.open(frozen), await shop.open(late)];
    await db.query("update virtual_endpoint set frozen = true where id = $1", [frozen]);
    expect(await failureOf(pay(first.payer, first.id))).toMatchObject({
      reason: "wrong_state",
      info: { metadata: { state: "frozen" } },
    });
    shop.cp.clock.offsetMs += 3_600_000;
    expect(await failureOf(pay(second.payer, second.id))).toMatchObject({
      reason: "wrong_state",
      info: { metadata: { state: "EXPIRED" } },
    });
    await db.query(
      "update checkout_session set automatic = true, expires_at = expires_at + interval '2 hours' where id = $1",
      [second.id],
    );
    expect((await failureOf(pay(second.payer, second.id))).info.metadata["state"]).toBe("AUTOMATIC");
  });

  test("a processor that refuses or does not answer is named as the cause", async () => {
    const { id, payer } = await shop.open(await shop.makeVe());
    shop.cp.checkout.failure = paymentRefused("card_declined");
    expect(await failureOf(pay(payer, id))).toMatchObject({
      reason: "payment_refused",
      code: Code.FailedPrecondition,
      message: expect.not.stringContaining("own words"),
      info: { metadata: { failure: "card_declined" } },
    });
    shop.cp.checkout.failure = unavailable();
    expect(await failureOf(pay(payer, id))).toMatchObject({ reason: "unavailable", code: Code.Unavailable });
  });

  test("a session, a VE and an address can start so many payments", async () => {
    const veId = await shop.makeVe();
    const limitOf = async (call: Promise<unknown>): Promise<string | undefined> =>
      (await failureOf(call)).info.metadata["limit"];
    for (let round = 0; round < 3; round++) {
      const { id, payer } = await shop.open(veId);
      for (let i = 0; i < 10; i++) await pay(payer, id);
      if (round < 2) expect(await limitOf(pay(payer, id))).toBe("payments_per_session");
    }
    const last = await shop.open(veId);
    expect(await limitOf(pay(last.payer, last.id))).toBe("payments_per_ve");
    // A merchant's server pays for many; payers at one address do not.
    const other = await shop.makeVe();
    for (let round = 0; round < 3; round++) {
      const { id, payer } = await shop.open(other);
      for (let i = 0; i < 10; i++) await pay(payer, id);
    }
    const third = await shop.open(await shop.makeVe());
    expect(await limitOf(pay(third.payer, third.id))).toBe("payments_per_address");
    await pay(shop.api, third.id);
  });

  test("checks of one session are bounded, as the processor is asked at each", async () => {
    const { id, payer } = await shop.open(await shop.makeVe());
    for (let i = 0; i < 12; i++)
      await Promise.all(Array.from({ length: 10 }, () => payer.checkout.checkPayment({ id })));
    expect((await failureOf(payer.checkout.checkPayment({ id }))).info.metadata["limit"]).toBe(
      "payment_checks_per_session",
    );
  });

  test("after five declined payments a VE has to wait for an hour", async () => {
    const veId = await shop.makeVe();
    const decline = async (): Promise<void> => {
      const { id, payer } = await shop.open(veId);
      await pay(payer, id);
      shop.cp.checkout.verdicts.set(id, "declined");
      const { checkoutSession } = await payer.checkout.checkPayment({ id });
      expect(checkoutSession).toMatchObject({
        state: CheckoutState.FAILED,
        failure: "card_declined",
        payments: [{ state: PaymentState.FAILED, failure: "card_declined" }],
      });
    };
    for (let i = 0; i < 5; i++) await decline();
    const { id, payer } = await shop.open(veId, { expireAfterS: 86_400 });
    const refused = await failureOf(pay(payer, id));
    expect(refused.info.metadata).toMatchObject({ limit: "declined_payments_per_ve" });
    expect(Number(refused.info.metadata["retry_after_s"])).toBeGreaterThan(3500);
    // Other VEs are not concerned.
    const other = await shop.open(await shop.makeVe());
    await pay(other.payer, other.id);
    shop.cp.clock.offsetMs += 3_601_000;
    await pay(payer, id);
  });

  test("whoever knows the id of a VE alone cannot keep its payers from paying", async () => {
    const veId = await shop.makeVe();
    const unlinked = { showWallet: false };
    for (let i = 0; i < 5; i++) {
      const { id, payer } = await shop.open(veId, unlinked);
      for (let n = 0; n < 6; n++) await pay(payer, id);
      shop.cp.checkout.verdicts.set(id, "declined");
      await payer.checkout.checkPayment({ id });
    }
    const other = await shop.open(veId, unlinked);
    const refused = await failureOf(pay(other.payer, other.id));
    expect(refused.info.metadata).toMatchObject({ limit: "declined_payments_per_ve" });
    const { id } = await shop.open(veId);
    await pay(shop.api, id);
  });

  test("refunds are the merchant's, and made once for each request id", async () => {
    const { id, payer } = await shop.open(await shop.makeVe());
    expect((await failureOf(shop.api.checkout.refundCheckoutSession({ id }))).reason).toBe("wrong_state");
    await pay(payer, id);
    shop.cp.checkout.verdicts.set(id, "paid");
    await payer.checkout.checkPayment({ id });
    for (const amount of ["0", "1.001", "0.00"])
      expect((await failureOf(shop.api.checkout.refundCheckoutSession({ id, amount }))).info.metadata["field"]).toBe(
        "amount",
      );
    const request = { id, amount: "4", reason: "a friend's", requestId: "back" };
    shop.cp.checkout.failure = unavailable();
    expect((await failureOf(shop.api.checkout.refundCheckoutSession(request))).reason).toBe("unavailable");
    shop.cp.checkout.failure = null;
    const first = await shop.api.checkout.refundCheckoutSession(request);
    expect(first.refund).toMatchObject({ amount: USD("4.00"), reason: "a friend's", external: false });
    expect(first.refund!.id).toMatch(/^rfd_[a-z2-7]{26}$/);
    expect(first.checkoutSession).toMatchObject({ state: CheckoutState.PARTIALLY_REFUNDED, refunded: USD("4.00") });
    const again = await shop.api.checkout.refundCheckoutSession(request);
    expect(again.refund).toStrictEqual(first.refund);
    expect(again.checkoutSession!.refunded).toMatchObject(USD("4.00"));
    expect((await failureOf(shop.api.checkout.refundCheckoutSession({ ...request, amount: "5" }))).reason).toBe(
      "request_id_reused",
    );
    const { checkoutSession } = await shop.api.checkout.refundCheckoutSession({ id });
    expect(checkoutSession).toMatchObject({ state: CheckoutState.REFUNDED, refunded: USD("10.00") });
  });

  test("sessions are listed newest first, by VE and state, page by page", async () => {
    const seller = shopOf(shop.cp, await shop.cp.makeMerchant("lists"));
    const [one, other] = [await seller.makeVe(), await seller.makeVe()];
    const made: string[] = [];
    for (const veId of [one, one, other, one]) made.unshift((await seller.open(veId)).id);
    await pay(seller.api, made[0]!);
    const list = async (fields: object) => {
      const { checkoutSessions, nextPageToken } = await seller.api.checkout.listCheckoutSessions(fields);
      return { ids: checkoutSessions.map(({ id }) => id), nextPageToken, checkoutSessions };
    };
    const all = await list({});
    expect(all).toMatchObject({ ids: made, nextPageToken: "" });
    expect(all.checkoutSessions[0]).toMatchObject({ payments: [{ state: PaymentState.PENDING }], events: [] });
    expect(all.checkoutSessions[1]!.payments).toStrictEqual([]);
    const first = await list({ pageSize: 3 });
    expect(first.ids).toStrictEqual(made.slice(0, 3));
    expect((await list({ pageSize: 3, pageToken: first.nextPageToken })).ids).toStrictEqual(made.slice(3));
    expect((await list({ veId: one.replace("_", "-") })).ids).toHaveLength(3);
    expect((await list({ state: CheckoutState.PENDING })).ids).toStrictEqual([made[0]]);
    const misused = seller.api.checkout.listCheckoutSessions({ veId: one, pageToken: first.nextPageToken });
    expect((await failureOf(misused)).reason).toBe("bad_page_token");
    const stranger = clientsOf(shop.cp, null).checkout.listCheckoutSessions({});
    expect((await failureOf(stranger)).reason).toBe("unauthenticated");
  });
});
