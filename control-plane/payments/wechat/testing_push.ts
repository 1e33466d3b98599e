/** For tests: message pushes, in the clear and encrypted, in JSON and XML. */

import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { MERCHANT, MESSAGE_ENCRYPTION_KEY } from "./testing_keys.ts";
import type { VirtualOrder } from "./testing_xpay.ts";

export interface PushOptions {
  readonly token?: string;
  readonly timestampS?: number;
  readonly format?: "json" | "xml";
  readonly encrypted?: boolean;
  readonly appId?: string;
  /** Put in after it was signed: only what is encrypted is protected. */
  readonly changes?: Record<string, unknown>;
}

export interface PushMessage {
  readonly query: URLSearchParams;
  readonly body: string;
}

const sha1 = (...parts: string[]): string => createHash("sha1").update(parts.sort().join("")).digest("hex");

function tagsOf(fields: object): string {
  const tags = Object.entries(fields).map(([name, value]: [string, unknown]) => {
    const inner = typeof value === "object" && value !== null ? tagsOf(value) : `<![CDATA[${String(value)}]]>`;
    return `<${name}>${typeof value === "number" ? value : inner}</${name}>`;
  });
  return tags.join("\n");
}

function encrypt(message: string, appId: string): string {
  const key = Buffer.from(`${MESSAGE_ENCRYPTION_KEY}=`, "base64");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(message));
  const plain = Buffer.concat([randomBytes(16), length, Buffer.from(message), Buffer.from(appId)]);
  const padding = 32 - (plain.length % 32);
  const cipher = createCipheriv("aes-256-cbc", key, key.subarray(0, 16)).setAutoPadding(false);
  const sealed = [cipher.update(Buffer.concat([plain, Buffer.alloc(padding, padding)])), cipher.final()];
  return Buffer.concat(sealed).toString("base64");
}

export function makePush(nowS: number, event: object, options: PushOptions = {}): PushMessage {
  const { token = MERCHANT.messageToken, timestampS = nowS, format = "json", encrypted = false } = options;
  const nonce = String(randomBytes(4).readUInt32BE());
  const timestamp = String(timestampS);
  const write = (fields: object): string =>
    format === "xml" ? `<xml>${tagsOf(fields)}</xml>` : JSON.stringify(fields);
  const head = { ToUserName: "gh_1", FromUserName: "oWeChat", CreateTime: timestampS, MsgType: "event" };
  const query = new URLSearchParams({ signature: sha1(token, timestamp, nonce), timestamp, nonce });
  if (!encrypted) return { query, body: write({ ...head, ...event, ...options.changes }) };
  const sealed = encrypt(write({ ...head, ...event }), options.appId ?? MERCHANT.miniProgramAppId);
  query.set("encrypt_type", "aes");
  query.set("msg_signature", sha1(token, timestamp, nonce, sealed));
  return { query, body: write({ ToUserName: "gh_1", Encrypt: sealed, ...options.changes }) };
}

export function deliverEvent(order: VirtualOrder): object {
  return {
    Event: "xpay_goods_deliver_notify",
    OpenId: order.openid,
    OutTradeNo: order.orderId,
    Env: order.env,
    WeChatPayInfo: { MchOrderNo: order.wxOrderId, TransactionId: `4200${order.wxOrderId}`, PaidTime: order.timeS },
    GoodsInfo: {
      ProductId: MERCHANT.virtualProductId,
      Quantity: order.fee,
      OrigPrice: 1,
      ActualPrice: 1,
      Attach: order.orderId,
    },
    RetryTimes: 0,
  };
}

export function refundEvent(refund: VirtualOrder, payment: VirtualOrder): object {
  return {
    Event: "xpay_refund_notify",
    OpenId: refund.openid,
    WxRefundId: refund.wxOrderId,
    MchRefundId: refund.orderId,
    WxOrderId: payment.wxOrderId,
    MchOrderId: payment.orderId,
    RefundFee: refund.fee,
    RetCode: 0,
    RetMsg: "ok",
    RetryTimes: 0,
  };
}
