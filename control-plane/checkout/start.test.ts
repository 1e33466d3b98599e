/** How payments begin and end without money, on both databases; money that comes nevertheless counts. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { CheckoutState, PaymentState } from "../domain/checkout.ts";
import { ProcessorError } from "../payments/payment.ts";
import { cancelSession } from "./cancel.ts";
import { expireSessions } from "./expire.ts";
import { checkSession, fulfil } from "./fulfil.ts";
import { startPayment } from "./start.ts";
import {
  addSession,
  type CheckoutWorld,
  checkoutWorld,
  choiceOf,
  DAY_MS,
  expectSound,
  HOUR_MS,
  notifyOf,
  paymentOf,
  pollThrough,
  scripted,
  sessionOf,
  started,
  told,
  walletOf,
} from "./testing.ts";

describe.each(openTestDatabases())("payments on $name", ({ open }) => {
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
    await scripted(checkout, { after: lost }, () =>
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
      await scripted(checkout, { before: refuse }, () =>
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
    await scripted(checkout, { before: cancel }, () =>
      expect(startPayment(checkout.deps, session, choiceOf(checkout), "page")).rejects.toMatchObject({
        code: "wrong_state",
        metadata: { state: "CANCELED" },
      }),
    );
    const made = [...checkout.processor.payments.values()].filter(({ order }) => order.veId === "ve_race");
    expect(made.map(({ state }) => state)).toEqual(["closed"]);
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

  it("stops asking a week after the time was over, and ends what never ended", async () => {
    const { payment } = await started(checkout, "ve_week");
    checkout.processor.unclosable.add(payment.id);
    const before = checkout.processor.calls.length;
    await pollThrough(checkout, HOUR_MS, 60);
    const inTime = checkout.processor.calls.slice(before).filter(({ id }) => id === payment.id).length;
    expect(inTime).toBeGreaterThan(8);
    expect(inTime).toBeLessThan(20);
    await pollThrough(checkout, 9 * DAY_MS, 60);
    expect(await paymentOf(checkout, payment.id)).toMatchObject({
      check_at: null,
      state: PaymentState.FAILED,
      failure: "never_answered",
    });
    checkout.processor.pay(payment.id);
    await fulfil(checkout.deps, payment.id, "page");
    expect(await walletOf(checkout, "ve_week")).toMatchObject({ purchased: "120" });
  });
});
