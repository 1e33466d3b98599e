/** Which services the control plane serves. */

import type { ConnectRouter } from "@connectrpc/connect";
import { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { HealthService } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { RateLimitService } from "../../proto/gen/tokenbill/node/v1/rate_limit_service_pb.ts";
import { UsageReportService } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { AuditService } from "../../proto/gen/tokenbill/v1/audit_service_pb.ts";
import { AutoTopUpService } from "../../proto/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import { CheckoutService } from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import { CreditPackService } from "../../proto/gen/tokenbill/v1/credit_pack_service_pb.ts";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { MerchantService } from "../../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { PaymentAccountService } from "../../proto/gen/tokenbill/v1/payment_account_service_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { UsageService } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { VirtualEndpointService } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { WebhookService } from "../../proto/gen/tokenbill/v1/webhook_service_pb.ts";
import type { Auditor } from "../audit/auditor.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import type { CheckoutEngine } from "../checkout/engine.ts";
import type { Throttle } from "../checkout/throttle.ts";
import type { Feed } from "../feed/feed.ts";
import { liveSources } from "../live_view.ts";
import type { RateSharing } from "../rates/rate_sharing.ts";
import { auditService } from "./audit_service.ts";
import { autoTopUpService } from "./auto_top_up_service.ts";
import { checkoutService } from "./checkout_service.ts";
import { configFeedService } from "./config_feed_service.ts";
import type { Deps } from "./context.ts";
import { creditPackService } from "./credit_pack_service.ts";
import { healthService } from "./health_service.ts";
import { logicalModelService } from "./logical_model_service.ts";
import { merchantService } from "./merchant_service.ts";
import { paymentAccountService } from "./payment_account_service.ts";
import { providerService } from "./provider_service.ts";
import { rateLimitService } from "./rate_limit_service.ts";
import { usageReportService } from "./usage_report_service.ts";
import { usageService } from "./usage_service.ts";
import { prepareValidation } from "./validation.ts";
import { virtualEndpointService } from "./virtual_endpoint_service.ts";
import { webhookService } from "./webhook_service.ts";

/** What merchants and operators call, with API tokens; payers call a little of it, see access.ts. */
export const PUBLIC_SERVICES = [
  ProviderService,
  VirtualEndpointService,
  LogicalModelService,
  UsageService,
  MerchantService,
  AuditService,
  AutoTopUpService,
  CheckoutService,
  CreditPackService,
  PaymentAccountService,
  WebhookService,
] as const;

/** What nodes call, with a node's token. */
export const NODE_SERVICES = [ConfigFeedService, UsageReportService, HealthService, RateLimitService] as const;

/** A full report: 10,000 records of well under 3 KiB. */
const REPORT_BYTES_MAX = 32 * 1024 * 1024;

/** What takes payments. */
export interface PaymentParts {
  readonly deps: CheckoutDeps;
  readonly engine: CheckoutEngine;
  readonly throttle: Throttle;
}

export function registerServices(
  router: ConnectRouter,
  deps: Deps,
  feed: Feed,
  auditor: Auditor,
  rates: RateSharing,
  payments: PaymentParts,
): void {
  router.service(ProviderService, providerService(deps));
  router.service(VirtualEndpointService, virtualEndpointService(deps, feed));
  const live = liveSources(
    (id) => feed.health.board.health(id),
    (subject, limits) => rates.left(subject, limits),
  );
  router.service(LogicalModelService, logicalModelService(deps, live));
  router.service(UsageService, usageService(deps));
  router.service(MerchantService, merchantService(deps));
  router.service(AuditService, auditService(deps, auditor));
  router.service(AutoTopUpService, autoTopUpService(deps));
  router.service(CheckoutService, checkoutService(payments.deps, payments.engine, payments.throttle));
  router.service(CreditPackService, creditPackService(deps));
  router.service(PaymentAccountService, paymentAccountService(payments.deps));
  router.service(WebhookService, webhookService(deps));
  router.service(ConfigFeedService, configFeedService(deps, feed));
  router.service(UsageReportService, usageReportService(deps, feed), { readMaxBytes: REPORT_BYTES_MAX });
  router.service(HealthService, healthService(feed.health));
  router.service(RateLimitService, rateLimitService(rates));
  for (const service of [...PUBLIC_SERVICES, ...NODE_SERVICES]) {
    for (const method of service.methods) prepareValidation(method.input);
  }
}
