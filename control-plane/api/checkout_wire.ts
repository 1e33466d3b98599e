/** Checkout Sessions as messages: everything for merchants, and for payers what concerns them. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type CheckoutEvent,
  CheckoutEventSchema,
  type CheckoutSession,
  CheckoutSessionSchema,
  type Payment,
  PaymentSchema,
  type Refund,
  RefundSchema,
} from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import type { StartPaymentResponseSchema } from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import type { Tx } from "../db/database.ts";
import type { PaymentAction } from "../payments/payment.ts";
import { type CheckoutEventRow, type CheckoutSessionRow, listCheckoutEvents } from "../store/checkout_session.ts";
import { listPayments, type PaymentRow } from "../store/payment.ts";
import { listRefunds, type RefundRow } from "../store/refund.ts";
import { canonicalCredits, optionalTime } from "./convert.ts";
import { toMoney } from "./money_fields.ts";

/** Lines of a session's story that are shown: the newest. */
const EVENTS_MAX = 100;

/** What payers read in place of the word for a problem: that a person has to look. */
export const PROBLEM_FOR_PAYERS = "review";

export type Audience = "merchant" | "payer";

function toPayment(row: PaymentRow, audience: Audience): Payment {
  return create(PaymentSchema, {
    id: row.id,
    paymentAccountId: row.account_id,
    processor: row.processor,
    method: row.method,
    state: row.state,
    price: toMoney(row.currency, row.amount_minor),
    creditsGranted: canonicalCredits(row.granted),
    processorReference: audience === "merchant" ? (row.settled_reference ?? row.reference ?? "") : "",
    failure: row.failure,
    transferId: row.transfer_id ?? "",
    createTime: timestampFromDate(row.created_at),
  });
}

/** A refund has the currency of its payment. */
export function toRefund(row: RefundRow, currency: string, audience: Audience): Refund {
  const forMerchant = audience === "merchant";
  return create(RefundSchema, {
    id: row.id,
    paymentId: row.payment_id,
    amount: toMoney(currency, row.amount_minor),
    creditsTaken: canonicalCredits(row.taken),
    creditsDebt: canonicalCredits(row.became_debt),
    state: row.state,
    reason: forMerchant ? row.reason : "",
    external: row.external,
    processorReference: forMerchant ? (row.reference ?? "") : "",
    createTime: timestampFromDate(row.created_at),
  });
}

function toEvent(row: CheckoutEventRow): CheckoutEvent {
  return create(CheckoutEventSchema, {
    time: timestampFromDate(row.at),
    fromState: row.from_state,
    toState: row.to_state,
    cause: row.cause,
    detail: row.detail,
  });
}

function toSession(
  row: CheckoutSessionRow,
  payments: readonly PaymentRow[],
  refunds: readonly RefundRow[],
  audience: Audience,
): CheckoutSession {
  const forMerchant = audience === "merchant";
  const { currency } = row;
  const currencies = new Map(payments.map((payment) => [payment.id, payment.currency]));
  return create(CheckoutSessionSchema, {
    id: row.id,
    veId: row.ve_id,
    state: row.state,
    creditPackId: row.pack_id ?? "",
    label: row.label,
    price: currency === null || row.amount_minor === null ? undefined : toMoney(currency, row.amount_minor),
    credits: row.credits === null ? "" : canonicalCredits(row.credits),
    bonusCredits: row.bonus === null ? "" : canonicalCredits(row.bonus),
    returnUrl: row.return_url,
    metadata: forMerchant ? row.metadata : {},
    payments: payments.map((payment) => toPayment(payment, audience)),
    refunds: refunds.map((refund) => toRefund(refund, currencies.get(refund.payment_id)!, audience)),
    failure: row.failure,
    problem: row.problem === "" || forMerchant ? row.problem : PROBLEM_FOR_PAYERS,
    automatic: row.automatic,
    creditsGranted: canonicalCredits(row.granted),
    refunded: currency === null ? undefined : toMoney(currency, row.refunded_minor),
    createTime: timestampFromDate(row.created_at),
    expireTime: timestampFromDate(row.expires_at),
    payTime: optionalTime(row.paid_at),
    fulfillTime: optionalTime(row.fulfilled_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

/** Sessions with their payments and refunds, read in two statements. */
export async function readSessions(
  tx: Tx,
  rows: readonly CheckoutSessionRow[],
  audience: Audience,
): Promise<CheckoutSession[]> {
  if (rows.length === 0) return [];
  const ids = rows.map(({ id }) => id);
  const payments = await listPayments(tx, ids);
  const refunds = await listRefunds(tx, ids);
  return rows.map((row) => {
    const own = <Part extends { session_id: string }>(parts: readonly Part[]): Part[] =>
      parts.filter((part) => part.session_id === row.id);
    return toSession(row, own(payments), own(refunds), audience);
  });
}

export async function readSession(tx: Tx, row: CheckoutSessionRow, audience: Audience): Promise<CheckoutSession> {
  const [session] = await readSessions(tx, [row], audience);
  return session!;
}

/** The story of a session, for merchants. */
export async function readStory(tx: Tx, sessionId: string): Promise<CheckoutEvent[]> {
  return (await listCheckoutEvents(tx, sessionId, EVENTS_MAX)).map(toEvent);
}

/** Null: there is nothing to do, as the payment is under way by itself. */
export function toAction(action: PaymentAction | null): MessageInitShape<typeof StartPaymentResponseSchema>["action"] {
  switch (action?.kind) {
    case undefined:
      return { case: undefined };
    case "redirect":
      return { case: "redirectUrl", value: action.url };
    case "qr_code":
      return { case: "qrCode", value: action.text };
    case "wechat_pay": {
      const { kind: _, ...params } = action;
      return { case: "wechatPay", value: params };
    }
    case "wechat_virtual": {
      const { kind: _, ...params } = action;
      return { case: "wechatVirtual", value: params };
    }
  }
}
