/** A small catalogue, and clients of every service, for tests of the API. */

import { create, toBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import {
  ReportStatus,
  UsageRecordSchema,
  UsageReportService,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Meter, UnitKind, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { AuditService } from "../../proto/gen/tokenbill/v1/audit_service_pb.ts";
import { AutoTopUpService } from "../../proto/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import { CheckoutService } from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import { CreditPackService } from "../../proto/gen/tokenbill/v1/credit_pack_service_pb.ts";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { MerchantService } from "../../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { PaymentAccountService } from "../../proto/gen/tokenbill/v1/payment_account_service_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { Endpoint, Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { UsageService } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { VirtualEndpointService } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { WebhookService } from "../../proto/gen/tokenbill/v1/webhook_service_pb.ts";
import type { Protocol, TestControlPlane } from "../testing.ts";

export interface Clients {
  readonly providers: Client<typeof ProviderService>;
  readonly ves: Client<typeof VirtualEndpointService>;
  readonly models: Client<typeof LogicalModelService>;
  readonly merchants: Client<typeof MerchantService>;
  readonly usage: Client<typeof UsageService>;
  readonly audit: Client<typeof AuditService>;
  readonly autoTopUps: Client<typeof AutoTopUpService>;
  readonly checkout: Client<typeof CheckoutService>;
  readonly packs: Client<typeof CreditPackService>;
  readonly accounts: Client<typeof PaymentAccountService>;
  readonly webhooks: Client<typeof WebhookService>;
}

export function clientsOf(cp: TestControlPlane, token: string | null, protocol?: Protocol): Clients {
  return {
    providers: cp.client(ProviderService, token, protocol),
    ves: cp.client(VirtualEndpointService, token, protocol),
    models: cp.client(LogicalModelService, token, protocol),
    merchants: cp.client(MerchantService, token, protocol),
    usage: cp.client(UsageService, token, protocol),
    audit: cp.client(AuditService, token, protocol),
    autoTopUps: cp.client(AutoTopUpService, token, protocol),
    checkout: cp.client(CheckoutService, token, protocol),
    packs: cp.client(CreditPackService, token, protocol),
    accounts: cp.client(PaymentAccountService, token, protocol),
    webhooks: cp.client(WebhookService, token, protocol),
  };
}

export const UPSTREAM_KEY = "sk-upstream-0123456789-very-secret";

export interface Catalogue {
  readonly providerId: string;
  readonly pmId: string;
  readonly veId: string;
  readonly lmId: string;
  readonly keyId: string;
  readonly keySecret: string;
}

/** One of everything. `name` keeps several apart. */
export async function makeCatalogue({ providers, ves, models }: Clients, name: string): Promise<Catalogue> {
  const { provider } = await providers.createProvider({
    name,
    format: ProviderFormat.OPENAI,
    baseUrl: "http://127.0.0.1:9/v1",
    credentials: { apiKey: UPSTREAM_KEY },
  });
  const { physicalModel } = await providers.createPhysicalModel({
    providerId: provider!.id,
    name,
    upstreamName: "gpt-test",
    price: { case: "simplePrice", value: { creditPerUnit: "0.05", unit: UnitKind.TOKENS, perUnits: 1000n } },
  });
  const { virtualEndpoint } = await ves.createVirtualEndpoint({ name, creditBudget: "10.5" });
  const { logicalModel } = await models.createLogicalModel({
    veId: virtualEndpoint!.id,
    name: "gpt",
    targets: [{ physicalModelId: physicalModel!.id, tier: 0, weight: 1 }],
  });
  const { accessKey, secret } = await ves.createAccessKey({ veId: virtualEndpoint!.id, name });
  return {
    providerId: provider!.id,
    pmId: physicalModel!.id,
    veId: virtualEndpoint!.id,
    lmId: logicalModel!.id,
    keyId: accessKey!.id,
    keySecret: secret,
  };
}

/** One finished request of a VE, reported by a node. Its id. */
export async function reportUsage(
  cp: TestControlPlane,
  clients: Clients,
  { veId, keyId, lmId, pmId }: Catalogue,
): Promise<string> {
  const { physicalModel } = await clients.providers.getPhysicalModel({ id: pmId });
  const id = cp.deps.newId("usg_");
  const record = create(UsageRecordSchema, {
    recordNo: 1n,
    id,
    veId,
    accessKeyId: keyId,
    logicalModelId: lmId,
    logicalModel: "gpt",
    endpoint: Endpoint.CHAT_COMPLETIONS,
    physicalModelId: pmId,
    priceId: physicalModel!.price!.id,
    units: [{ meter: Meter.INPUT_TOKENS, quantity: 100n, source: UnitSource.REPORTED }],
    credits: "0.005",
    outcome: Outcome.COMPLETED,
    httpStatus: 200,
    arriveUnixUs: BigInt(cp.deps.now()) * 1000n,
    durationUs: 1000n,
  });
  const node = cp.client(UsageReportService, cp.nodeToken);
  const bootId = cp.deps.newId("boot_");
  const { status } = await node.reportUsage({
    nodeId: "node-1",
    bootId,
    seq: 1n,
    firstRecordNo: 1n,
    records: [toBinary(UsageRecordSchema, record)],
  });
  if (status !== ReportStatus.APPLIED) throw new Error(`the report was not applied: ${status}`);
  return id;
}
