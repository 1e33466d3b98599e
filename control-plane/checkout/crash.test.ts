/**
 * A process is killed at every statement, and around every call of a processor. Whatever it had done by
 * then, the next one brings it to the same end: Credits once for money that came, none for money that did not.
 */

import { afterAll, beforeAll, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { CheckoutState, PaymentProcessor, RefundState } from "../domain/checkout.ts";
import { addVe, MERCHANT } from "../report/testing.ts";
import { listRefunds } from "../store/refund.ts";
import { chargeAutomatically } from "./automatic.ts";
import { cancelSession } from "./cancel.ts";
import { fulfil } from "./fulfil.ts";
import { receiveNotification } from "./notifications.ts";
import { refundSession } from "./refund.ts";
import { startPayment } from "./start.ts";
import {
  addSession,
  checkoutWorld,
  type CheckoutWorld,
  choiceOf,
  type Death,
  Died,
  expectSound,
  isFrozen,
  mortal,
  pollThrough,
  sessionOf,
  started,
  told,
  transfersOf,
  walletOf,
  withDb,
} from "./testing.ts";

/** More than anything here has; a loop that does not end would be a test that cannot fail. */
const STEPS_MAX = 80;

let db: Database;
let checkout: CheckoutWorld;
let count = 0;
beforeAll(async () => {
  db = await openTestDatabases()[0]!.open();
  checkout = await checkoutWorld(db);
});
afterAll(async () => {
  await expectSound(checkout);
  await db.close();
});

/** Runs `act` once for each way to die, in a world of its own each time, and `check` after the next process has come. */
async function everyDeath<World extends { readonly veId: string }>(
  prepare: (veId: string) => Promise<World>,
  act: (dying: CheckoutWorld, world: World) => Promise<unknown>,
  check: (world: World) => Promise<void>,
  { stride = 1, calls = true } = {},
): Promise<number> {
  let deaths = 0;
  const once = async (death: Death, call: number | null, when: "before" | "after"): Promise<boolean> => {
    const world = await prepare(`ve_crash_${(count += 1)}`);
    const dying = mortal(db, death);
    const first = checkout.processor.calls.length;
    const die = () => {
      if (checkout.processor.calls.length - first === call) throw new Died("the process was killed");
    };
    checkout.processor[when] = die;
    let died = false;
    try {
      const answer = await act(withDb(checkout, dying), world);
      died = (answer as { status?: number } | null)?.status === 503 || (answer as { status?: number })?.status === 400;
    } catch (error) {
      if (!(error instanceof Died)) throw error;
      died = true;
    }
    checkout.processor[when] = () => {};
    await check(world);
    deaths += died ? 1 : 0;
    return died;
  };
  for (let n = 1; await once({ statement: n }, null, "before"); n += stride) expect(n).toBeLessThan(STEPS_MAX);
  for (const when of calls ? (["before", "after"] as const) : []) {
    for (let n = 1; await once({}, n, when); n += 1) expect(n).toBeLessThan(STEPS_MAX);
  }
  return deaths;
}

const paymentsOf = (veId: string) =>
  [...checkout.processor.payments.values()].filter(({ order }) => order.veId === veId);
const send = ({ deps }: CheckoutWorld, raw: Parameters<typeof receiveNotification>[3]) =>
  receiveNotification(deps, PaymentProcessor.STRIPE, "pay_a", raw);

async function expectOnce(veId: string, sessionId: string): Promise<void> {
  expect(await transfersOf(checkout, veId)).toHaveLength(1);
  expect((await told(checkout, sessionId)).filter((type) => type === "checkout.fulfilled")).toHaveLength(1);
  expect(await walletOf(checkout, veId)).toMatchObject({ purchased: "120", available: "120" });
  expect(await sessionOf(checkout, sessionId)).toMatchObject({ state: CheckoutState.FULFILLED, problem: "" });
}

async function toPay(veId: string) {
  return { veId, session: await addSession(checkout, veId) };
}

async function toFulfil(veId: string) {
  const { session, payment } = await started(checkout, veId);
  checkout.processor.pay(payment.id);
  return { veId, session, payment };
}

async function toRefund(veId: string) {
  const world = await toFulfil(veId);
  await fulfil(checkout.deps, world.payment.id, "page");
  return world;
}

it("starts a payment: what the payer could pay is fulfilled once, without anybody coming back", async () => {
  const deaths = await everyDeath(
    toPay,
    (dying, { session }) => startPayment(dying.deps, session, choiceOf(dying), "page"),
    async ({ veId, session }) => {
      const made = paymentsOf(veId);
      expect(made.length).toBeLessThanOrEqual(1);
      for (const { order } of made) checkout.processor.pay(order.paymentId);
      await pollThrough(checkout, 600_000, 5);
      if (made.length === 1) return expectOnce(veId, session.id);
      expect(await transfersOf(checkout, veId)).toEqual([]);
      // It can still be paid.
      await startPayment(checkout.deps, session, choiceOf(checkout), "page");
    },
  );
  expect(deaths).toBeGreaterThan(8);
});

it("starts a payment: who comes back and chooses the same is told how to pay, and pays once", async () => {
  await everyDeath(
    toPay,
    (dying, { session }) => startPayment(dying.deps, session, choiceOf(dying), "page"),
    async ({ veId, session }) => {
      // As the clock says that the other process is long gone, nobody waits for it.
      checkout.world.advance(31_000);
      const { payment, action } = await startPayment(checkout.deps, session, choiceOf(checkout), "page");
      expect(action).not.toBeNull();
      expect(paymentsOf(veId)).toHaveLength(1);
      checkout.processor.pay(payment.id);
      await fulfil(checkout.deps, payment.id, "page");
      await expectOnce(veId, session.id);
    },
  );
});

it("fulfils a payment: once, by the next poller", async () => {
  const deaths = await everyDeath(
    toFulfil,
    (dying, { payment }) => fulfil(dying.deps, payment.id, "webhook"),
    async ({ veId, session }) => {
      await pollThrough(checkout, 20_000, 2);
      await expectOnce(veId, session.id);
    },
  );
  expect(deaths).toBeGreaterThan(15);
});

it("fulfils a payment: once, by the notification that comes again", async () => {
  const raws = new Map<string, ReturnType<CheckoutWorld["processor"]["paymentNotification"]>>();
  await everyDeath(
    async (veId) => {
      const world = await toFulfil(veId);
      raws.set(veId, checkout.processor.paymentNotification(world.payment.id));
      return world;
    },
    (dying, { veId }) => send(dying, raws.get(veId)!),
    async ({ veId, session }) => {
      for (let i = 0; i < 2; i += 1) expect((await send(checkout, raws.get(veId)!)).status).toBe(200);
      await expectOnce(veId, session.id);
    },
  );
});

it("cancels a session: what was paid meanwhile is fulfilled once", async () => {
  await everyDeath(
    toFulfil,
    (dying, { session }) => cancelSession(dying.deps, session, "page"),
    async ({ veId, session }) => {
      await pollThrough(checkout, 20_000, 2);
      await expectOnce(veId, session.id);
    },
  );
});

it("refunds a payment: the money goes back once, and the Credits with it, or neither", async () => {
  const deaths = await everyDeath(
    toRefund,
    (dying, { session, veId }) =>
      refundSession(dying.deps, session, { refundId: `rfd_${veId}`, amountMinor: null, reason: "", paymentId: "" }),
    async ({ veId, session, payment }) => {
      await pollThrough(checkout, 60_000, 3);
      const rows = await listRefunds(db, [session.id]);
      const back = checkout.processor.payments.get(payment.id)!.refundedMinor;
      expect(back).toBe(rows.length === 0 ? 0n : 1000n);
      expect(await walletOf(checkout, veId)).toMatchObject({ purchased: rows.length === 0 ? "120" : "0", debt: "0" });
      expect(rows.map(({ state }) => state)).toEqual(rows.length === 0 ? [] : [RefundState.SUCCEEDED]);
      const { REFUNDED, FULFILLED } = CheckoutState;
      expect((await sessionOf(checkout, session.id)).state).toBe(rows.length === 0 ? FULFILLED : REFUNDED);
      const heard = await told(checkout, session.id);
      expect(heard.filter((type) => type === "refund.succeeded")).toHaveLength(rows.length);
    },
  );
  expect(deaths).toBeGreaterThan(20);
});

it("gives Credits back for a refund that failed: once", async () => {
  await everyDeath(
    async (veId) => {
      const world = await toRefund(veId);
      checkout.processor.refundState = "failed";
      return world;
    },
    (dying, { session, veId }) =>
      refundSession(dying.deps, session, { refundId: `rfd_${veId}`, amountMinor: 500n, reason: "", paymentId: "" }),
    async ({ veId, session }) => {
      await pollThrough(checkout, 60_000, 3);
      checkout.processor.refundState = "succeeded";
      expect(await walletOf(checkout, veId)).toMatchObject({ purchased: "120" });
      const back = (await transfersOf(checkout, veId)).filter((line) => line.includes("refund_back"));
      expect(back).toHaveLength((await listRefunds(db, [session.id])).length);
    },
  );
});

it("follows a refund at the processor and a lost dispute: once, by the notification that comes again", async () => {
  const news = new Map<string, ReturnType<CheckoutWorld["processor"]["paymentNotification"]>[]>();
  for (const kind of ["refund", "dispute"] as const) {
    await everyDeath(
      async (veId) => {
        const world = await toRefund(veId);
        const { processor } = checkout;
        const raw =
          kind === "refund"
            ? processor.refundNotification(world.payment.id, processor.refundOutside(world.payment.id, 500n))
            : processor.disputeNotification(world.payment.id, `dp_${veId}`, "lost", 500n);
        news.set(veId, [raw]);
        return world;
      },
      (dying, { veId }) => send(dying, news.get(veId)![0]!),
      async ({ veId, session }) => {
        for (let i = 0; i < 2; i += 1) expect((await send(checkout, news.get(veId)![0]!)).status).toBe(200);
        expect(await walletOf(checkout, veId)).toMatchObject({ purchased: "60" });
        expect((await sessionOf(checkout, session.id)).state).toBe(CheckoutState.PARTIALLY_REFUNDED);
        expect(await isFrozen(checkout, veId)).toBe(kind === "dispute");
      },
      // The processor is not asked, and much of the way is that of our own refunds.
      { stride: 2, calls: false },
    );
  }
});

it("charges a saved method: credited once if it was charged, and free for the next one in any case", async () => {
  await everyDeath(
    async (veId) => {
      await addVe(checkout.world, veId);
      return { veId };
    },
    (dying, { veId }) =>
      chargeAutomatically(dying.deps, { veId, merchantId: MERCHANT, choice: choiceOf(dying), saved: {} }),
    async ({ veId }) => {
      await pollThrough(checkout, 600_000, 5);
      const charged = paymentsOf(veId).length;
      expect(await transfersOf(checkout, veId)).toHaveLength(charged);
      const rows = await db.query<{ state: number }>("select state from checkout_session where ve_id = $1", [veId]);
      expect(rows.every(({ state }) => state === CheckoutState.FULFILLED || state === CheckoutState.FAILED)).toBe(true);
    },
  );
});

it("does not care what the clock says", async () => {
  for (const jump of [-86_400_000, 86_400_000, -2 * 86_400_000]) {
    const { session, payment, veId } = await toFulfil(`ve_clock_${jump}`);
    checkout.world.advance(jump);
    const raw = checkout.processor.paymentNotification(payment.id);
    await Promise.all([send(checkout, raw), fulfil(checkout.deps, payment.id, "page"), send(checkout, raw)]);
    await expectOnce(veId, session.id);
    const how = { refundId: `rfd_${veId}`, amountMinor: 250n, reason: "", paymentId: "" };
    checkout.world.advance(-jump);
    await refundSession(checkout.deps, session, how);
    checkout.world.advance(jump);
    await refundSession(checkout.deps, session, how);
    expect(await walletOf(checkout, veId)).toMatchObject({ purchased: "90" });
  }
});
