/** Sessions whose time is over. */

import type { Tx } from "../db/database.ts";
import { moved } from "../domain/checkout.ts";
import { isLive } from "../domain/fulfilment.ts";
import {
  type CheckoutSessionRow,
  deleteIdleSessions,
  expireOpenSessions,
  listExpiredSessions,
  lockCheckoutSession,
} from "../store/checkout_session.ts";
import { listPayments } from "../store/payment.ts";
import { deleteOldNotifications } from "../store/payment_notification.ts";
import { closePayments } from "./close.ts";
import type { CheckoutDeps } from "./deps.ts";
import { advance, tell } from "./story.ts";

/** Sessions of one run at most; the next goes on. */
export const EXPIRE_SESSIONS_MAX = 200;
/** Sessions in which nothing was chosen are deleted after this long, so that strangers cannot fill the table. */
export const IDLE_KEEP_MS = 7 * 86_400_000;
export const NOTIFICATIONS_KEEP_MS = 30 * 86_400_000;
const DELETE_ROWS_MAX = 10_000;

async function expireIn(tx: Tx, deps: CheckoutDeps, of: CheckoutSessionRow): Promise<boolean> {
  const session = await lockCheckoutSession(tx, of.merchant_id, of.id);
  const to = moved(session.state, "expire");
  if (to === null || session.expires_at.getTime() > deps.now()) return false;
  const next = await advance(tx, deps, session, { state: to }, { cause: "job", detail: "expired" });
  await tell(tx, deps, "checkout.expired", next);
  return true;
}

/**
 * What cannot be closed now is asked about further: money that arrives late is fulfilled all the same. `silent` are
 * accounts whose processor does not answer; they are not asked again in this run.
 */
async function expire(deps: CheckoutDeps, session: CheckoutSessionRow, silent: Set<string>): Promise<boolean> {
  const payments = await listPayments(deps.db, [session.id]);
  const live = payments.filter(({ state, account_id: id }) => isLive(state) && !silent.has(id));
  const { unanswered } = await closePayments(deps, session, live, "job");
  for (const { account_id: id } of unanswered) silent.add(id);
  return deps.db.tx((tx) => expireIn(tx, deps, session));
}

/** Expires sessions whose time is over, and deletes what nobody needs any more. How many expired. */
export async function expireSessions(deps: CheckoutDeps): Promise<number> {
  const now = deps.now();
  let expired = await expireOpenSessions(deps.db, new Date(now), EXPIRE_SESSIONS_MAX);
  const silent = new Set<string>();
  for (const session of await listExpiredSessions(deps.db, new Date(now), EXPIRE_SESSIONS_MAX)) {
    if (await expire(deps, session, silent)) expired += 1;
  }
  await deps.db.tx((tx) => deleteIdleSessions(tx, new Date(now - IDLE_KEEP_MS), DELETE_ROWS_MAX));
  await deleteOldNotifications(deps.db, new Date(now - NOTIFICATIONS_KEEP_MS), DELETE_ROWS_MAX);
  return expired;
}
