/** TokenBill's control plane from TypeScript: typed clients of the public API and a few helpers. Node and browsers. */

import { type Client, type Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { AuditService } from "./gen/tokenbill/v1/audit_service_pb.ts";
import { AutoTopUpService } from "./gen/tokenbill/v1/auto_top_up_service_pb.ts";
import { CheckoutService } from "./gen/tokenbill/v1/checkout_service_pb.ts";
import { CreditPackService } from "./gen/tokenbill/v1/credit_pack_service_pb.ts";
import { ErrorInfoSchema, ErrorReason } from "./gen/tokenbill/v1/error_pb.ts";
import { LogicalModelService } from "./gen/tokenbill/v1/logical_model_service_pb.ts";
import { MerchantService } from "./gen/tokenbill/v1/merchant_service_pb.ts";
import { PaymentAccountService } from "./gen/tokenbill/v1/payment_account_service_pb.ts";
import { ProviderService } from "./gen/tokenbill/v1/provider_service_pb.ts";
import { UsageService } from "./gen/tokenbill/v1/usage_service_pb.ts";
import { VirtualEndpointService } from "./gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { WebhookService } from "./gen/tokenbill/v1/webhook_service_pb.ts";

export * from "./gen/tokenbill/v1/audit_pb.ts";
export * from "./gen/tokenbill/v1/audit_service_pb.ts";
export * from "./gen/tokenbill/v1/auto_top_up_service_pb.ts";
export * from "./gen/tokenbill/v1/checkout_pb.ts";
export * from "./gen/tokenbill/v1/checkout_service_pb.ts";
export * from "./gen/tokenbill/v1/credit_pack_service_pb.ts";
export * from "./gen/tokenbill/v1/error_pb.ts";
export * from "./gen/tokenbill/v1/logical_model_pb.ts";
export * from "./gen/tokenbill/v1/logical_model_service_pb.ts";
export * from "./gen/tokenbill/v1/merchant_pb.ts";
export * from "./gen/tokenbill/v1/merchant_service_pb.ts";
export * from "./gen/tokenbill/v1/meter_pb.ts";
export * from "./gen/tokenbill/v1/payment_account_pb.ts";
export * from "./gen/tokenbill/v1/payment_account_service_pb.ts";
export * from "./gen/tokenbill/v1/price_import_pb.ts";
export * from "./gen/tokenbill/v1/provider_pb.ts";
export * from "./gen/tokenbill/v1/provider_service_pb.ts";
export * from "./gen/tokenbill/v1/usage_pb.ts";
export * from "./gen/tokenbill/v1/usage_service_pb.ts";
export * from "./gen/tokenbill/v1/virtual_endpoint_pb.ts";
export * from "./gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
export * from "./gen/tokenbill/v1/webhook_pb.ts";
export * from "./gen/tokenbill/v1/webhook_service_pb.ts";
export { Code, ConnectError } from "@connectrpc/connect";

export interface TokenBillOptions {
  /** The control plane, such as `http://127.0.0.1:8080`. */
  readonly baseUrl: string;
  /**
   * A merchant's API token, or the operator's; or the secret of one Checkout Session, which opens that session alone and may
   * be in a browser. A function is asked before every call.
   */
  readonly apiToken: string | (() => string | Promise<string>);
  /** How long a call may take. Default: no bound but the server's. */
  readonly timeoutMs?: number;
  /** Instead of the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

/** One client for each service; every call rejects with a ConnectError, see `errorInfo`. */
export interface TokenBill {
  readonly providers: Client<typeof ProviderService>;
  readonly virtualEndpoints: Client<typeof VirtualEndpointService>;
  readonly logicalModels: Client<typeof LogicalModelService>;
  readonly usage: Client<typeof UsageService>;
  readonly merchants: Client<typeof MerchantService>;
  readonly checkout: Client<typeof CheckoutService>;
  readonly creditPacks: Client<typeof CreditPackService>;
  readonly paymentAccounts: Client<typeof PaymentAccountService>;
  readonly autoTopUps: Client<typeof AutoTopUpService>;
  readonly webhooks: Client<typeof WebhookService>;
  /** For the operator. */
  readonly audit: Client<typeof AuditService>;
}

export function createTokenBill(options: TokenBillOptions): TokenBill {
  const { apiToken } = options;
  const authenticate: Interceptor = (next) => async (request) => {
    const token = typeof apiToken === "function" ? await apiToken() : apiToken;
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const transport = createConnectTransport({
    baseUrl: options.baseUrl,
    interceptors: [authenticate],
    defaultTimeoutMs: options.timeoutMs,
    fetch: options.fetch,
  });
  return {
    providers: createClient(ProviderService, transport),
    virtualEndpoints: createClient(VirtualEndpointService, transport),
    logicalModels: createClient(LogicalModelService, transport),
    usage: createClient(UsageService, transport),
    merchants: createClient(MerchantService, transport),
    checkout: createClient(CheckoutService, transport),
    creditPacks: createClient(CreditPackService, transport),
    paymentAccounts: createClient(PaymentAccountService, transport),
    autoTopUps: createClient(AutoTopUpService, transport),
    webhooks: createClient(WebhookService, transport),
    audit: createClient(AuditService, transport),
  };
}

export interface TokenBillErrorInfo {
  /** Why, for programs. UNSPECIFIED if the error did not come from TokenBill (network, proxy). */
  readonly reason: ErrorReason;
  /** The Connect code. */
  readonly code: Code;
  /** For people. */
  readonly message: string;
  /** Details, such as `field` for INVALID_FIELD. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** What is known about an error that a call rejected with. Takes anything. */
export function errorInfo(error: unknown): TokenBillErrorInfo {
  const connectError = ConnectError.from(error);
  const info = connectError.findDetails(ErrorInfoSchema)[0];
  return {
    reason: info?.reason ?? ErrorReason.UNSPECIFIED,
    code: connectError.code,
    message: connectError.rawMessage,
    metadata: info?.metadata ?? {},
  };
}

/**
 * Ranges over all items of a list, page by page:
 * `for await (const ve of paginate((pageToken) => tb.virtualEndpoints.listVirtualEndpoints({ pageToken }), (page) => page.virtualEndpoints))`
 */
export async function* paginate<Page extends { readonly nextPageToken: string }, Item>(
  fetchPage: (pageToken: string) => Promise<Page>,
  items: (page: Page) => readonly Item[],
): AsyncGenerator<Item, void, undefined> {
  let pageToken = "";
  do {
    const page = await fetchPage(pageToken);
    yield* items(page);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

/** A fresh `requestId` for a create: keep it, and a repeated call gives the first result instead of a second resource. */
export function requestId(): string {
  return globalThis.crypto.randomUUID();
}
