/**
 * Message pushes of a Mini Program, by which Virtual Payment tells of payments and refunds. In the clear, their signature
 * covers the token, the time and a nonce but nothing of the message: it says that WeChat may have sent something. So what a
 * push says is never believed; it is asked about. (developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html)
 */

import { type Notification, NotificationRefused, type RawNotification, type NotificationAnswer } from "../payment.ts";
import { SKEW_S_MAX } from "./certificates.ts";
import type { WechatCredentials } from "./credentials.ts";
import { integerOf, parseObject, textOf } from "./json.ts";
import { BODY_BYTES_MAX, malformed } from "./notifications.ts";
import { paymentIdOf, refundIdOf } from "./numbers.ts";
import { decryptPush, pushSignature, sameText } from "./signing.ts";
import type { WechatAccount } from "./transactions.ts";
import { queryVirtual, virtualRefundState } from "./virtual.ts";

/** WeChat repeats a push up to 15 times, each time after twice as long, and may keep its time of signing. */
const AGE_S_MAX = 24 * 3_600;
const EVENT_PREFIX = "xpay_";
const DELIVER = "xpay_goods_deliver_notify";
const REFUND = "xpay_refund_notify";
const XML_FIELD = /<([A-Za-z]{1,40})>(?:<!\[CDATA\[([^\]]{0,8192})\]\]>|([^<]{0,512}))<\/\1>/g;

/** The fields of a message: those of JSON as text, or the innermost ones of XML. */
type Fields = ReadonlyMap<string, string>;

function fieldsOf(bytes: Uint8Array): { readonly fields: Fields; readonly xml: boolean } {
  const fields = new Map<string, string>();
  const json = parseObject(bytes);
  if (json !== null) {
    for (const [name, value] of Object.entries(json)) {
      if (typeof value === "string" || typeof value === "number") fields.set(name, String(value));
    }
    return { fields, xml: false };
  }
  const text = Buffer.from(bytes).toString("utf8");
  if (!text.trimStart().startsWith("<xml>")) throw malformed("it is neither JSON nor XML");
  for (const [, name, quoted, plain] of text.matchAll(XML_FIELD)) {
    if (!fields.has(name!)) fields.set(name!, quoted ?? plain ?? "");
  }
  return { fields, xml: true };
}

function checkTime(query: URLSearchParams, nowMs: number): void {
  const timestamp = query.get("timestamp") ?? "";
  if (!/^[0-9]{1,11}$/.test(timestamp)) throw malformed("it has no timestamp");
  const ageS = nowMs / 1_000 - Number(timestamp);
  if (ageS > AGE_S_MAX || ageS < -SKEW_S_MAX) throw new NotificationRefused("stale", "it was signed at another time");
}

function checkSignature(
  { messageToken }: WechatCredentials,
  query: URLSearchParams,
  name: string,
  more: string[],
): void {
  if (messageToken === "") {
    throw new NotificationRefused("not_configured", "message_token is not set: pushes cannot be checked");
  }
  const expected = pushSignature(messageToken, query.get("timestamp") ?? "", query.get("nonce") ?? "", ...more);
  if (!sameText(expected, query.get(name) ?? ""))
    throw new NotificationRefused("bad_signature", "its signature is wrong");
}

interface Push {
  readonly event: string;
  readonly fields: Fields;
  readonly xml: boolean;
}

/** The message of a push that WeChat has signed. @throws NotificationRefused */
function openPush(credentials: WechatCredentials, raw: RawNotification): Push {
  if (raw.body.length > BODY_BYTES_MAX) throw malformed("it is too long");
  checkSignature(credentials, raw.query, "signature", []);
  checkTime(raw.query, raw.nowMs);
  const outer = fieldsOf(raw.body);
  const encrypted = outer.fields.get("Encrypt");
  if (credentials.messageEncryptionKey === "") {
    const event = outer.fields.get("Event");
    // In WeChat's compatible mode the message is there in both forms.
    if (encrypted === undefined || event !== undefined) return { event: event ?? "", ...outer };
    throw new NotificationRefused("undecryptable", "it is encrypted: set message_encryption_key");
  }
  if (encrypted === undefined) {
    throw new NotificationRefused("not_encrypted", "it is in the clear, although message_encryption_key is set");
  }
  checkSignature(credentials, raw.query, "msg_signature", [encrypted]);
  const opened = decryptPush(credentials.messageEncryptionKey, encrypted);
  if (opened === null) throw new NotificationRefused("undecryptable", "message_encryption_key does not open it");
  if (opened.appId !== credentials.miniProgramAppId)
    throw new NotificationRefused("other_account", "it is of another app");
  const inner = fieldsOf(opened.message);
  return { event: inner.fields.get("Event") ?? "", ...inner };
}

const NOTHING = { kind: "nothing" } as const;

/** What WeChat says of a refund when it is asked. */
async function refundOf(account: WechatAccount, fields: Fields): Promise<Notification["about"]> {
  const [openid, orderNo, refundNo, wxRefundId] = ["OpenId", "MchOrderId", "MchRefundId", "WxRefundId"].map(
    (name) => fields.get(name) ?? "",
  ) as [string, string, string, string];
  const paymentId = paymentIdOf(orderNo);
  if (paymentId === null) return NOTHING;
  if (openid === "" || wxRefundId === "") throw malformed("it does not say which refund it is about");
  const payment = await queryVirtual(account, openid, { order_id: orderNo });
  const refund = await queryVirtual(account, openid, { wx_order_id: wxRefundId });
  const fee = integerOf(refund, "refund_fee") ?? 0;
  const paid = integerOf(payment, "paid_fee") ?? 0;
  const left = integerOf(payment, "left_fee") ?? 0;
  const state = refund === null ? null : virtualRefundState(refund).state;
  // The refund does not name its payment: so much at least must have gone from it.
  const covered = state === "failed" || paid - left >= fee;
  if (
    state === null ||
    fee <= 0 ||
    !covered ||
    (refundIdOf(refundNo) !== null && textOf(refund, "order_id") !== refundNo)
  ) {
    throw new NotificationRefused("not_confirmed", "WeChat does not confirm the refund");
  }
  return {
    kind: "refund",
    paymentId,
    references: [orderNo, textOf(payment, "wx_order_id")].filter((one) => one !== ""),
    refundId: refundIdOf(refundNo),
    refund: { reference: wxRefundId, amountMinor: BigInt(fee), currency: "CNY", reason: "refunded at WeChat", state },
  };
}

/** @throws NotificationRefused; ProcessorError when WeChat could not be asked */
export async function readPush(account: WechatAccount, raw: RawNotification): Promise<Notification> {
  if (raw.method === "GET") {
    checkSignature(account.credentials, raw.query, "signature", []);
    checkTime(raw.query, raw.nowMs);
    return { eventId: "", kind: "echo", about: NOTHING };
  }
  const { event, fields } = openPush(account.credentials, raw);
  const kind = /^\w{1,60}$/.test(event) ? event : "message";
  // No id: nobody has signed what one could be made of, and a forged one must not stand in for a true one.
  const of = (about: Notification["about"]): Notification => ({ eventId: "", kind, about });
  if (event === REFUND) return of(await refundOf(account, fields));
  if (event !== DELIVER) return of(NOTHING);
  const orderNo = fields.get("OutTradeNo") ?? "";
  const paymentId = paymentIdOf(orderNo);
  return of(paymentId === null ? NOTHING : { kind: "payment", paymentId, references: [orderNo] });
}

/** Whether a push is of Virtual Payment, and in XML: it is answered in kind. */
function styleOf(credentials: WechatCredentials, raw: RawNotification): { virtual: boolean; xml: boolean } {
  try {
    const { event, xml } = openPush(credentials, raw);
    return { virtual: event.startsWith(EVENT_PREFIX), xml };
  } catch (error) {
    if (error instanceof NotificationRefused) return { virtual: true, xml: false };
    throw error;
  }
}

/** What WeChat wants to hear. */
export function answerPush(
  credentials: WechatCredentials,
  raw: RawNotification,
  problem: { readonly status: number; readonly reason: string } | null,
): NotificationAnswer {
  const text = (status: number, body: string): NotificationAnswer => ({ status, type: "text/plain", body });
  if (raw.method === "GET") {
    const echo = raw.query.get("echostr") ?? "";
    return problem === null ? text(200, /^[\w-]{0,128}$/.test(echo) ? echo : "") : text(problem.status, problem.reason);
  }
  const { virtual, xml } = styleOf(credentials, raw);
  if (problem === null && !virtual) return text(200, "success");
  const code = problem === null ? 0 : 1;
  const said = problem === null ? "success" : problem.reason;
  const status = problem?.status ?? 200;
  if (!xml) return { status, type: "application/json", body: JSON.stringify({ ErrCode: code, ErrMsg: said }) };
  return {
    status,
    type: "text/xml",
    body: `<xml><ErrCode>${code}</ErrCode><ErrMsg><![CDATA[${said}]]></ErrMsg></xml>`,
  };
}
