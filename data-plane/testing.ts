/** For tests only: the whole data plane on real sockets, with a budget and a journal in memory. */

import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import pino from "pino";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { type Resource, ResourceSchema } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { PipelineSettings } from "./deps.ts";
import { fanOut } from "./fan_out.ts";
import { newId } from "./ids.ts";
import { AttemptKind } from "./outcome.ts";
import type { Rates } from "./rates/rates.ts";
import { createPipeline } from "./proxy.ts";
import { RouteTable } from "./route_table.ts";
import { type RunningServer, startServer } from "./server.ts";
import type { TokenCounter } from "./tokenizer/tokens.ts";
import { FakeBudget, FakeJournal, FakeMetrics } from "./testing_fakes.ts";
import { Spools } from "./spool/spools.ts";
import { startTestUpstream, type TestUpstream } from "./testing_upstream.ts";
import type { Exchange, Pipeline, Upstream } from "./transport.ts";
import { createUpstream } from "./upstream.ts";
import { type UpstreamAuth, upstreamAuth } from "./upstream_auth.ts";

export const VE = "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa";
export const KEY = "tbk_test_secret_of_the_first_key";
export const CHECKOUT = `https://pay.example/checkout?ve_id=${VE}`;

type Kind = Resource["kind"]["case"] & string;

/** A resource of the feed from plain fields. */
export function resource(kind: Kind, value: Record<string, unknown>): Resource {
  return create(ResourceSchema, { kind: { case: kind, value } as never });
}

export function snapshot(table: RouteTable, resources: readonly Resource[], revision = 1n): void {
  const events = [
    { case: "snapshotBegin", value: { epoch: "e1", revision } },
    { case: "snapshotChunk", value: { resources } },
    { case: "snapshotEnd", value: { revision } },
  ];
  for (const event of events) {
    const result = table.apply(create(WatchConfigResponseSchema, { event: event as never }));
    if (!result.applied || result.rejected.length > 0) throw new Error(JSON.stringify(result));
  }
}

export function delta(table: RouteTable, upserts: readonly Resource[], removedIds: readonly string[] = []) {
  const from = table.cursor!.revision;
  const value = { fromRevision: from, revision: from + 1n, upserts, removedIds };
  return table.apply(create(WatchConfigResponseSchema, { event: { case: "delta", value } as never }));
}

export function keyResource(id: string, veId: string, secret: string, rateLimits?: unknown): Resource {
  return resource("accessKey", { id, veId, digest: createHash("sha256").update(secret).digest(), rateLimits });
}

/** 0.001 Credit per input token, 0.002 per output token. */
export const PRICE = {
  id: "price_1",
  kind: {
    case: "detailed" as const,
    value: {
      meters: [
        { meter: 1, creditPerUnit: "1", perUnits: 1000n },
        { meter: 4, creditPerUnit: "2", perUnits: 1000n },
      ],
    },
  },
};

export interface GatewayOptions {
  /** Number of upstreams, each with a Provider and a Physical Model `pm_<n>` behind the Logical Model `gpt`. */
  readonly upstreams?: number;
  /** Addresses of upstreams that the test runs itself, in place of those. */
  readonly urls?: readonly string[];
  /** Tier and weight of `pm_<n>`. */
  readonly targets?: readonly { tier: number; weight: number }[];
  readonly settings?: Partial<PipelineSettings>;
  readonly ve?: Record<string, unknown>;
  readonly provider?: Record<string, unknown>;
  readonly pm?: Record<string, unknown>;
  /** Of `prov_<n>` and `pm_<n>` alone. */
  readonly providers?: readonly Record<string, unknown>[];
  readonly pms?: readonly Record<string, unknown>[];
  /** Absent: API keys only. */
  readonly auth?: UpstreamAuth;
  readonly deadlines?: Record<string, number>;
  /** Of the target `pm_<n>` alone. */
  readonly targetDeadlines?: readonly (Record<string, number> | undefined)[];
  readonly routing?: Record<string, unknown>;
  readonly rates?: Rates;
  readonly keyRateLimits?: Record<string, unknown>;
  readonly random?: () => number;
  readonly outbound?: Upstream;
  readonly bodiesBytesMax?: number;
  /** Forms with files are taken. */
  readonly forms?: boolean;
  readonly tokens?: TokenCounter;
  readonly now?: () => number;
  readonly wallNow?: () => number;
}

export interface Gateway {
  readonly url: string;
  readonly upstreams: readonly TestUpstream[];
  readonly table: RouteTable;
  readonly budget: FakeBudget;
  readonly journal: FakeJournal;
  readonly metrics: FakeMetrics;
  readonly pipeline: Pipeline;
  readonly server: RunningServer;
  /** What was logged as an error; `close` fails if there is any. */
  readonly problems: string[];
  /** POST with the key. */
  post(path: string, body: unknown, headers?: Record<string, string>, signal?: AbortSignal): Promise<Response>;
  chat(fields?: Record<string, unknown>, signal?: AbortSignal): Promise<Response>;
  /** Resolves when the gateway has noticed that a client left. */
  clientGone(): Promise<void>;
  /** Stops everything and checks that every reservation was settled exactly once and nothing is left running. */
  close(): Promise<void>;
}

export function gatewayResources(urls: readonly string[], options: GatewayOptions): Resource[] {
  const resources: Resource[] = [];
  urls.forEach((url, i) => {
    resources.push(
      resource("provider", {
        id: `prov_${i}`,
        format: 1,
        baseUrl: `${url}/v1`,
        credentials: { apiKey: `sk-upstream-secret-${i}` },
        ...options.provider,
        ...options.providers?.[i],
      }),
    );
  });
  urls.forEach((_, i) => {
    resources.push(
      resource("physicalModel", {
        id: `pm_${i}`,
        providerId: `prov_${i}`,
        upstreamName: `up-${i}`,
        price: PRICE,
        ...options.pm,
        ...options.pms?.[i],
      }),
    );
  });
  resources.push(
    resource("virtualEndpoint", {
      id: VE,
      name: "Test VE",
      exhaustedStatus: 429,
      checkoutUrl: CHECKOUT,
      ...options.ve,
    }),
    keyResource("key_1", VE, KEY, options.keyRateLimits),
    resource("logicalModel", {
      id: "lm_1",
      veId: VE,
      name: "gpt",
      createUnixS: 1_700_000_000n,
      deadlines: options.deadlines,
      routing: options.routing,
      targets: urls.map((_, i) => ({
        physicalModelId: `pm_${i}`,
        ...(options.targets?.[i] ?? { tier: i, weight: 1 }),
        deadlines: options.targetDeadlines?.[i],
      })),
    }),
  );
  return resources;
}

function postTo(url: string): Gateway["post"] {
  return (path, body, headers = {}, signal) =>
    fetch(url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...(signal === undefined ? {} : { signal }),
    });
}

async function openSpools(): Promise<{ spools: Spools; close: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), "tokenbill-spool-"));
  const spools = await Spools.open({ dir, newId: () => newId("spool_") });
  return {
    spools,
    async close() {
      await rm(dir, { recursive: true });
      if (spools.live !== 0) throw new Error(`${spools.live} forms were not closed`);
    },
  };
}

export async function startGateway(options: GatewayOptions = {}): Promise<Gateway> {
  const count = options.urls === undefined ? (options.upstreams ?? 1) : 0;
  const upstreams = await Promise.all(Array.from({ length: count }, startTestUpstream));
  const table = new RouteTable();
  snapshot(table, gatewayResources(options.urls ?? upstreams.map(({ url }) => url), options));
  const budget = new FakeBudget();
  const journal = new FakeJournal();
  const metrics = new FakeMetrics();
  const problems: string[] = [];
  const log = pino({ level: "error" }, { write: (line: string) => void problems.push(line) });
  const outbound = options.outbound ?? createUpstream({ allowPrivate: true });
  const forms = options.forms === true ? await openSpools() : null;
  const pipeline = createPipeline({
    table,
    budget,
    journal,
    upstream: fanOut(outbound),
    auth: options.auth ?? upstreamAuth(null, null),
    ...(forms !== null && { spools: forms.spools }),
    now: options.now ?? (() => performance.timeOrigin + performance.now()),
    ...(options.wallNow === undefined ? {} : { wallNow: options.wallNow }),
    random: options.random ?? Math.random,
    newId,
    settings: { veDomain: "", corsOrigins: [], ...options.settings },
    log,
    metrics,
    ...(options.tokens !== undefined && { tokens: options.tokens }),
    ...(options.rates !== undefined && { rates: options.rates }),
  });
  const departures = watchDepartures(pipeline);
  const server = await startServer({
    address: "127.0.0.1:0",
    pipeline: departures.pipeline,
    health: { ready: () => true, metrics: async () => ({ contentType: "text/plain", body: "up 1\n" }) },
    newId,
    log,
    bodiesBytesMax: options.bodiesBytesMax,
  });
  const url = `http://${server.address}`;
  const post = postTo(url);
  return {
    url,
    upstreams,
    table,
    budget,
    journal,
    metrics,
    pipeline,
    server,
    problems,
    post,
    chat: (fields = {}, signal) =>
      post(
        "/v1/chat/completions",
        { model: "gpt", messages: [{ role: "user", content: "Hi" }], ...fields },
        {},
        signal,
      ),
    clientGone: () => departures.first,
    async close() {
      await server.close({ drainMs: 5_000, lingerMs: 0 });
      await outbound.close();
      pipeline.close();
      await Promise.all(upstreams.map((upstream) => upstream.close()));
      await forms?.close();
      check(budget, journal, pipeline, problems);
    },
  };
}

function watchDepartures(pipeline: Pipeline): { pipeline: Pipeline; first: Promise<void> } {
  let noticed: () => void = () => undefined;
  const first = new Promise<void>((resolve) => (noticed = resolve));
  const watch = (exchange: Exchange): Exchange => {
    const setSink = exchange.setSink.bind(exchange);
    exchange.setSink = (sink) =>
      setSink({
        onDrain: () => sink.onDrain(),
        onGone() {
          sink.onGone();
          noticed();
        },
      });
    return exchange;
  };
  return {
    first,
    pipeline: {
      handle: (exchange) => pipeline.handle(watch(exchange)),
      get live() {
        return pipeline.live;
      },
      idle: () => pipeline.idle(),
      abortAll: () => pipeline.abortAll(),
      close: () => pipeline.close(),
    },
  };
}

function check(budget: FakeBudget, journal: FakeJournal, pipeline: Pipeline, problems: readonly string[]): void {
  const wrong = [...budget.reservations, ...budget.limitHolds].filter(({ settled }) => settled !== 1).length;
  if (wrong > 0) throw new Error(`${wrong} reservations were not settled exactly once`);
  // A hedged request holds twice; the second is settled with a record of its own, or given back.
  const requests = journal.settlements.filter(({ hedgeOf }) => hedgeOf === undefined);
  const hedges = requests.flatMap(({ attempts }) => attempts).filter(({ kind }) => kind === AttemptKind.HEDGE);
  if (requests.length + hedges.length !== budget.reservations.length) {
    throw new Error(`${requests.length} and ${hedges.length} for ${budget.reservations.length} reservations`);
  }
  const owed = journal.settlements.reduce((sum, { credits }) => sum + credits, 0n);
  if (owed !== budget.spent) throw new Error(`journaled ${owed}, spent ${budget.spent}`);
  if (pipeline.live !== 0) throw new Error(`${pipeline.live} requests are still live`);
  if (problems.length > 0) throw new Error(`logged: ${problems.join("")}`);
}
