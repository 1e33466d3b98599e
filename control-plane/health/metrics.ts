/** Metrics of what nodes share of upstreams, on prom-client's default registry. */

import { Counter, Gauge } from "prom-client";

export const boardGauge = new Gauge({
  name: "tokenbill_control_health_board_entries",
  help: "Physical Models and Providers of which nodes saw something of late.",
});

export const notesTotal = new Counter({
  name: "tokenbill_control_health_notes_total",
  help: "Notes of nodes about upstreams, those from other replicas included.",
});
