import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  CheckoutOfferSchema,
  CheckoutSessionSchema,
  PaymentMethod,
  PaymentMethodOfferSchema,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { browserOf, canAutoTopUp, type Choice, choiceOf, usableMethods } from "./choice.ts";

const ANDROID = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36";

test.each([
  ["Mozilla/5.0 (X11; Linux x86_64) Chrome/140", { wechat: false, phone: false }],
  [ANDROID, { wechat: false, phone: true }],
  [`${ANDROID} XWEB/1160 MicroMessenger/8.0.49`, { wechat: true, phone: true }],
  ["Mozilla/5.0 (iPhone; CPU iPhone OS 17_0) MicroMessenger/8.0.49", { wechat: true, phone: true }],
  ["Mozilla/5.0 (Windows NT 10.0) MicroMessenger/7.0 WindowsWechat", { wechat: false, phone: false }],
])("%s", (agent, browser) => expect(browserOf(agent)).toEqual(browser));

const { STRIPE_CHECKOUT, STRIPE_SAVED, WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM, WECHAT_VIRTUAL, SANDBOX } =
  PaymentMethod;
const offered = (method: PaymentMethod, currencies: string[] = [], paymentAccountId = "pay_a") =>
  create(PaymentMethodOfferSchema, { paymentAccountId, method, currencies });
const everything = [
  STRIPE_CHECKOUT,
  STRIPE_SAVED,
  WECHAT_NATIVE,
  WECHAT_JSAPI,
  WECHAT_MINI_PROGRAM,
  WECHAT_VIRTUAL,
  SANDBOX,
].map((method) => offered(method));

describe("ways to pay", () => {
  const desktop = { wechat: false, phone: false };
  const wechat = { wechat: true, phone: true };
  const usable = (offers = everything, browser = desktop, currency = "USD") =>
    usableMethods(offers, currency, browser).map(({ method }) => method);

  test("outside WeChat, there are no ways of WeChat's browser and none of Mini Programs", () => {
    expect(usable()).toEqual([STRIPE_CHECKOUT, WECHAT_NATIVE, SANDBOX]);
  });

  test("inside WeChat its own payment comes first, instead of the QR code", () => {
    expect(usable(everything, wechat)).toEqual([WECHAT_JSAPI, STRIPE_CHECKOUT, SANDBOX]);
    expect(usable([offered(WECHAT_NATIVE)], wechat)).toEqual([WECHAT_NATIVE]);
  });

  test("a way is for its currencies only, and there once", () => {
    const two = [offered(WECHAT_NATIVE, ["CNY"]), offered(STRIPE_CHECKOUT), offered(STRIPE_CHECKOUT, [], "pay_b")];
    expect(usable(two)).toEqual([STRIPE_CHECKOUT]);
    expect(usable(two, desktop, "CNY")).toEqual([WECHAT_NATIVE, STRIPE_CHECKOUT]);
  });
});

test("automatic top-ups need an offer, a method that can be saved, and a fixed price in the limit's currency", () => {
  const autoTopUp = { thresholdCredits: "1", dailyMax: { currency: "USD", amount: "9.00" } };
  const price = { currency: "USD", amount: "1.00" };
  const offer = create(CheckoutOfferSchema, { autoTopUp, creditPacks: [{ id: "a", price }] });
  const pack = offer.creditPacks[0]!;
  const way = { ...offered(STRIPE_CHECKOUT), canSave: true };
  expect(canAutoTopUp(offer, pack, way)).toBe(true);
  expect(canAutoTopUp({ ...offer, autoTopUp: undefined }, pack, way)).toBe(false);
  expect(canAutoTopUp({ ...offer, autoTopUp: { ...offer.autoTopUp!, enabled: true } }, pack, way)).toBe(false);
  expect(canAutoTopUp(offer, pack, { ...way, canSave: false })).toBe(false);
  expect(canAutoTopUp(offer, pack, null)).toBe(false);
  const customAmount = { $typeName: "tokenbill.v1.CustomAmount" as const, minAmount: "1", maxAmount: "2" };
  expect(canAutoTopUp(offer, { ...pack, customAmount }, way)).toBe(false);
  expect(canAutoTopUp(offer, { ...pack, price: { ...pack.price!, currency: "CNY" } }, way)).toBe(false);
});

test("the choice behind the newest payment is found again", () => {
  const offer = create(CheckoutOfferSchema, {
    creditPacks: [{ id: "fixed" }, { id: "custom", customAmount: { minAmount: "1", maxAmount: "9" } }],
  });
  const payments = [{ paymentAccountId: "pay_a", method: WECHAT_NATIVE }];
  const price = { currency: "USD", amount: "7.00" };
  const of = (creditPackId: string) => create(CheckoutSessionSchema, { creditPackId, price, payments });
  const found = { packId: "fixed", amount: "", accountId: "pay_a", method: WECHAT_NATIVE, autoTopUp: false };
  expect(choiceOf(of("fixed"), offer, null)).toEqual(found);
  expect(choiceOf(of("custom"), offer, null)).toEqual({ ...found, packId: "custom", amount: "7.00" });
  const kept: Choice = { ...found, autoTopUp: true };
  expect(choiceOf(of("fixed"), offer, kept)).toBe(kept);
  expect(choiceOf(of("fixed"), offer, { ...kept, method: SANDBOX })).toEqual(found);
  expect(choiceOf(create(CheckoutSessionSchema, {}), offer, kept)).toBe(kept);
});
