/** An account at the imitation of Stripe, opened by the real adapter. */

import { create, toBinary } from "@bufbuild/protobuf";
import pino from "pino";
import { PaymentCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { PaymentMethod } from "../domain/checkout.ts";
import type {
  KnownPayment,
  OpenAccount,
  PaymentOrder,
  Processor,
  ProcessorAccount,
  RawNotification,
  RefundOrder,
} from "./payment.ts";
import { ProcessorError } from "./payment.ts";
import { stripeProcessor } from "./stripe.ts";
import type { SigningOptions, StripeEvent, StripeImitation, StripeImitationAccount } from "./testing_stripe.ts";

export const HOUR_MS = 3_600_000;

export function stripeCredentials(secretKey: string, webhookSecret: string): Uint8Array {
  const kind = { case: "stripe" as const, value: { secretKey, webhookSecret } };
  return toBinary(PaymentCredentialsSchema, create(PaymentCredentialsSchema, { kind }));
}

export interface StripeFixture {
  readonly processor: Processor;
  readonly logLines: string[];
  open(account: StripeImitationAccount, changes?: Partial<OpenAccount> & { webhookSecret?: string }): ProcessorAccount;
  order(changes?: Partial<PaymentOrder>): PaymentOrder;
  known(order: PaymentOrder, reference: string | null, changes?: Partial<KnownPayment>): KnownPayment;
  refundOrder(payment: KnownPayment, settledReference: string, changes?: Partial<RefundOrder>): RefundOrder;
  raw(account: StripeImitationAccount, event: StripeEvent, options?: SigningOptions): RawNotification;
  nowMs(): number;
}

export function stripeFixture(stripe: StripeImitation): StripeFixture {
  const logLines: string[] = [];
  const log = pino({ level: "trace" }, { write: (line: string) => void logLines.push(line) });
  const nowMs = (): number => Date.now() + stripe.clock.offsetMs;
  const urls = { stripe: stripe.url, wechatPay: "", wechat: "" };
  const processor = stripeProcessor({ now: nowMs, random: (count) => new Uint8Array(count), urls, log });
  let made = 0;
  return {
    processor,
    logLines,
    nowMs,
    open: (account, changes = {}) =>
      processor.open({
        id: "pay_test",
        merchantId: "mer_test",
        credentials: stripeCredentials(account.secretKey, changes.webhookSecret ?? account.webhookSecret),
        test: account.secretKey.startsWith("sk_test_"),
        ...changes,
      }),
    order: (changes = {}) => ({
      paymentId: `pmt_test${++made}`,
      sessionId: "cs_ours",
      veId: "ve_ours",
      method: PaymentMethod.STRIPE_CHECKOUT,
      currency: "USD",
      amountMinor: 5000n,
      description: "5,000,000 Credits",
      merchantName: "Ada's shop",
      expiresAtMs: nowMs() + HOUR_MS,
      returnUrl: "https://pay.example.com/checkout/cs_ours",
      notificationUrl: "https://pay.example.com/webhooks/stripe/pay_test",
      language: "en",
      saveMethod: false,
      wechatCode: "",
      clientAddress: "",
      ...changes,
    }),
    known: (order, reference, changes = {}) => ({
      paymentId: order.paymentId,
      method: order.method,
      reference,
      details: {},
      currency: order.currency,
      amountMinor: order.amountMinor,
      createdAtMs: nowMs(),
      expiresAtMs: order.expiresAtMs,
      ...changes,
    }),
    refundOrder: (payment, settledReference, changes = {}) => ({
      refundId: `rfd_test${++made}`,
      payment,
      settledReference,
      amountMinor: payment.amountMinor,
      reason: "asked",
      notificationUrl: "https://pay.example.com/webhooks/stripe/pay_test",
      reference: null,
      ...changes,
    }),
    raw: (account, event, options) => {
      const { headers, body } = account.sign(event, options);
      return { method: "POST", headers, query: new URLSearchParams(), body, nowMs: nowMs() };
    },
  };
}

/** `code failure` of what it threw. */
export async function failureOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ProcessorError) return `${error.code} ${error.failure}`;
    throw error;
  }
  return "";
}
