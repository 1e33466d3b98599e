/**
 * From the exhausted error to the next answer, as people go that way: the link of OpenAI's SDK is opened in a real browser,
 * a pack is bought, and the same request succeeds on every node. Everything runs as it really does; the processors are
 * imitations on this machine, but for the sandbox, which is the real one.
 */

import type { Browser, Page } from "playwright-core";
import { APIError } from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fromBinary } from "@bufbuild/protobuf";
import { CheckoutState, type CheckoutSession, type TokenBill } from "../../clients/ts/src/index.ts";
import { startStripeImitation, type StripeImitation } from "../../control-plane/payments/testing_stripe.ts";
import { wechatCredentials } from "../../control-plane/payments/wechat/testing_keys.ts";
import { startWechat, type WechatImitation } from "../../control-plane/payments/wechat/testing_wechat.ts";
import { PaymentCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { DESKTOP, openPage, PHONE, screenshot, type Watched } from "../support/browser.ts";
import { launchChromium } from "../support/chromium.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const NODES = 2;
const QUESTION = { messages: [{ role: "user" as const, content: "Tell me a story" }] };

let browser: Browser;
let stripe: StripeImitation;
let wechat: WechatImitation;
let upstream: Upstream;
let system: System;
let tb: TokenBill;

beforeAll(async () => {
  [browser, stripe, wechat, upstream] = await Promise.all([
    launchChromium(),
    startStripeImitation(),
    startWechat(),
    startUpstream({ address: "127.0.0.1:0" }),
  ]);
  const env = {
    STRIPE_API_URL: stripe.url,
    WECHAT_PAY_API_URL: wechat.urls.wechatPay,
    WECHAT_API_URL: wechat.urls.wechat,
  };
  system = await System.start({ nodes: NODES, env });
  tb = await system.api();
});

afterAll(async () => {
  await browser?.close();
  await system?.stop();
  await Promise.all([stripe?.close(), wechat?.close(), upstream?.close()]);
});

/** Asks node `index` once; what went wrong, or null. */
async function ask(shop: Shop, index: number): Promise<APIError | null> {
  try {
    const { chat } = system.nodes[index]!.openai(shop.key, { maxRetries: 0 });
    const answer = await chat.completions.create({ model: shop.model, ...QUESTION });
    expect(answer.choices[0]!.message.content).not.toBe("");
    return null;
  } catch (error) {
    if (error instanceof APIError) return error;
    throw error;
  }
}

/** A user whose wallet is used up, and the link of the error that says so. */
async function exhausted(): Promise<{ shop: Shop; link: string }> {
  const shop = await openShop(tb, { upstreamUrl: upstream.url, creditBudget: "0.02" });
  for (const node of system.nodes) await untilServed(node, shop);
  const error = await until("the wallet is used up", () => ask(shop, 0));
  expect(error).toMatchObject({ status: 429, code: "insufficient_quota" });
  const { checkout_url: link } = error.error as { checkout_url: string };
  expect(link).toMatch(/\/checkout\?ve_id=ve_[a-z2-7]+&link=/);
  return { shop, link };
}

async function onlySession(shop: Shop): Promise<CheckoutSession> {
  const { checkoutSessions } = await tb.checkout.listCheckoutSessions({ veId: shop.veId });
  expect(checkoutSessions).toHaveLength(1);
  return checkoutSessions[0]!;
}

/** Every node serves again, and how long after the Credits were in the wallet the last one did, in milliseconds. */
async function servedAgain(shop: Shop): Promise<number> {
  const session = await until("the session is fulfilled", async () => {
    const one = await onlySession(shop);
    return one.state === CheckoutState.FULFILLED ? one : null;
  });
  const atMs = Number(session.fulfillTime!.seconds) * 1000 + session.fulfillTime!.nanos / 1e6;
  await Promise.all(
    system.nodes.map((_, index) => until(`node ${index} serves`, async () => (await ask(shop, index)) === null, 5000)),
  );
  return Date.now() - atMs;
}

async function checkLedger(shop: Shop, credits: string): Promise<void> {
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  expect(wallet!.creditBudget).toBe(credits);
  expect((await onlySession(shop)).creditsGranted).toBe(String(Number(credits) - 0.02));
}

const pay = (page: Page, price: string) => page.getByRole("button", { name: `Pay ${price}` }).click();
const heading = (page: Page, name: RegExp) => page.getByRole("heading", { name }).first().waitFor();

async function opened(link: string, options: typeof PHONE | typeof DESKTOP): Promise<Watched> {
  const watched = await openPage(browser, options);
  await watched.page.goto(link);
  await watched.page.getByText("Credits remaining").waitFor();
  return watched;
}

test("in a fresh home, by an example pack and the sandbox, on a phone", async () => {
  const { shop, link } = await exhausted();
  const { page, troubles, context } = await opened(link, PHONE);
  await screenshot(page, "phone_choose");
  await page.getByText("5,000,000").first().click();
  await pay(page, "$50");
  await page.getByText("No money moves", { exact: false }).first().waitFor();
  expect(new URL(page.url()).pathname).toMatch(/^\/sandbox\/pay\//);
  await screenshot(page, "phone_sandbox");
  await page.getByRole("button", { name: /^Approve ?Paid/ }).click();
  const ms = await servedAgain(shop);
  console.log(`sandbox: the last of ${NODES} nodes served ${Math.round(ms)} ms after fulfilment`);
  await heading(page, /^Payment received$/);
  await screenshot(page, "phone_paid");
  await page.reload();
  await heading(page, /^Payment received$/);
  await checkLedger(shop, "5000000.02");
  expect(troubles).toEqual([]);
  await context.close();
});

test("by Stripe, on a desktop", async () => {
  const { paymentAccount } = await tb.paymentAccounts.createPaymentAccount({
    name: "Stripe",
    credentials: {
      kind: { case: "stripe", value: { secretKey: stripe.secretKey, webhookSecret: stripe.webhookSecret } },
    },
  });
  stripe.webhookUrl = paymentAccount!.notificationUrl;
  const dollars = { label: "Starter", price: { currency: "USD", amount: "10" }, credits: "1000000" };
  await tb.creditPacks.createCreditPack(dollars);
  const { shop, link } = await exhausted();
  const { page, troubles, context } = await opened(link, DESKTOP);
  expect(await page.getByText("TEST", { exact: true }).count()).toBe(stripe.secretKey.includes("_test_") ? 1 : 0);
  await screenshot(page, "desktop_choose");
  await pay(page, "$10");
  await page.locator("#pay").waitFor();
  await page.locator("#pay").click();
  const ms = await servedAgain(shop);
  console.log(`Stripe: the last of ${NODES} nodes served ${Math.round(ms)} ms after fulfilment`);
  await heading(page, /^Payment received$/);
  await screenshot(page, "desktop_paid");
  await checkLedger(shop, "1000000.02");
  // The imitated page of Stripe has no icon.
  expect(troubles.filter((trouble) => !trouble.includes(stripe.url))).toEqual([]);
  await context.close();
});

test("by WeChat's QR code, on a desktop, in Chinese", async () => {
  const { kind } = fromBinary(PaymentCredentialsSchema, wechatCredentials());
  const { paymentAccount } = await tb.paymentAccounts.createPaymentAccount({ name: "WeChat", credentials: { kind } });
  await tb.creditPacks.createCreditPack({ price: { currency: "CNY", amount: "68" }, credits: "1000000" });
  const { shop, link } = await exhausted();
  const { page, troubles, context } = await openPage(browser, { ...DESKTOP, locale: "zh-CN", colorScheme: "dark" });
  await page.goto(link);
  await page.getByText("68").first().click();
  await page.getByText("微信支付").first().click();
  await page.getByRole("button", { name: /68/ }).click();
  await page.locator("svg.qr").waitFor();
  await screenshot(page, "desktop_qr_zh");
  const [payment] = (await onlySession(shop)).payments;
  wechat.pay.payOrder(payment!.processorReference);
  const envelope = wechat.pay.paymentEnvelope(payment!.processorReference);
  expect(await wechat.pay.deliver(envelope, paymentAccount!.notificationUrl)).toBe(204);
  const ms = await servedAgain(shop);
  console.log(`WeChat: the last of ${NODES} nodes served ${Math.round(ms)} ms after fulfilment`);
  await page.locator("svg.qr").waitFor({ state: "detached" });
  await screenshot(page, "desktop_paid_zh");
  await checkLedger(shop, "1000000.02");
  expect(troubles).toEqual([]);
  await context.close();
});
