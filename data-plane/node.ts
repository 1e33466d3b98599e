/** Puts one data-plane node together and takes it apart again in order. */

import { assembleAuth } from "./accounts.ts";
import { fanOut } from "./fan_out.ts";
import { Spools } from "./spool/spools.ts";
import { join } from "node:path";
import type { Logger } from "pino";
import { Wallets } from "./budget/wallets.ts";
import { ConfigClient } from "./config_client.ts";
import { TableFile } from "./config_table_file.ts";
import { connectControlPlane } from "./control_plane.ts";
import { fastRandom } from "./fast_random.ts";
import { HEALTH_DEFAULTS } from "./health.ts";
import { HealthShare } from "./health_share.ts";
import { newId } from "./ids.ts";
import { createBootDir, HEARTBEAT_MS, removeBootDir, thisProcess, touchClaim } from "./journal/boot_dir.ts";
import { FileJournal } from "./journal/file_journal.ts";
import { Recovery } from "./journal/recovery.ts";
import { Reporter } from "./journal/reporter.ts";
import { NodeMetrics } from "./metrics.ts";
import { forwardClock } from "./forward_clock.ts";
import { observeRates } from "./rates/metrics.ts";
import { RateLimiter } from "./rates/rate_limiter.ts";
import { RateSync, type ShareRates } from "./rates/rate_sync.ts";
import { shareCall } from "./rates/share_call.ts";
import { createPipeline } from "./proxy.ts";
import { createRealtime, joined } from "./realtime/upgrade.ts";
import { RouteTable } from "./route_table.ts";
import { startServer } from "./server.ts";
import { formatAddress } from "../core/listen_address.ts";
import type { Settings } from "./settings.ts";
import { TargetHealth } from "./target_health.ts";
import { WorkerCounter } from "./tokenizer/worker_counter.ts";
import { createUpstream } from "./upstream.ts";

/** After the last request, the last report may take this long; then the journal stays for the next start. */
export const FINAL_REPORT_MS = 5_000;

export interface NodeOptions {
  readonly settings: Settings;
  /** Stable over restarts. */
  readonly nodeId: string;
  readonly nodeToken: string;
  /** Number of the worker from 1; null: the only process. */
  readonly worker: number | null;
  /** Whether it writes the stored route table of the home; one at a time may. */
  readonly keepsTable: boolean;
  /** Others serve on the port already: it is not listened on before there is a route table and a control plane. */
  readonly joins: boolean;
  readonly log: Logger;
  /** Answers `/metrics` for all workers; absent: for this process. */
  readonly metricsText?: () => Promise<{ contentType: string; body: string }>;
}

export interface RunningNode {
  /** `host:port` as it is. */
  readonly address: string;
  readonly metrics: NodeMetrics;
  /** Resolves when the node can serve: it has a route table. */
  readonly ready: Promise<void>;
  /** Makes it the one that writes the stored route table: who did is gone. */
  keepTable(): void;
  /** Lets requests end, writes and reports everything. Safe to call twice. */
  stop(): Promise<void>;
}

type Parts = ReturnType<typeof assemble>;

/** Durations in microseconds need the fraction, and the ledger wants the wall clock's day: both are in this one. */
const requestNow = (): number => performance.timeOrigin + performance.now();
function timer(ms: number, fn: () => void): () => void {
  const timeout = setTimeout(fn, ms);
  return () => clearTimeout(timeout);
}

/** Rate limits need no wall clock, and read theirs with every request: the cheapest one that does not go back. */
function assembleRates(share: ShareRates, log: Logger): { limiter: RateLimiter; sync: RateSync } {
  const now = (): number => performance.now();
  const limiter = new RateLimiter({ now, random: Math.random });
  return { limiter, sync: new RateSync({ limiter, share, log, now, timer }) };
}

/** Makes everything that a node consists of; nothing runs yet. @throws when the home cannot be written */
function assemble({ settings, nodeId, nodeToken, worker, keepsTable, log }: NodeOptions, spools: Spools) {
  const now = forwardClock();
  const random = Math.random;
  const bootId = newId("boot_");
  const root = join(settings.home, "node", "journal");
  const owner = thisProcess(nodeId);
  const dir = createBootDir(root, bootId, owner);
  const metrics = new NodeMetrics();
  if (worker !== null) metrics.registry.setDefaultLabels({ worker: String(worker) });

  const control = connectControlPlane(settings.controlPlaneUrl, nodeToken);
  const journal = new FileJournal({
    dir,
    log,
    now: Date.now,
    newId,
    onSettle: (settlement) => metrics.settled(settlement),
  });
  const heartbeat = setInterval(() => journal.sawDirectory(touchClaim(dir, Date.now())), HEARTBEAT_MS);
  const wallets = new Wallets(now, timer);
  const rates = assembleRates(shareCall(control.rates, nodeId, bootId), log);
  const same = { nodeId, bootId, log, now, random };
  const reporter = new Reporter({ ...same, client: control.reports, journal, wallets });
  const recovery = new Recovery({ ...same, client: control.reports, root, owner, wallNow: Date.now, newId });
  const table = new RouteTable();
  const hasTable = Promise.withResolvers<void>();
  // One file for all workers: one of them keeps it, all read it.
  const file = new TableFile({ path: join(settings.home, "node", "table.bin"), nodeToken, log, writes: keepsTable });
  const sharing = new HealthShare({ ...same, client: control.health, table, now: requestNow });
  const health = new TargetHealth(HEALTH_DEFAULTS, sharing);
  const heard = { onTable: hasTable.resolve, onHealth: sharing.apply.bind(sharing) };
  const config = new ConfigClient({ ...same, client: control.feed, table, wallets, file, ...heard });
  const upstream = createUpstream({ allowPrivate: settings.allowPrivateUpstreams });
  const tokens = new WorkerCounter({ log });
  const { veDomain, corsOrigins } = settings;
  const deps = {
    table,
    budget: wallets,
    journal,
    rates: rates.limiter,
    upstream: fanOut(upstream),
    auth: assembleAuth(settings, now),
    health,
    now: requestNow,
    wallNow: Date.now,
    random: fastRandom(Math.random() * 2 ** 32),
    newId,
    settings: { veDomain, corsOrigins },
    log,
    metrics,
    tokens,
    spools,
  };
  const realtime = createRealtime(deps, { allowPrivate: settings.allowPrivateUpstreams });
  const pipeline = joined(createPipeline(deps), realtime);
  const parts = {
    bootId,
    root,
    heartbeat,
    metrics,
    control,
    journal,
    wallets,
    rates,
    reporter,
    recovery,
    table,
    file,
    config,
    sharing,
    upstream,
    tokens,
    pipeline,
    realtime,
  };
  return { ...parts, hasTable: hasTable.promise, now, log };
}

function observe(parts: Parts): void {
  const { metrics, pipeline, journal, reporter, wallets, config, table, now } = parts;
  observeRates(metrics.registry, parts.rates.limiter, parts.rates.sync);
  metrics.observe({
    live: () => pipeline.live,
    journal: () => journal,
    reporter: () => reporter.stats,
    wallets: () => wallets.totals(),
    feed: () => ({
      connected: config.connected,
      revision: Number(table.cursor?.revision ?? 0),
      heardAt: config.heardAt,
      rejected: config.rejected,
    }),
    table: () => table.size(),
    cooling: () => table.cooling(),
    now,
  });
}

/** After the last request: writes and reports everything, and lets go of the home. */
async function release({
  bootId,
  root,
  heartbeat,
  control,
  journal,
  rates,
  reporter,
  recovery,
  config,
  sharing,
  upstream,
  tokens,
  log,
}: Parts): Promise<void> {
  sharing.stop();
  await Promise.all([config.stop(), rates.sync.stop(), recovery.stop(), upstream.close(), tokens.close()]);
  await journal.sync();
  const allReported = await reporter.stop(FINAL_REPORT_MS);
  await journal.close();
  control.close();
  clearInterval(heartbeat);
  if (allReported) removeBootDir(root, bootId);
  else log.warn({ records: journal.backlog }, "not everything could be reported; the next start does it");
}

/** @throws when the home cannot be written or the address cannot be listened on */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const { settings, log } = options;
  const dir = join(options.settings.home, "node", "spool");
  const spools = await Spools.open({ dir, newId: () => newId("spool_") });
  const parts = assemble(options, spools);
  const { metrics, pipeline, journal, table } = parts;
  observe(parts);
  parts.reporter.start();
  parts.config.start();
  parts.rates.sync.start();
  // Without the control plane it would get no leases, and refuse what the others still serve from theirs.
  if (options.joins) await Promise.all([parts.hasTable, parts.config.heard]);
  const server = await startServer({
    address: formatAddress(settings.address),
    pipeline,
    upgrades: parts.realtime,
    health: {
      ready: () => table.cursor !== null && journal.accepting,
      metrics: options.metricsText ?? (() => metrics.text()),
    },
    newId,
    log,
  }).catch(async (error: unknown) => {
    await release(parts);
    throw error;
  });
  parts.recovery.start();

  let stopping: Promise<void> | null = null;
  const stop = async (): Promise<void> => {
    await server.close({ drainMs: settings.drainMs });
    pipeline.close();
    await release(parts);
  };
  return {
    address: server.address,
    metrics,
    ready: parts.hasTable,
    keepTable: () => parts.file.takeOver(),
    stop: () => (stopping ??= stop()),
  };
}
