/** What can be decided on a sandbox payment's page, and what comes of it in the books. */

import type { Tx } from "../db/database.ts";
import {
  insertSandboxMethod,
  lockSandboxPayment,
  type SandboxNotificationKind,
  type SandboxPaymentRow,
  updateSandboxPayment,
} from "../store/sandbox.ts";
import { notify, refundPayment, type SandboxDeps } from "./sandbox.ts";
import {
  half,
  isPayable,
  isPayingChoice,
  paidChoices,
  refundable,
  type SandboxChoice,
  versionOf,
} from "./sandbox_state.ts";

/** How long after `approve_later` the payment is paid. */
export const SANDBOX_DELAY_MS = 10_000;
/** How often `approve_repeatedly` tells of it. */
export const SANDBOX_COPIES = 5;

export interface Decision {
  readonly choice: SandboxChoice;
  /** The method that the payer saves is to fail when it is charged. */
  readonly savedDeclines: boolean;
  /** What the page showed (`versionOf`): a second click on it decides nothing. */
  readonly version: string;
}

async function pay(
  deps: SandboxDeps,
  tx: Tx,
  payment: SandboxPaymentRow,
  { choice, savedDeclines }: Decision,
): Promise<void> {
  const now = new Date(deps.now());
  if (choice === "cancel") return void (await updateSandboxPayment(tx, payment, { state: "closed" }));
  if (choice === "decline") {
    await updateSandboxPayment(tx, payment, { state: "declined" });
    return notify(deps, tx, payment, "payment.declined");
  }
  const methodId = payment.save_method ? deps.newId("sbm_") : null;
  if (methodId !== null)
    await insertSandboxMethod(tx, { id: methodId, account_id: payment.account_id, declines: savedDeclines }, now);
  const payAt = choice === "approve_later" ? new Date(now.getTime() + SANDBOX_DELAY_MS) : null;
  const changes = payAt === null ? ({ state: "paid", paid_at: now } as const) : { pay_at: payAt };
  await updateSandboxPayment(tx, payment, { ...changes, method_id: methodId });
  if (choice === "approve_silently") return;
  const copies = choice === "approve_repeatedly" ? SANDBOX_COPIES : 1;
  await notify(deps, tx, payment, "payment.paid", { copies, sendAt: payAt ?? now });
}

async function settleDispute(
  deps: SandboxDeps,
  tx: Tx,
  payment: SandboxPaymentRow,
  choice: "dispute" | "win_dispute" | "lose_dispute",
): Promise<void> {
  const [state, kind] = (
    {
      dispute: ["open", "dispute.opened"],
      win_dispute: ["won", "dispute.won"],
      lose_dispute: ["lost", "dispute.lost"],
    } as const
  )[choice] satisfies readonly [string, SandboxNotificationKind];
  const disputeId = payment.dispute_id ?? deps.newId("sbd_");
  const changed = await updateSandboxPayment(tx, payment, { dispute_state: state, dispute_id: disputeId });
  await notify(deps, tx, changed, kind);
}

/**
 * Decides about a payment; whether it did. What does not fit how the payment stands by now changes nothing: somebody
 * clicked twice, or went back. Asks nothing about whether the sandbox may be used: whoever calls has, in this transaction.
 */
export async function decide(deps: SandboxDeps, tx: Tx, id: string, decision: Decision): Promise<boolean> {
  const now = new Date(deps.now());
  const payment = await lockSandboxPayment(tx, id, now);
  if (payment === null) return false;
  const { choice } = decision;
  if (isPayingChoice(choice)) {
    if (!isPayable(payment, now)) return false;
    await pay(deps, tx, payment, decision);
    return true;
  }
  if (!paidChoices(payment).includes(choice) || decision.version !== versionOf(payment)) return false;
  if (choice === "refund" || choice === "refund_half") {
    const amountMinor = choice === "refund" ? refundable(payment) : half(payment);
    await refundPayment(deps, tx, payment, { refundId: null, amountMinor });
  } else await settleDispute(deps, tx, payment, choice);
  return true;
}
