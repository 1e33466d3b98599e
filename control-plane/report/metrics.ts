/** Metrics of usage ingestion and leases, on prom-client's default registry. */

import { Counter, Histogram } from "prom-client";

export const reportsTotal = new Counter({
  name: "tokenbill_control_usage_reports_total",
  help: "Usage reports of nodes, by what became of them.",
  labelNames: ["status"],
});

export const recordsTotal = new Counter({
  name: "tokenbill_control_usage_records_total",
  help: "Usage records, by whether they were billed or set aside.",
  labelNames: ["result"],
});

export const priceMismatchTotal = new Counter({
  name: "tokenbill_control_price_mismatch_total",
  help: "Usage records whose cost the node computed differently.",
});

export const recallsTotal = new Counter({
  name: "tokenbill_control_lease_recalls_total",
  help: "Recalls of idle leases, by whether the waiting request got its Credits.",
  labelNames: ["result"],
});

export const reportSeconds = new Histogram({
  name: "tokenbill_control_usage_report_seconds",
  help: "Time to apply a usage report, without waiting for recalls.",
  buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
});

export const leasesExpiredTotal = new Counter({
  name: "tokenbill_control_leases_expired_total",
  help: "Leases of silent boots that were taken back.",
});
