import { expect, test } from "vitest";
import { AggregatorRegistry } from "prom-client";
import { type MetricSources, NodeMetrics } from "./metrics.ts";

const SOURCES: MetricSources = {
  live: () => 3,
  journal: () => ({ backlog: 7, diskBytes: 100, accepting: true, liveStreams: 2 }),
  reporter: () => ({ applied: 5, duplicate: 1, gap: 0, failed: 2, answeredAt: 4_000, online: true }),
  wallets: () => ({ wallets: 2, waiting: 1, leased: 1_500_000_000_000n, unacked: 1n, reserved: 0n }),
  feed: () => ({ connected: true, revision: 42, heardAt: 0, rejected: 0 }),
  table: () => ({ ves: 9, keys: 11 }),
  cooling: () => ({ providers: 1, physicalModels: 4 }),
  now: () => 5_500,
};

function made(): NodeMetrics {
  const metrics = new NodeMetrics();
  metrics.observe(SOURCES);
  metrics.request(1, 200, 1, 20_000);
  metrics.request(1, 204, 1, 2_000_000);
  metrics.request(0, 404, 0, 0);
  metrics.attempt(1, 1);
  metrics.firstContent(300_000);
  const settlement = {
    units: [
      { meter: 1, quantity: 10, source: 1 },
      { meter: 4, quantity: 5, source: 1 },
    ],
    credits: 2_500_000_000_000n,
  };
  metrics.settled(settlement as never);
  return metrics;
}

test("counts, histograms and figures, the same however often they are read", async () => {
  const metrics = made();
  const first = await metrics.text();
  const { body, contentType } = await metrics.text();
  expect(contentType).toContain("text/plain");
  const counts = (text: string): string[] =>
    text.split("\n").filter((line) => !/cpu_seconds|resident_memory/.test(line));
  expect(counts(body)).toEqual(counts(first.body));
  for (const line of [
    'tokenbill_node_requests_total{endpoint="chat_completions",status="2xx"} 2',
    'tokenbill_node_requests_total{endpoint="none",status="4xx"} 1',
    'tokenbill_node_outcomes_total{outcome="completed"} 2',
    'tokenbill_node_attempts_total{result="served",kind="first"} 1',
    'tokenbill_node_units_total{meter="input_tokens"} 10',
    'tokenbill_node_units_total{meter="output_tokens"} 5',
    "tokenbill_node_credits_total 2.5",
    'tokenbill_node_request_seconds_bucket{le="0.05"} 1',
    'tokenbill_node_request_seconds_bucket{le="+Inf"} 2',
    "tokenbill_node_request_seconds_sum 2.02",
    "tokenbill_node_request_seconds_count 2",
    'tokenbill_node_first_content_seconds_bucket{le="1"} 1',
    "tokenbill_node_live_requests 3",
    "tokenbill_node_journal_backlog_records 7",
    "tokenbill_node_report_age_seconds 1.5",
    "tokenbill_node_feed_age_seconds -1",
    "tokenbill_node_feed_revision 42",
    "tokenbill_node_lease_credits 1.5",
    'tokenbill_node_reports_total{result="failed"} 2',
    'tokenbill_node_table_resources{kind="ves"} 9',
    "tokenbill_node_cooling_providers 1",
    "tokenbill_node_cooling_physical_models 4",
  ]) {
    expect(body.split("\n")).toContain(line);
  }
});

test("workers are told apart in one text", async () => {
  const workers = [made(), made()];
  const parts = await Promise.all(
    workers.map(async ({ registry }, n) => {
      registry.setDefaultLabels({ worker: String(n + 1) });
      return registry.getMetricsAsJSON();
    }),
  );
  const text = await AggregatorRegistry.aggregate(parts).metrics();
  for (const worker of [1, 2]) {
    expect(text).toContain(`tokenbill_node_live_requests{worker="${worker}"} 3`);
    expect(text).toMatch(new RegExp(`tokenbill_node_request_seconds_count\\{worker="${worker}"\\} 2`));
  }
});
