/** VirtualEndpointService: VEs and their wallets. Access keys are in access_key_calls.ts. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { parseCredits } from "../../core/credits.ts";
import {
  BudgetMode,
  type VirtualEndpoint,
  VirtualEndpointSchema,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import {
  type CreateVirtualEndpointRequest,
  CreateVirtualEndpointRequestSchema,
  CreateVirtualEndpointResponseSchema,
  DeleteVirtualEndpointResponseSchema,
  GetVirtualEndpointResponseSchema,
  ListVirtualEndpointsResponseSchema,
  type UpdateVirtualEndpointRequest,
  UpdateVirtualEndpointResponseSchema,
  type VirtualEndpointService,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { DomainError, inUse, invalidField } from "../domain/errors.ts";
import { deleteAutoTopUp } from "../store/auto_top_up.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import { copyLogicalModels } from "../store/logical_model.ts";
import { keepTimeZone } from "../store/merchant.ts";
import { findPassthroughVe, keepProvider } from "../store/provider.ts";
import * as ves from "../store/virtual_endpoint.ts";
import { createWallet, readWallet, readWallets, type WalletRow } from "../store/wallet.ts";
import { accessKeyCalls } from "./access_key_calls.ts";
import { type BudgetFields, changedBudget, newBudget, toBudgetReset } from "./budget_reset_fields.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { canonicalCredits, checkEtag, checkoutUrl, optionalTime } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { rateLimitsOr, toRateLimits } from "./routing_fields.ts";
import type { CreditHints } from "../credit_recall.ts";
import { walletCalls, walletOf } from "./wallet_calls.ts";

const LIST = "virtual_endpoints";
const LABELS_MAX = 32;
const EXHAUSTED_STATUS_DEFAULT = 429;

function toVirtualEndpoint(deps: Deps, row: ves.VirtualEndpointRow, wallet: WalletRow | null): VirtualEndpoint {
  return create(VirtualEndpointSchema, {
    id: row.id,
    name: row.name,
    template: row.template,
    veTemplateId: row.ve_template_id ?? "",
    disabled: row.disabled,
    budgetMode: row.budget_mode as BudgetMode,
    exhaustedStatus: row.exhausted_status,
    lowBalanceCredits: canonicalCredits(row.low_balance),
    offlineGraceCredits: canonicalCredits(row.offline_grace),
    labels: row.labels,
    wallet: walletOf(row, wallet),
    checkoutUrl: checkoutUrl(deps.settings, row.id),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
    budgetReset: toBudgetReset(row),
    nextBudgetResetTime: optionalTime(row.next_budget_reset_at),
    rateLimits: toRateLimits(row.rate_limits),
    explainHeaders: row.explain_headers,
    passthroughProviderId: row.passthrough_provider_id ?? "",
    frozen: row.frozen,
  });
}

function budgetModeOr(asked: BudgetMode | undefined, fallback: number): number {
  if (asked === undefined) return fallback;
  return asked === BudgetMode.UNSPECIFIED ? BudgetMode.BALANCED : asked;
}

/** What a new VE is made of: the request over the template over the defaults. @throws DomainError invalid_field */
function newFields(
  request: CreateVirtualEndpointRequest,
  template: ves.VirtualEndpointRow | null,
  budget: BudgetFields,
): Omit<ves.VirtualEndpointFields, "frozen"> {
  const labels = { ...template?.labels, ...request.labels };
  if (Object.keys(labels).length > LABELS_MAX) {
    throw invalidField(
      "labels",
      `together with those of the template there are more than ${LABELS_MAX}`,
      "map.max_pairs",
    );
  }
  return {
    name: request.name,
    disabled: false,
    budget_mode: budgetModeOr(request.budgetMode, template?.budget_mode ?? BudgetMode.BALANCED),
    exhausted_status: request.exhaustedStatus ?? template?.exhausted_status ?? EXHAUSTED_STATUS_DEFAULT,
    low_balance: request.lowBalanceCredits ?? template?.low_balance ?? "0",
    offline_grace: request.offlineGraceCredits ?? template?.offline_grace ?? "0",
    labels,
    rate_limits: rateLimitsOr(request.rateLimits, template?.rate_limits ?? null),
    explain_headers: request.explainHeaders ?? template?.explain_headers ?? false,
    passthrough_provider_id: request.passthroughProviderId || null,
    ...budget,
  };
}

function changedFields(
  row: ves.VirtualEndpointRow,
  request: UpdateVirtualEndpointRequest,
  budget: BudgetFields,
): ves.VirtualEndpointFields {
  return {
    name: request.name ?? row.name,
    disabled: request.disabled ?? row.disabled,
    budget_mode: budgetModeOr(request.budgetMode, row.budget_mode),
    exhausted_status: request.exhaustedStatus ?? row.exhausted_status,
    low_balance: request.lowBalanceCredits ?? row.low_balance,
    offline_grace: request.offlineGraceCredits ?? row.offline_grace,
    labels: request.labels?.labels ?? row.labels,
    rate_limits: rateLimitsOr(request.rateLimits, row.rate_limits),
    explain_headers: request.explainHeaders ?? row.explain_headers,
    passthrough_provider_id:
      request.passthroughProviderId === undefined ? row.passthrough_provider_id : request.passthroughProviderId || null,
    frozen: request.frozen ?? row.frozen,
    ...budget,
  };
}

/**
 * Whether the VE may pass files and the like through to a Provider, which is kept from deletion.
 * @throws DomainError invalid_field, not_found, in_use
 */
async function checkPassthrough(tx: Tx, merchantId: string, ve: { id: string; template: boolean }, providerId: string) {
  if (providerId === "") return;
  const field = "passthrough_provider_id";
  if (ve.template)
    throw invalidField(field, "a template serves nobody, and a Provider serves one VE alone", "template");
  await keepProvider(tx, merchantId, providerId).catch((error: unknown) => {
    if (!(error instanceof DomainError)) throw error;
    throw new DomainError("not_found", `${field}: there is no Provider with this id`, { field });
  });
  const other = await findPassthroughVe(tx, providerId);
  if (other === null || other === ve.id) return;
  throw inUse("Provider", other, `the VE ${other}, and all that is stored there is open to it: use another Provider`);
}

/** The VE to copy from, kept from deletion. @throws DomainError not_found, naming the field */
async function keepTemplate(tx: Tx, merchantId: string, id: string): Promise<ves.VirtualEndpointRow | null> {
  if (id === "") return null;
  return ves.keepVirtualEndpoint(tx, merchantId, id).catch((error: unknown) => {
    if (!(error instanceof DomainError)) throw error;
    throw new DomainError("not_found", "ve_template_id: there is no VE with this id", { field: "ve_template_id" });
  });
}

async function createVirtualEndpoint(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: CreateVirtualEndpointRequest,
): Promise<VirtualEndpoint> {
  if (request.template && parseCredits(request.creditBudget || "0") !== 0n)
    throw invalidField("credit_budget", "a template spends nothing, so it holds no Credits", "template");
  const timeZone = await keepTimeZone(tx, merchantId);
  const template = await keepTemplate(tx, merchantId, request.veTemplateId);
  const nowMs = deps.now();
  const budget = newBudget(request, template, timeZone, nowMs);
  const fields = newFields(request, template, budget);
  const first = request.template ? "0" : (budget.budget_reset_credits ?? "0");
  const initial = parseCredits(request.creditBudget === "" ? first : request.creditBudget);
  const id = deps.newId("ve_");
  await checkPassthrough(tx, merchantId, { id, template: request.template }, request.passthroughProviderId);
  await createWallet(tx, { veId: id, merchantId, initial, transferId: deps.newId("tr_"), now: nowMs });
  const row = {
    ...fields,
    id,
    merchant_id: merchantId,
    template: request.template,
    ve_template_id: template?.id ?? null,
  };
  const revision = await nextRevision(tx);
  const stored = await ves.insertVirtualEndpoint(tx, row, revision, new Date(nowMs));
  if (template !== null) {
    const copy = { merchantId, fromVeId: template.id, toVeId: id, seed: deps.newId("seed_") };
    await copyLogicalModels(tx, copy, revision, new Date(nowMs));
  }
  return toVirtualEndpoint(deps, stored, await readWallet(tx, id));
}

function reads(
  deps: Deps,
): Pick<ServiceImpl<typeof VirtualEndpointService>, "getVirtualEndpoint" | "listVirtualEndpoints"> {
  return {
    async getVirtualEndpoint(request, ctx) {
      const row = await ves.readVirtualEndpoint(deps.db, requireMerchant(ctx), request.id);
      return create(GetVirtualEndpointResponseSchema, {
        virtualEndpoint: toVirtualEndpoint(deps, row, await readWallet(deps.db, row.id)),
      });
    },

    async listVirtualEndpoints(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const filterKey = `${merchantId}/${request.template ?? ""}/${request.veTemplateId}`;
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, filterKey, request.pageToken) ?? 0n;
      const filter = { template: request.template, templateId: request.veTemplateId };
      const page = toPage(
        await ves.listVirtualEndpoints(deps.db, merchantId, filter, after, size + 1),
        size,
        LIST,
        filterKey,
      );
      const ids = page.items.map((row) => row.id);
      const wallets = await readWallets(deps.db, ids);
      return create(ListVirtualEndpointsResponseSchema, {
        virtualEndpoints: page.items.map((row) => toVirtualEndpoint(deps, row, wallets.get(row.id) ?? null)),
        nextPageToken: page.nextPageToken,
      });
    },
  };
}

/** `hints` hears of Credits that nodes give back, for when some are to be taken out. */
export function virtualEndpointService(deps: Deps, hints: CreditHints): ServiceImpl<typeof VirtualEndpointService> {
  return {
    async createVirtualEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreateVirtualEndpointRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateVirtualEndpoint",
          request.requestId,
          bytes,
          CreateVirtualEndpointResponseSchema,
          async () =>
            create(CreateVirtualEndpointResponseSchema, {
              virtualEndpoint: await createVirtualEndpoint(deps, tx, merchantId, request),
            }),
        ),
      );
    },

    async updateVirtualEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const timeZone = await keepTimeZone(tx, merchantId);
        const row = await ves.lockVirtualEndpoint(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        if (row.template && request.frozen === true)
          throw invalidField("frozen", "it is a template, which nothing is paid for", "template");
        await checkPassthrough(tx, merchantId, row, request.passthroughProviderId ?? "");
        const wallet = await readWallet(tx, row.id);
        const fields = changedFields(row, request, changedBudget(row, request, timeZone, deps.now()));
        const changed = await ves.updateVirtualEndpoint(
          tx,
          row.id,
          fields,
          await nextRevision(tx),
          new Date(deps.now()),
        );
        return create(UpdateVirtualEndpointResponseSchema, {
          virtualEndpoint: toVirtualEndpoint(deps, changed, wallet),
        });
      });
    },

    async deleteVirtualEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await ves.lockVirtualEndpoint(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const ids = await ves.deleteVirtualEndpoint(tx, row.id);
        await deleteAutoTopUp(tx, row.id, new Date(deps.now()));
        await addTombstones(tx, await nextRevision(tx), ids);
      });
      return create(DeleteVirtualEndpointResponseSchema);
    },

    ...walletCalls(deps, hints),
    ...reads(deps),
    ...accessKeyCalls(deps),
  };
}
