/** For tests only: VEs with a saved payment method, and an engine that charges as a test says. */

import { parseCredits } from "../core/credits.ts";
import type { AutomaticCharge, ChargeResult } from "./checkout/automatic.ts";
import type { Database, Tx } from "./db/database.ts";
import { CheckoutState, PaymentMethod, PaymentProcessor, PaymentState } from "./domain/checkout.ts";
import type { Details } from "./payments/payment.ts";
import { addMerchant, addVe, MERCHANT, type TestWorld } from "./report/testing.ts";
import { methodSaver } from "./saved_methods.ts";
import { type CheckoutSessionRow, insertCheckoutSession, updateCheckoutSession } from "./store/checkout_session.ts";
import { insertPayment } from "./store/payment.ts";
import { adjustWallet } from "./store/wallet.ts";

export const PACK = "pack_a";
export const ACCOUNT = "pay_a";
/** What the pack costs, in cents, and brings. */
export const PRICE_MINOR = 1000n;
export const PACK_CREDITS = "100";
export const CARD: Details = { customer: "cus_1", payment_method: "pm_secret_1" };

export interface Shop {
  readonly timeZone?: string;
  readonly threshold?: string;
  readonly dailyMinor?: bigint;
}

export async function addPack(
  db: Database,
  id: string,
  more: Record<string, string | bigint | null> = {},
): Promise<void> {
  const pack = {
    merchant_id: MERCHANT,
    currency: "USD",
    amount_minor: PRICE_MINOR,
    min_minor: null,
    max_minor: null,
    ...more,
  };
  await db.query(
    `insert into credit_pack (id, merchant_id, label, currency, amount_minor, credits, bonus, min_minor, max_minor, created_at, updated_at)
     values ($1, $2, 'Ten', $3, $4, $5, 0, $6, $7, now(), now())`,
    [id, pack.merchant_id, pack.currency, pack.amount_minor, PACK_CREDITS, pack.min_minor, pack.max_minor],
  );
}

/** A merchant with one pack and one account, who offers automatic top-ups. */
export async function addShop(db: Database, { timeZone = "UTC", threshold = "50", dailyMinor = 3000n }: Shop = {}) {
  await addMerchant(db);
  await db.query("update merchant set time_zone = $2 where id = $1", [MERCHANT, timeZone]);
  await addPack(db, PACK);
  await db.query(
    `insert into payment_account (id, merchant_id, processor, name, methods, test, hint, created_at, updated_at)
     values ($1, $2, $3, 'a', '{7}', true, '', now(), now())`,
    [ACCOUNT, MERCHANT, PaymentProcessor.SANDBOX],
  );
  await db.query(
    `insert into checkout_settings (merchant_id, display_name, auto_top_up_offered, auto_top_up_threshold, auto_top_up_currency,
       auto_top_up_daily_minor, updated_at) values ($1, 'The Shop', true, $2, 'USD', $3, now())`,
    [MERCHANT, threshold, dailyMinor],
  );
}

export async function setTerms(db: Database, dailyMinor: bigint | null): Promise<void> {
  await db.query(
    "update checkout_settings set auto_top_up_daily_minor = $1::bigint, auto_top_up_offered = $1::bigint is not null",
    [dailyMinor],
  );
}

/** A payer pays with this card and agrees. */
export async function saveCard(
  { deps }: TestWorld,
  veId: string,
  credentials: Details = CARD,
  packId: string | null = PACK,
): Promise<void> {
  const save = methodSaver(deps);
  const session = { ve_id: veId, merchant_id: MERCHANT, pack_id: packId };
  await deps.db.tx((tx) => save(tx, { account_id: ACCOUNT }, session, { label: "Visa 4242", credentials }));
}

export async function addCustomer(world: TestWorld, veId: string, credits = "10"): Promise<void> {
  await addVe(world, veId, { credits });
  await saveCard(world, veId);
}

/** What one charge does: how its session ends now, or at which step the process is gone. */
export type Script =
  | "fulfil"
  | "pending"
  | "die_before"
  | "die_after"
  | "die_fulfilled"
  | { readonly decline: string }
  | { readonly refuse: string };

export class Died extends Error {}

/** What the engine does, as far as automatic top-ups can see it. */
export class FakeEngine {
  readonly world: TestWorld;
  /** What the next charges do; then all are fulfilled. */
  readonly scripts: Script[] = [];
  readonly charges: AutomaticCharge[] = [];
  /** Runs in the middle of a charge, when its session is there. */
  meanwhile: (veId: string) => Promise<void> = () => Promise.resolve();

  constructor(world: TestWorld) {
    this.world = world;
  }

  readonly charge = async (order: AutomaticCharge): Promise<ChargeResult> => {
    this.charges.push(order);
    const script = this.scripts.shift() ?? "fulfil";
    if (script === "die_before") throw new Died("before the session");
    if (typeof script === "object" && "refuse" in script) return { failure: script.refuse };
    const session = await this.begin(order);
    await this.meanwhile(order.veId);
    if (script === "die_after") throw new Died("after the session");
    if (script === "pending") return "pending";
    if (typeof script === "object") {
      await this.end(session.id, CheckoutState.FAILED, script.decline);
      return { failure: script.decline };
    }
    await this.fulfil(session.id);
    if (script === "die_fulfilled") throw new Died("after the money");
    return "fulfilled";
  };

  private get now(): Date {
    return new Date(this.world.deps.now());
  }

  private async begin({ veId, merchantId, choice }: AutomaticCharge): Promise<CheckoutSessionRow> {
    const { db, newId } = this.world.deps;
    const { now } = this;
    const id = newId("cs_");
    return db.tx(async (tx) => {
      const session = await insertCheckoutSession(tx, {
        id,
        merchantId,
        veId,
        secretDigest: new TextEncoder().encode(id),
        linked: false,
        automatic: true,
        metadata: {},
        returnUrl: "",
        now,
        expiresAt: new Date(now.getTime() + 3_600_000),
      });
      const amounts = {
        currency: choice.currency,
        amount_minor: choice.amountMinor,
        credits: PACK_CREDITS,
        bonus: "0",
      };
      const payment = {
        ...{ id: newId("pmt_"), session_id: id, merchant_id: merchantId, ve_id: veId, account_id: choice.account.id },
        ...{ processor: choice.account.processor, method: PaymentMethod.SANDBOX, choice: "", auto_top_up: false },
      };
      await insertPayment(tx, { ...payment, ...amounts, terms: {}, check_at: null }, now);
      return updateCheckoutSession(tx, session, { state: CheckoutState.PENDING, ...amounts }, now);
    });
  }

  private async write(tx: Tx, sessionId: string, state: CheckoutState, payment: PaymentState, failure: string) {
    const { now } = this;
    await tx.query("update checkout_session set state = $2, failure = $3, updated_at = $4 where id = $1", [
      ...[sessionId, state, failure],
      now,
    ]);
    await tx.query("update payment set state = $2 where session_id = $1", [sessionId, payment]);
  }

  /** The money came. */
  async fulfil(sessionId: string): Promise<void> {
    const { db, newId } = this.world.deps;
    await db.tx(async (tx) => {
      const [session] = await tx.query<{ ve_id: string; merchant_id: string }>(
        "select ve_id, merchant_id from checkout_session where id = $1",
        [sessionId],
      );
      await this.write(tx, sessionId, CheckoutState.FULFILLED, PaymentState.FULFILLED, "");
      await adjustWallet(tx, {
        veId: session!.ve_id,
        merchantId: session!.merchant_id,
        credits: parseCredits(PACK_CREDITS),
        reason: "test",
        transferId: newId("tr_"),
        now: this.now.getTime(),
      });
    });
  }

  /** No money came; with `unsettled`, it still may. */
  async end(sessionId: string, state: CheckoutState, failure: string, unsettled = false): Promise<void> {
    const payment = unsettled ? PaymentState.PENDING : PaymentState.FAILED;
    await this.world.deps.db.tx((tx) => this.write(tx, sessionId, state, payment, failure));
  }
}
