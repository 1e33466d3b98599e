/** MerchantService: merchants (operator) and API tokens (a merchant's own, or the operator). */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  type ApiToken,
  ApiTokenSchema,
  type Merchant,
  MerchantSchema,
} from "../../proto/gen/tokenbill/v1/merchant_pb.ts";
import {
  CreateApiTokenRequestSchema,
  CreateApiTokenResponseSchema,
  CreateMerchantRequestSchema,
  CreateMerchantResponseSchema,
  GetMerchantResponseSchema,
  ListApiTokensResponseSchema,
  ListMerchantsResponseSchema,
  type MerchantService,
  RevokeApiTokenResponseSchema,
  type UpdateMerchantRequest,
  UpdateMerchantResponseSchema,
} from "../../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { normalTimeZone, UTC } from "../../core/periods.ts";
import type { Tx } from "../db/database.ts";
import { invalidField, limitReached, notFound } from "../domain/errors.ts";
import { secretPrefix } from "../ids.ts";
import { digest } from "../secrets.ts";
import { moveLimit } from "../domain/limits.ts";
import * as tokens from "../store/api_token.ts";
import { moveBudgetResets } from "../store/budget_reset.ts";
import { nextRevision } from "../store/feed_state.ts";
import { lockLimitsOfMerchant, writeLimits } from "../store/limit.ts";
import * as merchants from "../store/merchant.ts";
import { type Deps, principal, requireMerchant, requireOperator } from "./context.ts";
import { checkEtag, optionalTime } from "./convert.ts";
import { once, OPERATOR, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";

const LIST = "merchants";
const TOKEN_LIST = "api_tokens";

/** Tokens of one merchant that are not revoked. */
export const API_TOKENS_PER_MERCHANT_MAX = 1000;

function toMerchant(row: merchants.MerchantRow): Merchant {
  return create(MerchantSchema, {
    id: row.id,
    name: row.name,
    disabled: row.disabled,
    timeZone: row.time_zone,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  });
}

function toApiToken(row: tokens.ApiTokenRow): ApiToken {
  return create(ApiTokenSchema, {
    id: row.id,
    merchantId: row.merchant_id ?? "",
    name: row.name,
    prefix: row.prefix,
    createTime: timestampFromDate(row.created_at),
    lastUseTime: optionalTime(row.last_used_at),
    revokeTime: optionalTime(row.revoked_at),
  });
}

/**
 * The merchant that a call is about: the one named, or the caller's own. A merchant that names another gets the answer
 * for one that does not exist.
 */
function targetMerchant(ctx: HandlerContext, named: string, field: string): string {
  const caller = principal(ctx);
  if (caller.kind === "operator") {
    if (named === "") throw invalidField(field, "the operator must name a merchant", "required");
    return named;
  }
  const own = requireMerchant(ctx);
  if (named !== "" && named !== own) throw notFound("merchant");
  return own;
}

/** @throws DomainError invalid_field */
function checkTimeZone(name: string): string {
  const known = normalTimeZone(name);
  if (known !== null) return known;
  throw invalidField("time_zone", "give the name of an IANA time zone, such as UTC or Europe/Berlin", "time_zone");
}

/** What runs by the day, week or month of this merchant now ends as the new zone says. */
async function moveTimeZone(tx: Tx, merchantId: string, timeZone: string, nowMs: number): Promise<void> {
  await moveBudgetResets(tx, merchantId, timeZone, nowMs);
  const limits = await lockLimitsOfMerchant(tx, merchantId);
  await writeLimits(
    tx,
    limits.map((account) => moveLimit(account, timeZone, nowMs)),
  );
}

async function updateMerchant(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: UpdateMerchantRequest,
): Promise<merchants.MerchantRow> {
  const row = await merchants.lockMerchant(tx, merchantId);
  checkEtag(request.etag, row.version);
  const nowMs = deps.now();
  const disabled = request.disabled ?? row.disabled;
  const timeZone = request.timeZone === undefined ? row.time_zone : checkTimeZone(request.timeZone);
  const fields = { id: row.id, name: request.name ?? row.name, disabled, time_zone: timeZone };
  const changed = await merchants.updateMerchant(tx, fields, new Date(nowMs));
  if (disabled !== row.disabled) await merchants.lockMerchantVes(tx, row.id);
  if (timeZone !== row.time_zone) await moveTimeZone(tx, row.id, timeZone, nowMs);
  if (disabled !== row.disabled) await merchants.touchMerchantVes(tx, row.id, await nextRevision(tx));
  return changed;
}

async function makeToken(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  name: string,
): Promise<{ row: tokens.ApiTokenRow; secret: string }> {
  await merchants.readMerchant(tx, merchantId);
  if ((await tokens.countApiTokens(tx, merchantId)) >= API_TOKENS_PER_MERCHANT_MAX) {
    throw limitReached(
      "api_tokens_per_merchant",
      API_TOKENS_PER_MERCHANT_MAX,
      "the merchant has as many API tokens as it can have: revoke one first",
    );
  }
  const secret = deps.secrets.newSecret("tbt_");
  const row = await tokens.insertApiToken(tx, {
    id: deps.newId("tok_"),
    scope: "merchant",
    merchantId,
    name,
    prefix: secretPrefix(secret),
    digest: digest(secret),
    homeFile: null,
    now: new Date(deps.now()),
  });
  return { row, secret };
}

function apiTokenCalls(
  deps: Deps,
): Pick<ServiceImpl<typeof MerchantService>, "createApiToken" | "listApiTokens" | "revokeApiToken"> {
  return {
    async createApiToken(request, ctx) {
      const merchantId = targetMerchant(ctx, request.merchantId, "merchant_id");
      const owner = principal(ctx).kind === "operator" ? OPERATOR : merchantId;
      const bytes = requestBytes(CreateApiTokenRequestSchema, request);
      return deps.db.tx((tx) =>
        once(tx, deps, owner, "CreateApiToken", request.requestId, bytes, CreateApiTokenResponseSchema, async () => {
          const { row, secret } = await makeToken(deps, tx, merchantId, request.name);
          return create(CreateApiTokenResponseSchema, { apiToken: toApiToken(row), secret });
        }),
      );
    },

    async listApiTokens(request, ctx) {
      const merchantId = targetMerchant(ctx, request.merchantId, "merchant_id");
      await merchants.readMerchant(deps.db, merchantId);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(TOKEN_LIST, merchantId, request.pageToken) ?? 0n;
      const page = toPage(
        await tokens.listApiTokens(deps.db, merchantId, after, size + 1),
        size,
        TOKEN_LIST,
        merchantId,
      );
      return create(ListApiTokensResponseSchema, {
        apiTokens: page.items.map(toApiToken),
        nextPageToken: page.nextPageToken,
      });
    },

    async revokeApiToken(request, ctx) {
      const caller = principal(ctx);
      const merchantId = caller.kind === "operator" ? null : requireMerchant(ctx);
      const row = await tokens.revokeApiToken(deps.db, request.id, merchantId, new Date(deps.now()));
      return create(RevokeApiTokenResponseSchema, { apiToken: toApiToken(row) });
    },
  };
}

export function merchantService(deps: Deps): ServiceImpl<typeof MerchantService> {
  return {
    async createMerchant(request, ctx) {
      requireOperator(ctx);
      const bytes = requestBytes(CreateMerchantRequestSchema, request);
      return deps.db.tx((tx) =>
        once(tx, deps, OPERATOR, "CreateMerchant", request.requestId, bytes, CreateMerchantResponseSchema, async () => {
          const row = await merchants.insertMerchant(tx, {
            id: deps.newId("mer_"),
            name: request.name,
            timeZone: request.timeZone === "" ? UTC : checkTimeZone(request.timeZone),
            now: new Date(deps.now()),
          });
          return create(CreateMerchantResponseSchema, { merchant: toMerchant(row) });
        }),
      );
    },

    async getMerchant(request, ctx) {
      const row = await merchants.readMerchant(deps.db, targetMerchant(ctx, request.id, "id"));
      return create(GetMerchantResponseSchema, { merchant: toMerchant(row) });
    },

    async listMerchants(request, ctx) {
      requireOperator(ctx);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, OPERATOR, request.pageToken) ?? 0n;
      const page = toPage(await merchants.listMerchants(deps.db, after, size + 1), size, LIST, OPERATOR);
      return create(ListMerchantsResponseSchema, {
        merchants: page.items.map(toMerchant),
        nextPageToken: page.nextPageToken,
      });
    },

    async updateMerchant(request, ctx) {
      if (request.name !== undefined || request.disabled !== undefined) requireOperator(ctx);
      const merchantId = targetMerchant(ctx, request.id, "id");
      return deps.db.tx(async (tx) =>
        create(UpdateMerchantResponseSchema, {
          merchant: toMerchant(await updateMerchant(deps, tx, merchantId, request)),
        }),
      );
    },

    ...apiTokenCalls(deps),
  };
}
