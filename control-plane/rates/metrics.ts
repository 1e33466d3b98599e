/** Metrics of rate limits, on prom-client's default registry. */

import { Counter, Gauge, Histogram } from "prom-client";

export const sharesTotal = new Counter({
  name: "tokenbill_control_rate_shares_total",
  help: "Reports of rate limits by nodes, by whether the other nodes' counts were known.",
  labelNames: ["shared"],
});

export const linesTotal = new Counter({
  name: "tokenbill_control_rate_lines_total",
  help: "Limits in those reports.",
});

export const shareSeconds = new Histogram({
  name: "tokenbill_control_rate_share_seconds",
  help: "Time to answer a report of rate limits.",
  buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25],
});

export const nodesGauge = new Gauge({
  name: "tokenbill_control_rate_nodes",
  help: "Nodes that share rate limits.",
});
