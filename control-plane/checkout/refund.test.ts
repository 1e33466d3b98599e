/** Money that goes back, on both databases: by the merchant, at the processor, and by the payer's bank. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { CheckoutState, PaymentProcessor, PaymentState, RefundState } from "../domain/checkout.ts";
import { Feed } from "../feed/feed.ts";
import { type DisputeState, ProcessorError, type RawNotification } from "../payments/payment.ts";
import { reporter, TestNode } from "../report/testing.ts";
import { listRefunds } from "../store/refund.ts";
import { fulfil } from "./fulfil.ts";
import { receiveNotification } from "./notifications.ts";
import { refundSession, type RefundRequest } from "./refund.ts";
import {
  type CheckoutWorld,
  checkoutWorld,
  expectSound,
  isFrozen,
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
import type { CheckoutSessionRow } from "../store/checkout_session.ts";

const { FULFILLED, PARTIALLY_REFUNDED, REFUNDED, DISPUTED } = CheckoutState;

describe.each(openTestDatabases())("money that goes back on $name", ({ open }) => {
  let db: Database;
  let checkout: CheckoutWorld;
  let feed: Feed;
  let refunds = 0;
  beforeAll(async () => {
    db = await open();
    checkout = await checkoutWorld(db, {
      hints: { onCredits: (veId, callback) => feed.onCredits(veId, callback) },
    });
    feed = await Feed.start(checkout.deps);
  });
  afterAll(async () => {
    await expectSound(checkout);
    await feed.close();
    await db.close();
  });

  const lost = () => {
    throw new ProcessorError("unreachable", "timeout", "no answer");
  };

  /** A fulfilled payment of 10 USD for 120 Credits. */
  async function bought(veId: string, ve: object | null = {}) {
    const { session, payment } = await started(checkout, veId, {}, ve);
    checkout.processor.pay(payment.id);
    await fulfil(checkout.deps, payment.id, "page");
    return { session, payment };
  }

  const refund = (session: CheckoutSessionRow, amountMinor: bigint | null, more: Partial<RefundRequest> = {}) =>
    refundSession(checkout.deps, session, {
      refundId: `rfd_${(refunds += 1)}`,
      amountMinor,
      reason: "",
      paymentId: "",
      ...more,
    });

  const send = async (raw: RawNotification) =>
    (await receiveNotification(checkout.deps, PaymentProcessor.STRIPE, checkout.account.id, raw)).status;

  it("takes Credits in proportion, and with the last part exactly all that is left", async () => {
    const { session } = await bought("ve_parts");
    const first = await refund(session, 333n);
    expect(first.refund).toMatchObject({
      state: RefundState.SUCCEEDED,
      amount_minor: 333n,
      became_debt: "0.000000000000",
    });
    expect(first.session).toMatchObject({ state: PARTIALLY_REFUNDED, refunded_minor: 333n });
    expect(await walletOf(checkout, "ve_parts")).toMatchObject({ purchased: "80.04", available: "80.04" });
    const second = await refund(session, null);
    expect(second.session).toMatchObject({ state: REFUNDED, refunded_minor: 1000n });
    expect(await walletOf(checkout, "ve_parts")).toMatchObject({ purchased: "0", debt: "0" });
    await expect(refund(session, null)).rejects.toMatchObject({ code: "wrong_state" });
    expect(await told(checkout, session.id)).toEqual([
      "checkout.fulfilled",
      "refund.created",
      "refund.succeeded",
      "refund.created",
      "refund.succeeded",
    ]);
  });

  it("makes debt of what was spent, which the next payment repays", async () => {
    const { session } = await bought("ve_spent");
    await spend(checkout, "ve_spent", 100);
    const { refund: row } = await refund(session, null, { refundId: "rfd_spent" });
    expect(row).toMatchObject({ taken: "120.000000000000", became_debt: "100.000000000000" });
    expect(await walletOf(checkout, "ve_spent")).toEqual({
      purchased: "0",
      settled: "100",
      escrowed: "0",
      debt: "100",
      available: "0",
    });
    expect((await transfersOf(checkout, "ve_spent")).slice(-2)).toEqual([
      "debt -> wallet 100 refund:rfd_spent:debt",
      "wallet -> payment 120 refund:rfd_spent",
    ]);
    await bought("ve_spent", null);
    expect(await walletOf(checkout, "ve_spent")).toMatchObject({ debt: "0", available: "20" });
  });

  it("asks what is leased and idle back from the nodes first", async () => {
    const { session } = await bought("ve_leased");
    const node = new TestNode(reporter(checkout.deps, feed), `boot_${db.dialect}`);
    await node.send([], [{ veId: "ve_leased", need: "120" }]);
    expect(await walletOf(checkout, "ve_leased")).toMatchObject({ escrowed: "120", available: "0" });
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { event } of feed.watch(node.boot, null, stop.signal)) {
        if (event?.case !== "wallet" || event.value.recall !== true) continue;
        await node.send([], [{ veId: "ve_leased", release: "115" }]);
      }
    })();
    const { refund: row } = await refund(session, null);
    stop.abort();
    await watching;
    // A live request holds 5, which it may spend.
    expect(row).toMatchObject({ taken: "120.000000000000", became_debt: "5.000000000000" });
    expect(await walletOf(checkout, "ve_leased")).toMatchObject({ escrowed: "5", debt: "5", available: "0" });
    await node.send([], [{ veId: "ve_leased", release: "5" }], true);
    expect(await walletOf(checkout, "ve_leased")).toMatchObject({ escrowed: "0", debt: "0", available: "0" });
  });

  it("never gives back more than was paid, whoever asks at the same time", async () => {
    const { session, payment } = await bought("ve_race");
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => refund(session, 400n)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
    const refusals = results.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
    expect(refusals.map(({ code, field }) => `${code} ${field}`)).toEqual(Array(3).fill("invalid_field amount"));
    expect(refusals[0].message).toContain("at most 2.00 USD");
    expect(checkout.processor.payments.get(payment.id)!.refundedMinor).toBe(800n);
    expect(await walletOf(checkout, "ve_race")).toMatchObject({ purchased: "24" });
  });

  it("is one refund for one id, however often it is asked for", async () => {
    const { session } = await bought("ve_once");
    const same = { refundId: "rfd_same" };
    await Promise.all([refund(session, 500n, same), refund(session, 500n, same), refund(session, 500n, same)]);
    await refund(session, 500n, same);
    expect(await listRefunds(db, [session.id])).toHaveLength(1);
    expect(await walletOf(checkout, "ve_once")).toMatchObject({ purchased: "60" });
  });

  it("gives the Credits back when the processor refuses, debt first", async () => {
    const { session } = await bought("ve_refused");
    await spend(checkout, "ve_refused", 100);
    const refuse = () => {
      throw new ProcessorError("refused", "insufficient_funds", "no money");
    };
    const { refund: row } = await scripted(checkout, { before: refuse }, () =>
      refund(session, null, { refundId: "rfd_no" }),
    );
    expect(row).toMatchObject({ state: RefundState.FAILED, check_at: null });
    expect(await walletOf(checkout, "ve_refused")).toMatchObject({ purchased: "120", debt: "0", available: "20" });
    expect((await transfersOf(checkout, "ve_refused")).slice(-2)).toEqual([
      "payment -> wallet 120 refund_back:rfd_no",
      expect.stringMatching(/^wallet -> debt 100 repay:tr_/),
    ]);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: FULFILLED, refunded_minor: 0n });
    expect(await told(checkout, session.id)).toEqual(["checkout.fulfilled", "refund.created", "refund.failed"]);
    expect((await refund(session, null)).refund.state).toBe(RefundState.SUCCEEDED);
  });

  it.each(["before", "after"] as const)(
    "goes on with the same refund when the answer was lost %s it was made",
    async (when) => {
      const { session, payment } = await bought(`ve_lost_${when}`);
      const { refund: row } = await scripted(checkout, { [when]: lost }, () => refund(session, null));
      expect(row).toMatchObject({ state: RefundState.PENDING });
      expect(await sessionOf(checkout, session.id)).toMatchObject({ state: FULFILLED });
      await pollThrough(checkout, 60_000, 6);
      expect(await sessionOf(checkout, session.id)).toMatchObject({ state: REFUNDED, refunded_minor: 1000n });
      expect(checkout.processor.payments.get(payment.id)!.refundedMinor).toBe(1000n);
    },
  );

  it("keeps Credits that may have gone with the money, while the account is not usable", async () => {
    const { session } = await bought("ve_unsure");
    await scripted(checkout, { after: lost }, () => refund(session, null));
    const broken = () => {
      throw new ProcessorError("misconfigured", "bad_key", "the key was revoked");
    };
    await scripted(checkout, { before: broken }, () => pollThrough(checkout, 60_000, 6));
    expect(await walletOf(checkout, "ve_unsure")).toMatchObject({ purchased: "0" });
    await pollThrough(checkout, 3_600_000, 6);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: REFUNDED });
  });

  it("waits for a refund that takes its time, and hears how it ended", async () => {
    const { session, payment } = await bought("ve_slow");
    const { refund: row } = await scripted(checkout, { refundState: "pending" }, () => refund(session, 500n));
    expect(row).toMatchObject({ state: RefundState.PENDING, reference: `back_${row.id}` });
    const scriptedRefund = checkout.processor.refunds.get(row.id)!;
    scriptedRefund.state = "succeeded";
    const news = {
      reference: row.reference!,
      amountMinor: 500n,
      currency: "USD",
      reason: "",
      state: "succeeded",
    } as const;
    expect(await send(checkout.processor.refundNotification(payment.id, news, row.id))).toBe(200);
    expect(await send(checkout.processor.refundNotification(payment.id, news))).toBe(200);
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: PARTIALLY_REFUNDED });
    expect(await listRefunds(db, [session.id])).toMatchObject([{ external: false, state: RefundState.SUCCEEDED }]);
    // The bank sends it back in the end: a person has to look.
    scriptedRefund.state = "failed";
    for (const state of ["failed", "failed"] as const)
      await send(checkout.processor.refundNotification(payment.id, { ...news, state }, row.id));
    expect(await sessionOf(checkout, session.id)).toMatchObject({ problem: "refund_returned" });
    expect((await told(checkout, session.id)).filter((type) => type === "checkout.problem")).toHaveLength(1);
  });

  it("follows refunds made at the processor, each once, and several of them", async () => {
    const { session, payment } = await bought("ve_outside");
    const part = checkout.processor.refundOutside(payment.id, 250n);
    const raw = checkout.processor.refundNotification(payment.id, part);
    expect(
      await Promise.all([send(raw), send(raw), send(checkout.processor.refundNotification(payment.id, part))]),
    ).toEqual([200, 200, 200]);
    expect(await walletOf(checkout, "ve_outside")).toMatchObject({ purchased: "90" });
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: PARTIALLY_REFUNDED, refunded_minor: 250n });
    await send(checkout.processor.refundNotification(payment.id, checkout.processor.refundOutside(payment.id, 750n)));
    expect(await walletOf(checkout, "ve_outside")).toMatchObject({ purchased: "0" });
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: REFUNDED });
    await expect(refund(session, null)).rejects.toMatchObject({ code: "wrong_state" });
    expect(await listRefunds(db, [session.id])).toMatchObject([{ external: true }, { external: true }]);
  });

  it("takes a refund of its own for no other one, though its name was never heard", async () => {
    const { session, payment } = await bought("ve_own");
    const { refund: row } = await scripted(checkout, { after: lost }, () => refund(session, 400n));
    const news = {
      reference: `back_${row.id}`,
      amountMinor: 400n,
      currency: "USD",
      reason: "",
      state: "succeeded",
    } as const;
    const raw = checkout.processor.refundNotification(payment.id, news);
    // While that cannot be told, the notification is to come again.
    expect(await scripted(checkout, { before: lost }, () => send(raw))).toBe(400);
    expect(await send(raw)).toBe(200);
    expect(await listRefunds(db, [session.id])).toMatchObject([{ external: false, state: RefundState.SUCCEEDED }]);
    expect(await walletOf(checkout, "ve_own")).toMatchObject({ purchased: "72" });
  });

  it("fulfils what is refunded before it was told to be paid, and takes it back", async () => {
    const { session, payment } = await started(checkout, "ve_reorder");
    checkout.processor.pay(payment.id);
    await send(checkout.processor.refundNotification(payment.id, checkout.processor.refundOutside(payment.id, 1000n)));
    await send(checkout.processor.paymentNotification(payment.id));
    expect(await sessionOf(checkout, session.id)).toMatchObject({ state: REFUNDED });
    expect(await walletOf(checkout, "ve_reorder")).toMatchObject({ purchased: "0", debt: "0" });
  });

  it("fulfils nothing any more of money that is going back", async () => {
    const { session, payment } = await started(checkout, "ve_held");
    checkout.processor.pay(payment.id);
    await db.query("delete from access_key where ve_id = 've_held'");
    await db.query("delete from virtual_endpoint where id = 've_held'");
    await fulfil(checkout.deps, payment.id, "page");
    const { refund: row } = await scripted(checkout, { refundState: "pending" }, () => refund(session, 400n));
    expect((await fulfil(checkout.deps, payment.id, "page"))!.payment).toMatchObject({ state: PaymentState.PAID });
    checkout.processor.refunds.get(row.id)!.state = "failed";
    await pollThrough(checkout, 60_000, 6);
    expect(await paymentOf(checkout, payment.id)).toMatchObject({ refunded_minor: 0n, state: PaymentState.PAID });
    expect(await told(checkout, session.id)).toEqual(["checkout.problem", "refund.created", "refund.failed"]);
  });

  it.each([["back_"], ["another_"]])(
    "takes the Credits again when a refund that counted as failed succeeded after all: %s",
    async (prefix) => {
      const { session, payment } = await bought(`ve_after_all_${prefix}`);
      const { refund: row } = await scripted(checkout, { refundState: "failed" }, () => refund(session, 500n));
      expect(await walletOf(checkout, session.ve_id)).toMatchObject({ purchased: "120" });
      const news = { reference: `${prefix}${row.id}`, amountMinor: 500n, currency: "USD", reason: "" };
      const raw = (refundId: string | null) =>
        checkout.processor.refundNotification(payment.id, { ...news, state: "succeeded" }, refundId);
      const statuses = await Promise.all([row.id, row.id, row.id, null].map((id) => send(raw(id))));
      expect(new Set([...statuses, await send(raw(row.id))])).toEqual(new Set([200]));
      expect(await walletOf(checkout, session.ve_id)).toMatchObject({ purchased: "60" });
      expect(await sessionOf(checkout, session.id)).toMatchObject({ state: PARTIALLY_REFUNDED, refunded_minor: 500n });
      await expectSound(checkout);
    },
  );

  describe("disputes", () => {
    const tell = (paymentId: string, reference: string, state: DisputeState, amountMinor = 1000n) =>
      send(checkout.processor.disputeNotification(paymentId, reference, state, amountMinor));
    const state = async ({ id }: CheckoutSessionRow) => (await sessionOf(checkout, id)).state;

    it("freeze the VE, and thaw it when they are won", async () => {
      const { session, payment } = await bought("ve_won");
      await refund(session, 100n);
      const [before] = await db.query<{ revision: bigint; version: bigint }>(
        "select revision, version from virtual_endpoint where id = 've_won'",
      );
      await Promise.all([tell(payment.id, "dp_1", "open"), tell(payment.id, "dp_1", "open")]);
      expect([await state(session), await isFrozen(checkout, "ve_won")]).toEqual([DISPUTED, true]);
      const [after] = await db.query<{ revision: bigint; version: bigint }>(
        "select revision, version from virtual_endpoint where id = 've_won'",
      );
      expect(after!.revision).toBeGreaterThan(before!.revision);
      expect(after!.version).toBe(before!.version + 1n);
      await Promise.all([tell(payment.id, "dp_1", "won"), tell(payment.id, "dp_1", "won")]);
      expect([await state(session), await isFrozen(checkout, "ve_won")]).toEqual([PARTIALLY_REFUNDED, false]);
      await tell(payment.id, "dp_1", "open");
      await tell(payment.id, "dp_1", "lost");
      expect([await state(session), await isFrozen(checkout, "ve_won")]).toEqual([PARTIALLY_REFUNDED, false]);
      expect((await told(checkout, session.id)).filter((type) => type.startsWith("dispute"))).toEqual([
        "dispute.opened",
        "dispute.won",
      ]);
      expect(await walletOf(checkout, "ve_won")).toMatchObject({ purchased: "108" });
    });

    it("take the Credits when they are lost, and leave the VE frozen", async () => {
      const { session, payment } = await bought("ve_lose");
      await spend(checkout, "ve_lose", 50);
      await tell(payment.id, "dp_2", "open", 400n);
      await Promise.all([tell(payment.id, "dp_2", "lost", 400n), tell(payment.id, "dp_2", "lost", 400n)]);
      expect([await state(session), await isFrozen(checkout, "ve_lose")]).toEqual([PARTIALLY_REFUNDED, true]);
      expect(await walletOf(checkout, "ve_lose")).toMatchObject({ purchased: "72", available: "22" });
      await tell(payment.id, "dp_3", "lost", 600n);
      expect(await state(session)).toBe(REFUNDED);
      expect(await walletOf(checkout, "ve_lose")).toMatchObject({ purchased: "0", debt: "50", available: "0" });
      await expect(refund(session, null)).rejects.toMatchObject({ code: "wrong_state" });
    });

    it("are decided before they are opened, and paid before that was told", async () => {
      const { session, payment } = await started(checkout, "ve_early");
      checkout.processor.pay(payment.id);
      await tell(payment.id, "dp_4", "lost");
      await tell(payment.id, "dp_4", "open");
      expect([await state(session), await isFrozen(checkout, "ve_early")]).toEqual([REFUNDED, true]);
      expect(await told(checkout, session.id)).toEqual(["checkout.fulfilled", "dispute.lost"]);
      const other = await bought("ve_early_won");
      await tell(other.payment.id, "dp_5", "won");
      await tell(other.payment.id, "dp_5", "open");
      expect([await state(other.session), await isFrozen(checkout, "ve_early_won")]).toEqual([FULFILLED, false]);
    });

    it("thaw the VE only when the last of them is won, and never what the merchant froze", async () => {
      const one = await bought("ve_two");
      const two = await bought("ve_two", null);
      await tell(one.payment.id, "dp_6", "open");
      await tell(two.payment.id, "dp_7", "open");
      await tell(one.payment.id, "dp_6", "won");
      expect([await state(one.session), await state(two.session)]).toEqual([FULFILLED, DISPUTED]);
      expect(await isFrozen(checkout, "ve_two")).toBe(true);
      await tell(two.payment.id, "dp_7", "won");
      expect(await isFrozen(checkout, "ve_two")).toBe(false);
      await db.query("update virtual_endpoint set frozen = true where id = 've_two'");
      await tell(two.payment.id, "dp_8", "open");
      await tell(two.payment.id, "dp_8", "won");
      expect(await isFrozen(checkout, "ve_two")).toBe(true);
    });

    it("stay frozen when one is won and another was lost", async () => {
      const one = await bought("ve_both");
      await tell(one.payment.id, "dp_9", "open", 300n);
      await tell(one.payment.id, "dp_10", "open", 300n);
      await tell(one.payment.id, "dp_9", "lost", 300n);
      expect(await state(one.session)).toBe(DISPUTED);
      await tell(one.payment.id, "dp_10", "won", 300n);
      expect([await state(one.session), await isFrozen(checkout, "ve_both")]).toEqual([PARTIALLY_REFUNDED, true]);
      expect(await walletOf(checkout, "ve_both")).toMatchObject({ purchased: "84" });
    });

    it("stay frozen whichever of them froze the VE, when one was lost", async () => {
      const one = await bought("ve_both2");
      await tell(one.payment.id, "dp_20", "open", 300n);
      await tell(one.payment.id, "dp_21", "lost", 300n);
      await tell(one.payment.id, "dp_20", "won", 300n);
      expect([await state(one.session), await isFrozen(checkout, "ve_both2")]).toEqual([PARTIALLY_REFUNDED, true]);
    });

    it("end, whatever is left of the money", async () => {
      const one = await bought("ve_nothing_left");
      await tell(one.payment.id, "dp_22", "open");
      await refund(one.session, null);
      await tell(one.payment.id, "dp_22", "won", 0n);
      await tell(one.payment.id, "dp_23", "open", 0n);
      expect([await state(one.session), await isFrozen(checkout, "ve_nothing_left")]).toEqual([REFUNDED, false]);
    });

    it("that are lost keep the Credits of a refund that fails afterwards", async () => {
      const { session, payment } = await bought("ve_lost_first");
      checkout.processor.refundState = "pending";
      const { refund: row } = await refund(session, null);
      checkout.processor.refundState = "succeeded";
      await tell(payment.id, "dp_24", "lost", 700n);
      checkout.processor.refunds.get(row.id)!.state = "failed";
      await send(
        checkout.processor.refundNotification(
          payment.id,
          { reference: row.reference!, amountMinor: 1000n, currency: "USD", reason: "", state: "failed" },
          row.id,
        ),
      );
      // 700 of 1000 are gone with the dispute; 300 stayed, and their 36 Credits with them.
      expect(await walletOf(checkout, "ve_lost_first")).toMatchObject({ purchased: "36", available: "36" });
      expect(await state(session)).toBe(PARTIALLY_REFUNDED);
      expect((await paymentOf(checkout, payment.id)).refunded_minor).toBe(700n);
      expect((await sessionOf(checkout, session.id)).refunded_minor).toBe(700n);
      await expectSound(checkout);
    });

    it("of what was refunded already take nothing more", async () => {
      const { session, payment } = await bought("ve_back");
      await tell(payment.id, "dp_11", "open");
      await refund(session, null);
      expect(await state(session)).toBe(REFUNDED);
      await bought("ve_back", null);
      await tell(payment.id, "dp_11", "lost");
      expect(await walletOf(checkout, "ve_back")).toMatchObject({ purchased: "120" });
      expect(parseCredits((await paymentOf(checkout, payment.id)).taken)).toBe(parseCredits("120"));
    });
  });
});
