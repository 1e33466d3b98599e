/**
 * Virtual Payment of Mini Programs (`wx.requestVirtualPayment`, `short_series_goods`). The order is made by the payer's phone
 * from what is signed here; the server asks, refunds, and says that the goods were delivered. One product whose price is 1 fen
 * is sold as often as the amount has fen. (developers.weixin.qq.com/miniprogram/dev/server/API/VirtualPayment/)
 */

import {
  type KnownPayment,
  type PaymentOrder,
  type PaymentStatus,
  ProcessorError,
  type RefundOrder,
  type RefundStatus,
  type StartedPayment,
} from "../payment.ts";
import type { XpayAnswer } from "./apps.ts";
import { fieldOf, integerOf, type Json, textOf } from "./json.ts";
import { orderNumber, refundNumber } from "./numbers.ts";
import { hmacHex, virtualPaySig } from "./signing.ts";
import type { WechatAccount } from "./transactions.ts";

const MODE = "short_series_goods";
const UNIT_FEN = 1;
/** The payer's phone may make the order, or WeChat tell of it, somewhat later than we would have it. */
const GRACE_MS = 3_600_000;

const NOT_FOUND = 268490002;
/** The same was asked before, and was done. */
const REPEATED = 268490004;
const AGAIN: ReadonlyMap<number, string> = new Map([
  [268490014, "refund_running"],
  [268490016, "left_fee_changed"],
]);

/** What an order or a refund can be (`status`). */
const Status = {
  INIT: 0,
  CREATED: 1,
  PAID: 2,
  DELIVERING: 3,
  DELIVERED: 4,
  REFUNDED: 5,
  CLOSED: 6,
  REFUND_FAILED: 7,
  PAYER_REFUNDED: 8,
  ADVERTISING_RECOVERED: 9,
  SHARES_RETURNED: 10,
} as const;

const REFUND_ORDER = 1;

const environment = ({ credentials }: WechatAccount): number => (credentials.virtualSandbox ? 1 : 0);

/** @throws ProcessorError */
export async function startVirtual(account: WechatAccount, order: PaymentOrder): Promise<StartedPayment> {
  const { credentials, apps } = account;
  const { openId, sessionKey } = await apps.session(order.wechatCode);
  if (sessionKey === "") throw new ProcessorError("unreachable", "malformed", "WeChat gave no session key");
  const reference = orderNumber(order.paymentId);
  // Signed as these very characters: whoever passes it on must not write it anew.
  const signData = JSON.stringify({
    offerId: credentials.virtualOfferId,
    buyQuantity: Number(order.amountMinor) / UNIT_FEN,
    env: environment(account),
    currencyType: order.currency,
    productId: credentials.virtualProductId,
    goodsPrice: UNIT_FEN,
    outTradeNo: reference,
    attach: order.paymentId,
  });
  return {
    reference,
    action: {
      kind: "wechat_virtual",
      mode: MODE,
      signData,
      paySig: virtualPaySig(credentials.virtualAppKey, "requestVirtualPayment", signData),
      signature: hmacHex(sessionKey, signData),
    },
    // Nothing can be asked about the order without it.
    details: { openid: openId },
  };
}

function failure({ errcode }: XpayAnswer): ProcessorError {
  const again = AGAIN.get(errcode);
  if (again !== undefined) return new ProcessorError("unreachable", again, `WeChat: ask again (${errcode})`);
  return new ProcessorError("refused", `errcode_${errcode}`, `WeChat refused it (${errcode})`);
}

/** By our number of an order or a refund, or by WeChat's. Null: there is none. @throws ProcessorError */
export async function queryVirtual(
  account: WechatAccount,
  openid: string,
  number: { readonly order_id: string } | { readonly wx_order_id: string },
): Promise<Json | null> {
  const answer = await account.apps.xpay("/xpay/query_order", { openid, env: environment(account), ...number });
  if (answer.errcode === NOT_FOUND) return null;
  if (answer.errcode !== 0) throw failure(answer);
  const order = fieldOf(answer.body, "order");
  // Seen where there was nothing.
  if (order === null) return null;
  const live = integerOf(order, "env_type");
  const other = live !== null && live !== environment(account) + 1;
  const named =
    "order_id" in number
      ? textOf(order, "order_id") === number.order_id
      : textOf(order, "wx_order_id") === number.wx_order_id;
  if (other || !named) {
    throw new ProcessorError(
      "misconfigured",
      "other_order",
      "WeChat tells of another order, or of the other environment",
    );
  }
  return order;
}

/**
 * Where no messages are pushed, WeChat has not heard that the goods are delivered, and does not settle. Nothing depends on
 * it, so a failure is only noted.
 */
async function sayDelivered(account: WechatAccount, orderNo: string): Promise<void> {
  try {
    const answer = await account.apps.xpay("/xpay/notify_provide_goods", {
      order_id: orderNo,
      env: environment(account),
    });
    if (answer.errcode === 0 || answer.errcode === REPEATED) return;
    account.deps.log.warn(
      { order: orderNo, errcode: answer.errcode },
      "WeChat does not take it that the goods are delivered",
    );
  } catch (error) {
    if (!(error instanceof ProcessorError)) throw error;
    account.deps.log.warn(
      { order: orderNo, failure: error.failure },
      "WeChat could not be told that the goods are delivered",
    );
  }
}

const isPaid = (status: number): boolean =>
  (status >= Status.PAID && status <= Status.REFUNDED) ||
  (status >= Status.REFUND_FAILED && status <= Status.SHARES_RETURNED);

function statusOf(account: WechatAccount, payment: KnownPayment, order: Json): PaymentStatus {
  if (integerOf(order, "order_type") === REFUND_ORDER) {
    throw new ProcessorError("misconfigured", "other_order", "WeChat tells of a refund where a payment was asked for");
  }
  const status = integerOf(order, "status") ?? -1;
  if (status === Status.INIT || status === Status.CREATED) return { state: "pending" };
  if (status === Status.CLOSED) return { state: "closed" };
  if (!isPaid(status))
    throw new ProcessorError("unreachable", "unknown_state", "WeChat tells of a state that is not known");
  const fee = integerOf(order, "paid_fee");
  const reference = textOf(order, "wx_order_id");
  if (fee === null || fee < 0 || reference === "") {
    throw new ProcessorError("unreachable", "malformed", "WeChat does not say what was paid");
  }
  const paidTimeS = integerOf(order, "paid_time") ?? 0;
  return {
    state: "paid",
    currency: "CNY",
    amountMinor: BigInt(fee),
    settledReference: reference,
    paymentId: payment.paymentId,
    paidAtMs: paidTimeS > 0 ? paidTimeS * 1_000 : account.deps.now(),
    details: { wx_order_id: reference },
    savedMethod: null,
  };
}

const isOver = (account: WechatAccount, payment: KnownPayment): boolean =>
  account.deps.now() >= payment.expiresAtMs + GRACE_MS;

/**
 * WeChat does not know the order until the payer's phone has made it, so for a while it can be paid although it is not there.
 * @throws ProcessorError
 */
export async function findVirtual(account: WechatAccount, payment: KnownPayment): Promise<PaymentStatus> {
  const openid = payment.details["openid"] ?? "";
  // The payer never got what was signed.
  if (payment.reference === null || openid === "") return { state: "unknown" };
  const order = await queryVirtual(account, openid, { order_id: payment.reference });
  if (order === null) return { state: isOver(account, payment) ? "unknown" : "pending" };
  const status = statusOf(account, payment, order);
  const undelivered = [Status.PAID, Status.DELIVERING].some((one) => one === integerOf(order, "status"));
  if (undelivered && account.credentials.messageToken === "") await sayDelivered(account, payment.reference);
  return status;
}

/**
 * Nobody can close an order of Virtual Payment, or take back what was signed. After its time it counts as closed; if it is
 * paid nevertheless, the push of it says so.
 * @throws ProcessorError
 */
export async function closeVirtual(account: WechatAccount, payment: KnownPayment): Promise<PaymentStatus> {
  const status = await findVirtual(account, payment);
  return isOver(account, payment) && status.state === "pending" ? { state: "closed" } : status;
}

/** How a refund stands, by what `query_order` says of it. */
export function virtualRefundState(refund: Json): Pick<RefundStatus, "state" | "failure"> {
  const status = integerOf(refund, "status") ?? -1;
  if (status === Status.REFUND_FAILED) return { state: "failed", failure: "refund_failed" };
  const timed = (integerOf(refund, "paid_time") ?? 0) > 0;
  const over = status >= Status.PAYER_REFUNDED && status <= Status.SHARES_RETURNED;
  return { state: over || (status === Status.REFUNDED && timed) ? "succeeded" : "pending", failure: "" };
}

function payerOf(order: RefundOrder): string {
  const openid = order.payment.details["openid"] ?? "";
  if (openid !== "") return openid;
  throw new ProcessorError(
    "refused",
    "payer_unknown",
    "WeChat takes the refund only with the payer's openid, which is not known: refund it at mp.weixin.qq.com",
  );
}

/** Null: WeChat has not heard of it. */
async function knownRefund(account: WechatAccount, order: RefundOrder): Promise<RefundStatus | null> {
  const refund = await queryVirtual(account, payerOf(order), { order_id: refundNumber(order.refundId) });
  if (refund === null) return null;
  const fee = integerOf(refund, "refund_fee");
  if (fee !== null && fee !== Number(order.amountMinor)) {
    throw new ProcessorError("misconfigured", "other_refund", "WeChat tells of another amount of this refund");
  }
  const reference = textOf(refund, "wx_order_id") || refundNumber(order.refundId);
  return { reference, ...virtualRefundState(refund) };
}

/**
 * Asks for a refund unless WeChat has heard of it. WeChat wants to be told what is left of the payment, so that is asked
 * first. What was paid on iOS only Apple refunds, and WeChat refuses.
 * @throws ProcessorError
 */
export async function refundVirtual(account: WechatAccount, order: RefundOrder): Promise<RefundStatus> {
  const known = await knownRefund(account, order);
  if (known !== null) return known;
  const openid = payerOf(order);
  const orderNo = orderNumber(order.payment.paymentId);
  const payment = await queryVirtual(account, openid, { order_id: orderNo });
  if (payment === null) throw new ProcessorError("refused", "payment_not_found", "WeChat does not know the payment");
  const left = integerOf(payment, "left_fee") ?? integerOf(payment, "paid_fee") ?? 0;
  if (Number(order.amountMinor) > left) {
    throw new ProcessorError("refused", "amount_exceeds", "less is left of the payment than is to be refunded");
  }
  const answer = await account.apps.xpay("/xpay/refund_order", {
    openid,
    order_id: orderNo,
    refund_order_id: refundNumber(order.refundId),
    left_fee: left,
    refund_fee: Number(order.amountMinor),
    biz_meta: order.refundId,
    // 5 and 3: other reasons, other sources.
    refund_reason: "5",
    req_from: "3",
    env: environment(account),
  });
  if (answer.errcode !== 0 && answer.errcode !== REPEATED) throw failure(answer);
  const reference = textOf(answer.body, "refund_wx_order_id") || refundNumber(order.refundId);
  return { state: "pending", reference, failure: "" };
}
