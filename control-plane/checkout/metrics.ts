/** Metrics of checkouts, on prom-client's default registry. */

import { Counter } from "prom-client";

export const fulfilmentsTotal = new Counter({
  name: "tokenbill_control_checkout_fulfilments_total",
  help: "Payments whose Credits reached the wallet, by what noticed first that they were paid.",
  labelNames: ["cause"],
});

export const problemsTotal = new Counter({
  name: "tokenbill_control_checkout_problems_total",
  help: "Payments whose money arrived without bringing Credits, by why. A person has to look.",
  labelNames: ["problem"],
});

export const notificationsTotal = new Counter({
  name: "tokenbill_control_payment_notifications_total",
  help: "Notifications of payment processors: accepted, duplicate, ignored, failed (of which the processor repeats), or why they were rejected.",
  labelNames: ["processor", "verdict"],
});

export const refundsTotal = new Counter({
  name: "tokenbill_control_checkout_refunds_total",
  help: "Refunds that ended, by how. `external` ones were made at the processor.",
  labelNames: ["result"],
});

export const pollsTotal = new Counter({
  name: "tokenbill_control_payment_polls_total",
  help: "Payments and refunds that a processor was asked about, by whether it answered.",
  labelNames: ["result"],
});
