/**
 * Sends what is due. A delivery is claimed for a while before it is sent: if its sender dies, another takes it over, and
 * the receiver may hear of it twice, with the same `webhook-id`. Several replicas do this at once.
 */

import type { Deps } from "../api/context.ts";
import type { UpstreamClient } from "../api/upstream_client.ts";
import { isUnavailable } from "../db/errors.ts";
import { type AttemptVerdict, DeliveryState, judgeAttempt } from "../domain/webhook.ts";
import {
  addAttempt,
  type ClaimedDelivery,
  claimDeliveries,
  failPending,
  settleDelivery,
} from "../store/webhook_delivery.ts";
import { disableWebhookEndpoint } from "../store/webhook_endpoint.ts";
import { attemptDelivery, type AttemptResult } from "./attempt.ts";
import { fanOut } from "./fan_out.ts";
import { attemptsTotal, inFlightGauge } from "./metrics.ts";
import { ENDPOINT_IN_FLIGHT_MAX, Rooms } from "./rooms.ts";

/** Of all endpoints at a time, on one replica. */
export const IN_FLIGHT_MAX = 256;
/** When another may take a claimed delivery over: an attempt, and ample time to write down what came of it. */
export const CLAIM_MS = 60_000;
/** What is under way at the end may go on for this long. */
export const CLOSE_GRACE_MS = 2_000;

export interface SenderDeps extends Deps {
  readonly client: UpstreamClient;
  /** From 0 to 1. */
  random(): number;
  readonly attemptTimeoutMs: number;
  readonly closeGraceMs: number;
}

export class WebhookSender {
  readonly #deps: SenderDeps;
  readonly #rooms = new Rooms();
  readonly #under = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #dirty = false;
  #looking: Promise<void> | null = null;
  #closing = false;
  #failing = false;

  constructor(deps: SenderDeps) {
    this.#deps = deps;
  }

  /** Looks for something to do, now or when the look that is under way is over. */
  poke(): void {
    if (this.#closing) return;
    this.#dirty = true;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = null;
      // Between its last look and now.
      if (this.#dirty) this.poke();
    });
  }

  /** Lets what is under way end, for a moment. What is cut off is sent again by whoever comes next. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#looking;
    const timer = setTimeout(() => this.#stop.abort(), this.#deps.closeGraceMs);
    await Promise.all(this.#under);
    clearTimeout(timer);
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    while (this.#dirty && !this.#closing) {
      this.#dirty = false;
      try {
        while (await fanOut(this.#deps));
        await this.#send();
        this.#failing = false;
      } catch (error) {
        // The timer comes back to it. An outage is said once, not every second.
        const level = this.#failing && isUnavailable(error) ? "debug" : "error";
        this.#deps.log[level]({ reason: (error as Error).message }, "webhooks could not be looked for");
        this.#failing = true;
      }
    }
  }

  async #send(): Promise<void> {
    const limit = IN_FLIGHT_MAX - this.#rooms.count;
    if (limit === 0) return;
    const nowMs = this.#deps.now();
    const claimed = await this.#deps.db.tx((tx) =>
      claimDeliveries(tx, {
        now: new Date(nowMs),
        leaseUntil: new Date(nowMs + CLAIM_MS),
        limit,
        room: ENDPOINT_IN_FLIGHT_MAX,
        rooms: this.#rooms.less(),
      }),
    );
    for (const delivery of claimed) {
      this.#rooms.enter(delivery.endpoint_id);
      const done = this.#deliver(delivery).finally(() => {
        this.#rooms.leave(delivery.endpoint_id);
        this.#under.delete(done);
        inFlightGauge.set(this.#rooms.count);
        this.poke();
      });
      this.#under.add(done);
    }
    inFlightGauge.set(this.#rooms.count);
  }

  /** Never rejects: what could not be written down is sent again when the claim is over. */
  async #deliver(delivery: ClaimedDelivery): Promise<void> {
    const facts = { deliveryId: delivery.id, endpointId: delivery.endpoint_id, merchantId: delivery.merchant_id };
    try {
      const startMs = this.#deps.now();
      const result = await attemptDelivery(this.#deps, delivery, this.#stop.signal);
      const verdict = judgeAttempt(result.status, delivery.attempts, this.#deps.random());
      this.#rooms.note(delivery.endpoint_id, verdict.kind === "delivered");
      await this.#record(delivery, startMs, result, verdict);
      attemptsTotal.inc({ result: verdict.kind });
      if (verdict.kind === "gone") this.#deps.log.warn(facts, "a webhook endpoint is gone, and was disabled");
      if (verdict.kind === "failed") this.#deps.log.warn(facts, "a webhook was given up");
    } catch (error) {
      if (this.#stop.signal.aborted) this.#deps.log.info(facts, "a webhook was cut off by the stop");
      else this.#deps.log.error({ ...facts, reason: (error as Error).message }, "a webhook's attempt was not recorded");
      await this.#release(delivery);
    }
  }

  async #record(
    delivery: ClaimedDelivery,
    startMs: number,
    { status, error, durationMs }: AttemptResult,
    verdict: AttemptVerdict,
  ): Promise<void> {
    const now = this.#deps.now();
    await this.#deps.db.tx(async (tx) => {
      const isDisabled =
        verdict.kind === "gone" &&
        (await disableWebhookEndpoint(tx, delivery.endpoint_id, delivery.url, new Date(now)));
      if (isDisabled) {
        await failPending(tx, delivery.endpoint_id);
      } else if (verdict.kind === "retry") {
        await settleDelivery(tx, delivery, DeliveryState.PENDING, new Date(now + verdict.delayMs));
      } else {
        const state = verdict.kind === "delivered" ? DeliveryState.DELIVERED : DeliveryState.FAILED;
        await settleDelivery(tx, delivery, state, null);
      }
      await addAttempt(tx, {
        delivery_id: delivery.id,
        at: new Date(startMs),
        status,
        error,
        duration_ms: durationMs,
      });
    });
  }

  /** What was cut off by the stop is due at once for whoever comes next. */
  async #release(delivery: ClaimedDelivery): Promise<void> {
    if (!this.#stop.signal.aborted) return;
    try {
      await settleDelivery(this.#deps.db, delivery, DeliveryState.PENDING, new Date(this.#deps.now()));
    } catch (error) {
      this.#deps.log.warn({ deliveryId: delivery.id, reason: (error as Error).message }, "a webhook was not released");
    }
  }
}
