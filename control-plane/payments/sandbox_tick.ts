/** Sends what the sandbox has to tell, through the door that real processors use; again and again until it is heard. */

import {
  claimSandboxNotifications,
  deleteSandboxNotification,
  type DueSandboxNotification,
  postponeSandboxNotification,
} from "../store/sandbox.ts";
import type { NotificationAnswer, RawNotification } from "./payment.ts";
import type { SandboxDeps } from "./sandbox.ts";
import { SIGNATURE_PURPOSE, writeSandboxNotification } from "./sandbox_notification.ts";

/** How often the books are looked at. */
export const SANDBOX_EVERY_MS = 1000;
/** Sent in one go. */
const NOTIFICATIONS_MAX = 20;
/** If whoever sends them dies, another does after this. */
const CLAIM_MS = 60_000;
const FIRST_PAUSE_MS = 1000;
const PAUSE_MS_MAX = 600_000;
/** About an hour of trying. */
export const SANDBOX_ATTEMPTS_MAX = 15;

export type Deliver = (accountId: string, raw: RawNotification) => Promise<NotificationAnswer>;

async function isHeard(deps: SandboxDeps, due: DueSandboxNotification, deliver: Deliver): Promise<boolean> {
  const secret = deps.secrets.derive(SIGNATURE_PURPOSE, due.account_id);
  const raw = writeSandboxNotification(due, secret, deps.now());
  const answers = await Promise.all(
    Array.from({ length: due.copies }, () =>
      deliver(due.account_id, raw).catch((error: unknown) => {
        deps.log.error({ notification: due.id, reason: (error as Error).message }, "a notification was not taken in");
        return { status: 500 };
      }),
    ),
  );
  return answers.every(({ status }) => status === 200);
}

async function send(deps: SandboxDeps, due: DueSandboxNotification, deliver: Deliver): Promise<void> {
  if (await isHeard(deps, due, deliver)) return deleteSandboxNotification(deps.db, due.id);
  if (due.attempts >= SANDBOX_ATTEMPTS_MAX) {
    deps.log.warn(
      { notification: due.id, kind: due.kind, attempts: due.attempts },
      "the sandbox gave a notification up",
    );
    return deleteSandboxNotification(deps.db, due.id);
  }
  const pause = Math.min(PAUSE_MS_MAX, FIRST_PAUSE_MS * 2 ** (due.attempts - 1));
  await postponeSandboxNotification(deps.db, due.id, new Date(deps.now() + pause));
}

/**
 * Sends what is due, and gives how many notifications that were. Safe on several replicas at once, and after a crash at any
 * moment: what was not heard is sent again. `deliver` must not be called inside a transaction.
 */
export async function sandboxTick(deps: SandboxDeps, deliver: Deliver): Promise<number> {
  const now = deps.now();
  const due = await deps.db.tx((tx) =>
    claimSandboxNotifications(tx, new Date(now), new Date(now + CLAIM_MS), NOTIFICATIONS_MAX),
  );
  // One after the other, in the order in which things happened.
  for (const each of due) await send(deps, each, deliver);
  return due.length;
}
