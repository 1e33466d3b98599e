/** A small world for tests of checkouts: a merchant with an account at the scripted processor, VEs, sessions, choices. */

import { createHash } from "node:crypto";
import { expect } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { audit } from "../audit.ts";
import type { Database, SqlValue, Tx } from "../db/database.ts";
import { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { ScriptedProcessor } from "../payments/testing.ts";
import { createProcessors } from "../payments/processors.ts";
import {
  addBasics,
  addVe,
  encode,
  MERCHANT,
  type NewVe,
  record,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "../report/testing.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { type CheckoutSessionRow, insertCheckoutSession, readCheckoutSession } from "../store/checkout_session.ts";
import { findPayment, type PaymentRow } from "../store/payment.ts";
import { insertPaymentAccount, type PaymentAccountRow } from "../store/payment_account.ts";
import { readWallet } from "../store/wallet.ts";
import type { CheckoutDeps, Choice } from "./deps.ts";
import { receiveNotification } from "./notifications.ts";
import { pollPayments } from "./poll.ts";
import { startPayment } from "./start.ts";

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

export interface CheckoutWorld {
  readonly world: TestWorld;
  readonly deps: CheckoutDeps;
  readonly processor: ScriptedProcessor;
  readonly account: PaymentAccountRow;
  readonly price: Price;
  readonly node: TestNode;
}

/** For what only reads. */
export interface OnDatabase {
  readonly deps: { readonly db: Database };
}

/** Nobody gives anything back. */
const NO_HINTS = { onCredits: () => () => {} };

export async function addAccount(deps: CheckoutDeps, id: string, merchantId = MERCHANT): Promise<PaymentAccountRow> {
  const row = {
    id,
    merchant_id: merchantId,
    processor: PaymentProcessor.STRIPE,
    name: id,
    credentials: deps.secrets.seal(new Uint8Array([1]), id),
    methods: [PaymentMethod.STRIPE_CHECKOUT],
    test: true,
    hint: "test",
    disabled: false,
  };
  return insertPaymentAccount(deps.db, row, new Date(deps.now()));
}

export async function checkoutWorld(db: Database, more: Partial<CheckoutDeps> = {}): Promise<CheckoutWorld> {
  const world = testWorld(db);
  const processor = new ScriptedProcessor();
  const processors = createProcessors(world.deps.secrets, [processor]);
  const deps: CheckoutDeps = { ...world.deps, processors, hints: NO_HINTS, ...more };
  const price = await addBasics(db);
  const node = new TestNode(reporter(deps), "boot_spender");
  return { world, deps, processor, account: await addAccount(deps, "pay_a"), price, node };
}

/** The world with another database: one that dies, for instance. */
export function withDb(checkout: CheckoutWorld, db: Database): CheckoutWorld {
  return { ...checkout, deps: { ...checkout.deps, db } };
}

/** A finished request of so many Credits, that no lease covers: what the wallet has not becomes debt. */
export async function spend({ node, price }: CheckoutWorld, veId: string, credits: number): Promise<void> {
  await node.send([encode(record(node.recordNo + 1n, veId, credits * 1000, price))]);
}

let secrets = 0;

/** A session of a VE; the VE as well, with `ve`. */
export async function addSession(
  { deps, world }: CheckoutWorld,
  veId: string,
  ve: NewVe | null = {},
): Promise<CheckoutSessionRow> {
  if (ve !== null) await addVe(world, veId, ve);
  const now = deps.now();
  return insertCheckoutSession(deps.db, {
    id: deps.newId("cs_"),
    merchantId: MERCHANT,
    veId,
    secretDigest: new Uint8Array(
      createHash("sha256")
        .update(`secret ${(secrets += 1)}`)
        .digest(),
    ),
    linked: true,
    automatic: false,
    metadata: { order: "7" },
    returnUrl: "",
    now: new Date(now),
    expiresAt: new Date(now + HOUR_MS),
  });
}

/** 10 USD for 100 Credits and 20 more. */
export function choiceOf({ account }: CheckoutWorld, more: Partial<Choice> = {}): Choice {
  return {
    packId: "pack_a",
    label: "Starter",
    currency: "USD",
    amountMinor: 1000n,
    credits: parseCredits("100"),
    bonus: parseCredits("20"),
    account,
    method: PaymentMethod.STRIPE_CHECKOUT,
    wechatCode: "",
    autoTopUp: false,
    language: "en",
    clientAddress: "192.0.2.1",
    merchantName: "Shop",
    ...more,
  };
}

/** A session with a payment that waits for the payer. */
export async function started(
  checkout: CheckoutWorld,
  veId: string,
  more: Partial<Choice> = {},
  ve: NewVe | null = {},
): Promise<{ session: CheckoutSessionRow; payment: PaymentRow }> {
  const session = await addSession(checkout, veId, ve);
  return startPayment(checkout.deps, session, choiceOf(checkout, more), "page");
}

export function sessionOf({ deps }: CheckoutWorld, id: string): Promise<CheckoutSessionRow> {
  return readCheckoutSession(deps.db, MERCHANT, id);
}

export async function paymentOf({ deps }: CheckoutWorld, id: string): Promise<PaymentRow> {
  return (await findPayment(deps.db, id))!;
}

/** The four figures, and what can be spent. */
export async function walletOf({ deps }: CheckoutWorld, veId: string) {
  const { purchased, settled, escrowed, debt } = (await readWallet(deps.db, veId))!;
  const texts = [purchased, settled, escrowed, debt, purchased + debt - settled - escrowed].map(formatCredits);
  const [p, s, e, d, available] = texts;
  return { purchased: p!, settled: s!, escrowed: e!, debt: d!, available: available! };
}

/** Types of the webhook events of a session, oldest first. */
export async function told({ deps }: OnDatabase, sessionId: string): Promise<string[]> {
  const rows = await deps.db.query<{ type: string }>(
    "select type from webhook_event where session_id = $1 order by n",
    [sessionId],
  );
  return rows.map(({ type }) => type);
}

export async function transfersOf({ deps }: OnDatabase, veId: string): Promise<string[]> {
  const rows = await deps.db.query<{ line: string }>(
    `select debit_account || ' -> ' || credit_account || ' ' || trim_scale(credits) || ' ' || reference as line
     from transfer where ve_id = $1 order by n`,
    [veId],
  );
  return rows.map(({ line }) => line);
}

export async function isFrozen({ deps }: OnDatabase, veId: string): Promise<boolean> {
  const [row] = await deps.db.query<{ frozen: boolean }>("select frozen from virtual_endpoint where id = $1", [veId]);
  return row!.frozen;
}

/** Polls until nothing is due, while time passes. */
export async function pollThrough({ deps, world }: CheckoutWorld, ms: number, steps = 20): Promise<void> {
  for (let step = 0; step < steps; step += 1) {
    world.advance(ms / steps);
    await pollPayments(deps);
  }
}

export async function expectSound({ deps }: CheckoutWorld): Promise<void> {
  expect(await audit(deps.db, { deep: true })).toEqual([]);
  expect(await audit(deps.db, { deep: false })).toEqual([]);
}

type Script = Partial<Pick<CheckoutWorld["processor"], "before" | "after" | "refundState">>;

/** Runs `fn` with a processor that behaves like this; afterwards it is well again. */
export async function scripted<T>({ processor }: CheckoutWorld, script: Script, fn: () => Promise<T>): Promise<T> {
  Object.assign(processor, script);
  try {
    return await fn();
  } finally {
    Object.assign(processor, { before: () => {}, after: () => {}, refundState: "succeeded" });
  }
}

/** The processor tells of a payment; the status that it gets for an answer. */
export function notifyOf({ deps, account, processor }: CheckoutWorld, paymentId: string) {
  return receiveNotification(deps, PaymentProcessor.STRIPE, account.id, processor.paymentNotification(paymentId));
}

/** Thrown by a database that died. */
export class Died extends Error {}

/** How a database dies: before its `statement`-th statement, which is after the commit before it. From 1; 0: never. */
export interface Death {
  readonly statement?: number;
}

export interface MortalDatabase extends Database {
  readonly seen: { statements: number };
}

/** `db` until it dies; from then on nothing works, as in a process that was killed. */
export function mortal(db: Database, { statement = 0 }: Death): MortalDatabase {
  const seen = { statements: 0 };
  let dead = false;
  const check = (): void => {
    if (dead) throw new Died("the process was killed");
  };
  const count = (): void => {
    check();
    seen.statements += 1;
    if (seen.statements !== statement) return;
    dead = true;
    check();
  };
  const query = async <Row>(on: Tx, text: string, params?: readonly SqlValue[]): Promise<Row[]> => {
    count();
    return on.query<Row>(text, params);
  };
  return {
    seen,
    dialect: db.dialect,
    async tx(fn) {
      check();
      return db.tx((tx) => fn({ query: (text, params) => query(tx, text, params) }));
    },
    snapshot: (fn) => db.snapshot(fn),
    query: (text, params) => query(db, text, params),
    script: (tx, text) => db.script(tx, text),
    listen: (channel, onNotify, onReady) => db.listen(channel, onNotify, onReady),
    close: () => db.close(),
  };
}
