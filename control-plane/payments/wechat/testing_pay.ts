/**
 * For tests: WeChat Pay APIv3 over HTTP. It checks our signatures, signs its answers, keeps orders and refunds, and makes
 * notifications. What it does wrong on demand is in `faults`.
 */

import { createVerify } from "node:crypto";
import { type Books, createBooks, PayRefusal } from "./testing_books.ts";
import { type Received, type Reply, serve } from "./testing_http.ts";
import { keyPair, MERCHANT, PUBLIC_KEY_ID } from "./testing_keys.ts";
import { createPlatform, type Envelope, type EnvelopeOptions, type Platform } from "./testing_platform.ts";

/** One answer each, in order, of the requests that fit: done and then answered wrongly, or not done at all (`down`). */
export interface PayFault {
  /** Of the path; any if it is not given. */
  readonly on?: RegExp;
  readonly how:
    | "down"
    | "cut"
    | "unsigned"
    | "bad_signature"
    | "probe"
    | "stale"
    | "unknown_serial"
    | "changed_body"
    | "not_json"
    | "too_long"
    | "instead";
  /** Signed instead of what is true. */
  readonly instead?: { readonly status: number; readonly body: unknown };
}

export interface PayImitation extends Books {
  readonly url: string;
  readonly platform: Platform;
  readonly calls: Received[];
  readonly faults: PayFault[];
  paymentEnvelope(outTradeNo: string, options?: EnvelopeOptions): Envelope;
  refundEnvelope(outRefundNo: string, options?: EnvelopeOptions): Envelope;
  /** The HTTP status that it is answered with. */
  deliver(envelope: Envelope, url: string): Promise<number>;
  close(): Promise<void>;
}

const AUTHORIZATION =
  /^WECHATPAY2-SHA256-RSA2048 mchid="(?<mchid>\d+)",nonce_str="(?<nonce>\w{1,32})",timestamp="(?<timestamp>\d+)",serial_no="(?<serial>\w+)",signature="(?<signature>[^"]+)"$/;

/** As WeChat Pay does: whoever may not ask gets 401 and no signature. */
function createGuard(now: () => number): (received: Received) => boolean {
  const nonces = new Set<string>();
  return ({ method, target, headers, body }) => {
    const found = AUTHORIZATION.exec(headers["authorization"] ?? "")?.groups;
    if (found === undefined || headers["accept"] !== "application/json" || (headers["user-agent"] ?? "") === "") {
      return false;
    }
    const { mchid, nonce, timestamp, serial, signature } = found;
    if (mchid !== MERCHANT.merchantNumber || serial !== MERCHANT.certificateSerialNo) return false;
    if (Math.abs(now() / 1_000 - Number(timestamp)) > 300 || nonces.has(nonce!)) return false;
    nonces.add(nonce!);
    const text = `${method}\n${target}\n${timestamp}\n${nonce}\n${body.toString()}\n`;
    return createVerify("RSA-SHA256").update(text).verify(keyPair("merchant").publicKey, signature!, "base64");
  };
}

/** Null: 204. @throws PayRefusal */
function route(books: Books, platform: Platform, { method, url, body }: Received): object | null {
  const path = url.pathname;
  const json = (): Record<string, unknown> => JSON.parse(body.toString()) as Record<string, unknown>;
  const way = /^\/v3\/pay\/transactions\/(native|jsapi)$/.exec(path)?.[1];
  if (method === "POST" && way !== undefined) return books.make(way, json());
  if (method === "POST" && path === "/v3/refund/domestic/refunds") return books.askRefund(json());
  if (method === "GET" && path === "/v3/certificates" && platform.certificates) return platform.list();
  const [, orderNo, close] = /^\/v3\/pay\/transactions\/out-trade-no\/([^/]+)(\/close)?$/.exec(path) ?? [];
  const order = books.orders.get(orderNo ?? "");
  if (orderNo !== undefined && close !== undefined && method === "POST") {
    if (json()["mchid"] !== MERCHANT.merchantNumber) throw new PayRefusal(400, "PARAM_ERROR");
    if (order?.state === "SUCCESS" || order?.state === "REFUND") throw new PayRefusal(400, "ORDERPAID");
    if (order !== undefined) order.state = "CLOSED";
    return null;
  }
  if (orderNo !== undefined && method === "GET") {
    if (url.searchParams.get("mchid") !== MERCHANT.merchantNumber) throw new PayRefusal(400, "PARAM_ERROR");
    if (order === undefined) throw new PayRefusal(404, "ORDER_NOT_EXIST");
    return books.describe(order);
  }
  const refund = books.refunds.get(/^\/v3\/refund\/domestic\/refunds\/([^/]+)$/.exec(path)?.[1] ?? "");
  if (method === "GET" && refund !== undefined) return books.describeRefund(refund);
  throw new PayRefusal(404, "RESOURCE_NOT_EXISTS");
}

function done(books: Books, platform: Platform, received: Received): { status: number; body: string } {
  try {
    const result = route(books, platform, received);
    return result === null ? { status: 204, body: "" } : { status: 200, body: JSON.stringify(result) };
  } catch (error) {
    if (!(error instanceof PayRefusal)) throw error;
    return { status: error.status, body: JSON.stringify({ code: error.code, message: error.message }) };
  }
}

const JSON_TYPE = { "content-type": "application/json; charset=utf-8" };

/** What was done, said as the fault has it. */
function reply(
  platform: Platform,
  received: Received,
  said: { status: number; body: string },
  fault?: PayFault,
): Reply {
  const how = fault?.how;
  if (how === "cut") return null;
  const told = fault?.instead;
  const { status, body } = told === undefined ? said : { status: told.status, body: JSON.stringify(told.body) };
  const text = how === "not_json" ? "<html>" : how === "too_long" ? " ".repeat(300_000) : body;
  const byKey = received.headers["wechatpay-serial"] === PUBLIC_KEY_ID;
  const signer = how === "bad_signature" ? "attacker" : byKey ? "public_key" : "current";
  const headers = platform.sign(text, signer);
  if (how === "stale")
    Object.assign(headers, platform.sign(text, signer, Number(headers["wechatpay-timestamp"]) - 301));
  if (how === "probe") {
    headers["wechatpay-signature"] = `WECHATPAY/SIGNTEST/${headers["wechatpay-signature"]!.slice(19)}`;
  }
  if (how === "unknown_serial") headers["wechatpay-serial"] = "7".repeat(40);
  const sent = how === "changed_body" ? text.replace("{", "{ ") : text;
  return { status, headers: { ...JSON_TYPE, ...(how === "unsigned" ? {} : headers) }, body: sent };
}

export async function startPay(now: () => number): Promise<PayImitation> {
  const books = createBooks(now);
  const platform = createPlatform(now);
  const mayAsk = createGuard(now);
  const calls: Received[] = [];
  const faults: PayFault[] = [];
  const server = await serve((received) => {
    calls.push(received);
    const at = faults.findIndex(({ on }) => on === undefined || on.test(received.url.pathname));
    const fault = at === -1 ? undefined : faults.splice(at, 1)[0];
    if (fault?.how === "down") return { status: 503, headers: {}, body: "" };
    if (!mayAsk(received)) {
      return { status: 401, headers: JSON_TYPE, body: JSON.stringify({ code: "SIGN_ERROR", message: "wrong" }) };
    }
    return reply(platform, received, done(books, platform, received), fault);
  });
  return Object.assign(books, {
    url: server.url,
    platform,
    calls,
    faults,
    paymentEnvelope: (outTradeNo: string, options: EnvelopeOptions = {}) =>
      platform.envelope("TRANSACTION.SUCCESS", "transaction", books.describe(books.orders.get(outTradeNo)!), options),
    refundEnvelope(outRefundNo: string, options: EnvelopeOptions = {}) {
      const refund = books.refunds.get(outRefundNo)!;
      const { status, ...told } = books.describeRefund(refund);
      const content = { mchid: MERCHANT.merchantNumber, refund_status: status, ...told };
      return platform.envelope(`REFUND.${refund.status}`, "refund", content, options);
    },
    async deliver({ headers, body }: Envelope, url: string) {
      const response = await fetch(url, { method: "POST", headers, body });
      await response.arrayBuffer();
      return response.status;
    },
    close: () => server.close(),
  });
}
