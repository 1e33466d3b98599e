/** For tests: all of WeChat that we talk to, on this machine, and the processor that talks to it. */

import { randomBytes } from "node:crypto";
import pino from "pino";
import { PaymentMethod } from "../../domain/checkout.ts";
import type {
  KnownPayment,
  PaymentOrder,
  Processor,
  ProcessorAccount,
  ProcessorDeps,
  RawNotification,
  RefundOrder,
} from "../payment.ts";
import { wechatProcessor } from "./processor.ts";
import { MERCHANT, type CredentialChanges, wechatCredentials } from "./testing_keys.ts";
import { type OpenImitation, startOpen } from "./testing_open.ts";
import type { PushMessage } from "./testing_push.ts";
import { type PayImitation, startPay } from "./testing_pay.ts";
import type { Envelope } from "./testing_platform.ts";

export interface WechatImitation {
  readonly pay: PayImitation;
  readonly open: OpenImitation;
  readonly urls: { readonly wechatPay: string; readonly wechat: string };
  close(): Promise<void>;
}

/** `now`: WeChat's clock, milliseconds since 1970. */
export async function startWechat(now: () => number = Date.now): Promise<WechatImitation> {
  const [pay, open] = await Promise.all([startPay(now), startOpen(now)]);
  return {
    pay,
    open,
    urls: { wechatPay: pay.url, wechat: open.url },
    close: async () => void (await Promise.all([pay.close(), open.close()])),
  };
}

export interface WechatWorld extends WechatImitation {
  /** Ours; WeChat's is the same but for `skewMs`. */
  readonly clock: { nowMs: number };
  readonly processor: Processor;
  readonly deps: ProcessorDeps;
  /** Everything that was logged. */
  readonly logLines: string[];
  account(changes?: CredentialChanges, id?: string): ProcessorAccount;
}

export async function startWechatWorld(): Promise<WechatWorld> {
  const clock = { nowMs: 1_764_000_000_000 };
  const imitation = await startWechat(() => clock.nowMs);
  const logLines: string[] = [];
  const deps: ProcessorDeps = {
    now: () => clock.nowMs,
    random: (count) => new Uint8Array(randomBytes(count)),
    urls: { stripe: "http://127.0.0.1:9", ...imitation.urls },
    log: pino({ level: "trace" }, { write: (line: string) => void logLines.push(line) }),
  };
  const processor = wechatProcessor(deps);
  return {
    ...imitation,
    clock,
    processor,
    deps,
    logLines,
    account: (changes, id = "pay_1") =>
      processor.open({ id, merchantId: "mer_1", credentials: wechatCredentials(changes), test: false }),
  };
}

let count = 0;

export function newOrder(world: WechatWorld, changes: Partial<PaymentOrder> = {}): PaymentOrder {
  count += 1;
  const method = changes.method ?? PaymentMethod.WECHAT_NATIVE;
  const codes: Partial<Record<PaymentMethod, () => string>> = {
    [PaymentMethod.WECHAT_JSAPI]: () => world.open.sessions.newCode(MERCHANT.appId),
    [PaymentMethod.WECHAT_MINI_PROGRAM]: () => world.open.sessions.newCode(MERCHANT.miniProgramAppId),
    [PaymentMethod.WECHAT_VIRTUAL]: () => world.open.sessions.newCode(MERCHANT.miniProgramAppId),
  };
  return {
    paymentId: `pmt_${String(count).padStart(26, "a")}`,
    sessionId: "cs_1",
    veId: "ve_1",
    method,
    currency: "CNY",
    amountMinor: 36_800n,
    description: "5,000,000 Credits",
    merchantName: "示例商店",
    expiresAtMs: world.clock.nowMs + 1_800_000,
    returnUrl: "https://pay.example/checkout/cs_1",
    notificationUrl: "https://pay.example/webhooks/wechat/pay_1",
    language: "zh",
    saveMethod: false,
    wechatCode: changes.wechatCode ?? codes[method]?.() ?? "",
    clientAddress: "192.0.2.1",
    ...changes,
  };
}

/** As the engine remembers it. */
export function known(order: PaymentOrder, more: Partial<KnownPayment> = {}): KnownPayment {
  const { paymentId, method, currency, amountMinor, expiresAtMs } = order;
  const createdAtMs = expiresAtMs - 1_800_000;
  return {
    paymentId,
    method,
    reference: paymentId,
    details: {},
    currency,
    amountMinor,
    createdAtMs,
    expiresAtMs,
    ...more,
  };
}

export function newRefund(payment: KnownPayment, settledReference: string, amountMinor: bigint): RefundOrder {
  count += 1;
  return {
    refundId: `rfd_${String(count).padStart(26, "b")}`,
    payment,
    settledReference,
    amountMinor,
    reason: "not needed any more",
    notificationUrl: "https://pay.example/webhooks/wechat/pay_1",
    reference: null,
  };
}

export function rawOf(
  world: WechatWorld,
  sent: Envelope | PushMessage,
  changes: Partial<RawNotification> = {},
): RawNotification {
  return {
    method: "POST",
    headers: "headers" in sent ? sent.headers : { "content-type": "application/json" },
    query: "query" in sent ? sent.query : new URLSearchParams(),
    body: Buffer.from(sent.body),
    nowMs: world.clock.nowMs,
    ...changes,
  };
}
