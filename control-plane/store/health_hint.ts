/** Hints between replicas about the health of upstreams. Nothing of it is stored. */

import type { Tx } from "../db/database.ts";

/** Payload: JSON of `health/exchange.ts`. */
export const HEALTH_CHANNEL = "tokenbill_health";

/** PostgreSQL refuses a notification of 8,000 bytes. */
export const HINT_BYTES_MAX = 7_900;

/** Sends each payload to every replica, this one included. */
export async function notifyHealth(tx: Tx, payloads: readonly string[]): Promise<void> {
  await tx.query("select pg_notify($1, payload) from unnest($2::text[]) as payload", [HEALTH_CHANNEL, payloads]);
}
