/** Whatever happens in whatever order: Credits come in once for money that came, and leave with money that went. */

import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Credits, parseCredits } from "../../core/credits.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { PaymentProcessor, PaymentState } from "../domain/checkout.ts";
import { DomainError } from "../domain/errors.ts";
import { ProcessorError, type RawNotification } from "../payments/payment.ts";
import { addVe } from "../report/testing.ts";
import type { CheckoutSessionRow } from "../store/checkout_session.ts";
import { listPayments } from "../store/payment.ts";
import { cancelSession } from "./cancel.ts";
import { expireSessions } from "./expire.ts";
import { checkSession } from "./fulfil.ts";
import { receiveNotification } from "./notifications.ts";
import { pollPayments } from "./poll.ts";
import { refundSession } from "./refund.ts";
import { startPayment } from "./start.ts";
import {
  addSession,
  checkoutWorld,
  type CheckoutWorld,
  choiceOf,
  DAY_MS,
  expectSound,
  HOUR_MS,
  isFrozen,
  pollThrough,
  spend,
  walletOf,
} from "./testing.ts";

/** 10 USD for 120 Credits: every part of the money has an exact part of the Credits. */
const AMOUNT = 1000n;
const GRANTED = parseCredits("120");
const RUNS = 12;

let db: Database;
let checkout: CheckoutWorld;
let runs = 0;
let ids = 0;
beforeAll(async () => {
  db = await openTestDatabases()[0]!.open();
  checkout = await checkoutWorld(db);
});
afterAll(() => db.close());

const pick = fc.nat(7);
const part = fc.integer({ min: 1, max: 1100 }).map(BigInt);
const step = fc.oneof(
  fc.record({ kind: fc.constant("open" as const) }),
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("start" as const), which: pick, zh: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("pay" as const), which: pick, wrong: fc.nat(9) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("notify" as const), which: pick, times: fc.nat(2) }) },
  fc.record({ kind: fc.constant("check" as const), which: pick }),
  fc.record({ kind: fc.constant("decline" as const), which: pick }),
  fc.record({ kind: fc.constant("cancel" as const), which: pick }),
  fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(10_000, HOUR_MS, DAY_MS, -HOUR_MS) }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("refund" as const), which: pick, part, fails: fc.nat(5) }) },
  fc.record({ kind: fc.constant("outside" as const), which: pick, part }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("dispute" as const), which: pick, part, end: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("spend" as const), credits: fc.integer({ min: 1, max: 90 }) }),
  },
  fc.record({ kind: fc.constant("outage" as const), after: fc.boolean() }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Dispute {
  readonly paymentId: string;
  readonly reference: string;
  readonly amount: bigint;
  state: "open" | "won" | "lost";
}

/** One VE, and what is known of it from outside. */
class Run {
  readonly veId: string;
  readonly sessions: CheckoutSessionRow[] = [];
  readonly disputes: Dispute[] = [];
  /** Payments whose money was not what was asked for. */
  readonly wrong = new Set<string>();
  spent = 0n;

  constructor(veId: string) {
    this.veId = veId;
  }

  get payments(): string[] {
    const made = [...checkout.processor.payments.values()].filter(({ order }) => order.veId === this.veId);
    return made.map(({ order }) => order.paymentId);
  }

  async send(raw: RawNotification): Promise<void> {
    await receiveNotification(checkout.deps, PaymentProcessor.STRIPE, "pay_a", raw);
  }

  /** What went back of a payment, or is about to, by our own books. */
  async left(paymentId: string): Promise<bigint> {
    const [row] = await db.query<{ left: bigint }>(
      "select amount_minor - refunded_minor as left from payment where id = $1",
      [paymentId],
    );
    return row!.left;
  }
}

/** Refusals and outages are answers like others; anything else is a fault. */
async function tolerate(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    expect(["wrong_state", "unavailable", "payment_refused", "invalid_field", "limit_reached"]).toContain(error.code);
  }
}

async function payStep(run: Run, id: string, wrong: number): Promise<void> {
  const { processor } = checkout;
  if (processor.payments.get(id)!.state !== "pending") return;
  if (wrong === 0) run.wrong.add(id);
  processor.pay(id, wrong === 0 ? { amountMinor: AMOUNT - 1n } : {});
}

async function outside(run: Run, id: string, amount: bigint): Promise<void> {
  const { processor } = checkout;
  const { state, refundedMinor } = processor.payments.get(id)!;
  if (state !== "paid" || run.wrong.has(id) || amount > AMOUNT - refundedMinor || amount > (await run.left(id))) return;
  const raw = processor.refundNotification(id, processor.refundOutside(id, amount));
  await Promise.all([run.send(raw), run.send(raw)]);
}

async function dispute(run: Run, id: string, amount: bigint, end: boolean): Promise<void> {
  const { processor } = checkout;
  if (processor.payments.get(id)!.state !== "paid" || run.wrong.has(id)) return;
  let found = run.disputes.find((each) => each.paymentId === id && each.state === "open");
  if (found === undefined) {
    found = { paymentId: id, reference: `dp_${(ids += 1)}`, amount, state: "open" };
    run.disputes.push(found);
  } else {
    found.state = end ? "won" : "lost";
  }
  await run.send(processor.disputeNotification(id, found.reference, found.state, found.amount));
}

async function refundStep(run: Run, session: CheckoutSessionRow, amountMinor: bigint, fails: number): Promise<void> {
  const { processor } = checkout;
  const lost = () => {
    throw new ProcessorError(fails === 0 ? "unreachable" : "refused", "no", "no");
  };
  if (fails === 0) processor.after = lost;
  if (fails === 1) processor.before = lost;
  const request = { refundId: `rfd_p${(ids += 1)}`, amountMinor, reason: "", paymentId: "" };
  await tolerate(refundSession(checkout.deps, session, request));
  Object.assign(processor, { before: () => {}, after: () => {} });
}

async function outage(run: Run, session: CheckoutSessionRow, after: boolean): Promise<void> {
  const lost = () => {
    throw new ProcessorError("unreachable", "timeout", "no answer");
  };
  checkout.processor[after ? "after" : "before"] = lost;
  await tolerate(startPayment(checkout.deps, session, choiceOf(checkout, { packId: "pack_o" }), "page"));
  await pollPayments(checkout.deps);
  Object.assign(checkout.processor, { before: () => {}, after: () => {} });
}

async function take(run: Run, of: Step): Promise<void> {
  const { deps, processor, world } = checkout;
  if (of.kind === "open" || run.sessions.length === 0) run.sessions.push(await addSession(checkout, run.veId, null));
  if (of.kind === "open") return;
  if (of.kind === "wait") {
    world.advance(of.ms);
    await Promise.all([expireSessions(deps), pollPayments(deps)]);
    return;
  }
  if (of.kind === "spend") {
    run.spent += parseCredits(String(of.credits));
    return spend(checkout, run.veId, of.credits);
  }
  const session = run.sessions[("which" in of ? of.which : 0) % run.sessions.length]!;
  if (of.kind === "start") {
    const language = of.zh ? "zh" : "en";
    return tolerate(startPayment(deps, session, choiceOf(checkout, { language }), "page"));
  }
  if (of.kind === "check") return tolerate(checkSession(deps, session, "page"));
  if (of.kind === "cancel") return tolerate(cancelSession(deps, session, "api"));
  if (of.kind === "refund") return refundStep(run, session, of.part, of.fails);
  if (of.kind === "outage") return outage(run, session, of.after);
  const id = run.payments[of.which % Math.max(1, run.payments.length)];
  if (id === undefined) return;
  if (of.kind === "pay") return payStep(run, id, of.wrong);
  if (of.kind === "outside") return outside(run, id, of.part);
  if (of.kind === "dispute") return dispute(run, id, of.part, of.end);
  if (of.kind === "decline") {
    if (processor.payments.get(id)!.state === "pending") processor.decline(id);
    return;
  }
  const raw = processor.paymentNotification(id);
  await Promise.all(Array.from({ length: of.times + 1 }, () => run.send(raw)));
}

/** Money and Credits agree, seen from the processor's books. */
async function expectConserved(run: Run): Promise<void> {
  let purchased: Credits = 0n;
  for (const row of await listPayments(
    db,
    run.sessions.map(({ id }) => id),
  )) {
    const scripted = checkout.processor.payments.get(row.id);
    const paid = scripted?.state === "paid" && !run.wrong.has(row.id);
    expect([row.id, row.state === PaymentState.FULFILLED]).toEqual([row.id, paid]);
    expect(parseCredits(row.granted)).toBe(paid ? GRANTED : 0n);
    const lost = run.disputes
      .filter(({ paymentId, state }) => paymentId === row.id && state === "lost")
      .reduce((sum, { amount }) => sum + amount, 0n);
    const back = (paid ? scripted.refundedMinor : 0n) + lost;
    const gone = back > AMOUNT ? AMOUNT : back;
    expect(row.refunded_minor).toBe(gone);
    expect(parseCredits(row.taken)).toBe((GRANTED * gone) / AMOUNT);
    purchased += parseCredits(row.granted) - parseCredits(row.taken);
  }
  const wallet = await walletOf(checkout, run.veId);
  expect(parseCredits(wallet.purchased)).toBe(purchased);
  expect(parseCredits(wallet.settled)).toBe(run.spent);
  const short = run.spent > purchased ? run.spent - purchased : 0n;
  expect(parseCredits(wallet.debt)).toBe(short);
  expect(parseCredits(wallet.available)).toBe(purchased + short - run.spent);
  const bad = run.disputes.some(({ state }) => state !== "won");
  expect(await isFrozen(checkout, run.veId)).toBe(bad);
}

it("conserves Credits over payments, refunds, disputes, outages and spending", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const run = new Run(`ve_prop_${(runs += 1)}`);
      await addVe(checkout.world, run.veId);
      for (const each of steps) await take(run, each);
      for (let round = 0; round < 2; round += 1) {
        await pollThrough(checkout, HOUR_MS, 3);
        await expireSessions(checkout.deps);
      }
      // Whatever the processor knows, it has told by now.
      for (const id of run.payments) await run.send(checkout.processor.paymentNotification(id));
      await expectConserved(run);
      await expectSound(checkout);
    }),
    { numRuns: RUNS, interruptAfterTimeLimit: 50_000, markInterruptAsFailure: false },
  );
});
