/** What a merchant, or a payer, tries on what belongs to another merchant: the calls of checkouts. */

import { PaymentMethod } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import type { Catalogue, Clients } from "./test_fixture.ts";

/** What belongs to merchant A, and the clients of merchant B. */
export interface World extends Catalogue {
  readonly merchantId: string;
  readonly tokenId: string;
  readonly requestId: string;
  readonly webhookEndpointId: string;
  readonly webhookEventId: string;
  readonly b: Clients;
  readonly bVeId: string;
  readonly bPmId: string;
  readonly sessionId: string;
  readonly packId: string;
  readonly accountId: string;
  readonly templateId: string;
  /** A payer of B's. */
  readonly payer: Clients;
}

type Attempt = (world: World) => Promise<unknown>;

/** How each attempt must end, by call. */
export type Attempts = Readonly<Record<string, readonly ["not_found" | "empty" | "wrong_scope", Attempt][]>>;

const SANDBOX_CHOICE = {
  creditPackId: "pack_example_10",
  paymentAccountId: "sandbox",
  method: PaymentMethod.SANDBOX,
};

export const CHECKOUT_ATTEMPTS: Attempts = {
  // What it makes is the caller's own; there is nobody else's id to name.
  "WebhookService.CreateWebhookEndpoint": [],
  "WebhookService.GetWebhookEndpoint": [
    ["not_found", ({ b, webhookEndpointId: id }) => b.webhooks.getWebhookEndpoint({ id })],
  ],
  "WebhookService.ListWebhookEndpoints": [
    ["empty", async ({ b }) => (await b.webhooks.listWebhookEndpoints({})).webhookEndpoints],
  ],
  "WebhookService.UpdateWebhookEndpoint": [
    ["not_found", ({ b, webhookEndpointId: id }) => b.webhooks.updateWebhookEndpoint({ id, disabled: true })],
  ],
  "WebhookService.RotateWebhookSecret": [
    ["not_found", ({ b, webhookEndpointId: id }) => b.webhooks.rotateWebhookSecret({ id })],
  ],
  "WebhookService.DeleteWebhookEndpoint": [
    ["not_found", ({ b, webhookEndpointId: id }) => b.webhooks.deleteWebhookEndpoint({ id })],
  ],
  "WebhookService.ListWebhookEvents": [
    ["empty", async ({ b }) => (await b.webhooks.listWebhookEvents({})).webhookEvents],
    ["empty", async ({ b, veId }) => (await b.webhooks.listWebhookEvents({ veId })).webhookEvents],
  ],
  "WebhookService.ListWebhookDeliveries": [
    ["empty", async ({ b }) => (await b.webhooks.listWebhookDeliveries({})).webhookDeliveries],
    [
      "empty",
      async ({ b, webhookEventId }) => (await b.webhooks.listWebhookDeliveries({ webhookEventId })).webhookDeliveries,
    ],
    [
      "empty",
      async ({ b, webhookEndpointId }) =>
        (await b.webhooks.listWebhookDeliveries({ webhookEndpointId })).webhookDeliveries,
    ],
  ],
  "WebhookService.ReplayWebhookEvent": [
    ["not_found", ({ b, webhookEventId }) => b.webhooks.replayWebhookEvent({ webhookEventId })],
    [
      "not_found",
      ({ b, webhookEventId, webhookEndpointId }) =>
        b.webhooks.replayWebhookEvent({ webhookEventId, webhookEndpointId }),
    ],
  ],
  "CheckoutService.CreateCheckoutSession": [
    ["not_found", ({ b, veId }) => b.checkout.createCheckoutSession({ veId })],
    ["wrong_scope", ({ payer, bVeId }) => payer.checkout.createCheckoutSession({ veId: bVeId })],
  ],
  "CheckoutService.GetCheckoutSession": [
    ["not_found", ({ b, sessionId }) => b.checkout.getCheckoutSession({ id: sessionId })],
    ["not_found", ({ payer, sessionId }) => payer.checkout.getCheckoutSession({ id: sessionId })],
  ],
  "CheckoutService.ListCheckoutSessions": [
    [
      "empty",
      async ({ b, sessionId }) =>
        (await b.checkout.listCheckoutSessions({ pageSize: 1000 })).checkoutSessions.filter(
          ({ id }) => id === sessionId,
        ),
    ],
    ["empty", async ({ b, veId }) => (await b.checkout.listCheckoutSessions({ veId })).checkoutSessions],
    ["wrong_scope", ({ payer }) => payer.checkout.listCheckoutSessions({})],
  ],
  "CheckoutService.StartPayment": [
    ["not_found", ({ b, sessionId }) => b.checkout.startPayment({ id: sessionId, ...SANDBOX_CHOICE })],
    ["not_found", ({ payer, sessionId }) => payer.checkout.startPayment({ id: sessionId, ...SANDBOX_CHOICE })],
  ],
  "CheckoutService.CheckPayment": [
    ["not_found", ({ b, sessionId }) => b.checkout.checkPayment({ id: sessionId })],
    ["not_found", ({ payer, sessionId }) => payer.checkout.checkPayment({ id: sessionId })],
  ],
  "CheckoutService.CancelCheckoutSession": [
    ["not_found", ({ b, sessionId }) => b.checkout.cancelCheckoutSession({ id: sessionId })],
    ["not_found", ({ payer, sessionId }) => payer.checkout.cancelCheckoutSession({ id: sessionId })],
  ],
  "CheckoutService.RefundCheckoutSession": [
    ["not_found", ({ b, sessionId }) => b.checkout.refundCheckoutSession({ id: sessionId })],
    ["wrong_scope", ({ payer, sessionId }) => payer.checkout.refundCheckoutSession({ id: sessionId })],
  ],
  "CreditPackService.CreateCreditPack": [
    [
      "not_found",
      ({ b, templateId }) =>
        b.packs.createCreditPack({
          veTemplateId: templateId,
          price: { currency: "USD", amount: "1" },
          credits: "1",
        }),
    ],
  ],
  "CreditPackService.GetCreditPack": [["not_found", ({ b, packId }) => b.packs.getCreditPack({ id: packId })]],
  "CreditPackService.ListCreditPacks": [
    ["empty", async ({ b }) => (await b.packs.listCreditPacks({})).creditPacks],
    ["empty", async ({ b, templateId }) => (await b.packs.listCreditPacks({ veTemplateId: templateId })).creditPacks],
  ],
  "CreditPackService.UpdateCreditPack": [
    ["not_found", ({ b, packId }) => b.packs.updateCreditPack({ id: packId, credits: "1000" })],
  ],
  "CreditPackService.DeleteCreditPack": [["not_found", ({ b, packId }) => b.packs.deleteCreditPack({ id: packId })]],
  // What it makes is the caller's own; there is nobody else's id to name.
  "PaymentAccountService.CreatePaymentAccount": [],
  "PaymentAccountService.GetPaymentAccount": [
    ["not_found", ({ b, accountId }) => b.accounts.getPaymentAccount({ id: accountId })],
  ],
  "PaymentAccountService.ListPaymentAccounts": [
    ["empty", async ({ b }) => (await b.accounts.listPaymentAccounts({})).paymentAccounts],
  ],
  "PaymentAccountService.UpdatePaymentAccount": [
    ["not_found", ({ b, accountId }) => b.accounts.updatePaymentAccount({ id: accountId, disabled: true })],
  ],
  "PaymentAccountService.DeletePaymentAccount": [
    ["not_found", ({ b, accountId }) => b.accounts.deletePaymentAccount({ id: accountId })],
  ],
  // A merchant has one checkout: there is no id to name.
  "PaymentAccountService.GetCheckoutSettings": [
    ["empty", async ({ b }) => (await b.accounts.getCheckoutSettings({})).checkoutSettings!.returnUrlPrefixes],
  ],
  "PaymentAccountService.UpdateCheckoutSettings": [],
};
