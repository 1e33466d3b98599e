/** Credits go back with the money that brought them: what is not there any more becomes debt. */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { Deps } from "../api/context.ts";
import { recallUntil } from "../credit_recall.ts";
import type { Database, Tx } from "../db/database.ts";
import { type Refundable } from "../domain/fulfilment.ts";
import { available, planGiveBack, planTaking, type WalletPlan, type WalletRow } from "../domain/wallet.ts";
import { notifyWallet } from "../store/feed_state.ts";
import { postTransfers } from "../store/ledger.ts";
import type { PaymentRow } from "../store/payment.ts";
import { lockWallets, readWallet, writeWallets } from "../store/wallet.ts";
import type { CheckoutDeps } from "./deps.ts";

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

/** Asks the nodes for what they do not use until `wanted` is available, or it takes too long. Outside of transactions. */
export function recallCredits(
  { db, hints }: Pick<CheckoutDeps, "db" | "hints">,
  veId: string,
  wanted: Credits,
): Promise<void> {
  const recall = () => notifyWallet(db, veId, "recall");
  return recallUntil({ hints, subject: veId, recall, tryFirst: true }, async (isLast) =>
    isLast || !(await missing(db, veId, wanted)) ? { result: undefined } : undefined,
  );
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
