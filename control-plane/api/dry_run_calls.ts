/** DryRun of LogicalModelService: reads what decides about a request, and has the domain decide. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { Meter } from "../../core/meters.ts";
import { dearestRate } from "../../core/pricing.ts";
import {
  type DryRunRequest,
  type DryRunResponse,
  DryRunResponseSchema,
  type DryRunTarget,
  DryRunTargetSchema,
  type LogicalModelService,
} from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { isRoutableFormat } from "../domain/catalogue.ts";
import {
  dryRun,
  type LiveView,
  type RatesView,
  type RateTerms,
  type TargetFacts,
  type TargetVerdict,
} from "../domain/dry_run.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import type { LimitAccount } from "../domain/limits.ts";
import { WalletState } from "../domain/wallet.ts";
import { readLimits } from "../store/limit.ts";
import { findLogicalModel, type LogicalModelRow } from "../store/logical_model.ts";
import { readTargetStates, type TargetStateRow } from "../store/physical_model.ts";
import type { StoredRateLimits } from "../store/routing_columns.ts";
import { readVirtualEndpoint, type VirtualEndpointRow } from "../store/virtual_endpoint.ts";
import { readWallet } from "../store/wallet.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkoutUrl } from "./convert.ts";
import { compileStoredPrice } from "./prices.ts";
import { walletOf } from "./wallet_calls.ts";

/** Where a LiveView comes from: what is left of rate limits may have to be asked for. */
export interface LiveSources extends Pick<LiveView, "health"> {
  rates(subject: string, limits: RateTerms): Promise<RatesView | null> | RatesView | null;
}

/** What decides about these subjects now. */
async function liveView(
  sources: LiveSources,
  subjects: readonly (readonly [id: string, terms: RateTerms | null])[],
): Promise<LiveView> {
  const rates = new Map<string, RatesView | null>();
  const ask = async (id: string, terms: RateTerms | null): Promise<void> => {
    if (terms !== null) rates.set(id, await sources.rates(id, terms));
  };
  await Promise.all(subjects.map(([id, terms]) => ask(id, terms)));
  return { health: (id) => sources.health(id), rates: (id) => rates.get(id) ?? null };
}

function rateTerms(stored: StoredRateLimits | null): RateTerms | null {
  if (stored === null) return null;
  return {
    requestsPerMinute: stored.requests_per_minute,
    tokensPerMinute: stored.tokens_per_minute,
    concurrentRequests: stored.concurrent_requests,
  };
}

function priceOf(body: Uint8Array | null): TargetFacts["price"] {
  const price = body === null ? null : compileStoredPrice(body);
  if (price === null) return "none";
  return dearestRate(price, Object.values(Meter)) > 0n ? "costs" : "free";
}

function targetFacts(
  { targets }: LogicalModelRow,
  models: readonly TargetStateRow[],
  limits: readonly LimitAccount[],
): TargetFacts[] {
  const byId = new Map(models.map((model) => [model.id, model]));
  return targets.flatMap(({ pm, tier, weight }): TargetFacts[] => {
    const model = byId.get(pm);
    // Taken out of the targets and deleted since they were read.
    if (model === undefined) return [];
    return [
      {
        physicalModelId: pm,
        providerId: model.provider_id,
        tier,
        weight,
        disabled: model.disabled,
        providerDisabled: model.provider_disabled,
        formatRoutable: isRoutableFormat(model.format),
        price: priceOf(model.price_body),
        limits: limits.filter(({ physicalModelId }) => physicalModelId === pm),
        rateTerms: rateTerms(model.rate_limits),
      },
    ];
  });
}

function toTarget({ facts, healthShare, probability, exclusions }: TargetVerdict): DryRunTarget {
  const { physicalModelId, providerId, tier, weight } = facts;
  return create(DryRunTargetSchema, {
    physicalModelId,
    providerId,
    tier,
    weight,
    healthShare,
    probability,
    exclusions: exclusions.map(({ reason, endMs, detail }) => ({
      reason,
      endTime: endMs === null ? undefined : timestampFromMs(endMs),
      detail,
    })),
  });
}

/** @throws DomainError not_found, invalid_field for a template */
async function readModel(
  deps: Deps,
  merchantId: string,
  { veId, model }: DryRunRequest,
): Promise<{ ve: VirtualEndpointRow; row: LogicalModelRow }> {
  const ve = await readVirtualEndpoint(deps.db, merchantId, veId);
  if (ve.template)
    throw invalidField("ve_id", "it is a template, which answers no requests: make a VE from it first", "template");
  const row = await findLogicalModel(deps.db, ve.id, model);
  if (row !== null) return { ve, row };
  throw new DomainError("not_found", "model: the VE has no Logical Model with this name", { field: "model" });
}

async function answer(
  deps: Deps,
  sources: LiveSources,
  merchantId: string,
  request: DryRunRequest,
): Promise<DryRunResponse> {
  const { ve, row } = await readModel(deps, merchantId, request);
  const ids = row.targets.map(({ pm }) => pm);
  const [models, limits, figures] = await Promise.all([
    readTargetStates(deps.db, merchantId, ids),
    readLimits(deps.db, ids),
    readWallet(deps.db, ve.id),
  ]);
  const wallet = walletOf(ve, figures);
  const facts = {
    veId: ve.id,
    veDisabled: ve.disabled,
    veFrozen: ve.frozen,
    veRateTerms: rateTerms(ve.rate_limits),
    walletExhausted: wallet.state === WalletState.EXHAUSTED,
    checkoutUrl: checkoutUrl(deps.settings, ve.id),
    model: row.name,
    targets: targetFacts(row, models, limits),
    stickyKey: row.routing?.sticky ? request.stickyKey : "",
  };
  const live = await liveView(sources, [
    [ve.id, facts.veRateTerms],
    ...facts.targets.map(({ physicalModelId, rateTerms: terms }) => [physicalModelId, terms] as const),
  ]);
  const { targets, errorCode, errorMessage } = dryRun(facts, live, deps.now());
  return create(DryRunResponseSchema, {
    logicalModelId: row.id,
    targets: targets.map(toTarget),
    errorCode,
    errorMessage,
    wallet,
  });
}

/** `live` is what nodes see of upstreams and rate limits. */
export function dryRunCalls(deps: Deps, live: LiveSources): Pick<ServiceImpl<typeof LogicalModelService>, "dryRun"> {
  return { dryRun: (request, ctx) => answer(deps, live, requireMerchant(ctx), request) };
}
