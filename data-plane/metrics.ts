/**
 * Prometheus metrics of a node. The hot path only adds to plain numbers; everything else happens when somebody asks for
 * `/metrics`.
 */

import { Counter, Gauge, Registry } from "prom-client";
import { type Credits, PICO_PER_CREDIT } from "../core/credits.ts";
import { METER_SLOTS, Meter } from "../core/meters.ts";
import {
  AttemptKindSchema,
  AttemptResultSchema,
  EndpointSchema,
  OutcomeSchema,
} from "../proto/gen/tokenbill/v1/usage_pb.ts";
import type { WalletTotals } from "./budget/wallet.ts";
import type { PipelineMetrics } from "./deps.ts";
import type { Settlement } from "./journal/journal.ts";
import type { ReporterStats } from "./journal/reporter.ts";

const STATUS_CLASSES = 6;
const DURATION_BUCKETS_S = [0.01, 0.05, 0.25, 1, 5, 30, 120] as const;

/** Label values by number: `{1: "chat_completions", …}`; 0 is "none". */
function labelsOf(schema: { values: readonly { number: number; name: string }[] }, prefix: string): string[] {
  const names: string[] = [];
  for (const { number, name } of schema.values)
    names[number] = number === 0 ? "none" : name.replace(prefix, "").toLowerCase();
  return names;
}

const ENDPOINTS = labelsOf(EndpointSchema, "ENDPOINT_");
const OUTCOMES = labelsOf(OutcomeSchema, "OUTCOME_");
const RESULTS = labelsOf(AttemptResultSchema, "ATTEMPT_RESULT_");
const KINDS = labelsOf(AttemptKindSchema, "ATTEMPT_KIND_");
const METERS: string[] = [];
for (const [name, number] of Object.entries(Meter)) METERS[number] = name.toLowerCase();

/** A histogram whose `observe` is two additions; prom-client's own costs more than a request may. */
class PlainHistogram {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly #counts = new Float64Array(DURATION_BUCKETS_S.length + 1);
  #sum = 0;

  constructor(name: string, help: string) {
    this.name = name;
    this.help = help;
  }

  observe(seconds: number): void {
    let bucket = 0;
    while (bucket < DURATION_BUCKETS_S.length && seconds > DURATION_BUCKETS_S[bucket]!) bucket++;
    this.#counts[bucket]!++;
    this.#sum += seconds;
  }

  /** In prom-client's form. */
  async get() {
    let count = 0;
    const values: { value: number; labels: Record<string, string | number>; metricName: string }[] = [];
    for (const [n, inBucket] of this.#counts.entries()) {
      count += inBucket;
      values.push({ value: count, labels: { le: DURATION_BUCKETS_S[n] ?? "+Inf" }, metricName: `${this.name}_bucket` });
    }
    values.push({ value: this.#sum, labels: {}, metricName: `${this.name}_sum` });
    values.push({ value: count, labels: {}, metricName: `${this.name}_count` });
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values };
  }

  reset(): void {
    this.#counts.fill(0);
    this.#sum = 0;
  }
}

/** What is looked at when somebody asks. */
export interface MetricSources {
  live(): number;
  journal(): {
    readonly backlog: number;
    readonly diskBytes: number;
    readonly accepting: boolean;
    readonly liveStreams: number;
  };
  reporter(): ReporterStats;
  wallets(): WalletTotals;
  feed(): {
    readonly connected: boolean;
    readonly revision: number;
    readonly heardAt: number;
    readonly rejected: number;
  };
  table(): Readonly<Record<string, number>>;
  cooling(): { readonly providers: number; readonly physicalModels: number };
  /** The clock of `answeredAt` and `heardAt`, in milliseconds. */
  now(): number;
}

/** A sum is exact as a BigInt, and becomes a double only here. */
function toNumber(credits: Credits): number {
  return Number(credits) / Number(PICO_PER_CREDIT);
}

export class NodeMetrics implements PipelineMetrics {
  readonly registry = new Registry();
  /** By endpoint and status class. */
  readonly #requests = new Float64Array(ENDPOINTS.length * STATUS_CLASSES);
  readonly #outcomes = new Float64Array(OUTCOMES.length);
  /** By result and kind. */
  readonly #attempts = new Float64Array(RESULTS.length * KINDS.length);
  readonly #units = new Float64Array(METER_SLOTS);
  #credits: Credits = 0n;
  readonly #durations = new PlainHistogram("tokenbill_node_request_seconds", "From arrival to the end of the answer");
  readonly #firstContents = new PlainHistogram(
    "tokenbill_node_first_content_seconds",
    "From arrival to the first content",
  );

  constructor() {
    this.#count("requests_total", "Requests answered", ["endpoint", "status"], (add) => {
      this.#requests.forEach((value, n) => {
        const endpoint = ENDPOINTS[Math.floor(n / STATUS_CLASSES)]!;
        if (value > 0) add({ endpoint, status: `${n % STATUS_CLASSES}xx` }, value);
      });
    });
    this.#countNames("outcomes_total", "Requests by how they ended", "outcome", OUTCOMES, this.#outcomes);
    this.#count("attempts_total", "Attempts at upstreams by why and how they ended", ["result", "kind"], (add) => {
      this.#attempts.forEach((value, n) => {
        const result = RESULTS[Math.floor(n / KINDS.length)]!;
        if (value > 0) add({ result, kind: KINDS[n % KINDS.length]! }, value);
      });
    });
    this.#countNames("units_total", "Units consumed, by meter", "meter", METERS, this.#units);
    this.#count("credits_total", "Credits spent", [], (add) => add({}, toNumber(this.#credits)));
    for (const histogram of [this.#durations, this.#firstContents]) this.registry.registerMetric(histogram as never);
  }

  request(endpoint: number, status: number, outcome: number, durationUs: number): void {
    const statusClass = status >= 100 && status < 600 ? Math.floor(status / 100) : 0;
    const slot = (endpoint < ENDPOINTS.length ? endpoint : 0) * STATUS_CLASSES + statusClass;
    this.#requests[slot]!++;
    this.#outcomes[outcome < OUTCOMES.length ? outcome : 0]!++;
    if (durationUs > 0) this.#durations.observe(durationUs / 1e6);
  }

  firstContent(us: number): void {
    this.#firstContents.observe(us / 1e6);
  }

  attempt(result: number, kind: number): void {
    this.#attempts[(result < RESULTS.length ? result : 0) * KINDS.length + (kind < KINDS.length ? kind : 0)]!++;
  }

  /** Every settlement passes the journal, so it is counted there. */
  settled(settlement: Settlement): void {
    for (const { meter, quantity } of settlement.units) this.#units[meter]! += quantity;
    this.#credits += settlement.credits;
  }

  /** Adds what is read from the parts of the node. */
  observe(sources: MetricSources): void {
    const age = (at: number): number => (at === 0 ? -1 : Math.max(0, sources.now() - at) / 1000);
    this.#gauge("live_requests", "Requests under way", () => sources.live());
    this.#gauge("live_streams", "Streams that are journaled as live", () => sources.journal().liveStreams);
    this.#gauge(
      "journal_backlog_records",
      "Records that the control plane has not confirmed",
      () => sources.journal().backlog,
    );
    this.#gauge("journal_disk_bytes", "Bytes of journal segments on disk", () => sources.journal().diskBytes);
    this.#gauge("journal_accepting", "1 while the journal can be written", () => Number(sources.journal().accepting));
    this.#gauge("report_age_seconds", "Since the control plane last answered a report; -1: never", () =>
      age(sources.reporter().answeredAt),
    );
    this.#gauge("control_plane_online", "1 while reports are answered", () => Number(sources.reporter().online));
    this.#gauge("feed_connected", "1 while the configuration feed is open", () => Number(sources.feed().connected));
    this.#gauge("feed_revision", "Revision of the route table", () => sources.feed().revision);
    this.#gauge("feed_age_seconds", "Since the feed was last heard; -1: never", () => age(sources.feed().heardAt));
    this.#gauge("config_rejected", "Resources that cannot be used", () => sources.feed().rejected);
    this.#gauge("wallets", "VEs with figures in memory", () => sources.wallets().wallets);
    this.#gauge("wallet_waiting", "Requests that wait for Credits", () => sources.wallets().waiting);
    this.#gauge("lease_credits", "Credits of all leases", () => toNumber(sources.wallets().leased));
    this.#gauge("lease_reserved_credits", "Credits held by live requests", () => toNumber(sources.wallets().reserved));
    this.#gauge("lease_unreported_credits", "Credits spent and not yet confirmed", () =>
      toNumber(sources.wallets().unacked),
    );
    this.#gauge("resident_memory_bytes", "Memory of the process", () => process.memoryUsage.rss());
    this.#count("cpu_seconds_total", "CPU time of the process", [], (add) => {
      const { user, system } = process.cpuUsage();
      add({}, (user + system) / 1e6);
    });
    this.#count("reports_total", "Reports by how they were answered", ["result"], (add) => {
      const { applied, duplicate, gap, failed } = sources.reporter();
      for (const [result, value] of Object.entries({ applied, duplicate, gap, failed })) add({ result }, value);
    });
    this.#gauge(
      "cooling_providers",
      "Providers that failed and cool down or wait for a trial",
      () => sources.cooling().providers,
    );
    this.#gauge(
      "cooling_physical_models",
      "Physical Models that failed and cool down or wait for a trial",
      () => sources.cooling().physicalModels,
    );
    const table = new Gauge({
      name: "tokenbill_node_table_resources",
      help: "Resources in the route table",
      labelNames: ["kind"],
      registers: [this.registry],
      collect: () => {
        for (const [kind, value] of Object.entries(sources.table())) table.set({ kind }, value);
      },
    });
  }

  async text(): Promise<{ contentType: string; body: string }> {
    return { contentType: this.registry.contentType, body: await this.registry.metrics() };
  }

  #gauge(name: string, help: string, read: () => number): void {
    const gauge: Gauge = new Gauge({
      name: `tokenbill_node_${name}`,
      help,
      registers: [this.registry],
      collect: () => gauge.set(read()),
    });
  }

  #count(
    name: string,
    help: string,
    labelNames: string[],
    read: (add: (labels: Record<string, string>, value: number) => void) => void,
  ): void {
    const counter = new Counter({
      name: `tokenbill_node_${name}`,
      help,
      labelNames,
      registers: [this.registry],
      collect: () => {
        counter.reset();
        read((labels, value) => counter.inc(labels, value));
      },
    });
  }

  #countNames(name: string, help: string, label: string, names: readonly string[], counts: Float64Array): void {
    this.#count(name, help, [label], (add) => {
      counts.forEach((value, n) => {
        if (value > 0) add({ [label]: names[n] ?? String(n) }, value);
      });
    });
  }
}
