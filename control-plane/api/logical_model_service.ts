/** LogicalModelService: the model names of a VE. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type LogicalModel, LogicalModelSchema, type Target } from "../../proto/gen/tokenbill/v1/logical_model_pb.ts";
import {
  type CreateLogicalModelRequest,
  CreateLogicalModelRequestSchema,
  CreateLogicalModelResponseSchema,
  DeleteLogicalModelResponseSchema,
  GetLogicalModelResponseSchema,
  ListLogicalModelsResponseSchema,
  type LogicalModelService,
  UpdateLogicalModelResponseSchema,
} from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { checkRoutable, checkTargets } from "../domain/catalogue.ts";
import { limitReached } from "../domain/errors.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import * as logicalModels from "../store/logical_model.ts";
import { keepTargetModels } from "../store/physical_model.ts";
import type { StoredTarget } from "../store/routing_columns.ts";
import { keepVirtualEndpoint, readVirtualEndpoint } from "../store/virtual_endpoint.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { dryRunCalls, type LiveSources } from "./dry_run_calls.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { compileStoredPrice } from "./prices.ts";
import { storedDeadlines, storedRouting, storedTarget, toDeadlines, toRouting, toTarget } from "./routing_fields.ts";

const LIST = "logical_models";

export const LOGICAL_MODELS_PER_VE_MAX = 2000;

function toLogicalModel(row: logicalModels.LogicalModelRow): LogicalModel {
  return create(LogicalModelSchema, {
    id: row.id,
    veId: row.ve_id,
    name: row.name,
    targets: row.targets.map(toTarget),
    deadlines: toDeadlines(row.deadlines),
    routing: toRouting(row.routing),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  });
}

/** Checked targets as they are stored; their models are kept from deletion until the end of the transaction. */
async function storedTargets(
  tx: Tx,
  merchantId: string,
  targets: readonly Target[],
  field: string,
): Promise<StoredTarget[]> {
  checkTargets(targets, field);
  const stored = targets.map((target, index) => storedTarget(target, `${field}[${index}]`));
  const ids = targets.map((target) => target.physicalModelId);
  const rows = await keepTargetModels(tx, merchantId, ids);
  const models = rows.map(({ id, format, price_body: body }) => ({
    id,
    format,
    price: body === null ? null : compileStoredPrice(body),
  }));
  checkRoutable(targets, new Map(models.map((model) => [model.id, model])), field);
  return stored;
}

async function createModel(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: CreateLogicalModelRequest,
): Promise<logicalModels.LogicalModelRow> {
  const routing = storedRouting(request.routing);
  const ve = await keepVirtualEndpoint(tx, merchantId, request.veId);
  const targets = await storedTargets(tx, merchantId, request.targets, "targets");
  if ((await logicalModels.countLogicalModels(tx, ve.id)) >= LOGICAL_MODELS_PER_VE_MAX) {
    throw limitReached(
      "logical_models_per_ve",
      LOGICAL_MODELS_PER_VE_MAX,
      "the VE has as many Logical Models as it can have: delete one first",
    );
  }
  const id = deps.newId("lm_");
  const fields = {
    id,
    merchant_id: merchantId,
    ve_id: ve.id,
    name: request.name,
    targets,
    deadlines: storedDeadlines(request.deadlines),
    routing,
  };
  return logicalModels.insertLogicalModel(tx, fields, await nextRevision(tx), new Date(deps.now()));
}

function reads(deps: Deps): Pick<ServiceImpl<typeof LogicalModelService>, "getLogicalModel" | "listLogicalModels"> {
  return {
    async getLogicalModel(request, ctx) {
      const row = await logicalModels.readLogicalModel(deps.db, requireMerchant(ctx), request.id);
      return create(GetLogicalModelResponseSchema, { logicalModel: toLogicalModel(row) });
    },

    async listLogicalModels(request, ctx) {
      const ve = await readVirtualEndpoint(deps.db, requireMerchant(ctx), request.veId);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, ve.id, request.pageToken) ?? 0n;
      const page = toPage(await logicalModels.listLogicalModels(deps.db, ve.id, after, size + 1), size, LIST, ve.id);
      return create(ListLogicalModelsResponseSchema, {
        logicalModels: page.items.map(toLogicalModel),
        nextPageToken: page.nextPageToken,
      });
    },
  };
}

/** `live` is what nodes see of upstreams and rate limits, for DryRun. */
export function logicalModelService(deps: Deps, live: LiveSources): ServiceImpl<typeof LogicalModelService> {
  return {
    async createLogicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreateLogicalModelRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateLogicalModel",
          request.requestId,
          bytes,
          CreateLogicalModelResponseSchema,
          async () => {
            const row = await createModel(deps, tx, merchantId, request);
            return create(CreateLogicalModelResponseSchema, { logicalModel: toLogicalModel(row) });
          },
        ),
      );
    },

    async updateLogicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await logicalModels.lockLogicalModel(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const fields = {
          name: request.name ?? row.name,
          targets:
            request.targets === undefined
              ? row.targets
              : await storedTargets(tx, merchantId, request.targets.targets, "targets.targets"),
          deadlines: request.deadlines === undefined ? row.deadlines : storedDeadlines(request.deadlines),
          routing: request.routing === undefined ? row.routing : storedRouting(request.routing),
        };
        const changed = await logicalModels.updateLogicalModel(
          tx,
          row.id,
          fields,
          await nextRevision(tx),
          new Date(deps.now()),
        );
        return create(UpdateLogicalModelResponseSchema, { logicalModel: toLogicalModel(changed) });
      });
    },

    async deleteLogicalModel(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await logicalModels.lockLogicalModel(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        await logicalModels.deleteLogicalModel(tx, row.id);
        await addTombstones(tx, await nextRevision(tx), [row.id]);
      });
      return create(DeleteLogicalModelResponseSchema);
    },

    ...reads(deps),
    ...dryRunCalls(deps, live),
  };
}
