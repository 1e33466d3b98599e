/** From a choice to Credits, on both databases: once, whoever asks and whenever the money comes. */

import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { CheckoutState, PaymentProcessor, PaymentState } from "../domain/checkout.ts";
import { ProcessorError } from "../payments/payment.ts";
import { WALLET_CHANNEL } from "../store/feed_state.ts";
import { WALLET_CREDITS_MAX } from "../store/wallet.ts";
import { adjustWallet } from "../store/wallet.ts";
import { MERCHANT } from "../report/testing.ts";
import { cancelSession } from "./cancel.ts";
import { expireSessions } from "./expire.ts";
import { checkSession, fulfil } from "./fulfil.ts";
import { receiveNotification } from "./notifications.ts";
import { pollPayments } from "./poll.ts";
import { refundSession } from "./refund.ts";
import { startPayment } from "./start.ts";
import {
  addAccount,
  addSession,
  checkoutWorld,
  type CheckoutWorld,
  choiceOf,
  DAY_MS,
  expectSound,
  HOUR_MS,
  paymentOf,
  pollThrough,
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

  const notify = (paymentId: string) =>
    receiveNotification(
      checkout.deps,
      PaymentProcessor.STRIPE,
      checkout.account.id,
      checkout.processor.paymentNotification(paymentId),
    );
  /** The script of one test ends with it. */
  const scripted = async <T>(
    script: Partial<Pick<CheckoutWorld["processor"], "before" | "after">>,
    fn: () => Promise<T>,
  ): Promise<T> => {
    Object.assign(checkout.processor, script);
    try {
      return await fn();
    } finally {
      Object.assign(checkout.processor, { before: () => {}, after: () => {} });
    }
  };

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

  it("makes one payment of a double click, and answers both the same", async () => {
    const session = await addSession(checkout, "ve_double");
    const click = () => startPayment(checkout.deps, session, choiceOf(checkout), "page");
    const starts = checkout.processor.count("start");
    const answers = await Promise.all([click(), click(), click(), click(), click()]);
    answers.push(await click());
    expect(new Set(answers.map(({ payment }) => payment.id)).size).toBe(1);
    expect(answers.map(({ action }) => action)).toEqual(
      Array(6).fill({ kind: "redirect", url: `https://pay.test/ref_${answers[0]!.payment.id}` }),
    );
    expect(checkout.processor.count("start")).toBe(starts + 1);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.PENDING, pack_id: "pack_a" });
  });

  it("tells the processor the same when it is asked again", async () => {
    const session = await addSession(checkout, "ve_again");
    const choice = choiceOf(checkout);
    const lost = () => {
      throw new ProcessorError("unreachable", "timeout", "no answer");
    };
    await scripted({ after: lost }, () =>
      expect(startPayment(checkout.deps, session, choice, "page")).rejects.toMatchObject({ code: "unavailable" }),
    );
    // From another address, and with another code: still the same order.
    const other = { ...choice, clientAddress: "192.0.2.9", wechatCode: "again", merchantName: "Shop 2" };
    const { payment, action } = await startPayment(checkout.deps, session, other, "page");
    expect(action).toMatchObject({ kind: "redirect" });
    const made = [...checkout.processor.payments.values()].filter(({ order }) => order.veId === "ve_again");
    expect(made.map(({ order }) => order)).toMatchObject([
      {
        paymentId: payment.id,
        description: "120 Credits",
        merchantName: "Shop",
        clientAddress: "192.0.2.1",
        returnUrl: `http://pay.test/checkout/${session.id}`,
        notificationUrl: "http://pay.test/webhooks/stripe/pay_a",
      },
    ]);
  });

  it("closes what was chosen before, and fulfils it if that was too late", async () => {
    const { session, payment } = await started(checkout, "ve_other");
    const zh = choiceOf(checkout, { language: "zh", packId: "pack_b", credits: parseCredits("7"), bonus: 0n });
    const second = await startPayment(checkout.deps, session, zh, "page");
    expect(second.payment.id).not.toBe(payment.id);
    expect(await paymentOf(checkout, payment.id)).toMatchObject({ state: PaymentState.CLOSED, check_at: null });
    checkout.processor.pay(second.payment.id);
    const third = await startPayment(checkout.deps, session, choiceOf(checkout), "page");
    expect(third).toMatchObject({ action: null, payment: { id: second.payment.id, state: PaymentState.FULFILLED } });
    expect(third.session).toMatchObject({ state: CheckoutState.FULFILLED, pack_id: "pack_b" });
    await expect(startPayment(checkout.deps, session, choiceOf(checkout), "page")).rejects.toMatchObject({
      code: "wrong_state",
      metadata: { state: "FULFILLED" },
    });
    expect(await walletOf(checkout, "ve_other")).toMatchObject({ purchased: "7" });
  });

  it("lets nobody pay anew while a processor is still at it", async () => {
    const { session, payment } = await started(checkout, "ve_busy");
    checkout.processor.unclosable.add(payment.id);
    const zh = choiceOf(checkout, { language: "zh" });
    await expect(startPayment(checkout.deps, session, zh, "page")).rejects.toMatchObject({ code: "wrong_state" });
  });

  it.each(["refused", "misconfigured"] as const)(
    "says what to do when it is %s, and allows another choice",
    async (code) => {
      const session = await addSession(checkout, `ve_${code}`);
      const refuse = () => {
        throw new ProcessorError(code, "currency_not_supported", "no");
      };
      await scripted({ before: refuse }, () =>
        expect(startPayment(checkout.deps, session, choiceOf(checkout), "page")).rejects.toMatchObject({
          code: "payment_refused",
          message: expect.stringContaining("choose another way to pay"),
          metadata: { failure: "currency_not_supported" },
        }),
      );
      expect(await sessionOf(checkout, session.id)).toMatchObject({
        state: CheckoutState.FAILED,
        failure: "currency_not_supported",
      });
      const { payment } = await startPayment(checkout.deps, session, choiceOf(checkout), "page");
      checkout.processor.pay(payment.id);
      await notify(payment.id);
      expect(await told(checkout, session.id)).toEqual(["checkout.failed", "checkout.fulfilled"]);
      expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.FULFILLED, failure: "" });
    },
  );

  it("ends a declined payment once, and is paid by another one", async () => {
    const { session, payment } = await started(checkout, "ve_declined");
    checkout.processor.decline(payment.id);
    await Promise.all([notify(payment.id), checkSession(checkout.deps, session, "page"), notify(payment.id)]);
    expect(await sessionOf(checkout, session.id)).toMatchObject({
      state: CheckoutState.FAILED,
      failure: "card_declined",
    });
    expect(await told(checkout, session.id)).toEqual(["checkout.failed"]);
    const again = await startPayment(checkout.deps, session, choiceOf(checkout), "page");
    expect(again.payment.id).not.toBe(payment.id);
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

  it("cancels, closes, and fulfils what was paid meanwhile instead", async () => {
    const { session, payment } = await started(checkout, "ve_cancel");
    expect(await cancelSession(checkout.deps, session, "page")).toMatchObject({ state: CheckoutState.CANCELED });
    expect(await cancelSession(checkout.deps, session, "page")).toMatchObject({ state: CheckoutState.CANCELED });
    expect(checkout.processor.payments.get(payment.id)!.state).toBe("closed");
    expect(await told(checkout, session.id)).toEqual(["checkout.canceled"]);
    // Money that arrives nevertheless counts.
    Object.assign(checkout.processor.payments.get(payment.id)!, { state: "paid" });
    await notify(payment.id);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.FULFILLED });

    const paid = await started(checkout, "ve_cancel", { packId: "pack_c" }, null);
    checkout.processor.pay(paid.payment.id);
    expect(await cancelSession(checkout.deps, paid.session, "page")).toMatchObject({ state: CheckoutState.FULFILLED });
    await expect(cancelSession(checkout.deps, paid.session, "page")).rejects.toMatchObject({ code: "wrong_state" });
    expect(await walletOf(checkout, "ve_cancel")).toMatchObject({ purchased: "240" });
    const idle = await addSession(checkout, "ve_cancel", null);
    await cancelSession(checkout.deps, idle, "page");
    expect(await told(checkout, idle.id)).toEqual([]);
  });

  it("closes a payment again that was canceled while it was being made", async () => {
    const session = await addSession(checkout, "ve_race");
    const cancel = async (call: string) => {
      if (call === "start") await cancelSession(checkout.deps, session, "page");
    };
    await scripted({ before: cancel }, () =>
      expect(startPayment(checkout.deps, session, choiceOf(checkout), "page")).rejects.toMatchObject({
        code: "wrong_state",
        metadata: { state: "CANCELED" },
      }),
    );
    const made = [...checkout.processor.payments.values()].filter(({ order }) => order.veId === "ve_race");
    expect(made.map(({ state }) => state)).toEqual(["closed"]);
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
    await scripted({ before: begin }, () => fulfil(checkout.deps, payment.id, "page"));
    checkout.processor.refundState = "succeeded";
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.PAID });
    checkout.processor.refunds.get("rfd_full")!.state = "failed";
    await pollThrough(checkout, 2 * HOUR_MS, 4);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: CheckoutState.FULFILLED, problem: "" });
    expect(await walletOf(checkout, "ve_full")).toMatchObject({ purchased: "120" });
    const refunded = ["refund.created", "refund.failed"];
    expect(await told(checkout, session.id)).toEqual(["checkout.problem", ...refunded, "checkout.fulfilled"]);
  });

  it("expires quietly what was never begun, closes the rest, and fulfils late money", async () => {
    const idle = await addSession(checkout, "ve_expire");
    const waiting = await started(checkout, "ve_expire", {}, null);
    const paid = await started(checkout, "ve_expire", {}, null);
    const stuck = await started(checkout, "ve_expire", {}, null);
    checkout.processor.unclosable.add(stuck.payment.id);
    checkout.processor.pay(paid.payment.id);
    checkout.world.advance(HOUR_MS);
    expect(await expireSessions(checkout.deps)).toBeGreaterThanOrEqual(3);
    const states = async () =>
      Promise.all(
        [idle, waiting.session, paid.session, stuck.session].map(
          async ({ id }) => (await sessionOf(checkout, id)).state,
        ),
      );
    const { EXPIRED, FULFILLED } = CheckoutState;
    expect(await states()).toEqual([EXPIRED, EXPIRED, FULFILLED, EXPIRED]);
    expect(await told(checkout, idle.id)).toEqual([]);
    expect(await told(checkout, waiting.session.id)).toEqual(["checkout.expired"]);
    await expect(startPayment(checkout.deps, idle, choiceOf(checkout), "page")).rejects.toMatchObject({
      code: "wrong_state",
    });
    checkout.processor.pay(stuck.payment.id);
    await pollThrough(checkout, 2 * HOUR_MS, 4);
    expect(await states()).toEqual([EXPIRED, EXPIRED, FULFILLED, FULFILLED]);
    expect(await told(checkout, stuck.session.id)).toEqual(["checkout.expired", "checkout.fulfilled"]);
    checkout.world.advance(7 * DAY_MS);
    await expireSessions(checkout.deps);
    await expect(sessionOf(checkout, idle.id)).rejects.toMatchObject({ code: "not_found" });
    expect((await sessionOf(checkout, waiting.session.id)).state).toBe(EXPIRED);
  });

  it("cannot be paid after its time, also where no job has run", async () => {
    const session = await addSession(checkout, "ve_late");
    checkout.world.advance(HOUR_MS);
    await expect(startPayment(checkout.deps, session, choiceOf(checkout), "page")).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringContaining("open a new one"),
    });
  });

  it("stops asking a week after the time was over", async () => {
    const { payment } = await started(checkout, "ve_week");
    checkout.processor.unclosable.add(payment.id);
    const before = checkout.processor.calls.length;
    await pollThrough(checkout, HOUR_MS, 60);
    const inTime = checkout.processor.calls.slice(before).filter(({ id }) => id === payment.id).length;
    expect(inTime).toBeGreaterThan(8);
    expect(inTime).toBeLessThan(20);
    await pollThrough(checkout, 9 * DAY_MS, 60);
    expect(await paymentOf(checkout, payment.id)).toMatchObject({ check_at: null, state: PaymentState.PENDING });
    checkout.processor.pay(payment.id);
    await fulfil(checkout.deps, payment.id, "page");
    expect(await walletOf(checkout, "ve_week")).toMatchObject({ purchased: "120" });
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
