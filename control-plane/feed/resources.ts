/** Rows -> resources as nodes get them. */

import { create, fromBinary } from "@bufbuild/protobuf";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import {
  type BedrockApi,
  type ModelApi,
  type OnDisconnect,
  PriceSchema,
  ProviderCredentialsSchema,
  type ProviderDialect,
  type ProviderFormat,
} from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { RateLimits } from "../../proto/gen/tokenbill/v1/rate_limit_pb.ts";
import type { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import type { BudgetMode } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import type { Deps } from "../api/context.ts";
import { checkoutUrl } from "../api/convert.ts";
import { toDeadlines, toRateLimits, toRouting, toTarget } from "../api/routing_fields.ts";
import { pinSecret } from "../pin_secret.ts";
import type { ResourceRow } from "../store/feed.ts";
import type { StoredDeadlines, StoredRateLimits, StoredRouting, StoredTarget } from "../store/routing_columns.ts";

type Doc = ResourceRow["doc"];
type ResourceDeps = Pick<Deps, "secrets" | "settings" | "log">;

function bytes(value: unknown): Uint8Array | null {
  return typeof value === "string" ? new Uint8Array(Buffer.from(value, "base64")) : null;
}

function decimal(value: unknown): string {
  return formatCredits(parseCredits(value as string));
}

/** Undefined: none. */
function rateLimits(doc: Doc): RateLimits | undefined {
  return toRateLimits(doc["rate_limits"] as StoredRateLimits | null);
}

function provider(deps: ResourceDeps, id: string, doc: Doc, withCredentials: boolean) {
  const base = {
    id,
    format: doc["format"] as ProviderFormat,
    baseUrl: doc["base_url"] as string,
    onDisconnect: doc["on_disconnect"] as OnDisconnect,
    headers: doc["headers"] as Record<string, string>,
    region: doc["region"] as string,
    apiVersion: doc["api_version"] as string,
    disabled: doc["disabled"] as boolean,
    dialect: doc["dialect"] as ProviderDialect,
    bedrockApi: doc["bedrock_api"] as BedrockApi,
  };
  const envelope = bytes(doc["credentials"]);
  if (!withCredentials || envelope === null) return base;
  try {
    return { ...base, credentials: fromBinary(ProviderCredentialsSchema, deps.secrets.open(envelope, id)) };
  } catch (error) {
    // One broken envelope must not stop the feed; without its credentials the Provider would only answer 401.
    deps.log.error(
      { providerId: id, reason: (error as Error).message },
      "stored credentials cannot be opened; nodes get the Provider as disabled",
    );
    return { ...base, disabled: true };
  }
}

function physicalModel(id: string, doc: Doc) {
  const price = bytes(doc["price"]);
  return {
    id,
    providerId: doc["provider_id"] as string,
    upstreamName: doc["upstream_name"] as string,
    maxOutputTokens: BigInt(doc["max_output_tokens"] as string),
    disabled: doc["disabled"] as boolean,
    unitLimitUnit: (doc["unit_limit_unit"] as UnitKind | null) ?? 0,
    creditLimited: doc["credit_limited"] as boolean,
    rateLimits: rateLimits(doc),
    family: doc["family"] as string,
    apis: doc["apis"] as ModelApi[],
    ...(price === null ? {} : { price: fromBinary(PriceSchema, price) }),
  };
}

function virtualEndpoint(deps: ResourceDeps, id: string, doc: Doc, withCredentials: boolean) {
  return {
    id,
    name: doc["name"] as string,
    disabled: doc["disabled"] as boolean,
    budgetMode: doc["budget_mode"] as BudgetMode,
    exhaustedStatus: doc["exhausted_status"] as number,
    lowBalanceCredits: decimal(doc["low_balance"]),
    offlineGraceCredits: decimal(doc["offline_grace"]),
    checkoutUrl: checkoutUrl(deps.settings, id),
    explainHeaders: doc["explain_headers"] as boolean,
    rateLimits: rateLimits(doc),
    passthroughProviderId: (doc["passthrough_provider_id"] as string | null) ?? "",
    ...(withCredentials ? { pinSecret: pinSecret(deps.secrets, id) } : {}),
  };
}

function accessKey(id: string, doc: Doc) {
  return { id, veId: doc["ve_id"] as string, digest: bytes(doc["digest"])!, rateLimits: rateLimits(doc) };
}

function logicalModel(id: string, doc: Doc) {
  return {
    id,
    veId: doc["ve_id"] as string,
    name: doc["name"] as string,
    targets: (doc["targets"] as StoredTarget[]).map(toTarget),
    deadlines: toDeadlines(doc["deadlines"] as StoredDeadlines),
    createUnixS: BigInt(doc["created_s"] as number),
    routing: toRouting(doc["routing"] as StoredRouting | null),
  };
}

/** `withCredentials` only for nodes, over their own authenticated stream. */
export function toResource(deps: ResourceDeps, { kind, id, doc }: ResourceRow, withCredentials: boolean): Resource {
  switch (kind) {
    case "provider":
      return create(ResourceSchema, { kind: { case: "provider", value: provider(deps, id, doc, withCredentials) } });
    case "physical_model":
      return create(ResourceSchema, { kind: { case: "physicalModel", value: physicalModel(id, doc) } });
    case "virtual_endpoint":
      return create(ResourceSchema, {
        kind: { case: "virtualEndpoint", value: virtualEndpoint(deps, id, doc, withCredentials) },
      });
    case "access_key":
      return create(ResourceSchema, { kind: { case: "accessKey", value: accessKey(id, doc) } });
    case "logical_model":
      return create(ResourceSchema, { kind: { case: "logicalModel", value: logicalModel(id, doc) } });
  }
}
