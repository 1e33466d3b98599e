/** Metrics of webhooks, on prom-client's default registry. */

import { Counter, Gauge } from "prom-client";

export const attemptsTotal = new Counter({
  name: "tokenbill_control_webhook_attempts_total",
  help: "Attempts at deliveries, by result: delivered, retry (it is tried again), failed (it was given up), gone (the endpoint was disabled).",
  labelNames: ["result"],
});

export const fannedOutTotal = new Counter({
  name: "tokenbill_control_webhook_deliveries_total",
  help: "Deliveries that were made of events; replays are not among them.",
});

export const inFlightGauge = new Gauge({
  name: "tokenbill_control_webhook_in_flight",
  help: "Deliveries that this replica sends at the moment.",
});

export const oldestUndeliveredGauge = new Gauge({
  name: "tokenbill_control_webhook_oldest_undelivered_seconds",
  help: "The age of the oldest event or delivery that waits; 0: none does. Every replica shows the same.",
});
