/** For tests only: the whole data plane on real sockets, with a budget and a journal in memory. */

import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import pino from "pino";
import { type Credits, parseCredits } from "../core/credits.ts";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { type Resource, ResourceSchema } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import { isLimit } from "./budget/accounts.ts";
import type { Budget, Reservation, ReserveFailure, WalletBalance } from "./budget/budget.ts";
import type { PipelineMetrics, PipelineSettings } from "./deps.ts";
import { newId } from "./ids.ts";
import type { Intent, Journal, Progress, Settlement } from "./journal/journal.ts";
import { createPipeline } from "./proxy.ts";
import { RouteTable } from "./route_table.ts";
import { type RunningServer, startServer } from "./server.ts";
import type { TokenCounter } from "./tokenizer/tokens.ts";
import { startTestUpstream, type TestUpstream } from "./testing_upstream.ts";
import type { Exchange, Pipeline, Upstream } from "./transport.ts";
import { createUpstream } from "./upstream.ts";

export const VE = "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa";
export const KEY = "tbk_test_secret_of_the_first_key";
export const CHECKOUT = `https://pay.example/checkout?ve_id=${VE}`;

class FakeReservation implements Reservation {
  readonly account: string;
  held: Credits;
  settled = 0;
  spent: Credits = 0n;
  constructor(account: string, held: Credits) {
    this.account = account;
    this.held = held;
  }
}

/** A limit of a Physical Model. */
export interface FakeLimit {
  free: Credits;
  /** What a synchronous report would say; absent: it answers from `free`. */
  failure?: ReserveFailure;
  retryMs?: number;
}

/** One wallet for everything. `slow` stands for the control plane's answer. */
export class FakeBudget implements Budget {
  /** By account. A limit that is not here is refused, since nothing may ask for it. */
  limits = new Map<string, FakeLimit>();
  limitHolds: FakeReservation[] = [];
  /** As `pending`, for limits. */
  limitPending: (() => void)[] | null = null;
  free: Credits = parseCredits("1000");
  spent: Credits = 0n;
  reservations: FakeReservation[] = [];
  balance: WalletBalance | null = { creditRemaining: parseCredits("12.5"), creditBudget: parseCredits("100") };
  low = false;
  /** What is known to be left in the wallet. */
  left: Credits | null = null;
  /** What a synchronous report would say; null: it answers from `free`. */
  failure: ReserveFailure | null = null;
  /** Waiting reserveSlow calls run when this is called; null: at once. */
  pending: (() => void)[] | null = null;
  slowCalls: { amount: Credits; minimum: Credits }[] = [];
  grown = 0;

  reserve(account: string, amount: Credits): Reservation | null {
    if (isLimit(account)) return amount <= this.limits.get(account)!.free ? this.holdLimit(account, amount) : null;
    return amount <= this.free ? this.hold(account, amount) : null;
  }

  reserveSlow(
    veId: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    if (isLimit(veId)) return this.askLimit(veId, amount, minimum, done);
    this.slowCalls.push({ amount, minimum });
    const answer = (): void => {
      if (this.failure !== null) return done(this.failure);
      if (minimum > this.free) return done("exhausted");
      done(this.hold(veId, amount < this.free ? amount : this.free));
    };
    if (this.pending === null) setImmediate(answer);
    else this.pending.push(answer);
  }

  grow(reservation: Reservation, amount: Credits): boolean {
    if (amount > this.free) return false;
    this.grown++;
    this.free -= amount;
    (reservation as FakeReservation).held += amount;
    return true;
  }

  settle(reservation: Reservation, spent: Credits): void {
    const fake = reservation as FakeReservation;
    fake.settled++;
    fake.spent = spent;
    const limit = this.limits.get(fake.account);
    if (limit !== undefined) {
      limit.free += fake.held - spent;
      return;
    }
    this.free += fake.held - spent;
    this.spent += spent;
  }

  readBalance(_: string, done: (balance: WalletBalance | null) => void): void {
    setImmediate(() => done(this.balance));
  }

  remaining(): Credits | null {
    return this.left;
  }

  isLow(): boolean {
    return this.low;
  }

  retryMs(account: string): number {
    return this.limits.get(account)?.retryMs ?? 0;
  }

  private askLimit(
    account: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    const answer = (): void => {
      const { free, failure } = this.limits.get(account)!;
      if (failure !== undefined) return done(failure);
      if (minimum > free) return done("exhausted");
      done(this.holdLimit(account, amount < free ? amount : free));
    };
    if (this.limitPending === null) setImmediate(answer);
    else this.limitPending.push(answer);
  }

  private holdLimit(account: string, amount: Credits): Reservation {
    this.limits.get(account)!.free -= amount;
    const reservation = new FakeReservation(account, amount);
    this.limitHolds.push(reservation);
    return reservation;
  }

  private hold(veId: string, amount: Credits): Reservation {
    this.free -= amount;
    const reservation = new FakeReservation(veId, amount);
    this.reservations.push(reservation);
    return reservation;
  }
}

export class FakeJournal implements Journal {
  accepting = true;
  intents: Intent[] = [];
  notes: Progress[] = [];
  settlements: Settlement[] = [];
  /** Set to keep `written` back; call what it collects. */
  held: (() => void)[] | null = null;
  private waiting: { count: number; resolve: () => void }[] = [];

  intent(intent: Intent): void {
    this.intents.push(intent);
  }

  progress(progress: Progress): void {
    this.notes.push(progress);
  }

  settle(settlement: Settlement, written: (error?: Error) => void): void {
    this.settlements.push(settlement);
    if (this.held === null) setImmediate(written);
    else this.held.push(written);
    this.waiting = this.waiting.filter(({ count, resolve }) => {
      if (this.settlements.length < count) return true;
      resolve();
      return false;
    });
  }

  /** Resolves once so many settlements were made, with the last of them. */
  async settled(count = 1): Promise<Settlement> {
    if (this.settlements.length < count) await new Promise<void>((resolve) => this.waiting.push({ count, resolve }));
    return this.settlements[count - 1]!;
  }
}

export class FakeMetrics implements PipelineMetrics {
  requests: { endpoint: number; status: number; outcome: number }[] = [];
  request(endpoint: number, status: number, outcome: number): void {
    this.requests.push({ endpoint, status, outcome });
  }
  firstContent(): void {}
  attempt(): void {}
}

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

export function keyResource(id: string, veId: string, secret: string): Resource {
  return resource("accessKey", { id, veId, digest: createHash("sha256").update(secret).digest() });
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
  /** Tier and weight of `pm_<n>`. */
  readonly targets?: readonly { tier: number; weight: number }[];
  readonly settings?: Partial<PipelineSettings>;
  readonly ve?: Record<string, unknown>;
  readonly provider?: Record<string, unknown>;
  readonly pm?: Record<string, unknown>;
  readonly deadlines?: Record<string, number>;
  readonly random?: () => number;
  readonly outbound?: Upstream;
  readonly bodiesBytesMax?: number;
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
    keyResource("key_1", VE, KEY),
    resource("logicalModel", {
      id: "lm_1",
      veId: VE,
      name: "gpt",
      createUnixS: 1_700_000_000n,
      deadlines: options.deadlines,
      targets: urls.map((_, i) => ({
        physicalModelId: `pm_${i}`,
        ...(options.targets?.[i] ?? { tier: i, weight: 1 }),
      })),
    }),
  );
  return resources;
}

export async function startGateway(options: GatewayOptions = {}): Promise<Gateway> {
  const upstreams = await Promise.all(Array.from({ length: options.upstreams ?? 1 }, startTestUpstream));
  const table = new RouteTable();
  snapshot(
    table,
    gatewayResources(
      upstreams.map(({ url }) => url),
      options,
    ),
  );
  const budget = new FakeBudget();
  const journal = new FakeJournal();
  const metrics = new FakeMetrics();
  const problems: string[] = [];
  const log = pino({ level: "error" }, { write: (line: string) => void problems.push(line) });
  const outbound = options.outbound ?? createUpstream({ allowPrivate: true });
  const pipeline = createPipeline({
    table,
    budget,
    journal,
    upstream: outbound,
    now: options.now ?? (() => performance.timeOrigin + performance.now()),
    ...(options.wallNow === undefined ? {} : { wallNow: options.wallNow }),
    random: options.random ?? Math.random,
    newId,
    settings: { veDomain: "", corsOrigins: [], ...options.settings },
    log,
    metrics,
    ...(options.tokens !== undefined && { tokens: options.tokens }),
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
  const post: Gateway["post"] = (path, body, headers = {}, signal) =>
    fetch(url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...(signal === undefined ? {} : { signal }),
    });
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
  if (journal.settlements.length !== budget.reservations.length) {
    throw new Error(`${journal.settlements.length} settlements for ${budget.reservations.length} reservations`);
  }
  const owed = journal.settlements.reduce((sum, { credits }) => sum + credits, 0n);
  if (owed !== budget.spent) throw new Error(`journaled ${owed}, spent ${budget.spent}`);
  if (pipeline.live !== 0) throw new Error(`${pipeline.live} requests are still live`);
  if (problems.length > 0) throw new Error(`logged: ${problems.join("")}`);
}
