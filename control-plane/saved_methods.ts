/** Payment methods that payers save for automatic top-ups: kept sealed, and forgotten at the processor when they are replaced. */

import type { Deps } from "./api/context.ts";
import type { Tx } from "./db/database.ts";
import { unfit } from "./domain/auto_top_up.ts";
import type { Details, SavedMethod } from "./payments/payment.ts";
import type { Processors } from "./payments/processors.ts";
import { SecretsError } from "./secrets.ts";
import {
  type AutoTopUpRow,
  keepPackToBuy,
  lockAutoTopUp,
  methodOwner,
  readAutoTopUpTerms,
  findAutoTopUp,
  saveAutoTopUp,
} from "./store/auto_top_up.ts";
import type { CheckoutSessionRow } from "./store/checkout_session.ts";
import {
  addForgottenMethod,
  claimForgottenMethods,
  dropForgottenMethod,
  type ForgottenMethod,
} from "./store/forgotten_method.ts";
import type { PaymentRow } from "./store/payment.ts";
import { findPaymentAccount } from "./store/payment_account.ts";

/** The payer has just paid: nothing is bought before this, whatever the threshold. */
export const NEW_METHOD_REST_MS = 60_000;
/** Methods that one run asks processors to forget. */
export const FORGET_ROWS_MAX = 20;
/** How long after a try the next one comes. */
export const FORGET_AGAIN_MS = 3_600_000;
/** Then it stays with the processor, and the log says so. */
export const FORGET_TRIES_MAX = 24;

type SealDeps = Pick<Deps, "secrets">;

function seal({ secrets }: SealDeps, veId: string, credentials: Details): Uint8Array {
  return secrets.seal(new TextEncoder().encode(JSON.stringify(credentials)), methodOwner(veId));
}

/** The processor's names for the payment method. @throws SecretsError */
export function openSavedMethod({ secrets }: SealDeps, row: Pick<AutoTopUpRow, "ve_id" | "credentials">): Details {
  const plain = secrets.open(row.credentials, methodOwner(row.ve_id));
  return JSON.parse(new TextDecoder().decode(plain)) as Details;
}

function sameDetails(a: Details, b: Details): boolean {
  const text = (details: Details): string => JSON.stringify(Object.entries(details).toSorted());
  return text(a) === text(b);
}

/** Null: it was sealed with a key that is gone. */
function openIfPossible(deps: SealDeps, row: Pick<AutoTopUpRow, "ve_id" | "credentials">): Details | null {
  try {
    return openSavedMethod(deps, row);
  } catch (error) {
    if (error instanceof SecretsError) return null;
    throw error;
  }
}

/** Keeps what a payer saved, in the transaction that fulfils the payment by which they did. */
export type SaveMethod = (
  tx: Tx,
  payment: Pick<PaymentRow, "account_id">,
  session: Pick<CheckoutSessionRow, "ve_id" | "merchant_id" | "pack_id">,
  saved: SavedMethod,
) => Promise<void>;

/**
 * The pack that was bought is bought again on the terms that the merchant offers. If it cannot be (they changed, or the
 * payer chose the amount), the method is not kept. One that was saved before is replaced. What is not kept is forgotten at
 * the processor, later.
 */
export function methodSaver(deps: Pick<Deps, "secrets" | "log" | "now">): SaveMethod {
  return async (tx, payment, session, saved) => {
    const { ve_id: veId, merchant_id: merchantId, pack_id: packId } = session;
    const now = new Date(deps.now());
    const credentials = seal(deps, veId, saved.credentials);
    const method = { merchantId, veId, accountId: payment.account_id };
    const pack = packId === null ? null : await keepPackToBuy(tx, merchantId, packId);
    const terms = await readAutoTopUpTerms(tx, merchantId);
    const why = pack === null ? "no_pack" : unfit(pack.price, terms);
    if (why !== null) {
      deps.log.warn(
        { ve_id: veId, why },
        "a payment method was saved that automatic top-ups cannot use; it is not kept",
      );
      return addForgottenMethod(tx, { ...method, credentials }, now);
    }
    const before = await lockAutoTopUp(tx, veId);
    const replaced = before === null ? null : openIfPossible(deps, before);
    const isSame =
      before !== null &&
      replaced !== null &&
      before.account_id === payment.account_id &&
      sameDetails(replaced, saved.credentials);
    if (before !== null && !isSame)
      await addForgottenMethod(tx, { ...method, accountId: before.account_id, credentials: before.credentials }, now);
    const tryAt = new Date(now.getTime() + NEW_METHOD_REST_MS);
    await saveAutoTopUp(tx, { ...method, packId: packId!, terms: terms!, credentials, label: saved.label, now, tryAt });
  };
}

export interface ForgetDeps extends Pick<Deps, "db" | "now" | "secrets" | "log"> {
  readonly processors: Pick<Processors, "open">;
}

/** Asks the processor; nothing is left to do if this returns. @throws ProcessorError */
async function forget(deps: ForgetDeps, method: ForgottenMethod): Promise<void> {
  const details = openIfPossible(deps, method);
  const account = await findPaymentAccount(deps.db, method.account_id);
  if (details === null || account === null) {
    deps.log.warn(
      { ve_id: method.ve_id },
      "a saved payment method cannot be read any more, and stays with the processor",
    );
    return;
  }
  // It may have been saved once more.
  const present = await findAutoTopUp(deps.db, method.ve_id);
  const used = present === null ? null : openIfPossible(deps, present);
  if (used !== null && present!.account_id === account.id && sameDetails(used, details)) return;
  await deps.processors.open(account).forgetSaved?.(details);
}

async function forgetOne(deps: ForgetDeps, method: ForgottenMethod): Promise<void> {
  const facts = { ve_id: method.ve_id, payment_account_id: method.account_id };
  try {
    await forget(deps, method);
  } catch (error) {
    const again = method.tries + 1 < FORGET_TRIES_MAX;
    const text = again
      ? "a saved payment method is not yet forgotten"
      : "a saved payment method stays with the processor";
    deps.log.warn({ ...facts, reason: (error as Error).message }, text);
    if (again) return;
  }
  await dropForgottenMethod(deps.db, method.n);
}

/** Has processors forget what is not saved any more; how many were tried. Safe on several replicas at once. */
export async function forgetSavedMethods(deps: ForgetDeps): Promise<number> {
  const now = deps.now();
  const methods = await claimForgottenMethods(deps.db, new Date(now), new Date(now + FORGET_AGAIN_MS), FORGET_ROWS_MAX);
  await Promise.all(methods.map((method) => forgetOne(deps, method)));
  return methods.length;
}
