/** For tests: a merchant with accounts at imitated processors, and packs in their currencies. */

import type { Shop } from "../api/testing_shop.ts";
import type { StripeImitationAccount } from "../payments/testing_stripe.ts";
import { MERCHANT, privatePem } from "../payments/wechat/testing_keys.ts";

/** Ids. */
export interface Selling {
  readonly accounts: { readonly stripe: string; readonly stranger: string; readonly wechat: string };
  /** 1000 Credits and 200 more for 10 of the currency. */
  readonly packs: { readonly usd: string; readonly cny: string };
}

export const NOTHING_SOLD: Selling = {
  accounts: { stripe: "", stranger: "", wechat: "" },
  packs: { usd: "", cny: "" },
};

async function addStripe({ api }: Shop, { secretKey, webhookSecret }: StripeImitationAccount): Promise<string> {
  const credentials = { kind: { case: "stripe" as const, value: { secretKey, webhookSecret } } };
  return (await api.accounts.createPaymentAccount({ name: "Stripe", credentials })).paymentAccount!.id;
}

async function addWechat({ api }: Shop): Promise<string> {
  const value = { ...MERCHANT, privateKey: privatePem("merchant") };
  const credentials = { kind: { case: "wechatPay" as const, value } };
  return (await api.accounts.createPaymentAccount({ name: "WeChat", credentials })).paymentAccount!.id;
}

async function addPack({ api }: Shop, currency: string): Promise<string> {
  const price = { currency, amount: "10.00" };
  const pack = { label: currency, price, credits: "1000", bonusCredits: "200" };
  return (await api.packs.createCreditPack(pack)).creditPack!.id;
}

/** Two accounts at Stripe, one at WeChat Pay, two packs. */
export async function startSelling(
  shop: Shop,
  stripe: StripeImitationAccount,
  stranger: StripeImitationAccount,
): Promise<Selling> {
  return {
    accounts: {
      stripe: await addStripe(shop, stripe),
      stranger: await addStripe(shop, stranger),
      wechat: await addWechat(shop),
    },
    packs: { usd: await addPack(shop, "USD"), cny: await addPack(shop, "CNY") },
  };
}
