/** The first step of every payment: it is written down before any processor hears of it. */

import { formatCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { requireMove } from "../domain/checkout.ts";
import type { CheckoutCause, CheckoutSessionRow } from "../store/checkout_session.ts";
import { insertPayment, type PaymentRow } from "../store/payment.ts";
import { type CheckoutDeps, type Choice, choiceKey } from "./deps.ts";
import { advance } from "./story.ts";

/** A processor that was asked to make a payment, and did not answer, is asked again after this long at the soonest. */
export const START_CHECK_MS = 60_000;

/** In a locked session. @throws DomainError wrong_state */
export async function beginPayment(
  tx: Tx,
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  choice: Choice,
  cause: CheckoutCause,
): Promise<{ readonly session: CheckoutSessionRow; readonly payment: PaymentRow }> {
  const now = new Date(deps.now());
  const { packId, label, account, language, merchantName, clientAddress } = choice;
  const bought = {
    currency: choice.currency,
    amount_minor: choice.amountMinor,
    credits: formatCredits(choice.credits),
    bonus: formatCredits(choice.bonus),
  };
  const payment = await insertPayment(
    tx,
    {
      ...bought,
      id: deps.newId("pmt_"),
      session_id: session.id,
      merchant_id: session.merchant_id,
      ve_id: session.ve_id,
      account_id: account.id,
      processor: account.processor,
      method: choice.method,
      choice: choiceKey(choice),
      terms: { language, merchantName, clientAddress },
      auto_top_up: choice.autoTopUp,
      check_at: new Date(now.getTime() + START_CHECK_MS),
    },
    now,
  );
  const state = requireMove(session.state, "start");
  const chosen = { state, pack_id: packId, label, ...bought, failure: "" };
  return { session: await advance(tx, deps, session, chosen, { cause, detail: payment.id }), payment };
}
