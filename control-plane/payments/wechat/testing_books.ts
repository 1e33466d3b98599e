/** For tests: the orders and refunds that WeChat Pay remembers, and what it demands of them. */

import { beijingTime } from "./numbers.ts";
import { MERCHANT } from "./testing_keys.ts";

export interface PayOrder {
  readonly body: Record<string, unknown>;
  readonly outTradeNo: string;
  readonly total: number;
  readonly notifyUrl: string;
  /** `code_url` or `prepay_id`. */
  readonly token: string;
  state: "NOTPAY" | "SUCCESS" | "REFUND" | "CLOSED" | "USERPAYING" | "PAYERROR" | "REVOKED";
  transactionId: string;
  paidAtMs: number;
}

export interface PayRefund {
  readonly refundId: string;
  readonly outRefundNo: string;
  readonly outTradeNo: string;
  readonly refund: number;
  status: "PROCESSING" | "SUCCESS" | "CLOSED" | "ABNORMAL";
}

/** An answer that is no success. */
export class PayRefusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message = code) {
    super(message);
    this.name = "PayRefusal";
    this.status = status;
    this.code = code;
  }
}

type Body = Readonly<Record<string, unknown>>;
interface Amount {
  readonly total: number;
  readonly refund: number;
  readonly currency: string;
}
const amountOf = (body: Body): Amount => body["amount"] as Amount;

function checkOrder(way: string, body: Body): void {
  const wrong = (what: string): never => {
    throw new PayRefusal(400, "PARAM_ERROR", what);
  };
  const openid = (body["payer"] as { openid?: string } | undefined)?.openid ?? "";
  const description = String(body["description"]);
  const { total, currency } = amountOf(body);
  if (body["mchid"] !== MERCHANT.merchantNumber) wrong("mchid");
  if (body["appid"] !== MERCHANT.appId && body["appid"] !== MERCHANT.miniProgramAppId) {
    throw new PayRefusal(400, "APPID_MCHID_NOT_MATCH");
  }
  if (!/^[0-9A-Za-z_\-|*]{6,32}$/.test(String(body["out_trade_no"]))) wrong("out_trade_no");
  if (description === "" || Buffer.byteLength(description) > 127) wrong("description");
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00$/.test(String(body["time_expire"]))) wrong("time_expire");
  if (/[?#]/.test(String(body["notify_url"]))) wrong("notify_url");
  if (!Number.isSafeInteger(total) || total < 1 || currency !== "CNY") wrong("amount");
  if (way === "jsapi" && openid === "") wrong("payer.openid");
  if (way === "jsapi" && !openid.startsWith(`o-${String(body["appid"])}`)) {
    throw new PayRefusal(500, "OPENID_MISMATCH");
  }
}

export interface Books {
  readonly orders: Map<string, PayOrder>;
  readonly refunds: Map<string, PayRefund>;
  /** Of the merchant, in fen. */
  balance: number;
  /** The answers of WeChat Pay. @throws PayRefusal */
  make(way: string, body: Body): object;
  describe(order: PayOrder): Record<string, unknown>;
  describeRefund(refund: PayRefund): Record<string, unknown>;
  askRefund(body: Body): object;
  /** What happens there without us. */
  payOrder(outTradeNo: string): PayOrder;
  settleRefund(outRefundNo: string, status: PayRefund["status"]): PayRefund;
  refundByHand(outTradeNo: string, fen: number): PayRefund;
}

/** What an order answers a second attempt to make it with. */
function checkAgain(known: PayOrder, body: Body): void {
  if (known.state === "CLOSED") throw new PayRefusal(400, "ORDER_CLOSED");
  if (known.state !== "NOTPAY") throw new PayRefusal(400, "ORDERPAID");
  if (JSON.stringify(known.body) !== JSON.stringify(body)) {
    throw new PayRefusal(400, "INVALID_REQUEST", "the same order number with other parameters");
  }
}

function newOrder(way: string, body: Body, id: (prefix: string) => string): PayOrder {
  return {
    body,
    outTradeNo: String(body["out_trade_no"]),
    total: amountOf(body).total,
    notifyUrl: String(body["notify_url"]),
    token: way === "native" ? `weixin://wxpay/bizpayurl?pr=${id("c")}` : id("wx20141027200939"),
    state: "NOTPAY",
    transactionId: "",
    paidAtMs: 0,
  };
}

const isPaid = ({ state }: PayOrder): boolean => state === "SUCCESS" || state === "REFUND";

function describe(order: PayOrder): Record<string, unknown> {
  const known = {
    appid: order.body["appid"],
    mchid: order.body["mchid"],
    out_trade_no: order.outTradeNo,
    trade_state: order.state,
    trade_state_desc: order.state,
    amount: { total: order.total, currency: "CNY" },
  };
  if (!isPaid(order)) return known;
  return {
    ...known,
    amount: { ...known.amount, payer_total: order.total, payer_currency: "CNY" },
    transaction_id: order.transactionId,
    bank_type: "OTHERS",
    success_time: beijingTime(order.paidAtMs),
  };
}

export function createBooks(now: () => number): Books {
  let count = 0;
  const id = (prefix: string): string => `${prefix}${String(++count).padStart(10, "0")}`;
  const orders = new Map<string, PayOrder>();
  const refunds = new Map<string, PayRefund>();

  function makeRefund(order: PayOrder, outRefundNo: string, fen: number): PayRefund {
    const given = [...refunds.values()].filter((one) => one.outTradeNo === order.outTradeNo && one.status !== "CLOSED");
    const sum = given.reduce((total, one) => total + one.refund, 0);
    if (!isPaid(order)) throw new PayRefusal(400, "INVALID_REQUEST", "not paid");
    if (fen < 1 || sum + fen > order.total) throw new PayRefusal(400, "INVALID_REQUEST", "more than was paid");
    if (fen > books.balance) throw new PayRefusal(403, "NOT_ENOUGH");
    books.balance -= fen;
    order.state = "REFUND";
    const { outTradeNo } = order;
    const refund: PayRefund = { refundId: id("5030"), outRefundNo, outTradeNo, refund: fen, status: "PROCESSING" };
    refunds.set(outRefundNo, refund);
    return refund;
  }

  const books: Books = {
    orders,
    refunds,
    balance: 1e9,
    make(way, body) {
      checkOrder(way, body);
      const known = orders.get(String(body["out_trade_no"]));
      if (known !== undefined) checkAgain(known, body);
      const order = known ?? newOrder(way, body, id);
      orders.set(order.outTradeNo, order);
      return way === "native" ? { code_url: order.token } : { prepay_id: order.token };
    },
    describe,
    describeRefund(refund) {
      const { transactionId, total } = orders.get(refund.outTradeNo)!;
      return {
        refund_id: refund.refundId,
        out_refund_no: refund.outRefundNo,
        out_trade_no: refund.outTradeNo,
        transaction_id: transactionId,
        status: refund.status,
        amount: { total, refund: refund.refund, currency: "CNY" },
      };
    },
    askRefund(body) {
      const amount = amountOf(body);
      const order = [...orders.values()].find((one) => isPaid(one) && one.transactionId === body["transaction_id"]);
      const outRefundNo = String(body["out_refund_no"]);
      if (order === undefined) throw new PayRefusal(404, "RESOURCE_NOT_EXISTS");
      if (amount.total !== order.total || amount.currency !== "CNY") throw new PayRefusal(400, "PARAM_ERROR");
      const known = refunds.get(outRefundNo);
      if (known !== undefined && known.refund !== amount.refund) {
        throw new PayRefusal(400, "INVALID_REQUEST", "the same refund number with another amount");
      }
      return books.describeRefund(known ?? makeRefund(order, outRefundNo, amount.refund));
    },
    payOrder(outTradeNo) {
      const order = orders.get(outTradeNo);
      if (order?.state !== "NOTPAY") throw new Error(`the order is ${order?.state}`);
      const paidAtMs = Math.floor(now() / 1_000) * 1_000;
      return Object.assign(order, { state: "SUCCESS", transactionId: id("42000"), paidAtMs });
    },
    settleRefund: (outRefundNo, status) => Object.assign(refunds.get(outRefundNo)!, { status }),
    refundByHand: (outTradeNo, fen) => makeRefund(orders.get(outTradeNo)!, id("byhand"), fen),
  };
  return books;
}
