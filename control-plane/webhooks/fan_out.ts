/** Events -> a delivery for each endpoint that wants them. */

import type { Deps } from "../api/context.ts";
import { wantsEvent } from "../domain/webhook.ts";
import { insertDeliveries } from "../store/webhook_delivery.ts";
import { keepSubscriptions } from "../store/webhook_endpoint.ts";
import { lockFreshEvents, markFannedOut } from "../store/webhook_event.ts";
import { fannedOutTotal } from "./metrics.ts";

/** Events of one transaction; the next follows at once. */
export const FAN_OUT_EVENTS_MAX = 500;

/** Makes the deliveries of some events, exactly once whoever else does it at the same moment. True: there may be more. */
export async function fanOut({ db, now, newId }: Pick<Deps, "db" | "now" | "newId">): Promise<boolean> {
  const { events, made } = await db.tx(async (tx) => {
    const fresh = await lockFreshEvents(tx, FAN_OUT_EVENTS_MAX);
    if (fresh.length === 0) return { events: 0, made: 0 };
    const subscriptions = await keepSubscriptions(tx, [...new Set(fresh.map((event) => event.merchant_id))]);
    const byMerchant = Map.groupBy(subscriptions, (subscription) => subscription.merchant_id);
    const deliveries = fresh.flatMap((event) =>
      (byMerchant.get(event.merchant_id) ?? [])
        .filter(({ event_types }) => wantsEvent(event_types, event.type))
        .map(({ id }) => ({
          id: newId("whd_"),
          merchantId: event.merchant_id,
          eventId: event.id,
          endpointId: id,
        })),
    );
    await insertDeliveries(tx, new Date(now()), deliveries);
    await markFannedOut(
      tx,
      fresh.map(({ id }) => id),
    );
    return { events: fresh.length, made: deliveries.length };
  });
  fannedOutTotal.inc(made);
  return events === FAN_OUT_EVENTS_MAX;
}
