/** The calls of WebhookService about what happened and what was sent. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type WebhookDelivery,
  WebhookDeliverySchema,
  type WebhookEvent,
  WebhookEventSchema,
} from "../../proto/gen/tokenbill/v1/webhook_pb.ts";
import {
  ListWebhookDeliveriesResponseSchema,
  ListWebhookEventsResponseSchema,
  ReplayWebhookEventResponseSchema,
  type WebhookService,
} from "../../proto/gen/tokenbill/v1/webhook_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { DomainError, limitReached } from "../domain/errors.ts";
import { DELIVERIES_PER_EVENT_MAX, wantsEvent } from "../domain/webhook.ts";
import * as deliveries from "../store/webhook_delivery.ts";
import { keepSubscriptions, keepWebhookEndpoint } from "../store/webhook_endpoint.ts";
import {
  keepWebhookEvent,
  listWebhookEvents,
  notifyWebhooks,
  type WebhookEventFilter,
  type WebhookEventRow,
} from "../store/webhook_event.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { optionalTime } from "./convert.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";

const EVENTS = "webhook_events";
const DELIVERIES = "webhook_deliveries";

function toEvent(row: WebhookEventRow): WebhookEvent {
  return create(WebhookEventSchema, {
    id: row.id,
    type: row.type,
    body: row.body,
    veId: row.ve_id,
    checkoutSessionId: row.session_id,
    createTime: timestampFromDate(row.created_at),
  });
}

/** With their attempts. */
async function toDeliveries(tx: Tx, rows: readonly deliveries.WebhookDeliveryRow[]): Promise<WebhookDelivery[]> {
  const attempts = await deliveries.readAttempts(
    tx,
    rows.map(({ id }) => id),
  );
  const byDelivery = Map.groupBy(attempts, (attempt) => attempt.delivery_id);
  return rows.map((row) =>
    create(WebhookDeliverySchema, {
      id: row.id,
      webhookEventId: row.event_id,
      eventType: row.event_type,
      webhookEndpointId: row.endpoint_id,
      state: row.state,
      attemptCount: row.attempts,
      nextAttemptTime: optionalTime(row.try_at),
      attempts: (byDelivery.get(row.id) ?? []).map(({ at, status, error, duration_ms }) => ({
        time: timestampFromDate(at),
        status,
        error,
        durationMs: duration_ms,
      })),
      createTime: timestampFromDate(row.created_at),
    }),
  );
}

/** @throws DomainError not_found, wrong_state */
async function receiversOf(tx: Tx, merchantId: string, endpointId: string, type: string): Promise<string[]> {
  if (endpointId === "") {
    const all = await keepSubscriptions(tx, [merchantId]);
    return all.filter(({ event_types }) => wantsEvent(event_types, type)).map(({ id }) => id);
  }
  const { id, disabled } = await keepWebhookEndpoint(tx, merchantId, endpointId);
  if (disabled)
    throw new DomainError("wrong_state", "the webhook endpoint is disabled: enable it first", {
      field: "webhook_endpoint_id",
    });
  return [id];
}

export function webhookDeliveryCalls(
  deps: Deps,
): Pick<ServiceImpl<typeof WebhookService>, "listWebhookEvents" | "listWebhookDeliveries" | "replayWebhookEvent"> {
  return {
    async listWebhookEvents(request, ctx) {
      const filter: WebhookEventFilter = {
        merchantId: requireMerchant(ctx),
        type: request.type,
        veId: request.veId,
      };
      const size = pageSize(request.pageSize);
      const scope = JSON.stringify([filter.merchantId, filter.type, filter.veId]);
      const before = decodeRowPosition(EVENTS, scope, request.pageToken);
      const page = toPage(await listWebhookEvents(deps.db, filter, before, size + 1), size, EVENTS, scope);
      return create(ListWebhookEventsResponseSchema, {
        webhookEvents: page.items.map(toEvent),
        nextPageToken: page.nextPageToken,
      });
    },

    async listWebhookDeliveries(request, ctx) {
      const filter: deliveries.DeliveryFilter = {
        merchantId: requireMerchant(ctx),
        endpointId: request.webhookEndpointId,
        eventId: request.webhookEventId,
        state: request.state,
      };
      const size = pageSize(request.pageSize);
      const scope = JSON.stringify([filter.merchantId, filter.endpointId, filter.eventId, filter.state]);
      const before = decodeRowPosition(DELIVERIES, scope, request.pageToken);
      const rows = await deliveries.listDeliveries(deps.db, filter, before, size + 1);
      const page = toPage(rows, size, DELIVERIES, scope);
      return create(ListWebhookDeliveriesResponseSchema, {
        webhookDeliveries: await toDeliveries(deps.db, page.items),
        nextPageToken: page.nextPageToken,
      });
    },

    async replayWebhookEvent(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const event = await keepWebhookEvent(tx, merchantId, request.webhookEventId);
        const receivers = await receiversOf(tx, merchantId, request.webhookEndpointId, event.type);
        if ((await deliveries.countDeliveries(tx, event.id)) + receivers.length > DELIVERIES_PER_EVENT_MAX) {
          throw limitReached(
            "deliveries_per_event",
            DELIVERIES_PER_EVENT_MAX,
            "the event was replayed as often as it can be",
          );
        }
        const made = receivers.map((endpointId) => ({
          id: deps.newId("whd_"),
          merchantId,
          eventId: event.id,
          endpointId,
        }));
        await deliveries.insertDeliveries(tx, new Date(deps.now()), made);
        await notifyWebhooks(tx);
        const ids = made.map(({ id }) => id);
        const rows = await deliveries.readDeliveries(tx, merchantId, ids);
        return create(ReplayWebhookEventResponseSchema, { webhookDeliveries: await toDeliveries(tx, rows) });
      });
    },
  };
}
