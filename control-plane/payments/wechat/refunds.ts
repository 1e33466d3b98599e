/** Refunds of WeChat Pay APIv3. (pay.weixin.qq.com/doc/v3/merchant/4012791862, …/4012791863) */

import { ProcessorError, type RefundOrder, type RefundStatus } from "../payment.ts";
import { payFailure } from "./client.ts";
import { fieldOf, integerOf, type Json, textOf } from "./json.ts";
import { cutText, refundNumber } from "./numbers.ts";
import { isNotFound, type WechatAccount } from "./transactions.ts";

const REASON_BYTES_MAX = 80;

/**
 * `ABNORMAL`: the money could not reach the payer's card. The merchant ends it by hand, and then it becomes `SUCCESS`, so it
 * is no failure yet. Null: a word that is not known.
 */
export function refundState(word: string): Pick<RefundStatus, "state" | "failure"> | null {
  switch (word) {
    case "SUCCESS":
      return { state: "succeeded", failure: "" };
    case "PROCESSING":
      return { state: "pending", failure: "" };
    case "ABNORMAL":
      return { state: "pending", failure: "abnormal" };
    case "CLOSED":
      return { state: "failed", failure: "closed" };
    default:
      return null;
  }
}

/** What a signed answer says of a refund, if it is the one that was asked for. */
function statusOf(order: RefundOrder, refund: Json | null): RefundStatus {
  const reference = textOf(refund, "refund_id");
  const state = refundState(textOf(refund, "status"));
  if (reference === "" || state === null) {
    throw new ProcessorError("unreachable", "malformed", "WeChat Pay does not say how the refund stands");
  }
  const own =
    textOf(refund, "out_refund_no") === refundNumber(order.refundId) &&
    textOf(refund, "transaction_id") === order.settledReference &&
    integerOf(fieldOf(refund, "amount"), "refund") === Number(order.amountMinor);
  if (!own) {
    throw new ProcessorError(
      "misconfigured",
      "other_refund",
      "WeChat Pay tells of another refund, or of another amount",
    );
  }
  return { reference, ...state };
}

/** The same refund number gives money back once, however often it is sent. @throws ProcessorError */
export async function refundTransaction({ pay }: WechatAccount, order: RefundOrder): Promise<RefundStatus> {
  const reason = cutText(order.reason, REASON_BYTES_MAX);
  const answer = await pay.call("POST", "/v3/refund/domestic/refunds", {
    transaction_id: order.settledReference,
    out_refund_no: refundNumber(order.refundId),
    ...(reason === "" ? {} : { reason }),
    notify_url: order.notificationUrl,
    amount: {
      refund: Number(order.amountMinor),
      total: Number(order.payment.amountMinor),
      currency: order.payment.currency,
    },
  });
  if (isNotFound(answer)) {
    // Said of fresh payments too, for a while.
    throw new ProcessorError(
      "unreachable",
      "payment_not_found",
      "WeChat Pay does not know the payment: it is asked again",
    );
  }
  if (answer.code !== "") throw payFailure(answer);
  return statusOf(order, answer.body);
}

/** @throws ProcessorError */
export async function findTransactionRefund(account: WechatAccount, order: RefundOrder): Promise<RefundStatus> {
  const number = encodeURIComponent(refundNumber(order.refundId));
  const answer = await account.pay.call("GET", `/v3/refund/domestic/refunds/${number}`, null);
  if (isNotFound(answer)) return refundTransaction(account, order);
  if (answer.code !== "") throw payFailure(answer);
  return statusOf(order, answer.body);
}
