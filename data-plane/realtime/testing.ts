/** For tests only: a realtime upstream that does what a test tells it, clients, and a gateway between them. */

import { createServer, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import pino from "pino";
import { WebSocket, WebSocketServer } from "ws";
import type { PipelineDeps } from "../deps.ts";
import { newId } from "../ids.ts";
import { createPipeline } from "../proxy.ts";
import type { Rates } from "../rates/rates.ts";
import { RouteTable } from "../route_table.ts";
import { type RunningServer, startServer } from "../server.ts";
import { type GatewayOptions, gatewayResources, KEY, snapshot } from "../testing.ts";
import { FakeBudget, FakeJournal, FakeMetrics } from "../testing_fakes.ts";
import { createUpstream } from "../upstream.ts";
import { createRealtime, joined, type Realtime, type RealtimeOptions } from "./upgrade.ts";

export type Event = Record<string, unknown>;

/** Credits per 1000: text in 1, cached 0.5, text out 2, audio in 10, audio out 20, image in 3; a second 0.006. */
export const REALTIME_PRICE = {
  id: "price_rt",
  kind: {
    case: "detailed" as const,
    value: {
      meters: [
        { meter: 1, creditPerUnit: "1", perUnits: 1000n },
        { meter: 2, creditPerUnit: "0.5", perUnits: 1000n },
        { meter: 4, creditPerUnit: "2", perUnits: 1000n },
        { meter: 6, creditPerUnit: "10", perUnits: 1000n },
        { meter: 7, creditPerUnit: "20", perUnits: 1000n },
        { meter: 9, creditPerUnit: "6", perUnits: 1000n },
        { meter: 13, creditPerUnit: "3", perUnits: 1000n },
      ],
    },
  },
};

/** What the fake upstream says of its turns, unless told otherwise. */
export const USAGE = {
  total_tokens: 253,
  input_tokens: 132,
  output_tokens: 121,
  input_token_details: {
    text_tokens: 119,
    audio_tokens: 13,
    image_tokens: 0,
    cached_tokens: 64,
    cached_tokens_details: { text_tokens: 60, audio_tokens: 4, image_tokens: 0 },
  },
  output_token_details: { text_tokens: 30, audio_tokens: 91 },
};
/** 59 text, 64 cached and 9 audio in; 30 text and 91 audio out; in picocredits by REALTIME_PRICE. */
export const USAGE_CREDITS: bigint =
  (59n * 1000n + 64n * 500n + 9n * 10_000n + 30n * 2000n + 91n * 20_000n) * 10n ** 6n;

export interface FakeSession {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly socket: WebSocket;
  readonly tcp: Socket;
  readonly seen: Event[];
  readonly raw: Buffer[];
  send(event: Event): void;
  /** Resolves with the next event of a type that was not waited for yet. */
  next(type: string): Promise<Event>;
  /** A whole turn. */
  respond(fields?: Partial<Reply>): void;
  readonly closed: Promise<number>;
}

export interface Reply {
  id: string;
  text: string[];
  audio: string[];
  usage: unknown;
  status: string;
  statusDetails: unknown;
  conversationId: string | null;
  /** Stop after the deltas. */
  open: boolean;
}

/** How the next call is answered, if not with a session. */
export type Handshake =
  | { readonly status: number; readonly body?: unknown; readonly headers?: Record<string, string> }
  | { readonly first: Event | null; readonly close?: number };

export interface FakeUpstream {
  readonly url: string;
  readonly calls: { path: string; headers: IncomingHttpHeaders }[];
  readonly sessions: FakeSession[];
  next(...handshakes: Handshake[]): void;
  /** False: `response.create` is left to the test. */
  auto: boolean;
  reply: Partial<Reply>;
  session(n?: number): Promise<FakeSession>;
  close(): Promise<void>;
}

class Waiting<T> {
  private readonly items: T[] = [];
  private readonly waiters: { wants: (item: T) => boolean; resolve: (item: T) => void }[] = [];

  push(item: T): void {
    const at = this.waiters.findIndex(({ wants }) => wants(item));
    if (at === -1) this.items.push(item);
    else this.waiters.splice(at, 1)[0]!.resolve(item);
  }

  next(wants: (item: T) => boolean): Promise<T> {
    const at = this.items.findIndex(wants);
    if (at !== -1) return Promise.resolve(this.items.splice(at, 1)[0]!);
    return new Promise((resolve) => this.waiters.push({ wants, resolve }));
  }
}

const SESSION = {
  type: "realtime",
  object: "realtime.session",
  id: "sess_1",
  model: "up-0",
  output_modalities: ["audio"],
  instructions: "Be brief.",
  audio: {
    input: { format: { type: "audio/pcm", rate: 24000 }, turn_detection: null },
    output: { format: { type: "audio/pcm", rate: 24000 }, voice: "marin" },
  },
  max_output_tokens: "inf",
};

let turns = 0;

function play(send: (event: Event) => void, fields: Partial<Reply>): void {
  const id = fields.id ?? `resp_${++turns}`;
  const { text = ["Hel", "lo"], audio = [], usage = USAGE, status = "completed", statusDetails = null } = fields;
  const { conversationId = "conv_1" } = fields;
  const response = { object: "realtime.response", id, conversation_id: conversationId };
  send({ type: "response.created", response: { ...response, status: "in_progress", usage: null } });
  for (const delta of text) send({ type: "response.output_text.delta", response_id: id, item_id: "item_1", delta });
  for (const delta of audio) send({ type: "response.output_audio.delta", response_id: id, item_id: "item_1", delta });
  if (fields.open === true) return;
  send({ type: "response.done", response: { ...response, status, status_details: statusDetails, usage } });
}

function fakeSession(socket: WebSocket, request: IncomingMessage, upstream: FakeUpstream): FakeSession {
  const waiting = new Waiting<Event>();
  let n = 0;
  const send = (event: Event): void => socket.send(JSON.stringify({ event_id: `up_${++n}`, ...event }));
  const session: FakeSession = {
    path: request.url ?? "",
    headers: request.headers,
    socket,
    tcp: request.socket,
    seen: [],
    raw: [],
    send,
    next: (type) => waiting.next((event) => event["type"] === type),
    respond: (fields = {}) => play(send, fields),
    closed: new Promise((resolve) => socket.on("close", resolve)),
  };
  socket.on("error", () => undefined);
  socket.on("message", (data) => {
    session.raw.push(data as Buffer);
    const event = JSON.parse(data.toString()) as Event;
    session.seen.push(event);
    waiting.push(event);
    if (event["type"] === "response.create" && upstream.auto) session.respond(upstream.reply);
  });
  return session;
}

export async function startFakeUpstream(): Promise<FakeUpstream> {
  const queue: Handshake[] = [];
  const arrived = new Waiting<FakeSession>();
  const server = createServer((_, response) => response.writeHead(404).end());
  const sockets = new WebSocketServer({ noServer: true });
  const tcp = new Set<Socket>();
  server.on("connection", (socket) => {
    tcp.add(socket);
    socket.on("close", () => tcp.delete(socket)).on("error", () => undefined);
  });
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    upstream.calls.push({ path: request.url ?? "", headers: request.headers });
    const handshake = queue.shift();
    if (handshake !== undefined && "status" in handshake) {
      const body = JSON.stringify(handshake.body ?? {});
      const own = Object.entries(handshake.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.end(
        `HTTP/1.1 ${handshake.status} No\r\n${own.join("")}content-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      );
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      if (handshake !== undefined) {
        if (handshake.first !== null) ws.send(JSON.stringify(handshake.first));
        if (handshake.close !== undefined) ws.close(handshake.close);
        return;
      }
      const session = fakeSession(ws, request, upstream);
      upstream.sessions.push(session);
      session.send({ type: "session.created", session: SESSION });
      arrived.push(session);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const upstream: FakeUpstream = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls: [],
    sessions: [],
    next: (...handshakes) => void queue.push(...handshakes),
    auto: true,
    reply: {},
    session: (n = 1) =>
      upstream.sessions.length >= n ? Promise.resolve(upstream.sessions[n - 1]!) : arrived.next(() => true),
    async close() {
      for (const socket of tcp) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return upstream;
}

export interface TestClient {
  readonly socket: WebSocket;
  readonly events: Event[];
  readonly raw: Buffer[];
  send(event: Event): void;
  next(type: string): Promise<Event>;
  /** One turn, from its request to its end. */
  turn(fields?: Event): Promise<Event>;
  readonly closed: Promise<{ code: number; reason: string }>;
}

/** What an upgrade was answered with instead. */
export class Refused extends Error {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly error: Record<string, unknown>;
  constructor(status: number, headers: IncomingHttpHeaders, text: string) {
    super(`refused with ${status}`);
    this.status = status;
    this.headers = headers;
    this.error = (JSON.parse(text) as { error: Record<string, unknown> }).error;
  }
}

export function openClient(url: string, headers: Record<string, string>, protocols: string[]): Promise<TestClient> {
  const socket = new WebSocket(url, protocols, { headers, perMessageDeflate: false });
  const waiting = new Waiting<Event>();
  const client: TestClient = {
    socket,
    events: [],
    raw: [],
    send: (event) => socket.send(JSON.stringify(event)),
    next: (type) => waiting.next((event) => event["type"] === type),
    async turn(fields = {}) {
      client.send({ type: "response.create", ...fields });
      return client.next("response.done");
    },
    closed: new Promise((resolve) =>
      socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() })),
    ),
  };
  socket.on("message", (data) => {
    client.raw.push(data as Buffer);
    const event = JSON.parse(data.toString()) as Event;
    client.events.push(event);
    waiting.push(event);
  });
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("open", () => resolve(client));
    socket.on("unexpected-response", (_, response) => {
      let text = "";
      response.on("data", (chunk) => (text += String(chunk)));
      response.on("end", () => {
        reject(new Refused(response.statusCode ?? 0, response.headers, text));
        socket.terminate();
      });
    });
  });
}

export interface RealtimeGatewayOptions extends Pick<
  GatewayOptions,
  "upstreams" | "targets" | "ve" | "provider" | "pm" | "keyRateLimits" | "deadlines" | "wallNow"
> {
  readonly realtime?: Partial<RealtimeOptions>;
  readonly rates?: Rates;
}

export interface RealtimeGateway {
  readonly url: string;
  readonly upstreams: readonly FakeUpstream[];
  readonly upstream: FakeUpstream;
  readonly table: RouteTable;
  readonly budget: FakeBudget;
  readonly journal: FakeJournal;
  readonly metrics: FakeMetrics;
  readonly realtime: Realtime;
  readonly server: RunningServer;
  /** By default with the key and the model `gpt`. */
  connect(query?: string, headers?: Record<string, string>, protocols?: string[]): Promise<TestClient>;
  /** Stops everything, and checks that all was settled exactly once and written down. */
  close(): Promise<void>;
}

export async function startRealtimeGateway(options: RealtimeGatewayOptions = {}): Promise<RealtimeGateway> {
  const upstreams = await Promise.all(Array.from({ length: options.upstreams ?? 1 }, startFakeUpstream));
  const table = new RouteTable();
  const urls = upstreams.map(({ url }) => url);
  snapshot(table, gatewayResources(urls, { ...options, pm: { price: REALTIME_PRICE, ...options.pm } }));
  const [budget, journal, metrics] = [new FakeBudget(), new FakeJournal(), new FakeMetrics()];
  const problems: string[] = [];
  const log = pino({ level: "error" }, { write: (line: string) => void problems.push(line) });
  const outbound = createUpstream({ allowPrivate: true });
  const deps: PipelineDeps = {
    table,
    budget,
    journal,
    upstream: outbound,
    now: () => performance.timeOrigin + performance.now(),
    ...(options.wallNow !== undefined && { wallNow: options.wallNow }),
    random: Math.random,
    newId,
    settings: { veDomain: "", corsOrigins: [] },
    log,
    metrics,
    ...(options.rates !== undefined && { rates: options.rates }),
  };
  const realtime = createRealtime(deps, { allowPrivate: true, ...options.realtime });
  const pipeline = joined(createPipeline(deps), realtime);
  const server = await startServer({
    address: "127.0.0.1:0",
    pipeline,
    upgrades: realtime,
    health: { ready: () => true, metrics: async () => ({ contentType: "text/plain", body: "" }) },
    newId,
    log,
  });
  const url = `ws://${server.address}`;
  const clients: TestClient[] = [];
  return {
    url,
    upstreams,
    upstream: upstreams[0]!,
    table,
    budget,
    journal,
    metrics,
    realtime,
    server,
    async connect(query = "/v1/realtime?model=gpt", headers = { authorization: `Bearer ${KEY}` }, protocols = []) {
      const client = await openClient(url + query, headers, protocols);
      clients.push(client);
      return client;
    },
    async close() {
      for (const { socket } of clients) socket.terminate();
      await pipeline.idle();
      await server.close({ drainMs: 5_000, lingerMs: 0 });
      await outbound.close();
      pipeline.close();
      await Promise.all(upstreams.map((upstream) => upstream.close()));
      check(budget, journal, problems);
    },
  };
}

function check(budget: FakeBudget, journal: FakeJournal, problems: readonly string[]): void {
  const wrong = [...budget.reservations, ...budget.limitHolds].filter(({ settled }) => settled !== 1).length;
  if (wrong > 0) throw new Error(`${wrong} reservations were not settled exactly once`);
  const owed = journal.settlements.reduce((sum, { credits }) => sum + credits, 0n);
  if (owed !== budget.spent) throw new Error(`journaled ${owed}, spent ${budget.spent}`);
  const settled = new Set(journal.settlements.map(({ id }) => id));
  if (settled.size !== journal.settlements.length) throw new Error("a record was written twice");
  for (const { id } of journal.intents) if (!settled.has(id)) throw new Error(`an intent was not settled: ${id}`);
  if (problems.length > 0) throw new Error(`logged: ${problems.join("")}`);
}

/** A socket to the gateway, for what no WebSocket client sends. */
export function rawSocket(url: string): Socket {
  const { hostname, port } = new URL(url);
  return connect(Number(port), hostname);
}
