/** WebhookService: where a merchant hears of events. What was sent is in webhook_delivery_calls.ts. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type WebhookEndpoint, WebhookEndpointSchema } from "../../proto/gen/tokenbill/v1/webhook_pb.ts";
import {
  type CreateWebhookEndpointRequest,
  CreateWebhookEndpointRequestSchema,
  type CreateWebhookEndpointResponse,
  CreateWebhookEndpointResponseSchema,
  DeleteWebhookEndpointResponseSchema,
  GetWebhookEndpointResponseSchema,
  ListWebhookEndpointsResponseSchema,
  RotateWebhookSecretResponseSchema,
  type UpdateWebhookEndpointRequest,
  UpdateWebhookEndpointResponseSchema,
  type WebhookService,
} from "../../proto/gen/tokenbill/v1/webhook_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { limitReached } from "../domain/errors.ts";
import {
  checkEventTypes,
  checkWebhookUrl,
  OLD_SECRET_KEEP_MS,
  WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX,
} from "../domain/webhook.ts";
import { digest } from "../secrets.ts";
import { lockMerchant } from "../store/merchant.ts";
import { failPending } from "../store/webhook_delivery.ts";
import * as endpoints from "../store/webhook_endpoint.ts";
import { WEBHOOK_EVENT_TYPES } from "../store/webhook_event.ts";
import { secretText } from "../webhooks/signing.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { webhookDeliveryCalls } from "./webhook_delivery_calls.ts";

const LIST = "webhook_endpoints";

function toEndpoint(row: endpoints.WebhookEndpointRow): WebhookEndpoint {
  return create(WebhookEndpointSchema, {
    id: row.id,
    url: row.url,
    description: row.description,
    eventTypes: row.event_types,
    disabled: row.disabled,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  });
}

/** 32 random bytes: the digest of a secret that has as many. */
function newSecret(deps: Deps): Uint8Array {
  return digest(deps.secrets.newSecret("whsec_"));
}

async function makeEndpoint(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  { description, eventTypes, disabled }: CreateWebhookEndpointRequest,
  url: string,
): Promise<CreateWebhookEndpointResponse> {
  // Locked, so that two at once do not both become the last that there can be.
  await lockMerchant(tx, merchantId);
  if ((await endpoints.countWebhookEndpoints(tx, merchantId)) >= WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX) {
    throw limitReached(
      "webhook_endpoints_per_merchant",
      WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX,
      "the merchant has as many webhook endpoints as it can have: delete one first",
    );
  }
  const id = deps.newId("whe_");
  const secret = newSecret(deps);
  const fields = { url, description, event_types: eventTypes, disabled };
  const row = await endpoints.insertWebhookEndpoint(
    tx,
    { ...fields, id, merchant_id: merchantId, secret: deps.secrets.seal(secret, id) },
    new Date(deps.now()),
  );
  return create(CreateWebhookEndpointResponseSchema, { webhookEndpoint: toEndpoint(row), secret: secretText(secret) });
}

function changedFields(
  deps: Deps,
  row: endpoints.WebhookEndpointRow,
  request: UpdateWebhookEndpointRequest,
): endpoints.WebhookEndpointFields {
  if (request.eventTypes !== undefined)
    checkEventTypes(request.eventTypes.eventTypes, WEBHOOK_EVENT_TYPES, "event_types.event_types");
  return {
    url: request.url === undefined ? row.url : checkWebhookUrl(request.url, deps.settings.allowPrivateUpstreams),
    description: request.description ?? row.description,
    event_types: request.eventTypes?.eventTypes ?? row.event_types,
    disabled: request.disabled ?? row.disabled,
  };
}

function reads(deps: Deps): Pick<ServiceImpl<typeof WebhookService>, "getWebhookEndpoint" | "listWebhookEndpoints"> {
  return {
    async getWebhookEndpoint(request, ctx) {
      const row = await endpoints.readWebhookEndpoint(deps.db, requireMerchant(ctx), request.id);
      return create(GetWebhookEndpointResponseSchema, { webhookEndpoint: toEndpoint(row) });
    },

    async listWebhookEndpoints(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, merchantId, request.pageToken) ?? 0n;
      const rows = await endpoints.listWebhookEndpoints(deps.db, merchantId, after, size + 1);
      const page = toPage(rows, size, LIST, merchantId);
      return create(ListWebhookEndpointsResponseSchema, {
        webhookEndpoints: page.items.map(toEndpoint),
        nextPageToken: page.nextPageToken,
      });
    },
  };
}

export function webhookService(deps: Deps): ServiceImpl<typeof WebhookService> {
  return {
    async createWebhookEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const url = checkWebhookUrl(request.url, deps.settings.allowPrivateUpstreams);
      checkEventTypes(request.eventTypes, WEBHOOK_EVENT_TYPES);
      const bytes = requestBytes(CreateWebhookEndpointRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateWebhookEndpoint",
          request.requestId,
          bytes,
          CreateWebhookEndpointResponseSchema,
          () => makeEndpoint(deps, tx, merchantId, request, url),
        ),
      );
    },

    async updateWebhookEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await endpoints.lockWebhookEndpoint(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const fields = changedFields(deps, row, request);
        const changed = await endpoints.updateWebhookEndpoint(tx, row.id, fields, new Date(deps.now()));
        if (changed.disabled) await failPending(tx, row.id);
        return create(UpdateWebhookEndpointResponseSchema, { webhookEndpoint: toEndpoint(changed) });
      });
    },

    async rotateWebhookSecret(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const { id } = await endpoints.lockWebhookEndpoint(tx, merchantId, request.id);
        const secret = newSecret(deps);
        const now = deps.now();
        const until = new Date(now + OLD_SECRET_KEEP_MS);
        const sealed = deps.secrets.seal(secret, id);
        const row = await endpoints.rotateWebhookSecret(tx, id, sealed, new Date(now), until);
        return create(RotateWebhookSecretResponseSchema, {
          webhookEndpoint: toEndpoint(row),
          secret: secretText(secret),
        });
      });
    },

    async deleteWebhookEndpoint(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await endpoints.lockWebhookEndpoint(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        await endpoints.deleteWebhookEndpoint(tx, row.id);
      });
      return create(DeleteWebhookEndpointResponseSchema);
    },

    ...reads(deps),
    ...webhookDeliveryCalls(deps),
  };
}
