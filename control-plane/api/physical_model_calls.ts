/** The calls of ProviderService that concern Physical Models and their prices. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type ModelApi, type PhysicalModel, PhysicalModelSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import {
  type CreatePhysicalModelRequest,
  CreatePhysicalModelRequestSchema,
  CreatePhysicalModelResponseSchema,
  DeletePhysicalModelResponseSchema,
  GetPhysicalModelResponseSchema,
  ListPhysicalModelsResponseSchema,
  ListPricesResponseSchema,
  type ProviderService,
  type UpdatePhysicalModelRequest,
  UpdatePhysicalModelResponseSchema,
} from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { UTC } from "../../core/periods.ts";
import type { Tx } from "../db/database.ts";
import { checkApisFit } from "../domain/provider_account.ts";
import type { LimitAccount } from "../domain/limits.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import { readLimits } from "../store/limit.ts";
import { keepTimeZone } from "../store/merchant.ts";
import * as models from "../store/physical_model.ts";
import { keepProvider } from "../store/provider.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import {
  isChange,
  type LimitChanges,
  limitChanges,
  toLimitFields,
  writeLimitChanges,
} from "./physical_model_limits.ts";
import { checkPrice, type CheckedPrice, readPrice } from "./prices.ts";
import { rateLimitsOr, toRateLimits } from "./routing_fields.ts";

const LIST = "physical_models";
const PRICE_LIST = "prices";

/** As the schema has it for `name`; an upstream name may be longer. */
const NAME_CHARS_MAX = 128;

type PhysicalModelCalls = Pick<
  ServiceImpl<typeof ProviderService>,
  | "createPhysicalModel"
  | "getPhysicalModel"
  | "listPhysicalModels"
  | "updatePhysicalModel"
  | "deletePhysicalModel"
  | "listPrices"
>;

function toPhysicalModel(row: models.PhysicalModelRow, limits: readonly LimitAccount[], nowMs: number): PhysicalModel {
  return create(PhysicalModelSchema, {
    id: row.id,
    providerId: row.provider_id,
    name: row.name,
    upstreamName: row.upstream_name,
    price: row.price_body === null ? undefined : readPrice(row.price_body),
    maxOutputTokens: row.max_output_tokens,
    disabled: row.disabled,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
    rateLimits: toRateLimits(row.rate_limits),
    family: row.family,
    apis: row.apis as ModelApi[],
    ...toLimitFields(limits, nowMs),
  });
}

/** Rows with their limits, in the order of the rows. */
async function withLimits(deps: Deps, tx: Tx, rows: readonly models.PhysicalModelRow[]): Promise<PhysicalModel[]> {
  const ids = rows.map(({ id }) => id);
  const limits = Map.groupBy(await readLimits(tx, ids), ({ physicalModelId }) => physicalModelId);
  return rows.map((row) => toPhysicalModel(row, limits.get(row.id) ?? [], deps.now()));
}

/** The merchant's time zone, if limits are to be set with it. */
async function zoneFor(tx: Tx, merchantId: string, limits: LimitChanges): Promise<string> {
  return limits.set.length > 0 ? keepTimeZone(tx, merchantId) : UTC;
}

async function storePrice(tx: Tx, merchantId: string, price: CheckedPrice, now: Date): Promise<string> {
  const { id, physicalModelId } = price.message;
  await models.insertPrice(tx, { id, merchantId, physicalModelId, body: price.body, now });
  return id;
}

async function createModel(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: CreatePhysicalModelRequest,
): Promise<models.PhysicalModelRow> {
  const now = new Date(deps.now());
  const limits = limitChanges(request);
  const timeZone = await zoneFor(tx, merchantId, limits);
  const id = deps.newId("pm_");
  const price = checkPrice(request.price, deps.newId("price_"), id, now);
  const provider = await keepProvider(tx, merchantId, request.providerId);
  checkApisFit(provider.format, request.apis);
  const fields: models.NewPhysicalModel = {
    id,
    merchant_id: merchantId,
    provider_id: provider.id,
    name: request.name === "" ? Array.from(request.upstreamName).slice(0, NAME_CHARS_MAX).join("") : request.name,
    upstream_name: request.upstreamName,
    price_id: price === null ? null : await storePrice(tx, merchantId, price, now),
    max_output_tokens: request.maxOutputTokens,
    disabled: false,
    rate_limits: rateLimitsOr(request.rateLimits, null),
    family: request.family,
    apis: request.apis,
  };
  const row = await models.insertPhysicalModel(tx, fields, await nextRevision(tx), now);
  if (isChange(limits))
    await writeLimitChanges(tx, { physicalModelId: id, merchantId, timeZone }, limits, now.getTime());
  return row;
}

async function updateModel(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: UpdatePhysicalModelRequest,
): Promise<models.PhysicalModelRow> {
  const now = new Date(deps.now());
  const limits = limitChanges(request);
  const timeZone = await zoneFor(tx, merchantId, limits);
  const row = await models.lockPhysicalModel(tx, merchantId, request.id);
  checkEtag(request.etag, row.version);
  const price = checkPrice(request.price, deps.newId("price_"), row.id, now);
  if (request.apis !== undefined) {
    const provider = await keepProvider(tx, merchantId, row.provider_id);
    checkApisFit(provider.format, request.apis.apis, "apis.apis");
  }
  const fields: models.PhysicalModelFields = {
    name: request.name ?? row.name,
    upstream_name: request.upstreamName ?? row.upstream_name,
    price_id: price === null ? row.price_id : await storePrice(tx, merchantId, price, now),
    max_output_tokens: request.maxOutputTokens ?? row.max_output_tokens,
    disabled: request.disabled ?? row.disabled,
    rate_limits: rateLimitsOr(request.rateLimits, row.rate_limits),
    family: request.family ?? row.family,
    apis: request.apis?.apis ?? row.apis,
  };
  // Before the revision, which is locked last.
  if (isChange(limits))
    await writeLimitChanges(tx, { physicalModelId: row.id, merchantId, timeZone }, limits, now.getTime());
  return models.updatePhysicalModel(tx, merchantId, row.id, fields, await nextRevision(tx), now);
}

export function physicalModelCalls(deps: Deps): PhysicalModelCalls {
  return {
    async createPhysicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreatePhysicalModelRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreatePhysicalModel",
          request.requestId,
          bytes,
          CreatePhysicalModelResponseSchema,
          async () => {
            const row = await createModel(deps, tx, merchantId, request);
            const [physicalModel] = await withLimits(deps, tx, [row]);
            return create(CreatePhysicalModelResponseSchema, { physicalModel });
          },
        ),
      );
    },

    async getPhysicalModel(request, ctx) {
      const row = await models.readPhysicalModel(deps.db, requireMerchant(ctx), request.id);
      const [physicalModel] = await withLimits(deps, deps.db, [row]);
      return create(GetPhysicalModelResponseSchema, { physicalModel });
    },

    async listPhysicalModels(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const filterKey = `${merchantId}/${request.providerId}`;
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, filterKey, request.pageToken) ?? 0n;
      const rows = await models.listPhysicalModels(deps.db, merchantId, request.providerId, after, size + 1);
      const page = toPage(rows, size, LIST, filterKey);
      return create(ListPhysicalModelsResponseSchema, {
        physicalModels: await withLimits(deps, deps.db, page.items),
        nextPageToken: page.nextPageToken,
      });
    },

    async updatePhysicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await updateModel(deps, tx, merchantId, request);
        const [physicalModel] = await withLimits(deps, tx, [row]);
        return create(UpdatePhysicalModelResponseSchema, { physicalModel });
      });
    },

    async deletePhysicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await models.lockPhysicalModel(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        await models.deletePhysicalModel(tx, row.id);
        await addTombstones(tx, await nextRevision(tx), [row.id]);
      });
      return create(DeletePhysicalModelResponseSchema);
    },

    async listPrices(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const model = await models.readPhysicalModel(deps.db, merchantId, request.physicalModelId);
      const size = pageSize(request.pageSize);
      const before = decodeRowPosition(PRICE_LIST, model.id, request.pageToken);
      const page = toPage(await models.listPrices(deps.db, model.id, before, size + 1), size, PRICE_LIST, model.id);
      return create(ListPricesResponseSchema, {
        prices: page.items.map(({ body }) => readPrice(body)),
        nextPageToken: page.nextPageToken,
      });
    },
  };
}
