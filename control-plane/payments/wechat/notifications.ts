/**
 * Notifications of WeChat Pay APIv3: signed by WeChat Pay, encrypted for the merchant.
 * (pay.weixin.qq.com/doc/v3/merchant/4012791861, …/4012791865)
 */

import { type Notification, NotificationRefused, type RawNotification } from "../payment.ts";
import { type Verdict, verifySigned } from "./certificates.ts";
import { fieldOf, integerOf, type Json, parseObject, textOf } from "./json.ts";
import { paymentIdOf, refundIdOf } from "./numbers.ts";
import { refundState } from "./refunds.ts";
import { decryptResource } from "./signing.ts";
import type { WechatAccount } from "./transactions.ts";

export const BODY_BYTES_MAX = 64 * 1024;

const REASONS: Readonly<Record<Exclude<Verdict, "good">, readonly [string, string]>> = {
  unsigned: ["bad_signature", "it has no signature"],
  bad: ["bad_signature", "its signature is wrong"],
  unknown_serial: ["bad_signature", "it was signed with a key that is not WeChat Pay's"],
  stale: ["stale", "it was signed at another time"],
};

export function malformed(message: string): NotificationRefused {
  return new NotificationRefused("malformed", message);
}

/** What is inside, after everything was checked. */
function opened(account: WechatAccount, envelope: Json): Json {
  const resource = fieldOf(envelope, "resource");
  const plain = decryptResource(account.credentials.apiV3Key, {
    nonce: textOf(resource, "nonce"),
    associatedData: textOf(resource, "associated_data"),
    ciphertext: textOf(resource, "ciphertext"),
  });
  if (plain === null) throw new NotificationRefused("undecryptable", "api_v3_key does not open it");
  const content = parseObject(plain);
  if (content === null) throw malformed("what was encrypted is no JSON object");
  if (textOf(content, "mchid") !== account.credentials.merchantNumber) {
    throw new NotificationRefused("other_account", "it is of another merchant number");
  }
  return content;
}

function aboutOf(type: string, content: Json): Notification["about"] {
  const orderNo = textOf(content, "out_trade_no");
  const paymentId = paymentIdOf(orderNo);
  // Another system of the same merchant has made the order.
  if (paymentId === null) return { kind: "nothing" };
  const references = [orderNo, textOf(content, "transaction_id")].filter((one) => one !== "");
  if (type.startsWith("TRANSACTION.")) return { kind: "payment", paymentId, references };
  if (!type.startsWith("REFUND.")) return { kind: "nothing" };
  const reference = textOf(content, "refund_id");
  const refund = integerOf(fieldOf(content, "amount"), "refund");
  const state = refundState(textOf(content, "refund_status"));
  if (reference === "" || refund === null || refund <= 0 || state === null)
    throw malformed("it does not say what was refunded");
  return {
    kind: "refund",
    paymentId,
    references,
    refundId: refundIdOf(textOf(content, "out_refund_no")),
    refund: {
      reference,
      amountMinor: BigInt(refund),
      currency: "CNY",
      reason: "refunded at WeChat Pay",
      state: state.state,
    },
  };
}

/** @throws NotificationRefused; ProcessorError when WeChat Pay's keys could not be fetched */
export async function readPayNotification(account: WechatAccount, raw: RawNotification): Promise<Notification> {
  if (raw.method !== "POST" || raw.body.length > BODY_BYTES_MAX) throw malformed("it is no notification");
  const verdict = await verifySigned(account.pay.keys.find, raw.headers, raw.body, raw.nowMs);
  if (verdict !== "good") throw new NotificationRefused(...REASONS[verdict]);
  const envelope = parseObject(raw.body);
  const type = textOf(envelope, "event_type");
  if (envelope === null || type === "" || textOf(envelope, "id") === "") throw malformed("it is no notification");
  return { eventId: textOf(envelope, "id"), kind: type, about: aboutOf(type, opened(account, envelope)) };
}
