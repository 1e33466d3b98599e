/** Credits go back with the money that brought them: what is not there any more becomes debt. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { CreditHints } from "../api/wallet_calls.ts";
import type { Deps } from "../api/context.ts";
import type { Database, Tx } from "../db/database.ts";
import { type Refundable } from "../domain/fulfilment.ts";
import { available, planGiveBack, planTaking, type WalletPlan, type WalletRow } from "../domain/wallet.ts";
import { notifyWallet, notifyWallets } from "../store/feed_state.ts";
import { postTransfers } from "../store/ledger.ts";
import type { PaymentRow } from "../store/payment.ts";
import { lockWallets, readWallet, writeWallets } from "../store/wallet.ts";

/** How long nodes are given to return what they do not use. */
export const RECALL_WAIT_MS = 500;

export function refundable(payment: PaymentRow): Refundable {
  return {
    amountMinor: payment.amount_minor,
    refundedMinor: payment.refunded_minor,
    granted: parseCredits(payment.granted),
    taken: parseCredits(payment.taken),
  };
}

async function missing(db: Database, veId: string, wanted: Credits): Promise<boolean> {
  const wallet = await readWallet(db, veId);
  return wallet !== null && wallet.escrowed > 0n && available(wallet) < wanted;
}

/**
 * Asks the nodes to give back what their leases of a VE hold and they do not use, until `wanted` is available or
 * RECALL_WAIT_MS are over. Outside of transactions: no lock is held meanwhile.
 */
export async function recallCredits(
  { db, hints }: { readonly db: Database; readonly hints: CreditHints },
  veId: string,
  wanted: Credits,
): Promise<void> {
  if (wanted === 0n || !(await missing(db, veId, wanted))) return;
  // Heard before asked: an answer can be faster than the statement that asks.
  let bell = Promise.withResolvers<void>();
  let timeIsUp = false;
  const stop = hints.onCredits(veId, () => bell.resolve());
  const timer = setTimeout(() => {
    timeIsUp = true;
    bell.resolve();
  }, RECALL_WAIT_MS);
  try {
    await notifyWallets(db, [{ veId, kind: "recall" }]);
    while (!timeIsUp && (await missing(db, veId, wanted))) {
      await bell.promise;
      bell = timeIsUp ? bell : Promise.withResolvers<void>();
    }
  } finally {
    clearTimeout(timer);
    stop();
  }
}

/** The cause of a movement of Credits, unique for ever, and why for people. */
export interface MovementCause {
  readonly reference: string;
  readonly reason: string;
}

async function move<Plan extends WalletPlan>(
  tx: Tx,
  deps: Deps,
  { ve_id: veId, merchant_id: merchantId }: PaymentRow,
  cause: MovementCause,
  plan: (wallet: WalletRow, transfer: MovementCause & { veId: string; merchantId: string; transferId: string }) => Plan,
): Promise<Plan> {
  // Wallets outlive their VEs.
  const wallet = (await lockWallets(tx, [veId])).get(veId);
  if (wallet === undefined) throw new Error(`the VE ${veId} has no wallet`);
  const planned = plan(wallet, { ...cause, veId, merchantId, transferId: deps.newId("tr_") });
  const now = deps.now();
  await writeWallets(tx, now, new Map([[veId, planned.wallet]]));
  await postTransfers(tx, now, planned.transfers);
  return planned;
}

export interface Taken {
  /** Decimals, as they are stored. */
  readonly taken: string;
  readonly became_debt: string;
}

const NOTHING: Taken = { taken: "0", became_debt: "0" };

/** Takes Credits of a locked payment back. The caller writes what was taken. */
export async function takeCredits(
  tx: Tx,
  deps: Deps,
  payment: PaymentRow,
  credits: Credits,
  cause: MovementCause,
): Promise<Taken> {
  if (credits <= 0n) return NOTHING;
  const { taken, becameDebt } = await move(tx, deps, payment, cause, (wallet, transfer) =>
    planTaking(wallet, credits, transfer),
  );
  return { taken: formatCredits(taken), became_debt: formatCredits(becameDebt) };
}

/** Gives back what was taken, because the money stayed after all. The nodes hear of it. */
export async function giveCreditsBack(
  tx: Tx,
  deps: Deps,
  payment: PaymentRow,
  credits: Credits,
  cause: MovementCause,
): Promise<void> {
  if (credits <= 0n) return;
  await move(tx, deps, payment, cause, (wallet, transfer) => planGiveBack(wallet, credits, transfer));
  await notifyWallet(tx, payment.ve_id, "topped_up");
}
