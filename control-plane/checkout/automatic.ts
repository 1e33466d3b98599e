/** Automatic top-ups: a saved payment method is charged without the payer. */

import { createHash } from "node:crypto";
import { isUniqueViolation } from "../db/errors.ts";
import { PaymentState } from "../domain/checkout.ts";
import { CHECK_FIRST_MS } from "../domain/fulfilment.ts";
import { type Details, type PaymentStatus, ProcessorError } from "../payments/payment.ts";
import { type CheckoutSessionRow, insertCheckoutSession, lockCheckoutSession } from "../store/checkout_session.ts";
import { lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { beginPayment } from "./begin.ts";
import type { CheckoutDeps, Choice } from "./deps.ts";
import { isUnreachable, openAccount, orderOf } from "./processor.ts";
import { type Settled, settle } from "./settle.ts";

/** Banks can take a day to answer; until then no other automatic top-up of the VE begins. */
export const AUTOMATIC_EXPIRE_MS = 86_400_000;

export interface AutomaticCharge {
  readonly veId: string;
  readonly merchantId: string;
  /** `autoTopUp` counts as false: nothing is saved anew. */
  readonly choice: Choice;
  /** The processor's names for the saved payment method. */
  readonly saved: Details;
}

/**
 * `pending`: it is under way, or another one of this VE is. A failure is a word: of the processor (`card_declined`), of ours
 * (`not_supported`, `wallet_full`).
 */
export type ChargeResult = "fulfilled" | "pending" | { readonly failure: string };

interface Begun {
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
}

function begin(deps: CheckoutDeps, { veId, merchantId, choice }: AutomaticCharge): Promise<Begun> {
  return deps.db.tx(async (tx) => {
    const now = new Date(deps.now());
    const made = await insertCheckoutSession(tx, {
      id: deps.newId("cs_"),
      merchantId,
      veId,
      // Nobody is told the secret.
      secretDigest: new Uint8Array(createHash("sha256").update(deps.newId("none_")).digest()),
      linked: false,
      automatic: true,
      metadata: {},
      returnUrl: "",
      now,
      expiresAt: new Date(now.getTime() + AUTOMATIC_EXPIRE_MS),
    });
    return beginPayment(tx, deps, made, { ...choice, autoTopUp: false, clientAddress: "" }, "job");
  });
}

/** What the processor calls it, so that it is found again; and then what became of it. */
async function keep(
  deps: CheckoutDeps,
  of: PaymentRow,
  answer: { readonly reference: string; readonly details: Details; readonly status: PaymentStatus },
): Promise<Settled> {
  await deps.db.tx(async (tx) => {
    await lockCheckoutSession(tx, of.merchant_id, of.session_id);
    const payment = await lockPayment(tx, of.id);
    if (payment.state !== PaymentState.STARTING) return;
    const now = new Date(deps.now());
    const check_at = new Date(now.getTime() + CHECK_FIRST_MS);
    const { reference, details } = answer;
    await updatePayment(tx, payment, { state: PaymentState.PENDING, reference, details, checks: 0, check_at }, now);
  });
  return settle(deps, of, { status: answer.status, cause: "job" });
}

function resultOf({ payment, problem }: Settled): ChargeResult {
  if (payment.state === PaymentState.FULFILLED) return "fulfilled";
  if (problem !== null) return { failure: problem };
  if (payment.state === PaymentState.FAILED) return { failure: payment.failure };
  return payment.state === PaymentState.CLOSED ? { failure: "closed" } : "pending";
}

async function charge(deps: CheckoutDeps, { session, payment }: Begun, of: AutomaticCharge): Promise<Settled | null> {
  try {
    const account = openAccount(deps, of.choice.account);
    if (account.chargeSaved === undefined) {
      throw new ProcessorError("refused", "not_supported", "the processor charges no saved methods");
    }
    return await keep(deps, payment, await account.chargeSaved(orderOf(deps, session, payment, ""), of.saved));
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    deps.log.warn({ payment: payment.id, failure: error.failure }, "a saved payment method could not be charged");
    if (isUnreachable(error)) return null;
    return settle(deps, payment, { status: { state: "failed", failure: error.failure }, cause: "job" });
  }
}

/**
 * Buys a pack for a VE with a saved payment method, as an automatic Checkout Session of its own. One at a time for each VE.
 * When the processor does not answer, the payment stays under way, and the poller finds out.
 */
export async function chargeAutomatically(deps: CheckoutDeps, of: AutomaticCharge): Promise<ChargeResult> {
  let begun: Begun;
  try {
    begun = await begin(deps, of);
  } catch (error) {
    if (isUniqueViolation(error, "checkout_session_automatic")) return "pending";
    throw error;
  }
  const settled = await charge(deps, begun, of);
  return settled === null ? "pending" : resultOf(settled);
}
