/** For tests: the orders and refunds of Virtual Payment. */

import { createHmac } from "node:crypto";
import type { Received } from "./testing_http.ts";
import { MERCHANT } from "./testing_keys.ts";
import type { Sessions } from "./testing_sessions.ts";

export interface VirtualOrder {
  readonly kind: "payment" | "refund";
  readonly orderId: string;
  readonly wxOrderId: string;
  readonly openid: string;
  /** What was paid, or refunded. */
  readonly fee: number;
  readonly env: number;
  /** Of a refund: the payment. */
  readonly of: string;
  left: number;
  status: number;
  timeS: number;
}

/** What the payer's phone hands to `wx.requestVirtualPayment`. */
export interface VirtualParams {
  readonly mode: string;
  readonly signData: string;
  readonly paySig: string;
  readonly signature: string;
}

export interface Xpay {
  readonly orders: Map<string, VirtualOrder>;
  answer(received: Received): object;
  payVirtual(params: VirtualParams, openid: string): VirtualOrder;
  refundByHand(orderId: string, fen: number): VirtualOrder;
  settleRefund(orderId: string, status?: number): void;
}

const hmac = (key: string, text: string): string => createHmac("sha256", key).update(text).digest("hex");

const describe = (order: VirtualOrder): object => ({
  order_id: order.orderId,
  wx_order_id: order.wxOrderId,
  status: order.status,
  order_type: order.kind === "refund" ? 1 : 0,
  env_type: order.env + 1,
  paid_time: order.timeS,
  ...(order.kind === "refund"
    ? { refund_fee: order.fee }
    : { order_fee: order.fee, paid_fee: order.fee, left_fee: order.left }),
});

/** As a phone and WeChat check it. */
function checkParams(
  { mode, signData, paySig, signature }: VirtualParams,
  sessionKey: string,
): Record<string, unknown> {
  if (mode !== "short_series_goods") throw new Error("mode");
  if (paySig !== hmac(MERCHANT.virtualAppKey, `requestVirtualPayment&${signData}`)) throw new Error("-15005 paySig");
  if (signature !== hmac(sessionKey, signData)) throw new Error("-15005 signature");
  const data = JSON.parse(signData) as Record<string, unknown>;
  const product = data["offerId"] === MERCHANT.virtualOfferId && data["productId"] === MERCHANT.virtualProductId;
  if (!product || data["goodsPrice"] !== 1 || data["currencyType"] !== "CNY") throw new Error("product");
  if (!/^[0-9A-Za-z\-|*@][0-9A-Za-z_\-|*@]{7,31}$/.test(String(data["outTradeNo"]))) throw new Error("outTradeNo");
  return data;
}

export function createXpay(now: () => number, sessions: Sessions): Xpay {
  let count = 0;
  const orders = new Map<string, VirtualOrder>();
  const nowS = (): number => Math.floor(now() / 1_000);

  function add(order: Pick<VirtualOrder, "kind" | "orderId" | "openid" | "fee" | "env" | "of">): VirtualOrder {
    if (orders.has(order.orderId)) throw new Error("the number was used already");
    const payment = order.kind === "payment";
    const wxOrderId = `${payment ? "VPO" : "VRO"}${String(++count).padStart(12, "0")}`;
    const state = payment ? { left: order.fee, status: 2, timeS: nowS() } : { left: 0, status: 1, timeS: 0 };
    const made = { ...order, wxOrderId, ...state };
    orders.set(order.orderId, made);
    return made;
  }

  function refund(payment: VirtualOrder, orderId: string, fee: number): VirtualOrder {
    payment.left -= fee;
    payment.status = 5;
    return add({ kind: "refund", orderId, fee, of: payment.orderId, openid: payment.openid, env: payment.env });
  }

  function askRefund(payment: VirtualOrder, body: Record<string, unknown>): object {
    const fee = Number(body["refund_fee"]);
    const orderId = String(body["refund_order_id"]);
    if (body["left_fee"] !== payment.left) return { errcode: 268490016, errmsg: "left_fee" };
    if (fee < 1 || fee > payment.left || orders.has(orderId)) return { errcode: 268490013, errmsg: "refused" };
    const { wxOrderId } = refund(payment, orderId, fee);
    return { errcode: 0, errmsg: "ok", refund_order_id: orderId, refund_wx_order_id: wxOrderId };
  }

  return {
    orders,
    answer({ url, body: bytes }) {
      const text = bytes.toString();
      const path = url.pathname;
      if (!sessions.isToken(url.searchParams.get("access_token"))) return { errcode: 40001, errmsg: "credential" };
      if (url.searchParams.get("pay_sig") !== hmac(MERCHANT.virtualAppKey, `${path}&${text}`)) {
        return { errcode: 268490003, errmsg: "sign" };
      }
      const body = JSON.parse(text) as Record<string, unknown>;
      const byWx = [...orders.values()].find((one) => one.wxOrderId === body["wx_order_id"]);
      const order = body["order_id"] === undefined ? byWx : orders.get(String(body["order_id"]));
      const none = { errcode: 268490002, errmsg: "no data" };
      if (order === undefined || order.env !== body["env"]) return none;
      if (path === "/xpay/notify_provide_goods") {
        order.status = 4;
        return { errcode: 0, errmsg: "ok" };
      }
      if (order.openid !== body["openid"]) return none;
      if (path === "/xpay/query_order") return { errcode: 0, errmsg: "OK", order: describe(order) };
      return path === "/xpay/refund_order" ? askRefund(order, body) : { errcode: 48001 };
    },
    payVirtual(params, openid) {
      const data = checkParams(params, sessions.sessionKeyOf(openid));
      const orderId = String(data["outTradeNo"]);
      return add({
        kind: "payment",
        orderId,
        openid,
        fee: Number(data["buyQuantity"]),
        env: Number(data["env"]),
        of: "",
      });
    },
    refundByHand: (orderId, fen) => refund(orders.get(orderId)!, `byhand${++count}`, fen),
    settleRefund: (orderId, status = 8) => void Object.assign(orders.get(orderId)!, { status, timeS: nowS() }),
  };
}
