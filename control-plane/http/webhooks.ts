/** Where payment processors send their notifications. What they say is for `receive`; nothing of it is given back. */

import type { Logger } from "pino";
import { PaymentProcessor } from "../domain/checkout.ts";
import type { NotificationAnswer, RawNotification } from "../payments/payment.ts";
import { PROCESSOR_WORDS } from "../domain/fulfilment.ts";
import { addressGroup } from "../domain/client_address.ts";
import { HttpError, type HttpAnswer, type HttpExchange, type HttpRoute } from "./route.ts";
import { plainAnswer } from "./serve.ts";
import { Throttle, type ThrottleLimits } from "./throttle.ts";

export const NOTIFICATION_BYTES_MAX = 1024 * 1024;
/** A processor sends from few addresses; it comes again after a refusal. */
export const NOTIFICATION_LIMITS: ThrottleLimits = {
  perMinuteMax: 600,
  atOncePerAddressMax: 32,
  atOnceMax: 64,
  addressesMax: 10_000,
};

const PATH = /^\/webhooks\/(stripe|wechat)\/(pay_[a-z2-7]{26})$/;
const PROCESSORS = new Map(
  [PaymentProcessor.STRIPE, PaymentProcessor.WECHAT_PAY].map((processor) => [PROCESSOR_WORDS[processor], processor]),
);

/** Takes in a notification for an account at a processor. An account that is none is answered with 404. */
export type Receive = (
  processor: PaymentProcessor,
  accountId: string,
  raw: RawNotification,
) => Promise<NotificationAnswer>;

export interface WebhookOptions {
  readonly receive: Receive;
  /** Milliseconds since 1970. */
  now(): number;
  readonly log: Logger;
  readonly limits?: ThrottleLimits;
}

export function webhookRoute({ receive, now, log, limits = NOTIFICATION_LIMITS }: WebhookOptions): HttpRoute {
  const throttle = new Throttle(limits, now);

  async function pass(exchange: HttpExchange): Promise<HttpAnswer> {
    const [, name, accountId] = PATH.exec(exchange.path)!;
    const body = exchange.method === "POST" ? await exchange.body(NOTIFICATION_BYTES_MAX) : new Uint8Array(0);
    const { method, headers, query } = exchange;
    const raw: RawNotification = { method, headers, query, body, nowMs: now() };
    const { status, type, body: text } = await receive(PROCESSORS.get(name!)!, accountId!, raw);
    return { ...plainAnswer(status, "", type === "" ? {} : { "content-type": type }), body: text };
  }

  return {
    matches: (path) => PATH.test(path),
    // WeChat checks the address of a message push with a GET.
    methods: (path) => (path.startsWith("/webhooks/wechat/") ? ["GET", "POST"] : ["POST"]),
    async handle(exchange) {
      const entered = throttle.enter(addressGroup(exchange.clientAddress));
      if (typeof entered !== "function") {
        log.debug({ address: exchange.clientAddress, status: entered.status }, "too many notifications");
        throw new HttpError(entered.status, "too many: try again later", {
          "retry-after": String(entered.retryAfterS),
        });
      }
      try {
        return await pass(exchange);
      } finally {
        entered();
      }
    },
  };
}
