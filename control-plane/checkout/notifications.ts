/** What processors tell us. They are believed in one thing only: whom to ask about. */

import type { PaymentProcessor } from "../domain/checkout.ts";
import { PROCESSOR_WORDS } from "../domain/fulfilment.ts";
import {
  type Notification,
  type NotificationAnswer,
  NotificationRefused,
  type ProcessorAccount,
  type RawNotification,
} from "../payments/payment.ts";
import { findPayment, findPaymentByReference, listLivePayments, type PaymentRow } from "../store/payment.ts";
import { findPaymentAccount, noteNotification, type PaymentAccountRow } from "../store/payment_account.ts";
import { ACCEPTED, addNotification, wasAccepted } from "../store/payment_notification.ts";
import type { CheckoutDeps } from "./deps.ts";
import { receiveDispute } from "./dispute.ts";
import { receiveRefund, type Verdict } from "./external_refund.ts";
import { fulfil } from "./fulfil.ts";
import { notificationsTotal } from "./metrics.ts";
import { openAccount } from "./processor.ts";

/** Of texts that are kept for the log. */
const TEXT_CHARS_MAX = 200;
/** References that one notification can name. */
const REFERENCES_MAX = 16;
/** Payments that are asked about when a refund or dispute is of none that is known. */
const LIVE_ASKED_MAX = 10;

const NO_ACCOUNT: NotificationAnswer = { status: 404, type: "text/plain", body: "there is no such payment account" };
const TRY_AGAIN: NotificationAnswer = { status: 503, type: "text/plain", body: "try again later" };

interface Heard {
  readonly deps: CheckoutDeps;
  readonly row: PaymentAccountRow;
}

function keep(
  { deps, row }: Heard,
  { eventId, kind, subject }: { readonly eventId: string; readonly kind: string; readonly subject: string },
  verdict: Verdict,
): Promise<void> {
  notificationsTotal.inc({ processor: PROCESSOR_WORDS[row.processor], verdict });
  const note = {
    accountId: row.id,
    // One without an id is never a repetition.
    eventId: eventId === "" ? deps.newId("none_") : eventId.slice(0, TEXT_CHARS_MAX),
    kind: kind.slice(0, TEXT_CHARS_MAX),
    subject: subject.slice(0, TEXT_CHARS_MAX),
    verdict: verdict.slice(0, TEXT_CHARS_MAX),
  };
  return addNotification(deps.db, note, deps.now());
}

type Concerning = Exclude<Notification["about"], { readonly kind: "nothing" }>;

/** Of this account alone: what another merchant's processor says is about nothing of ours. */
async function findSubject({ deps, row }: Heard, about: Concerning): Promise<PaymentRow | null | "other_account"> {
  const byId = about.paymentId === null ? null : await findPayment(deps.db, about.paymentId);
  if (byId !== null) return byId.account_id === row.id ? byId : "other_account";
  const references = about.references.slice(0, REFERENCES_MAX);
  const known = await findPaymentByReference(deps.db, row.id, references);
  if (known !== null || about.kind === "payment") return known;
  // Money goes back that is not known to have come: it may be that of a payment whose own notification is late or lost.
  for (const { id } of await listLivePayments(deps.db, row.id, LIVE_ASKED_MAX)) await fulfil(deps, id, "webhook");
  return findPaymentByReference(deps.db, row.id, references);
}

/** @throws ProcessorError when the processor has to be asked and does not answer */
async function act(heard: Heard, { about }: Notification): Promise<Verdict> {
  const { deps, row } = heard;
  if (about.kind === "nothing") return "ignored";
  const payment = await findSubject(heard, about);
  if (payment === "other_account") return payment;
  if (about.kind === "refund") return receiveRefund(deps, row.id, payment, about);
  if (about.kind === "dispute") return receiveDispute(deps, payment, about);
  if (payment === null) return "ignored";
  const settled = await fulfil(deps, payment.id, "webhook");
  // Money that waits for room in the wallet was told of rightly.
  const problem = settled?.problem ?? null;
  return problem === null || problem === "wallet_full" || problem === "ve_deleted" ? ACCEPTED : problem;
}

function subjectOf({ about }: Notification): string {
  if (about.kind === "nothing") return "";
  if (about.kind === "refund") return about.refundId ?? about.refund.reference;
  if (about.kind === "dispute") return about.reference;
  return about.paymentId ?? about.references[0] ?? "";
}

/** Does the work, and notes that it is done afterwards: a repetition of what failed works again. */
async function work(heard: Heard, notification: Notification): Promise<void> {
  const { deps, row } = heard;
  const { eventId, kind } = notification;
  const facts = { eventId, kind, subject: subjectOf(notification) };
  await noteNotification(deps.db, row.id, new Date(deps.now()));
  if (eventId !== "" && (await wasAccepted(deps.db, row.id, eventId.slice(0, TEXT_CHARS_MAX)))) {
    await keep(heard, facts, "duplicate");
    return;
  }
  const verdict = await act(heard, notification);
  if (verdict !== ACCEPTED && verdict !== "ignored") {
    deps.log.warn({ account: row.id, kind, subject: facts.subject, verdict }, "a notification was rejected");
  }
  await keep(heard, facts, verdict);
}

async function receive(heard: Heard, account: ProcessorAccount, raw: RawNotification): Promise<NotificationAnswer> {
  const { deps, row } = heard;
  try {
    await work(heard, await account.readNotification(raw));
    return account.answerNotification(raw, null);
  } catch (error) {
    if (error instanceof NotificationRefused) {
      deps.log.warn({ account: row.id, reason: error.reason }, "a notification was not believed");
      await keep(heard, { eventId: "", kind: "", subject: "" }, error.reason);
      return account.answerNotification(raw, error);
    }
    notificationsTotal.inc({ processor: PROCESSOR_WORDS[row.processor], verdict: "failed" });
    deps.log.error({ account: row.id, reason: (error as Error).message }, "a notification could not be worked on");
    return account.answerNotification(raw, new NotificationRefused("unavailable", "try again later"));
  }
}

/**
 * Takes a notification of a processor: verified, remembered, acted on. The answer is what the processor wants to hear; it
 * is an error whenever the work was not done, so that the processor repeats it. Never throws.
 */
export async function receiveNotification(
  deps: CheckoutDeps,
  processor: PaymentProcessor,
  accountId: string,
  raw: RawNotification,
): Promise<NotificationAnswer> {
  try {
    const row = await findPaymentAccount(deps.db, accountId);
    if (row === null || row.processor !== processor) {
      notificationsTotal.inc({ processor: PROCESSOR_WORDS[processor], verdict: "unknown_account" });
      return NO_ACCOUNT;
    }
    return await receive({ deps, row }, openAccount(deps, row), raw);
  } catch (error) {
    notificationsTotal.inc({ processor: PROCESSOR_WORDS[processor], verdict: "failed" });
    deps.log.error({ account: accountId, reason: (error as Error).message }, "a notification could not be received");
    return TRY_AGAIN;
  }
}
