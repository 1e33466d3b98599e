/** Metrics of the configuration feed, on prom-client's default registry. */

import { Counter, Gauge } from "prom-client";

export const watchersGauge = new Gauge({
  name: "tokenbill_control_feed_watchers",
  help: "Nodes that watch the configuration feed of this replica.",
});

export const revisionGauge = new Gauge({
  name: "tokenbill_control_feed_revision",
  help: "The last configuration revision that this replica has read.",
});

export const snapshotsTotal = new Counter({
  name: "tokenbill_control_feed_snapshots_total",
  help: "Snapshots that were begun.",
});

export const slowWatchersTotal = new Counter({
  name: "tokenbill_control_feed_slow_watchers_total",
  help: "Nodes that were disconnected because they did not keep up.",
});

export const rejectedTotal = new Counter({
  name: "tokenbill_control_feed_rejected_resources_total",
  help: "Resources that nodes reported as unusable.",
});
