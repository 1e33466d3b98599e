/** What comes in by notifications: verified, done once, and done again when it could not be done. */

import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { PaymentProcessor } from "../domain/checkout.ts";
import { INVARIANTS } from "../domain/audit.ts";
import { type Notification, ProcessorError, type RawNotification } from "../payments/payment.ts";
import { NOTIFICATIONS_PER_MINUTE_MAX } from "../store/payment_notification.ts";
import { chargeAutomatically } from "./automatic.ts";
import { expireSessions, NOTIFICATIONS_KEEP_MS } from "./expire.ts";
import { notificationsTotal } from "./metrics.ts";
import { receiveNotification } from "./notifications.ts";
import { refundSession } from "./refund.ts";
import {
  checkoutWorld,
  type CheckoutWorld,
  choiceOf,
  expectSound,
  mortal,
  pollThrough,
  sessionOf,
  started,
  told,
  transfersOf,
  walletOf,
  withDb,
} from "./testing.ts";
import { addVe, MERCHANT } from "../report/testing.ts";

describe.each(openTestDatabases())("notifications on $name", ({ open }) => {
  let db: Database;
  let checkout: CheckoutWorld;
  beforeAll(async () => {
    db = await open();
    checkout = await checkoutWorld(db);
  });
  beforeEach(() => {
    checkout.world.advance(60_001);
    Object.assign(checkout.processor, { before: () => {}, after: () => {}, chargeState: "paid" });
  });
  afterAll(async () => {
    await expectSound(checkout);
    await db.close();
  });

  const send = (raw: RawNotification, { deps } = checkout, accountId = "pay_a") =>
    receiveNotification(deps, PaymentProcessor.STRIPE, accountId, raw);
  const verdicts = async (subject: string) =>
    (
      await db.query<{ verdict: string }>("select verdict from payment_notification where subject = $1 order by n", [
        subject,
      ])
    ).map(({ verdict }) => verdict);
  async function paid(veId: string) {
    const { payment, session } = await started(checkout, veId);
    checkout.processor.pay(payment.id);
    return { payment, session, raw: checkout.processor.paymentNotification(payment.id) };
  }

  it("does the work of one event once", async () => {
    const { payment, raw } = await paid("ve_event");
    expect((await send(raw)).status).toBe(200);
    const calls = checkout.processor.calls.length;
    expect(await send(raw)).toEqual({ status: 200, type: "text/plain", body: "ok" });
    expect(checkout.processor.calls.length).toBe(calls);
    expect(await verdicts(payment.id)).toEqual(["accepted", "duplicate"]);
    const [account] = await db.query<{ last_notified_at: Date }>("select last_notified_at from payment_account");
    expect(account!.last_notified_at.getTime()).toBe(checkout.deps.now());
  });

  it("does the work again that failed the first time", async () => {
    const { payment, raw } = await paid("ve_failed");
    checkout.processor.before = () => {
      throw new ProcessorError("unreachable", "timeout", "no answer");
    };
    expect((await send(raw)).status).toBe(400);
    checkout.processor.before = () => {};
    for (let statement = 1; ; statement += 1) {
      const dying = mortal(db, { statement });
      const answer = await send(raw, withDb(checkout, dying));
      if (dying.seen.statements < statement) break;
      // Whatever had happened before it died, the processor hears that it has to repeat it.
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(statement).toBeLessThan(60);
    }
    expect(await transfersOf(checkout, "ve_failed")).toHaveLength(1);
    expect((await verdicts(payment.id)).slice(0, 1)).toEqual(["accepted"]);
  });

  it("believes no forgery, and keeps no more than a few of them", async () => {
    const { payment, raw } = await paid("ve_forged");
    const forged = { ...raw, headers: { signature: "forged" } };
    const answers = await Promise.all(Array.from({ length: NOTIFICATIONS_PER_MINUTE_MAX + 20 }, () => send(forged)));
    expect(new Set(answers.map(({ status, body }) => `${status} ${body}`))).toEqual(new Set(["400 bad_signature"]));
    expect(await transfersOf(checkout, "ve_forged")).toEqual([]);
    const [kept] = await db.query<{ count: bigint }>(
      "select count(*) as count from payment_notification where verdict = 'bad_signature'",
    );
    // Those of one moment may be a few more: each counts what it sees.
    expect(kept!.count).toBeGreaterThan(100n);
    expect(kept!.count).toBeLessThanOrEqual(BigInt(NOTIFICATIONS_PER_MINUTE_MAX + 20));
    await send(forged);
    // True ones come through all the same.
    expect((await send(raw)).status).toBe(200);
    expect(await verdicts(payment.id)).toEqual(["accepted"]);
    const metric = (await notificationsTotal.get()).values.find(({ labels }) => labels["verdict"] === "bad_signature");
    expect(metric!.value).toBeGreaterThan(NOTIFICATIONS_PER_MINUTE_MAX);
  });

  it.each([
    ["no account", "pay_never", PaymentProcessor.STRIPE],
    ["an account of another processor", "pay_a", PaymentProcessor.WECHAT_PAY],
  ])("knows nothing of %s", async (_name, accountId, processor) => {
    const raw = checkout.processor.notification({ kind: "nothing" });
    expect(await receiveNotification(checkout.deps, processor, accountId, raw)).toMatchObject({ status: 404 });
  });

  it.each<[string, Notification["about"]]>([
    ["nothing", { kind: "nothing" }],
    ["a payment of somebody else", { kind: "payment", paymentId: "pmt_never", references: ["x", "y"] }],
    [
      "a refund of somebody else",
      {
        kind: "refund",
        paymentId: null,
        references: ["x"],
        refundId: "rfd_never",
        refund: { reference: "re_1", amountMinor: 1n, currency: "USD", reason: "", state: "succeeded" },
      },
    ],
    [
      "a dispute of somebody else",
      {
        kind: "dispute",
        paymentId: null,
        references: ["x"],
        reference: "dp_1",
        state: "open",
        amountMinor: 1n,
        reason: "",
      },
    ],
  ])("acknowledges %s", async (_name, about) => {
    const kind = `of ${about.kind}`;
    expect((await send(checkout.processor.notification(about, { kind }))).status).toBe(200);
    expect(await db.query("select verdict from payment_notification where kind = $1", [kind])).toEqual([
      { verdict: "ignored" },
    ]);
  });

  it("takes events without an id for new ones each time", async () => {
    const { payment } = await paid("ve_noid");
    const about = { kind: "payment", paymentId: payment.id, references: [] } as const;
    for (let i = 0; i < 3; i += 1) await send(checkout.processor.notification(about, { eventId: "" }));
    expect(await verdicts(payment.id)).toEqual(["accepted", "accepted", "accepted"]);
    expect(await transfersOf(checkout, "ve_noid")).toHaveLength(1);
  });

  it("answers when the database is away, and throws nothing", async () => {
    const { raw } = await paid("ve_away");
    const answer = await send(raw, withDb(checkout, mortal(db, { statement: 1 })));
    expect(answer).toMatchObject({ status: 503, body: "try again later" });
  });

  it("forgets after a while", async () => {
    const count = async () => (await db.query("select 1 from payment_notification")).length;
    expect(await count()).toBeGreaterThan(0);
    checkout.world.advance(NOTIFICATIONS_KEEP_MS + 60_000);
    await expireSessions(checkout.deps);
    expect(await count()).toBe(0);
  });

  describe("automatic top-ups", () => {
    const charge = (veId: string, { deps } = checkout) =>
      chargeAutomatically(deps, {
        veId,
        merchantId: MERCHANT,
        choice: choiceOf(checkout),
        saved: { card: "c" },
      });
    const newest = async (veId: string) => {
      const [row] = await db.query<{ id: string }>(
        "select id from checkout_session where ve_id = $1 order by n desc limit 1",
        [veId],
      );
      return sessionOf(checkout, row!.id);
    };

    it("charge once at a time, and credit", async () => {
      await addVe(checkout.world, "ve_auto");
      const charges = checkout.processor.count("chargeSaved");
      const results = await Promise.all([charge("ve_auto"), charge("ve_auto"), charge("ve_auto")]);
      const done = checkout.processor.count("chargeSaved") - charges;
      expect(results.filter((result) => result === "fulfilled")).toHaveLength(done);
      expect(results.filter((result) => result === "pending")).toHaveLength(3 - done);
      expect(await walletOf(checkout, "ve_auto")).toMatchObject({ purchased: String(120 * done) });
      expect(await newest("ve_auto")).toMatchObject({ automatic: true, state: 4 });
      expect(await charge("ve_auto")).toBe("fulfilled");
    });

    it("say why they fail, and wait for what takes time", async () => {
      await addVe(checkout.world, "ve_auto2");
      checkout.processor.chargeState = "failed";
      expect(await charge("ve_auto2")).toEqual({ failure: "card_declined" });
      checkout.processor.before = () => {
        throw new ProcessorError("refused", "authentication_required", "no");
      };
      expect(await charge("ve_auto2")).toEqual({ failure: "authentication_required" });
      checkout.processor.before = () => {};
      checkout.processor.chargeState = "pending";
      expect(await charge("ve_auto2")).toBe("pending");
      expect(await charge("ve_auto2")).toBe("pending");
      const session = await newest("ve_auto2");
      const [payment] = [...checkout.processor.payments.values()].filter(({ order }) => order.sessionId === session.id);
      checkout.processor.pay(payment!.order.paymentId);
      await pollThrough(checkout, 60_000, 4);
      expect(await told(checkout, session.id)).toEqual(["checkout.fulfilled"]);
    });

    it("are found again when the answer was lost, or given up when nothing was charged", async () => {
      await addVe(checkout.world, "ve_auto3");
      const lost = () => {
        throw new ProcessorError("unreachable", "timeout", "no answer");
      };
      checkout.processor.after = lost;
      expect(await charge("ve_auto3")).toBe("pending");
      checkout.processor.after = () => {};
      await pollThrough(checkout, 120_000, 4);
      expect(await walletOf(checkout, "ve_auto3")).toMatchObject({ purchased: "120" });
      checkout.processor.before = lost;
      expect(await charge("ve_auto3")).toBe("pending");
      checkout.processor.before = () => {};
      await pollThrough(checkout, 900_000, 6);
      expect(await newest("ve_auto3")).toMatchObject({ state: 6, failure: "closed" });
      expect(await charge("ve_auto3")).toBe("fulfilled");
    });
  });

  describe("the audit", () => {
    const off = "alter table transfer disable trigger transfer_append_only";
    const on = "alter table transfer enable trigger transfer_append_only";
    async function broken(change: string, undo: string): Promise<string[]> {
      await db.tx((tx) => db.script(tx, change));
      try {
        const breaks = [...(await audit(db, { deep: true })), ...(await audit(db, { deep: false }))];
        return [...new Set(breaks.map(({ invariant }) => invariant))].toSorted();
      } finally {
        await db.tx((tx) => db.script(tx, undo));
      }
    }

    it("notices whatever does not fit between payments and the ledger", async () => {
      const { payment, session, raw } = await paid("ve_audit");
      await send(raw);
      const how = { refundId: "rfd_audit", amountMinor: 500n, reason: "", paymentId: "" };
      await refundSession(checkout.deps, session, how);
      await expectSound(checkout);
      const where = `where id = '${payment.id}'`;
      const { payments, paid: unpaid, cause } = INVARIANTS;
      expect(
        await broken(
          `update payment set granted = granted + 1 ${where}`,
          `update payment set granted = granted - 1 ${where}`,
        ),
      ).toEqual([unpaid, payments].toSorted());
      expect(await broken(`update payment set state = 2 ${where}`, `update payment set state = 4 ${where}`)).toEqual(
        [unpaid, cause].toSorted(),
      );
      expect(
        await broken(
          `update payment set settled_reference = 'x' ${where}`,
          `update payment set settled_reference = 'money_${payment.id}' ${where}`,
        ),
      ).toEqual([unpaid, cause].toSorted());
      expect(
        await broken(
          "update refund set taken = taken + 1 where id = 'rfd_audit'",
          "update refund set taken = taken - 1 where id = 'rfd_audit'",
        ),
      ).toEqual([unpaid, cause].toSorted());
      // Credits out of nothing: posted as if they were paid for, and in the wallet.
      const forge = `insert into transfer (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, posted_at)
        values ('tr_forged', '${MERCHANT}', 've_audit', 'payment', 'wallet', 5, 'pay:stripe:pay_a:forged', now());
        update wallet set purchased = purchased + 5 where ve_id = 've_audit'`;
      const undo = `${off}; delete from transfer where id = 'tr_forged'; ${on};
        update wallet set purchased = purchased - 5 where ve_id = 've_audit'`;
      expect(await broken(forge, undo)).toEqual([payments, cause].toSorted());
      await expectSound(checkout);
    });
  });
});
