/** Everything that takes payments, put together. */

import type { Deps } from "../api/context.ts";
import type { PaymentParts } from "../api/routes.ts";
import type { CreditHints } from "../credit_recall.ts";
import { topUpAutomatically } from "../auto_top_ups.ts";
import { PaymentProcessor } from "../domain/checkout.ts";
import type { Receive } from "../http/webhooks.ts";
import type { RandomBytes } from "../ids.ts";
import { sandboxProcessor } from "../payments/sandbox.ts";
import { SANDBOX_EVERY_MS, sandboxTick } from "../payments/sandbox_tick.ts";
import { createProcessors } from "../payments/processors.ts";
import { stripeProcessor } from "../payments/stripe.ts";
import { wechatProcessor } from "../payments/wechat/processor.ts";
import { forgetSavedMethods, methodSaver } from "../saved_methods.ts";
import { chargeAutomatically } from "./automatic.ts";
import type { CheckoutDeps } from "./deps.ts";
import { ENGINE } from "./engine.ts";
import { expireSessions } from "./expire.ts";
import { receiveNotification } from "./notifications.ts";
import { pollPayments } from "./poll.ts";
import { Throttle } from "./throttle.ts";

/** How often processors are asked about what is due. */
export const POLL_EVERY_MS = 1000;
export const EXPIRE_EVERY_MS = 10_000;
/** How soon a wallet that falls below its threshold is topped up. */
export const AUTO_TOP_UP_EVERY_MS = 2000;
export const FORGET_EVERY_MS = 60_000;

/** Something to be done from time to time, safe to run on several replicas at once. */
export interface Job {
  readonly name: string;
  readonly everyMs: number;
  readonly run: () => Promise<unknown>;
}

export interface Checkout extends PaymentParts {
  /** Takes what processors send. */
  readonly receive: Receive;
  readonly jobs: readonly Job[];
}

export function openCheckout(deps: Deps, hints: CreditHints, random: RandomBytes): Checkout {
  const { secrets, settings, log } = deps;
  const now = (): number => deps.now();
  const adapters = { now, random, urls: settings.processorUrls, log };
  const processors = createProcessors(secrets, [
    stripeProcessor(adapters),
    wechatProcessor(adapters),
    sandboxProcessor(deps),
  ]);
  const all: CheckoutDeps = { ...deps, processors, hints, saveMethod: methodSaver(deps) };
  const receive: Receive = (processor, accountId, raw) => receiveNotification(all, processor, accountId, raw);
  return {
    deps: all,
    engine: ENGINE,
    throttle: new Throttle({ redisUrl: settings.redisUrl, log, now }),
    receive,
    jobs: [
      { name: "payments", everyMs: POLL_EVERY_MS, run: () => pollPayments(all) },
      { name: "checkout expiry", everyMs: EXPIRE_EVERY_MS, run: () => expireSessions(all) },
      {
        name: "automatic top-ups",
        everyMs: AUTO_TOP_UP_EVERY_MS,
        run: () => topUpAutomatically(deps, (charge) => chargeAutomatically(all, charge)),
      },
      { name: "forgotten payment methods", everyMs: FORGET_EVERY_MS, run: () => forgetSavedMethods(all) },
      {
        name: "sandbox",
        everyMs: SANDBOX_EVERY_MS,
        run: () => sandboxTick(deps, (accountId, raw) => receive(PaymentProcessor.SANDBOX, accountId, raw)),
      },
    ],
  };
}
