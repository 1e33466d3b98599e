/** A payer disputes a payment at their bank: the VE is frozen until that is decided, and Credits go with the money. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import { canonicalCredits } from "../api/convert.ts";
import type { Tx } from "../db/database.ts";
import { creditsFor, disputed, hasMoney, leftToRefund, undisputed } from "../domain/fulfilment.ts";
import type { Notification } from "../payments/payment.ts";
import { type CheckoutSessionRow, lockCheckoutSession } from "../store/checkout_session.ts";
import {
  DisputeRowState,
  type DisputeRow,
  findDispute,
  insertDispute,
  listOpenDisputes,
  lockFrozen,
  updateDispute,
} from "../store/dispute.ts";
import { nextRevision, notifyWallet } from "../store/feed_state.ts";
import { findPayment, lockPayment, type PaymentRow, updatePayment } from "../store/payment.ts";
import { setFrozen } from "../store/virtual_endpoint.ts";
import type { CheckoutDeps } from "./deps.ts";
import type { Verdict } from "./external_refund.ts";
import { fulfil } from "./fulfil.ts";
import { refundedFields } from "./refund_end.ts";
import { advance, priceOf, tell } from "./story.ts";
import { recallCredits, refundable, takeCredits } from "./take_back.ts";

export type DisputeNews = Extract<Notification["about"], { readonly kind: "dispute" }>;

interface Ground {
  readonly tx: Tx;
  readonly deps: CheckoutDeps;
  readonly session: CheckoutSessionRow;
  readonly payment: PaymentRow;
  /** Null: the VE was deleted. */
  readonly frozen: boolean | null;
  readonly now: Date;
}

function disputeData(dispute: DisputeRow, payment: PaymentRow): Record<string, unknown> {
  return {
    id: dispute.id,
    payment_id: dispute.payment_id,
    amount: priceOf({ currency: payment.currency, amount_minor: dispute.amount_minor }),
    reason: dispute.reason,
    credits_taken: canonicalCredits(dispute.taken),
    credits_debt: canonicalCredits(dispute.became_debt),
    processor_reference: dispute.reference,
  };
}

/** In state `open`; what is decided already follows in the same transaction. */
function insert({ tx, deps, payment, frozen, now }: Ground, news: DisputeNews): Promise<DisputeRow> {
  return insertDispute(
    tx,
    {
      id: deps.newId("dsp_"),
      session_id: payment.session_id,
      payment_id: payment.id,
      merchant_id: payment.merchant_id,
      account_id: payment.account_id,
      reference: news.reference,
      state: DisputeRowState.open,
      amount_minor: news.amountMinor,
      reason: news.reason,
      froze: frozen === false && news.state !== "won",
      taken: "0",
      became_debt: "0",
    },
    now,
  );
}

/** Freezing takes a revision of the feed, and comes last. */
async function freeze({ tx, payment, frozen, now }: Ground): Promise<void> {
  if (frozen === false) await setFrozen(tx, payment.ve_id, true, await nextRevision(tx), now);
  await notifyWallet(tx, payment.ve_id, "recall");
}

async function open(ground: Ground, news: DisputeNews): Promise<void> {
  const { tx, deps, session, payment } = ground;
  const dispute = await insert(ground, news);
  const detail = `${dispute.id}: ${news.reason}`.slice(0, 500);
  const next = await advance(tx, deps, session, disputed(session), { cause: "webhook", detail });
  await tell(tx, deps, "dispute.opened", next, { dispute: disputeData(dispute, payment) });
  await freeze(ground);
}

/** Open disputes of the VE that go on, and whether one of them is of this session. */
async function others({ tx, session, payment }: Ground, { id }: DisputeRow): Promise<[DisputeRow[], boolean]> {
  const rest = (await listOpenDisputes(tx, payment.ve_id)).filter((each) => each.id !== id);
  return [rest, rest.some(({ session_id: of }) => of === session.id)];
}

async function win(ground: Ground, before: DisputeRow): Promise<void> {
  const { tx, deps, session, payment, frozen, now } = ground;
  const [rest, here] = await others(ground, before);
  const dispute = await updateDispute(tx, before, { state: DisputeRowState.won }, now);
  const fields = here ? {} : undisputed(session);
  const next = await advance(tx, deps, session, fields, { cause: "webhook", detail: `${dispute.id}: won` });
  await tell(tx, deps, "dispute.won", next, { dispute: disputeData(dispute, payment) });
  if (!dispute.froze) return;
  // Who froze the VE first answers for all: the next one takes that over.
  const heir = rest[0];
  if (heir !== undefined) await updateDispute(tx, heir, { froze: true }, now);
  else if (frozen === true) await setFrozen(tx, payment.ve_id, false, await nextRevision(tx), now);
}

async function lose(ground: Ground, before: DisputeRow): Promise<void> {
  const { tx, deps, session, now } = ground;
  const [rest, here] = await others(ground, before);
  const left = leftToRefund(refundable(ground.payment));
  const amount = before.amount_minor < left ? before.amount_minor : left;
  const credits = creditsFor(refundable(ground.payment), amount);
  const cause = { reference: `dispute:${before.id}`, reason: `dispute ${before.id} lost` };
  const took = await takeCredits(tx, deps, ground.payment, amount === 0n ? 0n : credits, cause);
  const changes = {
    refunded_minor: ground.payment.refunded_minor + amount,
    taken: formatCredits(parseCredits(ground.payment.taken) + parseCredits(took.taken)),
    check_at: null,
  };
  const payment = await updatePayment(tx, ground.payment, changes, now);
  const dispute = await updateDispute(tx, before, { state: DisputeRowState.lost, ...took }, now);
  const refunded = amount === 0n ? {} : await refundedFields(tx, session, payment, amount);
  const fields = here ? refunded : { ...refunded, ...undisputed({ ...session, ...refunded }) };
  const next = await advance(tx, deps, session, fields, { cause: "webhook", detail: `${dispute.id}: lost` });
  await tell(tx, deps, "dispute.lost", next, { dispute: disputeData(dispute, payment) });
  // It stays frozen until the merchant decides otherwise, also when another dispute that froze it is won.
  for (const each of rest) if (each.froze) await updateDispute(tx, each, { froze: false }, now);
  await freeze(ground);
}

async function apply(tx: Tx, deps: CheckoutDeps, of: PaymentRow, news: DisputeNews): Promise<void> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.session_id);
  const payment = await lockPayment(tx, of.id);
  const frozen = await lockFrozen(tx, payment.ve_id);
  const known = await findDispute(tx, of.account_id, news.reference);
  const ground: Ground = { tx, deps, session, payment, frozen, now: new Date(deps.now()) };
  if (news.state === "open") {
    // Known ones were told of before, or are decided already: notifications overtake each other.
    if (known === null) await open(ground, news);
    return;
  }
  if (known !== null && known.state !== DisputeRowState.open) return;
  const dispute = known ?? (await insert(ground, news));
  await (news.state === "won" ? win(ground, dispute) : lose(ground, dispute));
}

/**
 * Does what a dispute at a processor asks for, each turn of it once and in whatever order they arrive. `payment` is the
 * one it is about, of the account that tells it; null: none is known.
 * @throws ProcessorError when the processor has to be asked and does not answer
 */
export async function receiveDispute(
  deps: CheckoutDeps,
  payment: PaymentRow | null,
  news: DisputeNews,
): Promise<Verdict> {
  if (payment === null) return "ignored";
  // How one that is known ended counts, whatever is left of its money.
  if (news.amountMinor <= 0n && (await findDispute(deps.db, payment.account_id, news.reference)) === null)
    return "ignored";
  if (!hasMoney(payment.state)) await fulfil(deps, payment.id, "webhook");
  const paid = (await findPayment(deps.db, payment.id))!;
  if (!hasMoney(paid.state)) return "ignored";
  if (news.state === "lost") {
    await recallCredits(deps, paid.ve_id, creditsFor(refundable(paid), news.amountMinor));
  }
  await deps.db.tx((tx) => apply(tx, deps, paid, news));
  deps.log.warn({ payment: paid.id, dispute: news.reference, state: news.state }, "a payment is disputed");
  return "accepted";
}
