/** The sandbox as a processor: its page pressed over HTTP, its answers to who asks, its notifications. */

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { PaymentMethod } from "../domain/checkout.ts";
import { claimSandboxNotifications } from "../store/sandbox.ts";
import { SANDBOX_DELAY_MS } from "./sandbox_choices.ts";
import { SANDBOX_ATTEMPTS_MAX } from "./sandbox_tick.ts";
import { DECLINING_TEST_CARD, sandboxProcessor, TEST_CARD } from "./sandbox.ts";
import { fieldsOf, knownOf, type Opened, RETURN_URL, type Sandbox, startSandbox } from "./testing_sandbox.ts";

describe.each(openTestDatabases())("the sandbox on $name", ({ open }) => {
  let db: Database;
  let sandbox: Sandbox;

  beforeAll(async () => {
    db = await open();
    sandbox = await startSandbox(db);
  });
  afterAll(async () => {
    await sandbox.cp.close();
    await db.close();
  });
  beforeEach(async () => {
    await db.query("delete from sandbox_notification");
    sandbox.heard.length = 0;
    sandbox.refuse.times = 0;
  });

  const find = ({ known }: Opened) => sandbox.account.find(known);
  const later = (ms: number) => void (sandbox.cp.clock.offsetMs += ms);
  /** What was heard, as the adapter reads it. */
  const heard = () => Promise.all(sandbox.heard.map((raw) => sandbox.account.readNotification(raw)));
  async function paid(changes: Parameters<Sandbox["start"]>[0] = {}): Promise<Opened> {
    const opened = await sandbox.start(changes);
    await sandbox.press(opened, "approve_silently");
    return opened;
  }

  test("starts a payment once, whoever asks how often", async () => {
    const order = sandbox.order();
    expect(await sandbox.account.find(knownOf(order, null, 0))).toEqual({ state: "unknown" });
    const started = await Promise.all([1, 2, 3].map(() => sandbox.account.start(order)));
    expect(new Set(started.map(({ reference }) => reference)).size).toBe(1);
    const [{ reference, action }] = started as [(typeof started)[0]];
    expect(action).toEqual({ kind: "redirect", url: `${sandbox.cp.url}/sandbox/pay/${reference}` });
    expect(reference).toMatch(/^sbp_[a-z2-7]{26}$/);
    expect(await sandbox.account.find(knownOf(order, null, 0))).toEqual({ state: "pending" });
    const other = sandbox.openAccount("pay_other");
    expect(await other.find(knownOf(order, null, 0))).toEqual({ state: "unknown" });
    await expect(other.start(order)).rejects.toMatchObject({ code: "refused", failure: "other_account" });
  });

  test("approve: paid, told once, and back to the merchant", async () => {
    const opened = await sandbox.start();
    const answer = await sandbox.press(opened, "approve");
    expect([answer.status, answer.headers.get("location")]).toEqual([303, RETURN_URL]);
    const status = await find(opened);
    expect(status).toEqual({
      state: "paid",
      currency: "USD",
      amountMinor: 1001n,
      settledReference: expect.stringMatching(/^sbc_/),
      paymentId: opened.order.paymentId,
      paidAtMs: expect.any(Number),
      details: {},
      savedMethod: null,
    });
    expect([await sandbox.tick(), await sandbox.tick()]).toEqual([1, 0]);
    const [notification] = await heard();
    expect(notification).toMatchObject({
      eventId: expect.stringMatching(/^sbe_/),
      kind: "payment.paid",
      about: {
        kind: "payment",
        paymentId: opened.order.paymentId,
        references: [opened.known.reference, expect.any(String)],
      },
    });
    expect(await find(opened)).toEqual(status);
  });

  test.each([
    ["decline", { state: "failed", failure: "card_declined" }, ["payment.declined"]],
    ["cancel", { state: "closed" }, []],
    ["approve_silently", { state: "paid" }, []],
  ])("%s", async (choice, status, kinds) => {
    const opened = await sandbox.start();
    expect((await sandbox.press(opened, choice)).headers.get("location")).toBe(RETURN_URL);
    expect(await find(opened)).toMatchObject(status);
    await sandbox.tick();
    expect((await heard()).map(({ kind }) => kind)).toEqual(kinds);
    // The first decision stands: a second click, or the way back, changes nothing.
    expect((await sandbox.press(opened, "approve")).status).toBe(303);
    expect((await sandbox.press(opened, "decline")).status).toBe(303);
    expect(await find(opened)).toMatchObject(status);
  });

  test("five notifications at once are five times the same", async () => {
    const opened = await sandbox.start();
    await sandbox.press(opened, "approve_repeatedly");
    expect(await sandbox.tick()).toBe(1);
    expect(sandbox.heard.length).toBe(5);
    expect(new Set((await heard()).map(({ eventId }) => eventId)).size).toBe(1);
  });

  test("after a delay: pending at first, then paid and told, even past its time", async () => {
    const opened = await sandbox.start({ expiresAtMs: sandbox.cp.deps.now() + 5_000 });
    await sandbox.press(opened, "approve_later");
    expect(await find(opened)).toEqual({ state: "pending" });
    expect(await sandbox.tick()).toBe(0);
    expect(await (await sandbox.show(opened)).text()).toContain("Approved");
    later(SANDBOX_DELAY_MS);
    expect(await sandbox.tick()).toBe(1);
    expect(await find(opened)).toMatchObject({ state: "paid" });
  });

  test("closing beats an approval that is delayed, and loses to one that was made", async () => {
    const delayed = await sandbox.start();
    await sandbox.press(delayed, "approve_later");
    expect(await sandbox.account.close(delayed.known)).toEqual({ state: "closed" });
    later(SANDBOX_DELAY_MS);
    expect(await find(delayed)).toEqual({ state: "closed" });
    expect(await sandbox.tick()).toBe(0);
    expect(await sandbox.account.close((await paid()).known)).toMatchObject({ state: "paid" });
    expect(await sandbox.account.close(knownOf(sandbox.order(), null, 0))).toEqual({ state: "unknown" });
  });

  test("past its time nothing can be approved", async () => {
    const opened = await sandbox.start({ expiresAtMs: sandbox.cp.deps.now() + 1_000 });
    const other = await sandbox.start({ expiresAtMs: sandbox.cp.deps.now() + 1_000 });
    const { token } = fieldsOf(await (await sandbox.show(opened)).text());
    later(1_000);
    const late = await sandbox.press(opened, "approve", { token: token! });
    expect(late.headers.get("location")).toBe(RETURN_URL);
    expect(await find(opened)).toEqual({ state: "closed" });
    expect(await (await sandbox.show(other)).text()).toMatch(/time to pay is over/);
  });

  describe("saved cards", () => {
    async function save(card: string) {
      const opened = await sandbox.start({ saveMethod: true });
      await sandbox.press(opened, "approve_silently", { card });
      const status = await find(opened);
      if (status.state !== "paid") throw new Error("not paid");
      return status.savedMethod!;
    }

    test("work until they are forgotten, and a charge is made once", async () => {
      const saved = await save("works");
      expect(saved.label).toBe(TEST_CARD);
      const order = sandbox.order();
      const charges = await Promise.all([1, 2].map(() => sandbox.account.chargeSaved!(order, saved.credentials)));
      expect(charges[0]).toEqual(charges[1]);
      expect(charges[0]!.status).toMatchObject({ state: "paid", paymentId: order.paymentId, savedMethod: null });
      expect(await sandbox.tick()).toBe(1);
      const other = sandbox.openAccount("pay_other");
      await expect(other.chargeSaved!(sandbox.order(), saved.credentials)).rejects.toMatchObject({ code: "refused" });
      await other.forgetSaved!(saved.credentials);
      await sandbox.account.chargeSaved!(sandbox.order(), saved.credentials);
      await sandbox.account.forgetSaved!(saved.credentials);
      await sandbox.account.forgetSaved!(saved.credentials);
      await expect(sandbox.account.chargeSaved!(sandbox.order(), saved.credentials)).rejects.toMatchObject({
        failure: "no_such_method",
      });
    });

    test("that decline later do", async () => {
      const saved = await save("declines");
      expect(saved.label).toBe(DECLINING_TEST_CARD);
      const { status } = await sandbox.account.chargeSaved!(sandbox.order(), saved.credentials);
      expect(status).toEqual({ state: "failed", failure: "card_declined" });
    });
  });

  describe("refunds", () => {
    test("asked for here: once for each id, and never more than was paid", async () => {
      const opened = await paid();
      const order = sandbox.refundOrder(opened, "rfd_1", 1000n);
      const asked = await Promise.all([1, 2, 3].map(() => sandbox.account.refund(order)));
      expect(new Set(asked.map(({ reference }) => reference)).size).toBe(1);
      expect(asked[0]).toMatchObject({ state: "succeeded", failure: "" });
      expect(await sandbox.account.findRefund(order)).toEqual(asked[0]);
      const tooMuch = sandbox.refundOrder(opened, "rfd_2", 2n);
      await expect(sandbox.account.refund(tooMuch)).rejects.toMatchObject({ failure: "refund_too_large" });
      // One that was never heard of is asked for now.
      const rest = sandbox.refundOrder(opened, "rfd_3", 1n);
      expect(await sandbox.account.findRefund(rest)).toMatchObject({ state: "succeeded" });
      await sandbox.tick();
      expect((await heard()).map(({ about }) => about)).toMatchObject([
        {
          kind: "refund",
          refundId: "rfd_1",
          refund: { reference: asked[0]!.reference, amountMinor: 1000n, currency: "USD" },
        },
        { kind: "refund", refundId: "rfd_3", refund: { amountMinor: 1n, state: "succeeded" } },
      ]);
    });

    test("twenty at the same time give back no more than there is", async () => {
      const opened = await paid();
      const asked = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => sandbox.account.refund(sandbox.refundOrder(opened, `rfd_c${n}`, 100n))),
      );
      expect(asked.filter(({ status }) => status === "fulfilled").length).toBe(10);
    });

    test("only of what was paid, in this account", async () => {
      const unpaid = await sandbox.start();
      await expect(sandbox.account.refund(sandbox.refundOrder(unpaid, "rfd_u", 1n))).rejects.toMatchObject({
        code: "refused",
      });
      const order = sandbox.refundOrder(await paid(), "rfd_o", 1n);
      await expect(sandbox.openAccount("pay_other").refund(order)).rejects.toMatchObject({ code: "refused" });
    });

    test("on the page: half, then the rest; a second click gives nothing", async () => {
      const opened = await paid();
      const stale = { version: "0.none" };
      const answer = await sandbox.press(opened, "refund_half");
      expect(new URL(answer.headers.get("location")!, opened.url).href).toBe(opened.url);
      await sandbox.press(opened, "refund_half", stale);
      expect(await (await sandbox.show(opened)).text()).toMatch(/Given back so far: \$5\.00/);
      await sandbox.press(opened, "refund");
      await sandbox.press(opened, "refund", stale);
      await sandbox.tick();
      const refunds = (await heard()).map(({ about }) => (about.kind === "refund" ? about : null));
      expect(refunds.map((about) => about?.refund.amountMinor)).toEqual([500n, 501n]);
      expect(refunds.map((about) => about?.refundId)).toEqual([null, null]);
      const page = await (await sandbox.show(opened)).text();
      expect(page).not.toMatch(/name="choice"/);
    });
  });

  describe("disputes", () => {
    test.each([
      ["win_dispute", "won", true],
      ["lose_dispute", "lost", false],
    ])("open, then %s", async (choice, state, refundsAfter) => {
      const opened = await paid();
      await sandbox.account.refund(sandbox.refundOrder(opened, `rfd_${choice}`, 1n));
      await sandbox.press(opened, choice);
      await sandbox.press(opened, "dispute");
      const refund = () => sandbox.account.refund(sandbox.refundOrder(opened, `rfd_after_${choice}`, 1000n));
      await expect(refund()).rejects.toMatchObject({ failure: "refund_too_large" });
      await sandbox.press(opened, "refund");
      await sandbox.press(opened, choice);
      await sandbox.press(opened, "dispute");
      await sandbox.tick();
      const disputes = (await heard()).map(({ about }) => about).filter(({ kind }) => kind === "dispute");
      expect(disputes).toMatchObject([
        { state: "open", amountMinor: 1000n },
        { state, amountMinor: 1000n },
      ]);
      expect(new Set(disputes.map((about) => (about as { reference: string }).reference)).size).toBe(1);
      if (refundsAfter) expect(await refund()).toMatchObject({ state: "succeeded" });
      else await expect(refund()).rejects.toMatchObject({ failure: "refund_too_large" });
    });
  });

  describe("notifications", () => {
    async function told() {
      const opened = await sandbox.start();
      await sandbox.press(opened, "approve");
      await sandbox.tick();
      return sandbox.heard[0]!;
    }
    const read = async (raw: Parameters<Sandbox["account"]["readNotification"]>[0]) =>
      sandbox.account.readNotification(raw).then(
        () => "accepted",
        (error: { reason: string }) => error.reason,
      );

    test("are believed as they are, and for five minutes", async () => {
      const raw = await told();
      expect(await read(raw)).toBe("accepted");
      for (const [ms, verdict] of [
        [299_000, "accepted"],
        [302_000, "stale"],
        [-298_000, "accepted"],
        [-302_000, "stale"],
      ] as const)
        expect(await read({ ...raw, nowMs: raw.nowMs + ms })).toBe(verdict);
    });

    test("that were forged, changed or made for another account are not", async () => {
      const raw = await told();
      const name = "tokenbill-sandbox-signature";
      const signature = raw.headers[name]!;
      const text = Buffer.from(raw.body).toString();
      const forged = {
        "no signature": { ...raw, headers: {} },
        "another signature": {
          ...raw,
          headers: { [name]: signature.replace(/.$/, (end) => (end === "0" ? "1" : "0")) },
        },
        "another time": { ...raw, headers: { [name]: signature.replace(/^t=\d/, "t=9") } },
        "a changed body": { ...raw, body: Buffer.from(text.replace("payment.paid", "payment.paie")) },
        "a longer body": { ...raw, body: Buffer.from(`${text} `) },
        "by GET": { ...raw, method: "GET" as const },
      };
      for (const [what, each] of Object.entries(forged))
        expect([what, await read(each)]).toEqual([what, "bad_signature"]);
      await expect(sandbox.openAccount("pay_other").readNotification(raw)).rejects.toMatchObject({
        reason: "bad_signature",
      });
    });

    test("are repeated until they are heard, later and later, and given up in the end", async () => {
      const opened = await sandbox.start();
      await sandbox.press(opened, "approve");
      sandbox.refuse.times = 2;
      expect([await sandbox.tick(), await sandbox.tick()]).toEqual([1, 0]);
      later(1_000);
      expect([await sandbox.tick(), await sandbox.tick()]).toEqual([1, 0]);
      later(1_000);
      expect(await sandbox.tick()).toBe(0);
      later(1_000);
      expect([await sandbox.tick(), await sandbox.tick()]).toEqual([1, 0]);
      expect(sandbox.heard.length).toBe(3);

      await sandbox.press(await sandbox.start(), "approve");
      sandbox.refuse.times = Infinity;
      for (let n = 0; n < SANDBOX_ATTEMPTS_MAX; n += 1) {
        expect(await sandbox.tick()).toBe(1);
        later(600_000);
      }
      expect(await sandbox.tick()).toBe(0);
      expect(sandbox.cp.logLines.some((line) => line.includes("gave a notification up"))).toBe(true);
    });

    test("are sent by one replica, and by another if that one died", async () => {
      await sandbox.press(await sandbox.start(), "approve");
      expect((await Promise.all([sandbox.tick(), sandbox.tick()])).toSorted()).toEqual([0, 1]);
      await sandbox.press(await sandbox.start(), "approve");
      // A replica that took it and was never seen again.
      const now = sandbox.cp.deps.now();
      const claimed = await db.tx((tx) => claimSandboxNotifications(tx, new Date(now), new Date(now + 60_000), 10));
      expect(claimed.length).toBe(1);
      expect(await sandbox.tick()).toBe(0);
      later(60_000);
      expect(await sandbox.tick()).toBe(1);
    });
  });

  test("is what the registry expects", () => {
    const processor = sandboxProcessor(sandbox.cp.deps);
    expect(processor.checkCredentials(new Uint8Array(0))).toMatchObject({
      test: true,
      methods: [PaymentMethod.SANDBOX],
    });
    expect(() => processor.checkCredentials(new Uint8Array(1))).toThrow(/credentials/);
    expect([processor.canSave(PaymentMethod.SANDBOX), processor.canSave(PaymentMethod.STRIPE_CHECKOUT)]).toEqual([
      true,
      false,
    ]);
    const raw = {
      method: "POST",
      headers: {},
      query: new URLSearchParams(),
      body: new Uint8Array(0),
      nowMs: 0,
    } as const;
    expect(sandbox.account.answerNotification(raw, null).status).toBe(200);
  });
});
