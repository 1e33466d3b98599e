/** Webhooks as a whole: woken by events, and by a timer for what is tried again. */

import type { Deps } from "../api/context.ts";
import { createUpstreamClient } from "../api/upstream_client.ts";
import { oldestUndelivered } from "../store/webhook_delivery.ts";
import { forgetOldSecrets } from "../store/webhook_endpoint.ts";
import { deleteOldWebhookEvents, WEBHOOK_CHANNEL } from "../store/webhook_event.ts";
import { ATTEMPT_TIMEOUT_MS } from "./attempt.ts";
import { oldestUndeliveredGauge } from "./metrics.ts";
import { CLOSE_GRACE_MS, WebhookSender } from "./sender.ts";

/** How often is looked for deliveries that are due again, and for events whose notification was lost. */
export const LOOK_EVERY_MS = 1_000;
const MEASURE_EVERY_MS = 10_000;
/** Listening is tried again after this; the timer does without meanwhile. */
const LISTEN_RETRY_MS = 5_000;
/** Events and their deliveries are kept this long. */
export const EVENT_KEEP_MS = 30 * 86_400_000;
/** Events of one statement of the clean-up. */
const DELETE_EVENTS_MAX = 10_000;

export interface Webhooks {
  /** Stops, after what is under way. Close before the database. */
  close(): Promise<void>;
}

export interface WebhookOptions {
  /** From 0 to 1. */
  readonly random?: () => number;
  readonly lookEveryMs?: number;
  readonly attemptTimeoutMs?: number;
  readonly closeGraceMs?: number;
}

/** Listens until closed; fails over to trying again. */
function keepListening({ db, log }: Deps, onNews: () => void): Webhooks {
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const listen = async (): Promise<(() => Promise<void>) | null> => {
    try {
      return await db.listen(WEBHOOK_CHANNEL, onNews, onNews);
    } catch (error) {
      log.warn({ reason: (error as Error).message }, "webhooks cannot listen for events yet");
      if (!closed) timer = setTimeout(() => (listening = listen()), LISTEN_RETRY_MS);
      return null;
    }
  };
  let listening = listen();
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await (
        await listening
      )?.();
    },
  };
}

async function measure({ db, now, log }: Deps): Promise<void> {
  try {
    const oldest = await oldestUndelivered(db);
    oldestUndeliveredGauge.set(oldest === null ? 0 : Math.max(0, now() - oldest.getTime()) / 1000);
  } catch (error) {
    log.warn({ reason: (error as Error).message }, "waiting webhooks could not be measured");
  }
}

/** Starts to make deliveries of events and to send them. */
export function startWebhooks(deps: Deps, options: WebhookOptions = {}): Webhooks {
  const { random = Math.random, lookEveryMs = LOOK_EVERY_MS } = options;
  const { attemptTimeoutMs = ATTEMPT_TIMEOUT_MS, closeGraceMs = CLOSE_GRACE_MS } = options;
  const client = createUpstreamClient(deps.settings.allowPrivateUpstreams);
  const sender = new WebhookSender({ ...deps, client, random, attemptTimeoutMs, closeGraceMs });
  const listener = keepListening(deps, () => sender.poke());
  const looks = setInterval(() => sender.poke(), lookEveryMs);
  let measuring = measure(deps);
  const measures = setInterval(() => (measuring = measure(deps)), MEASURE_EVERY_MS);
  sender.poke();
  return {
    async close() {
      clearInterval(looks);
      clearInterval(measures);
      await Promise.all([sender.close(), listener.close(), measuring]);
      await client.close();
    },
  };
}

/** For the hourly clean-up: deletes old events with their deliveries, and secrets that count no more. How many events went. */
export async function cleanWebhooks({ db, now }: Pick<Deps, "db" | "now">): Promise<number> {
  await forgetOldSecrets(db, new Date(now()));
  return deleteOldWebhookEvents(db, new Date(now() - EVENT_KEEP_MS), DELETE_EVENTS_MAX);
}
