/**
 * The engine and the processors together, over HTTP: what a payer pays at Stripe, WeChat Pay and the sandbox becomes Credits
 * once, what is forged becomes none, and what goes back takes them along.
 */

import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CheckoutState, PaymentMethod, RefundState } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { formatCredits } from "../../core/credits.ts";
import { type Shop, openShop } from "../api/testing_shop.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { PaymentProcessor } from "../domain/checkout.ts";
import { startStripeImitation, type StripeImitation, type StripeImitationAccount } from "../payments/testing_stripe.ts";
import { startWechat, type WechatImitation } from "../payments/wechat/testing_wechat.ts";
import { readWallet } from "../store/wallet.ts";
import { type Checkout, openCheckout } from "./parts.ts";
import { NO_HINTS } from "../report/testing.ts";
import * as testing from "./testing.ts";
import { NOTHING_SOLD, type Selling, startSelling } from "./testing_selling.ts";

const { EXPIRED, FULFILLED, REFUNDED, PARTIALLY_REFUNDED, DISPUTED, FAILED } = CheckoutState;
const HOUR_MS = 3_600_000;
const TEN = 10;
const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));

describe.each(openTestDatabases())("the engine and the processors on $name", ({ open }) => {
  let db: Database;
  let shop: Shop;
  let stripe: StripeImitation;
  let stranger: StripeImitationAccount;
  let wechat: WechatImitation;
  /** Another replica: its jobs run when a test says so. */
  let replica: Checkout;
  let { accounts, packs }: Selling = NOTHING_SOLD;
  const clockMs = (): number => stripe.clock.offsetMs;

  beforeAll(async () => {
    db = await open();
    stripe = await startStripeImitation();
    stranger = stripe.addAccount();
    wechat = await startWechat(() => Date.now() + clockMs());
    const env = {
      STRIPE_API_URL: stripe.url,
      WECHAT_PAY_API_URL: wechat.urls.wechatPay,
      WECHAT_API_URL: wechat.urls.wechat,
      SANDBOX_PAYMENTS: "always",
    };
    shop = await openShop(db, { env, realPayments: true });
    replica = openCheckout(shop.cp.deps, NO_HINTS, random);
    ({ accounts, packs } = await startSelling(shop, stripe, stranger));
  });
  afterAll(async () => {
    for (const deep of [true, false]) expect(await audit(db, { deep })).toEqual([]);
    await replica.throttle.close();
    await shop.cp.close();
    await Promise.all([stripe.close(), wechat.close()]);
    await db.close();
  });

  const job = (name: string): Promise<unknown> => replica.jobs.find((each) => each.name === name)!.run();
  const pass = (ms: number): void => {
    shop.cp.clock.offsetMs += ms;
    stripe.clock.offsetMs += ms;
  };
  const hookOf = (kind: "stripe" | "wechat", account = accounts[kind]): string =>
    `${shop.cp.url}/webhooks/${kind}/${account}`;
  const walletOf = async (veId: string) => {
    const { purchased, debt } = (await readWallet(db, veId))!;
    return [formatCredits(purchased), formatCredits(debt)];
  };
  const transfersOf = async (veId: string) =>
    (await testing.transfersOf(shop.cp, veId)).map((line) => line.split(" ").slice(0, 4).join(" "));
  const told = (sessionId: string) => testing.told(shop.cp, sessionId);
  const lastVerdict = async (accountId: string) => {
    const text = "select verdict from payment_notification where account_id = $1 order by n desc limit 1";
    return (await db.query<{ verdict: string }>(text, [accountId]))[0]?.verdict;
  };
  const sessionOf = async (id: string) => (await shop.api.checkout.getCheckoutSession({ id })).checkoutSession!;

  async function start(choice: { creditPackId: string; paymentAccountId: string; method: PaymentMethod }) {
    const veId = await shop.makeVe();
    const { id, payer } = await shop.open(veId);
    const { paymentId, action } = await payer.checkout.startPayment({ id, ...choice });
    const reference = (await sessionOf(id)).payments[0]!.processorReference;
    return { veId, id, payer, paymentId, action, reference };
  }
  const startStripe = (account = accounts.stripe) =>
    start({ creditPackId: packs.usd, paymentAccountId: account, method: PaymentMethod.STRIPE_CHECKOUT });
  const startWechatPay = () =>
    start({ creditPackId: packs.cny, paymentAccountId: accounts.wechat, method: PaymentMethod.WECHAT_NATIVE });

  const eventOf = (type: string, account: StripeImitationAccount = stripe) =>
    account.events.findLast((event) => event.type === type)!;
  const intentOf = (reference: string): string => String(stripe.object(reference)["payment_intent"]);

  async function paidByStripe() {
    const started = await startStripe();
    stripe.pay(started.reference);
    expect(await stripe.deliver(eventOf("checkout.session.completed"), hookOf("stripe"))).toBe(200);
    return { ...started, intent: intentOf(started.reference) };
  }
  async function paidByWechat() {
    const started = await startWechatPay();
    wechat.pay.payOrder(started.paymentId);
    expect(await wechat.pay.deliver(wechat.pay.paymentEnvelope(started.paymentId), hookOf("wechat"))).toBe(204);
    return started;
  }

  /** Everybody at the same moment. */
  async function together(started: { id: string; payer: Shop["api"] }, notify: () => Promise<number>) {
    pass(60_000);
    const [statuses] = await Promise.all([
      Promise.all(Array.from({ length: TEN }, notify)),
      started.payer.checkout.checkPayment({ id: started.id }),
      shop.api.checkout.checkPayment({ id: started.id }),
      job("payments"),
      job("payments"),
    ]);
    return new Set(statuses);
  }
  async function expectOneCredit({ veId, id }: { veId: string; id: string }) {
    expect(await walletOf(veId)).toEqual(["1200", "0"]);
    expect(await transfersOf(veId)).toEqual(["payment -> wallet 1200"]);
    expect(await told(id)).toEqual(["checkout.fulfilled"]);
    expect(await sessionOf(id)).toMatchObject({ state: FULFILLED, creditsGranted: "1200", problem: "" });
  }
  async function expectNothing({ veId }: { veId: string }) {
    expect(await walletOf(veId)).toEqual(["0", "0"]);
    expect(await transfersOf(veId)).toEqual([]);
  }

  describe("Stripe", () => {
    it("credits once, however many tell of it and ask at once", async () => {
      const started = await startStripe();
      expect(started.action.case).toBe("redirectUrl");
      stripe.pay(started.reference);
      const events = [eventOf("checkout.session.completed"), eventOf("payment_intent.succeeded")];
      let turn = 0;
      const notify = () => stripe.deliver(events[(turn += 1) % 2]!, hookOf("stripe"));
      expect(await together(started, notify)).toEqual(new Set([200]));
      await expectOneCredit(started);
      expect(await stripe.deliver(events[0]!, hookOf("stripe"))).toBe(200);
      expect(await lastVerdict(accounts.stripe)).toBe("duplicate");
      await expectOneCredit(started);
    });

    it("believes nothing that is forged, stale, from the future or of another account", async () => {
      const started = await startStripe();
      const unpaid = stripe.emit("checkout.session.completed", {
        ...stripe.object(started.reference),
        status: "complete",
        payment_status: "paid",
      });
      // Signed rightly, and not true: Stripe says that nobody has paid.
      expect(await stripe.deliver(unpaid, hookOf("stripe"))).toBe(200);
      await expectNothing(started);
      stripe.pay(started.reference);
      const event = eventOf("checkout.session.completed");
      const atMs = Date.now() + stripe.clock.offsetMs;
      const forgeries = [
        [{ secret: "whsec_somebodyelse" }, "bad_signature"],
        [{ body: event.body.replace("payment", "Payment") }, "bad_signature"],
        [{ atMs: atMs - 301_000 }, "stale"],
        [{ atMs: atMs + 302_000 }, "future"],
      ] as const;
      for (const [how, verdict] of forgeries) {
        expect(await stripe.deliver(event, hookOf("stripe"), how)).toBe(400);
        expect(await lastVerdict(accounts.stripe)).toBe(verdict);
      }
      // Another account's webhook, with its own secret: it names a payment that is not its own.
      const foreign = stranger.emit("checkout.session.completed", stripe.object(started.reference));
      expect(await stranger.deliver(foreign, hookOf("stripe", accounts.stranger))).toBe(200);
      expect(await lastVerdict(accounts.stranger)).toBe("other_account");
      expect(await stranger.deliver(foreign, hookOf("stripe"))).toBe(400);
      await expectNothing(started);
      expect(await stripe.deliver(event, hookOf("stripe"))).toBe(200);
      await expectOneCredit(started);
    });

    it.each([
      ["wrong_amount", { amount_received: 999 }],
      ["wrong_currency", { currency: "eur" }],
      ["wrong_payment", { metadata: { payment_id: "pmt_another" } }],
    ])("credits nothing for %s", async (problem, changes) => {
      const started = await startStripe();
      stripe.pay(started.reference);
      Object.assign(stripe.object(intentOf(started.reference)), changes);
      expect(await stripe.deliver(eventOf("checkout.session.completed"), hookOf("stripe"))).toBe(200);
      expect(await lastVerdict(accounts.stripe)).toBe(problem);
      pass(60_000);
      await job("payments");
      await expectNothing(started);
      expect(await sessionOf(started.id)).toMatchObject({ state: FAILED, problem });
      expect(await told(started.id)).toEqual(["checkout.problem"]);
    });

    it("takes back what the merchant refunds here and there, each once", async () => {
      const { veId, id, intent } = await paidByStripe();
      const { refund } = await shop.api.checkout.refundCheckoutSession({ requestId: "r1", id, amount: "2.50" });
      expect(refund).toMatchObject({ state: RefundState.SUCCEEDED, creditsTaken: "300" });
      // Stripe tells of ours as well.
      const ours = eventOf("refund.created");
      await Promise.all([1, 2, 3].map(() => stripe.deliver(ours, hookOf("stripe"))));
      expect(await walletOf(veId)).toEqual(["900", "0"]);
      stripe.refundAtDashboard(intent, 500);
      const theirs = eventOf("refund.created");
      const statuses = await Promise.all([1, 2, 3, 4].map(() => stripe.deliver(theirs, hookOf("stripe"))));
      expect(new Set(statuses)).toEqual(new Set([200]));
      expect(await stripe.deliver(eventOf("charge.refunded"), hookOf("stripe"))).toBe(200);
      expect(await walletOf(veId)).toEqual(["300", "0"]);
      expect((await sessionOf(id)).state).toBe(PARTIALLY_REFUNDED);
      await shop.api.checkout.refundCheckoutSession({ requestId: "r2", id });
      expect(await walletOf(veId)).toEqual(["0", "0"]);
      expect(await transfersOf(veId)).toEqual([
        "payment -> wallet 1200",
        "wallet -> payment 300",
        "wallet -> payment 600",
        "wallet -> payment 300",
      ]);
      expect(await sessionOf(id)).toMatchObject({ state: REFUNDED, refunded: { currency: "USD", amount: "10.00" } });
      const refunds = stripe.requests.filter(({ method, path }) => method === "POST" && path.startsWith("/v1/refunds"));
      expect(refunds).toHaveLength(2);
    });

    it("gives Credits back when Stripe's refund fails in the end", async () => {
      const { veId, id, intent } = await paidByStripe();
      const refund = stripe.refundAtDashboard(intent, 1000, "pending");
      await stripe.deliver(eventOf("refund.created"), hookOf("stripe"));
      expect(await walletOf(veId)).toEqual(["0", "0"]);
      stripe.endRefund(refund, false);
      await stripe.deliver(eventOf("refund.failed"), hookOf("stripe"));
      expect(await walletOf(veId)).toEqual(["1200", "0"]);
      expect((await sessionOf(id)).state).toBe(FULFILLED);
    });

    it("credits a refund that overtakes its payment, and takes the Credits", async () => {
      const started = await startStripe();
      stripe.pay(started.reference);
      stripe.refundAtDashboard(intentOf(started.reference), 1000);
      expect(await stripe.deliver(eventOf("refund.created"), hookOf("stripe"))).toBe(200);
      expect(await stripe.deliver(eventOf("checkout.session.completed"), hookOf("stripe"))).toBe(200);
      expect(await transfersOf(started.veId)).toEqual(["payment -> wallet 1200", "wallet -> payment 1200"]);
      expect((await sessionOf(started.id)).state).toBe(REFUNDED);
    });

    it.each([
      ["won", FULFILLED, "1200", false],
      ["lost", REFUNDED, "0", true],
    ] as const)("freezes while a dispute is open, which is %s", async (how, state, credits, frozen) => {
      const { veId, id, intent } = await paidByStripe();
      const dispute = stripe.openDispute(intent);
      for (const type of ["charge.dispute.created", "charge.dispute.funds_withdrawn"]) {
        expect(await stripe.deliver(eventOf(type), hookOf("stripe"))).toBe(200);
      }
      expect([(await sessionOf(id)).state, await testing.isFrozen(shop.cp, veId)]).toEqual([DISPUTED, true]);
      stripe.endDispute(dispute, how);
      const closed = eventOf("charge.dispute.closed");
      await Promise.all([1, 2, 3].map(() => stripe.deliver(closed, hookOf("stripe"))));
      expect([(await sessionOf(id)).state, await testing.isFrozen(shop.cp, veId)]).toEqual([state, frozen]);
      expect(await walletOf(veId)).toEqual([credits, "0"]);
      expect(await told(id)).toEqual(["checkout.fulfilled", "dispute.opened", `dispute.${how}`]);
    });

    it("fulfils what is paid after the session's time", async () => {
      const started = await startStripe();
      stripe.pay(started.reference, "async");
      pass(25 * HOUR_MS);
      await job("checkout expiry");
      expect((await sessionOf(started.id)).state).toBe(EXPIRED);
      await expectNothing(started);
      stripe.settle(started.reference, true);
      const event = eventOf("checkout.session.async_payment_succeeded");
      expect(await stripe.deliver(event, hookOf("stripe"))).toBe(200);
      expect(await told(started.id)).toEqual(["checkout.expired", "checkout.fulfilled"]);
      expect(await walletOf(started.veId)).toEqual(["1200", "0"]);
    });

    it("credits once, whenever the process dies", async () => {
      const started = await startStripe();
      stripe.pay(started.reference);
      const { headers, body } = stripe.sign(eventOf("checkout.session.completed"));
      const nowMs = Date.now() + clockMs();
      const raw = { method: "POST", headers, query: new URLSearchParams(), body, nowMs } as const;
      let deaths = 0;
      for (let status = 0; status !== 200; deaths += 1) {
        const dying = { ...shop.cp.deps, db: testing.mortal(db, { statement: deaths + 1 }) };
        const dead = openCheckout(dying, NO_HINTS, random);
        ({ status } = await dead.receive(PaymentProcessor.STRIPE, accounts.stripe, raw));
        await dead.throttle.close();
      }
      expect(deaths).toBeGreaterThan(15);
      await expectOneCredit(started);
      pass(60_000);
      await job("payments");
      await expectOneCredit(started);
    });

    it("is found by the poller when no notification ever came", async () => {
      const started = await startStripe();
      stripe.pay(started.reference);
      pass(60_000);
      await job("payments");
      await expectOneCredit(started);
    });
  });

  describe("WeChat Pay", () => {
    it("credits once, however many tell of it and ask at once", async () => {
      const started = await startWechatPay();
      expect(started.action).toMatchObject({ case: "qrCode", value: expect.stringMatching(/^weixin:/) });
      wechat.pay.payOrder(started.paymentId);
      const notify = () =>
        wechat.pay.deliver(wechat.pay.paymentEnvelope(started.paymentId, { id: "EV-1" }), hookOf("wechat"));
      expect(await together(started, notify)).toEqual(new Set([204]));
      await expectOneCredit(started);
    });

    it("believes nothing that is forged, stale or of another merchant", async () => {
      const started = await startWechatPay();
      const { orders } = wechat.pay;
      const order = orders.get(started.paymentId)!;
      orders.set(started.paymentId, { ...order, state: "SUCCESS", transactionId: "42" });
      const early = wechat.pay.paymentEnvelope(started.paymentId);
      orders.set(started.paymentId, order);
      // Signed rightly, and not true: WeChat says that nobody has paid.
      expect(await wechat.pay.deliver(early, hookOf("wechat"))).toBe(204);
      await expectNothing(started);
      wechat.pay.payOrder(started.paymentId);
      const forgeries = [
        [{ signer: "attacker" }, 401, "bad_signature"],
        [{ timestampS: Math.floor((Date.now() + clockMs()) / 1000) - 302 }, 401, "stale"],
        [{ content: { mchid: "1900000999" } }, 403, "other_account"],
        [{ apiV3Key: "x".repeat(32) }, 503, "undecryptable"],
      ] as const;
      for (const [how, status, verdict] of forgeries) {
        expect(await wechat.pay.deliver(wechat.pay.paymentEnvelope(started.paymentId, how), hookOf("wechat"))).toBe(
          status,
        );
        expect(await lastVerdict(accounts.wechat)).toBe(verdict);
      }
      await expectNothing(started);
      expect(await wechat.pay.deliver(wechat.pay.paymentEnvelope(started.paymentId), hookOf("wechat"))).toBe(204);
      await expectOneCredit(started);
    });

    it("credits nothing for a wrong amount", async () => {
      const started = await startWechatPay();
      Object.assign(wechat.pay.payOrder(started.paymentId), { total: 1 });
      expect(await wechat.pay.deliver(wechat.pay.paymentEnvelope(started.paymentId), hookOf("wechat"))).toBe(204);
      expect(await lastVerdict(accounts.wechat)).toBe("wrong_amount");
      await expectNothing(started);
      expect(await sessionOf(started.id)).toMatchObject({ state: FAILED, problem: "wrong_amount" });
    });

    it("takes back what the merchant refunds here and there, each once", async () => {
      const { veId, id, paymentId } = await paidByWechat();
      const { refund } = await shop.api.checkout.refundCheckoutSession({ requestId: "w1", id, amount: "2.50" });
      expect(refund!.state).toBe(RefundState.PENDING);
      wechat.pay.settleRefund(refund!.id, "SUCCESS");
      const tell = (number: string) => wechat.pay.deliver(wechat.pay.refundEnvelope(number), hookOf("wechat"));
      expect(new Set(await Promise.all([1, 2, 3].map(() => tell(refund!.id))))).toEqual(new Set([204]));
      expect(await walletOf(veId)).toEqual(["900", "0"]);
      const byHand = wechat.pay.refundByHand(paymentId, 750);
      byHand.status = "SUCCESS";
      await Promise.all([1, 2, 3].map(() => tell(byHand.outRefundNo)));
      expect(await walletOf(veId)).toEqual(["0", "0"]);
      expect(await transfersOf(veId)).toEqual([
        "payment -> wallet 1200",
        "wallet -> payment 300",
        "wallet -> payment 900",
      ]);
      expect((await sessionOf(id)).state).toBe(REFUNDED);
    });

    it("gives Credits back when the refund was closed, which the poller finds", async () => {
      const { veId, id } = await paidByWechat();
      const { refund } = await shop.api.checkout.refundCheckoutSession({ requestId: "w2", id });
      expect(await walletOf(veId)).toEqual(["0", "0"]);
      wechat.pay.settleRefund(refund!.id, "CLOSED");
      pass(60_000);
      await job("payments");
      expect(await walletOf(veId)).toEqual(["1200", "0"]);
      expect((await sessionOf(id)).state).toBe(FULFILLED);
    });
  });

  describe("the sandbox", () => {
    const begin = () => start({ creditPackId: packs.usd, paymentAccountId: "sandbox", method: PaymentMethod.SANDBOX });
    async function decide(url: string, choice: string) {
      const page = await (await fetch(url)).text();
      const field = (name: string) => new RegExp(`name="${name}" value="([^"]*)"`).exec(page)?.[1] ?? "";
      const body = new URLSearchParams({ choice, token: field("token"), version: field("version") });
      return (await fetch(url, { method: "POST", body, redirect: "manual" })).status;
    }
    const pageOf = (started: Awaited<ReturnType<typeof begin>>) => String(started.action.value);

    it("credits once, repeated and asked for at once, and takes back what is refunded there", async () => {
      const started = await begin();
      expect(await decide(pageOf(started), "approve_repeatedly")).toBe(303);
      const tick = async () => {
        await job("sandbox");
        return 200;
      };
      await together(started, tick);
      await expectOneCredit(started);
      expect(await decide(pageOf(started), "refund_half")).toBe(303);
      await job("sandbox");
      expect(await walletOf(started.veId)).toEqual(["600", "0"]);
      await shop.api.checkout.refundCheckoutSession({ requestId: "s1", id: started.id });
      await job("sandbox");
      expect(await walletOf(started.veId)).toEqual(["0", "0"]);
      expect((await sessionOf(started.id)).state).toBe(REFUNDED);
    });

    it.each([
      ["win_dispute", FULFILLED, "1200", false],
      ["lose_dispute", REFUNDED, "0", true],
    ] as const)("freezes while a dispute is open: %s", async (how, state, credits, frozen) => {
      const started = await begin();
      await decide(pageOf(started), "approve");
      await decide(pageOf(started), "dispute");
      await job("sandbox");
      expect([(await sessionOf(started.id)).state, await testing.isFrozen(shop.cp, started.veId)]).toEqual([
        DISPUTED,
        true,
      ]);
      await decide(pageOf(started), how);
      await job("sandbox");
      expect([(await sessionOf(started.id)).state, await testing.isFrozen(shop.cp, started.veId)]).toEqual([
        state,
        frozen,
      ]);
      expect(await walletOf(started.veId)).toEqual([credits, "0"]);
    });
  });
});
