/** The calls of ProviderService that concern Physical Models and their prices. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type PhysicalModel, PhysicalModelSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
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
import type { Tx } from "../db/database.ts";
import { checkPricesTokens, refuseLimit } from "../domain/catalogue.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import * as models from "../store/physical_model.ts";
import { keepProvider } from "../store/provider.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { checkPrice, type CheckedPrice, readPrice } from "./prices.ts";

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

export function toPhysicalModel(row: models.PhysicalModelRow): PhysicalModel {
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
  });
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
  const id = deps.newId("pm_");
  const price = checkPrice(request.price, deps.newId("price_"), id, now);
  const provider = await keepProvider(tx, merchantId, request.providerId);
  const fields: models.NewPhysicalModel = {
    id,
    merchant_id: merchantId,
    provider_id: provider.id,
    name: request.name === "" ? Array.from(request.upstreamName).slice(0, NAME_CHARS_MAX).join("") : request.name,
    upstream_name: request.upstreamName,
    price_id: price === null ? null : await storePrice(tx, merchantId, price, now),
    max_output_tokens: request.maxOutputTokens,
    disabled: false,
  };
  return models.insertPhysicalModel(tx, fields, await nextRevision(tx), now);
}

async function updateModel(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: UpdatePhysicalModelRequest,
): Promise<models.PhysicalModelRow> {
  const now = new Date(deps.now());
  const row = await models.lockPhysicalModel(tx, merchantId, request.id);
  checkEtag(request.etag, row.version);
  const price = checkPrice(request.price, deps.newId("price_"), row.id, now);
  if (price !== null && (await models.findUser(tx, row.id)) !== null) {
    checkPricesTokens(price.compiled, request.price.case === "simplePrice" ? "simple_price" : "detailed_price");
  }
  const fields: models.PhysicalModelFields = {
    name: request.name ?? row.name,
    upstream_name: request.upstreamName ?? row.upstream_name,
    price_id: price === null ? row.price_id : await storePrice(tx, merchantId, price, now),
    max_output_tokens: request.maxOutputTokens ?? row.max_output_tokens,
    disabled: request.disabled ?? row.disabled,
  };
  return models.updatePhysicalModel(tx, merchantId, row.id, fields, await nextRevision(tx), now);
}

export function physicalModelCalls(deps: Deps): PhysicalModelCalls {
  return {
    async createPhysicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      refuseLimit("unit_limit", request.unitLimit !== undefined);
      refuseLimit("credit_limit", request.creditLimit !== undefined);
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
          async () =>
            create(CreatePhysicalModelResponseSchema, {
              physicalModel: toPhysicalModel(await createModel(deps, tx, merchantId, request)),
            }),
        ),
      );
    },

    async getPhysicalModel(request, ctx) {
      const row = await models.readPhysicalModel(deps.db, requireMerchant(ctx), request.id);
      return create(GetPhysicalModelResponseSchema, { physicalModel: toPhysicalModel(row) });
    },

    async listPhysicalModels(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const filterKey = `${merchantId}/${request.providerId}`;
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, filterKey, request.pageToken) ?? 0n;
      const rows = await models.listPhysicalModels(deps.db, merchantId, request.providerId, after, size + 1);
      const page = toPage(rows, size, LIST, filterKey);
      return create(ListPhysicalModelsResponseSchema, {
        physicalModels: page.items.map(toPhysicalModel),
        nextPageToken: page.nextPageToken,
      });
    },

    async updatePhysicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      refuseLimit("unit_limit", request.unitLimit !== undefined);
      refuseLimit("credit_limit", request.creditLimit !== undefined);
      return deps.db.tx(async (tx) =>
        create(UpdatePhysicalModelResponseSchema, {
          physicalModel: toPhysicalModel(await updateModel(deps, tx, merchantId, request)),
        }),
      );
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
