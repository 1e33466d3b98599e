/** From a choice to Credits, on both databases: once, whoever asks and whenever the money comes. */

import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { CheckoutState, PaymentProcessor, PaymentState } from "../domain/checkout.ts";
import { WALLET_CHANNEL } from "../store/feed_state.ts";
import { WALLET_CREDITS_MAX } from "../store/wallet.ts";
import { adjustWallet } from "../store/wallet.ts";
import { MERCHANT } from "../report/testing.ts";
import { checkSession, fulfil } from "./fulfil.ts";
import { receiveNotification } from "./notifications.ts";
import { pollPayments } from "./poll.ts";
import { refundSession } from "./refund.ts";
import { startPayment } from "./start.ts";
import {
  addAccount,
  type CheckoutWorld,
  checkoutWorld,
  choiceOf,
  expectSound,
  HOUR_MS,
  notifyOf,
  paymentOf,
  pollThrough,
  scripted,
  sessionOf,
  spend,
  started,
  told,
  transfersOf,
  walletOf,
} from "./testing.ts";

describe.each(openTestDatabases())("fulfilment on $name", ({ open }) => {
  let db: Database;
  let checkout: CheckoutWorld;
  beforeAll(async () => {
    db = await open();
    checkout = await checkoutWorld(db);
  });
  afterAll(async () => {
    await expectSound(checkout);
    await db.close();
  });

  const notify = (paymentId: string) => notifyOf(checkout, paymentId);

  it("credits ten notifications, the landing page and the poller at once as one", async () => {
    const { session, payment } = await started(checkout, "ve_many");
    checkout.processor.pay(payment.id);
    const hints: string[] = [];
    const stop = await db.listen(
      WALLET_CHANNEL,
      (payload) => void (payload.includes("ve_many") && hints.push(payload)),
      () => {},
    );
    checkout.world.advance(10_000);
    const [landed, ...answers] = await Promise.all([
      checkSession(checkout.deps, session, "page"),
      ...Array.from({ length: 10 }, () => notify(payment.id)),
      pollPayments(checkout.deps),
    ]);
    expect(landed).toMatchObject({ state: CheckoutState.FULFILLED, granted: "120.000000000000", problem: "" });
    expect(answers.slice(0, 10).map((answer) => (answer as { status: number }).status)).toEqual(Array(10).fill(200));
    expect(await transfersOf(checkout, "ve_many")).toEqual([
      `payment -> wallet 120 pay:stripe:pay_a:money_${payment.id}`,
    ]);
    expect(await told(checkout, session.id)).toEqual(["checkout.fulfilled"]);
    expect(await walletOf(checkout, "ve_many")).toMatchObject({ purchased: "120", available: "120" });
    await expect.poll(() => hints.length).toBe(1);
    await stop();
    const [event] = await db.query<{ body: string }>("select body from webhook_event where session_id = $1", [
      session.id,
    ]);
    expect(JSON.parse(event!.body)).toMatchObject({
      type: "checkout.fulfilled",
      data: {
        checkout_session: { id: session.id, ve_id: "ve_many", state: "FULFILLED", metadata: { order: "7" } },
        payment: { id: payment.id, price: { currency: "USD", amount: "10.00" }, credits_granted: "120" },
      },
    });
  });

  it("repays debt first", async () => {
    const { session, payment } = await started(checkout, "ve_debt");
    await spend(checkout, "ve_debt", 50);
    checkout.processor.pay(payment.id);
    await checkSession(checkout.deps, session, "page");
    expect(await walletOf(checkout, "ve_debt")).toMatchObject({ purchased: "120", debt: "0", available: "70" });
    expect((await transfersOf(checkout, "ve_debt")).at(-1)).toMatch(/^wallet -> debt 50 repay:tr_/);
  });

  it.each([
    ["amount", { amountMinor: 999n }, "wrong_amount"],
    ["currency", { currency: "JPY" }, "wrong_currency"],
    ["payment", { paidFor: "pmt_other" }, "wrong_payment"],
  ])("credits nothing for a wrong %s, says so once, and asks no more", async (name, paid, problem) => {
    const { session, payment } = await started(checkout, `ve_wrong_${name}`);
    checkout.processor.pay(payment.id, paid);
    for (let i = 0; i < 3; i += 1) expect((await notify(payment.id)).status).toBe(200);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.FAILED, problem });
    expect(await paymentOf(checkout, payment.id)).toMatchObject({ state: PaymentState.FAILED, check_at: null });
    expect(await transfersOf(checkout, `ve_wrong_${name}`)).toEqual([]);
    expect(await told(checkout, session.id)).toEqual(["checkout.problem"]);
    const verdicts = await db.query<{ verdict: string }>(
      "select distinct verdict from payment_notification where subject = $1",
      [payment.id],
    );
    expect(verdicts).toEqual([{ verdict: problem }]);
  });

  it("credits the same money once, whichever payment claims it", async () => {
    const one = await started(checkout, "ve_claim_1");
    const two = await started(checkout, "ve_claim_2");
    checkout.processor.pay(one.payment.id, { settledReference: "same_money" });
    checkout.processor.pay(two.payment.id, { settledReference: "same_money" });
    await Promise.all([notify(one.payment.id), notify(two.payment.id), notify(one.payment.id), notify(two.payment.id)]);
    const granted = [...(await transfersOf(checkout, "ve_claim_1")), ...(await transfersOf(checkout, "ve_claim_2"))];
    expect(granted).toEqual(["payment -> wallet 120 pay:stripe:pay_a:same_money"]);
    const sessions = [await sessionOf(checkout, one.session.id), await sessionOf(checkout, two.session.id)];
    expect(sessions.map(({ problem }) => problem).toSorted()).toEqual(["", "settled_elsewhere"]);
  });

  it("credits the same money once, also when another payment claims it in the same instant", async () => {
    const two = await started(checkout, "ve_instant_2");
    let other: Promise<unknown> = Promise.resolve();
    const deps = {
      ...checkout.deps,
      // Called in the transaction that credits the first one: it is not over yet.
      saveMethod: async () => {
        other = fulfil(checkout.deps, two.payment.id, "webhook");
        await delay(100);
      },
    };
    const one = await started({ ...checkout, deps }, "ve_instant_1", { autoTopUp: true });
    const settledReference = "instant_money";
    checkout.processor.pay(one.payment.id, { settledReference, savedMethod: { label: "", credentials: {} } });
    checkout.processor.pay(two.payment.id, { settledReference });
    await fulfil(deps, one.payment.id, "page");
    await expect(other).resolves.toMatchObject({ problem: "settled_elsewhere", credited: false });
    expect(await transfersOf(checkout, "ve_instant_1")).toHaveLength(1);
    expect(await transfersOf(checkout, "ve_instant_2")).toEqual([]);
  });

  it("fulfils what is paid twice, twice", async () => {
    const { session, payment } = await started(checkout, "ve_twice");
    checkout.processor.unclosable.add(payment.id);
    const zh = choiceOf(checkout, { language: "zh" });
    await expect(startPayment(checkout.deps, session, zh, "page")).rejects.toThrow();
    // The processor says that it is closed, and is paid all the same.
    checkout.processor.payments.get(payment.id)!.state = "closed";
    const second = await startPayment(checkout.deps, session, zh, "page");
    Object.assign(checkout.processor.payments.get(payment.id)!, { state: "paid" });
    checkout.processor.pay(second.payment.id);
    await Promise.all([notify(payment.id), notify(second.payment.id), notify(payment.id), notify(second.payment.id)]);
    expect(await walletOf(checkout, "ve_twice")).toMatchObject({ purchased: "240" });
    expect(await sessionOf(checkout, session.id)).toMatchObject({
      state: CheckoutState.FULFILLED,
      granted: "240.000000000000",
    });
    expect(await told(checkout, session.id)).toEqual(["checkout.fulfilled", "checkout.fulfilled"]);
  });

  it("goes on saying that other money of the session is to be looked at", async () => {
    const { session, payment } = await started(checkout, "ve_review");
    checkout.processor.pay(payment.id, { amountMinor: 999n });
    await notify(payment.id);
    const second = await startPayment(checkout.deps, session, choiceOf(checkout), "page");
    checkout.processor.pay(second.payment.id);
    await notify(second.payment.id);
    expect(await walletOf(checkout, "ve_review")).toMatchObject({ purchased: "120" });
    expect(await sessionOf(checkout, session.id)).toMatchObject({
      state: CheckoutState.FULFILLED,
      problem: "wrong_amount",
    });
  });

  it("holds money whose VE is gone, for a refund alone", async () => {
    const { session, payment } = await started(checkout, "ve_gone");
    await db.query("delete from access_key where ve_id = 've_gone'");
    await db.query("delete from virtual_endpoint where id = 've_gone'");
    checkout.processor.pay(payment.id);
    await Promise.all([notify(payment.id), notify(payment.id)]);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.PAID, problem: "ve_deleted" });
    expect(await paymentOf(checkout, payment.id)).toMatchObject({ state: PaymentState.PAID, check_at: null });
    const { refund } = await refundSession(checkout.deps, session, {
      refundId: "rfd_gone",
      amountMinor: null,
      reason: "",
      paymentId: "",
    });
    expect(refund).toMatchObject({ state: 2, amount_minor: 1000n, taken: "0.000000000000" });
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.REFUNDED });
    expect(await told(checkout, session.id)).toEqual(["checkout.problem", "refund.created", "refund.succeeded"]);
    expect(await transfersOf(checkout, "ve_gone")).toEqual([]);
  });

  it("holds money whose wallet is full until there is room", async () => {
    const { session, payment } = await started(checkout, "ve_full");
    const adjust = (credits: bigint, transferId: string) =>
      db.tx((tx) =>
        adjustWallet(tx, {
          veId: "ve_full",
          merchantId: MERCHANT,
          credits,
          reason: "",
          transferId,
          now: checkout.deps.now(),
        }),
      );
    await adjust(WALLET_CREDITS_MAX, "tr_full");
    checkout.processor.pay(payment.id);
    await notify(payment.id);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.PAID, problem: "wallet_full" });
    checkout.world.advance(HOUR_MS + 1);
    await pollPayments(checkout.deps);
    expect(await told(checkout, session.id)).toEqual(["checkout.problem"]);
    await adjust(-WALLET_CREDITS_MAX, "tr_room");
    // A refund that begins while the processor is asked keeps the Credits out, until it fails.
    checkout.processor.refundState = "pending";
    const how = { refundId: "rfd_full", amountMinor: 10n, reason: "", paymentId: "" };
    const begin = async (call: string) => {
      if (call === "find") await refundSession(checkout.deps, session, how);
    };
    await scripted(checkout, { before: begin }, () => fulfil(checkout.deps, payment.id, "page"));
    checkout.processor.refundState = "succeeded";
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.PAID });
    checkout.processor.refunds.get("rfd_full")!.state = "failed";
    await pollThrough(checkout, 2 * HOUR_MS, 4);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.FULFILLED, problem: "" });
    expect(await walletOf(checkout, "ve_full")).toMatchObject({ purchased: "120" });
    const refunded = ["refund.created", "refund.failed"];
    expect(await told(checkout, session.id)).toEqual(["checkout.problem", ...refunded, "checkout.fulfilled"]);
  });

  it("remembers a payment method with the Credits, or neither", async () => {
    const seen: string[] = [];
    let fails = true;
    const deps = {
      ...checkout.deps,
      saveMethod: async (_tx: unknown, { id }: { id: string }, _session: unknown, { label }: { label: string }) => {
        if (fails) throw new Error("cannot be saved now");
        seen.push(`${id} ${label}`);
      },
    };
    const { session, payment } = await started({ ...checkout, deps }, "ve_save", { autoTopUp: true });
    expect(checkout.processor.payments.get(payment.id)!.order.saveMethod).toBe(true);
    checkout.processor.pay(payment.id, { savedMethod: { label: "Visa 4242", credentials: { card: "c" } } });
    await expect(checkSession(deps, session, "page")).rejects.toThrow("cannot be saved now");
    expect(await walletOf(checkout, "ve_save")).toMatchObject({ purchased: "0" });
    fails = false;
    await checkSession(deps, session, "page");
    await checkSession(deps, session, "page");
    expect(seen).toEqual([`${payment.id} Visa 4242`]);
    expect(await walletOf(checkout, "ve_save")).toMatchObject({ purchased: "120" });
  });

  it("asks a merchant's own account alone", async () => {
    const other = await addAccount(checkout.deps, "pay_b");
    const { payment } = await started(checkout, "ve_account");
    checkout.processor.pay(payment.id);
    const raw = checkout.processor.paymentNotification(payment.id);
    expect((await receiveNotification(checkout.deps, PaymentProcessor.STRIPE, other.id, raw)).status).toBe(200);
    expect(await transfersOf(checkout, "ve_account")).toEqual([]);
    const [note] = await db.query("select verdict from payment_notification where account_id = 'pay_b'");
    expect(note).toEqual({ verdict: "other_account" });
    await notify(payment.id);
    expect(await transfersOf(checkout, "ve_account")).toHaveLength(1);
  });
});
