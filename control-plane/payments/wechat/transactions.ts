/**
 * Native, JSAPI and Mini Program payments of WeChat Pay APIv3: one kind of order, paid in three ways. The order number is the
 * payment's id, so asking again with the same order gives the same order. (pay.weixin.qq.com/doc/v3/merchant/4012791832,
 * …/4012791877, …/4012791897 for Native, JSAPI and the query)
 */

import { PaymentMethod } from "../../domain/checkout.ts";
import {
  type KnownPayment,
  type PaidPayment,
  type PaymentAction,
  type PaymentOrder,
  type PaymentStatus,
  ProcessorError,
  type ProcessorDeps,
  type StartedPayment,
} from "../payment.ts";
import type { Apps } from "./apps.ts";
import { type PayAnswer, type PayClient, payFailure } from "./client.ts";
import type { WechatCredentials } from "./credentials.ts";
import { fieldOf, integerOf, type Json, textOf } from "./json.ts";
import { beijingTime, cutText, orderNumber, paymentIdOf } from "./numbers.ts";
import { paySign } from "./signing.ts";

const DESCRIPTION_BYTES_MAX = 127;
const NONCE_BYTES = 16;

/** An account, opened. */
export interface WechatAccount {
  readonly deps: ProcessorDeps;
  readonly credentials: WechatCredentials;
  readonly pay: PayClient;
  readonly apps: Apps;
}

const NOT_FOUND: ReadonlySet<string> = new Set(["ORDERNOTEXIST", "RESOURCENOTEXISTS", "NOTFOUND"]);
const ALREADY_PAID: ReadonlySet<string> = new Set(["ORDERPAID"]);

export function isNotFound(answer: PayAnswer): boolean {
  return NOT_FOUND.has(answer.code);
}

/** The app that the payer sees, and that the order is made for. */
function appOf({ credentials }: WechatAccount, method: PaymentMethod): string {
  return method === PaymentMethod.WECHAT_MINI_PROGRAM ? credentials.miniProgramAppId : credentials.appId;
}

function orderBody(account: WechatAccount, order: PaymentOrder): Json {
  const seller = order.merchantName === "" ? "" : `${order.merchantName} - `;
  return {
    appid: appOf(account, order.method),
    mchid: account.credentials.merchantNumber,
    description: cutText(`${seller}${order.description}`, DESCRIPTION_BYTES_MAX),
    out_trade_no: orderNumber(order.paymentId),
    time_expire: beijingTime(order.expiresAtMs),
    notify_url: order.notificationUrl,
    amount: { total: Number(order.amountMinor), currency: order.currency },
  };
}

async function makeOrder({ pay }: WechatAccount, way: string, body: Json, wanted: string): Promise<string> {
  const answer = await pay.call("POST", `/v3/pay/transactions/${way}`, body);
  if (ALREADY_PAID.has(answer.code)) {
    // The answer to an earlier attempt was lost, and somebody has paid since: whoever asks finds it.
    throw new ProcessorError("unreachable", "already_paid", "WeChat Pay: this order was paid already");
  }
  if (answer.code !== "") throw payFailure(answer);
  const value = textOf(answer.body, wanted);
  if (value === "") throw new ProcessorError("unreachable", "malformed", `WeChat Pay gave no ${wanted}`);
  return value;
}

/** What WeChat's own call for payments takes. */
function prepaid({ deps, credentials }: WechatAccount, appId: string, prepayId: string): PaymentAction {
  const timeStamp = String(Math.floor(deps.now() / 1_000));
  const nonceStr = Buffer.from(deps.random(NONCE_BYTES)).toString("hex");
  const packageValue = `prepay_id=${prepayId}`;
  const signature = paySign(credentials.privateKey, appId, timeStamp, nonceStr, packageValue);
  return { kind: "wechat_pay", appId, timeStamp, nonceStr, packageValue, signType: "RSA", paySign: signature };
}

/** @throws ProcessorError */
export async function startTransaction(account: WechatAccount, order: PaymentOrder): Promise<StartedPayment> {
  const appId = appOf(account, order.method);
  if (appId === "")
    throw new ProcessorError("misconfigured", "app_id", "the account has no app for this payment method");
  const body = orderBody(account, order);
  const started = (action: PaymentAction): StartedPayment => ({
    reference: orderNumber(order.paymentId),
    action,
    details: { app_id: appId },
  });
  if (order.method === PaymentMethod.WECHAT_NATIVE) {
    return started({ kind: "qr_code", text: await makeOrder(account, "native", body, "code_url") });
  }
  const openid =
    order.method === PaymentMethod.WECHAT_JSAPI
      ? await account.apps.openIdOfPage(order.wechatCode)
      : await account.apps.openIdOfLogin(order.wechatCode);
  const prepayId = await makeOrder(account, "jsapi", { ...body, payer: { openid } }, "prepay_id");
  return started(prepaid(account, appId, prepayId));
}

function paid(account: WechatAccount, transaction: Json, orderNo: string): PaidPayment {
  const amount = fieldOf(transaction, "amount");
  const total = integerOf(amount, "total");
  const transactionId = textOf(transaction, "transaction_id");
  const paymentId = paymentIdOf(orderNo);
  if (total === null || total < 0 || transactionId === "" || paymentId === null) {
    throw new ProcessorError("unreachable", "malformed", "WeChat Pay does not say what was paid");
  }
  const paidAtMs = Date.parse(textOf(transaction, "success_time"));
  return {
    state: "paid",
    currency: textOf(amount, "currency") || "CNY",
    amountMinor: BigInt(total),
    settledReference: transactionId,
    paymentId,
    paidAtMs: Number.isNaN(paidAtMs) ? account.deps.now() : paidAtMs,
    details: { transaction_id: transactionId },
    savedMethod: null,
  };
}

/** What a signed answer says of an order, if it is the one that was asked for. */
function statusOf(account: WechatAccount, payment: KnownPayment, orderNo: string, transaction: Json): PaymentStatus {
  const appId = payment.details["app_id"] ?? appOf(account, payment.method);
  const own =
    textOf(transaction, "mchid") === account.credentials.merchantNumber &&
    textOf(transaction, "appid") === appId &&
    textOf(transaction, "out_trade_no") === orderNo;
  if (!own) {
    throw new ProcessorError(
      "misconfigured",
      "other_order",
      "WeChat Pay tells of an order of another merchant number, app or order number",
    );
  }
  const state = textOf(transaction, "trade_state");
  switch (state) {
    case "SUCCESS":
    // Some or all of it went back afterwards.
    case "REFUND":
      return paid(account, transaction, orderNo);
    case "NOTPAY":
    case "USERPAYING":
      return { state: "pending" };
    case "CLOSED":
    case "REVOKED":
      return { state: "closed" };
    case "PAYERROR":
      return { state: "failed", failure: "payment_error" };
    default:
      throw new ProcessorError("unreachable", "unknown_state", "WeChat Pay tells of a state that is not known");
  }
}

/** @throws ProcessorError */
export async function findTransaction(account: WechatAccount, payment: KnownPayment): Promise<PaymentStatus> {
  const orderNo = payment.reference ?? orderNumber(payment.paymentId);
  const path = `/v3/pay/transactions/out-trade-no/${encodeURIComponent(orderNo)}`;
  const answer = await account.pay.call("GET", `${path}?mchid=${account.credentials.merchantNumber}`, null);
  if (isNotFound(answer)) return { state: "unknown" };
  if (answer.code === "ORDERCLOSED") return { state: "closed" };
  if (answer.code !== "") throw payFailure(answer);
  if (answer.body === null)
    throw new ProcessorError("unreachable", "malformed", "WeChat Pay says nothing of the order");
  return statusOf(account, payment, orderNo, answer.body);
}

/**
 * WeChat Pay says 204 for orders that it does not even know, so how the order stands is asked afterwards. Once it was closed,
 * it cannot be paid any more, even if the query does not say so yet.
 * @throws ProcessorError
 */
export async function closeTransaction(account: WechatAccount, payment: KnownPayment): Promise<PaymentStatus> {
  const orderNo = payment.reference ?? orderNumber(payment.paymentId);
  const path = `/v3/pay/transactions/out-trade-no/${encodeURIComponent(orderNo)}/close`;
  const answer = await account.pay.call("POST", path, { mchid: account.credentials.merchantNumber });
  const closed = answer.code === "" || answer.code === "ORDERCLOSED";
  if (!closed && !ALREADY_PAID.has(answer.code) && !isNotFound(answer)) throw payFailure(answer);
  const status = await findTransaction(account, payment);
  return closed && status.state === "pending" ? { state: "closed" } : status;
}
