/**
 * `GET /v1/realtime?model=…` with `Upgrade: websocket`: from the request to a session, or to an HTTP answer that says why
 * there is none. It stands beside the pipeline and shares what that is made of; `joined` makes them one for the server.
 */

import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { authenticate, parseTarget } from "../auth.ts";
import { checkoutUrl } from "../checkout_link.ts";
import { Core } from "../core.ts";
import type { PipelineDeps } from "../deps.ts";
import * as errors from "../errors.ts";
import type { AttemptEntry } from "../journal/journal.ts";
import { Outcome } from "../outcome.ts";
import { takeRates } from "../rates/request_rates.ts";
import type { RateHold } from "../rates/rates.ts";
import { routable, type RouteKey, type RouteLm } from "../route_types.ts";
import { tierOf } from "../router.ts";
import type { Pipeline } from "../transport.ts";
import { createDialer, type Dialer, type DialerOptions } from "./dial.ts";
import { CLOSE_MS, REALTIME_LIMITS, type RealtimeLimits } from "./limits.ts";
import { Opening, type Opened, type OpeningHost } from "./opening.ts";
import { Peer } from "./peer.ts";
import { Session } from "./session.ts";
import { type Authorize, realtimeAuth, speaksRealtime } from "./target.ts";
import { asideOf } from "./turn.ts";

const PATH = "/v1/realtime";
/** Browsers cannot send headers: the key is one of the sub-protocols that they offer. */
const KEY_PROTOCOL = "openai-insecure-api-key.";
const BETA_PROTOCOL = "openai-beta.";
const PROTOCOL = "realtime";
const WEBSOCKET_KEY = /^[+/0-9A-Za-z]{22}==$/;
const MODEL_CHARS_MAX = 512;
/** A client speaks when it was answered; who sends more than this before is cut off. */
const EARLY_BYTES_MAX = 64 * 1024;

export interface RealtimeOptions extends Pick<DialerOptions, "allowPrivate" | "lookup"> {
  /** Absent: API keys only. */
  readonly auth?: Authorize;
  readonly limits?: Partial<RealtimeLimits>;
}

/** What `server.ts` needs. */
export interface UpgradeHandler {
  /** True: this request is not the pipeline's. */
  takes(request: IncomingMessage): boolean;
  /** Takes the socket over. Never throws. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** The node stops: no more sessions, and those that stand end soon. */
  drain(): void;
}

export interface Realtime extends UpgradeHandler {
  /** Sessions under way, those included that still wait for an upstream, or to be written down. */
  readonly live: number;
  idle(): Promise<void>;
  abortAll(): void;
  close(): void;
}

const NO_UPGRADE = errors.badRequest("This is not a valid WebSocket request.", null, "bad_request");
const NO_CALLS = errors.badRequest(
  "Calls cannot be joined here: their media do not pass the gateway. Name a `model` instead.",
  "call_id",
  "unsupported_parameter",
);
const NO_INTENT = errors.badRequest(
  "Name a `model` instead of an `intent`: what a session transcribes is set with `session.update`.",
  "intent",
  "unsupported_parameter",
);
const TOO_MANY = errors.tooManySessions();

/** A header by its lower-case name, "" if absent; the key and the beta can come as sub-protocols too. */
function headerOf(request: IncomingMessage, name: string): string {
  const value = request.headers[name];
  const text = Array.isArray(value) ? (value[0] ?? "") : (value ?? "");
  if (text !== "" || (name !== "authorization" && name !== "openai-beta")) return text;
  const protocols = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((each) => each.trim());
  if (name === "authorization") {
    const key = protocols.find((each) => each.startsWith(KEY_PROTOCOL));
    return key === undefined ? "" : `Bearer ${key.slice(KEY_PROTOCOL.length)}`;
  }
  // `openai-beta.realtime-v1` stands for the header `realtime=v1`.
  const beta = protocols.find((each) => each.startsWith(BETA_PROTOCOL));
  return beta === undefined ? "" : beta.slice(BETA_PROTOCOL.length).replace("-", "=");
}

function isWebSocket(request: IncomingMessage): boolean {
  return request.method === "GET" && (request.headers.upgrade ?? "").toLowerCase() === "websocket";
}

function replyRaw(socket: Duplex, id: string, { status, body, headers }: errors.ErrorAnswer): void {
  if (!socket.writable) return void socket.destroy();
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\nx-request-id: ${id}\r\n`;
  for (let i = 0; i < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`;
  head += `content-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`;
  socket.end(Buffer.concat([Buffer.from(head, "latin1"), body]));
  // Who does not take the answer keeps nothing.
  const timer = setTimeout(() => socket.destroy(), CLOSE_MS).unref();
  socket.once("close", () => clearTimeout(timer));
  socket.resume();
}

/** One upgrade request: admitted, then an opening, then a session. */
class Entry implements OpeningHost {
  readonly core: Core;
  readonly dialer: Dialer;
  readonly auth: Authorize;
  private readonly node: RealtimeNode;
  private readonly request: IncomingMessage;
  private readonly socket: Duplex;
  readonly id: string;
  private readonly arriveMs: number;
  private rates: readonly RateHold[] = [];
  private opening: Opening | null = null;
  private gone = false;
  key!: RouteKey;
  lm!: RouteLm;
  model = "";
  /** What came before the answer. */
  private early: Buffer[] = [];
  private earlyBytes = 0;

  constructor(node: RealtimeNode, request: IncomingMessage, socket: Duplex, head: Buffer) {
    this.node = node;
    this.core = node.core;
    this.dialer = node.dialer;
    this.auth = node.auth;
    this.request = request;
    this.socket = socket;
    if (head.length > 0) this.early.push(head);
    this.id = node.core.deps.newId("usg_");
    this.arriveMs = node.core.deps.now();
  }

  private left = false;

  begin(): void {
    this.socket.on("error", () => undefined);
    const refusal = this.admit();
    if (refusal !== null) return this.refuse(refusal);
    // Only who reads hears that the other side is gone.
    this.socket.on("data", this.onEarly).once("end", this.onGone).once("close", this.onGone);
    this.askWallet();
  }

  /** Everything that can be said at once. */
  private admit(): errors.ErrorAnswer | null {
    const { request, core, node } = this;
    const { table, settings, journal } = core.deps;
    const target = parseTarget(request.url ?? "");
    const exchange = { header: (name: string) => headerOf(request, name) };
    const key = authenticate(table, exchange, target, settings.veDomain);
    if (key === null) return errors.INVALID_KEY;
    const version = request.headers["sec-websocket-version"];
    if (!WEBSOCKET_KEY.test(request.headers["sec-websocket-key"] ?? "") || version !== "13") return NO_UPGRADE;
    const query = new URLSearchParams((request.url ?? "").split("?")[1] ?? "");
    if (query.has("call_id")) return NO_CALLS;
    if (query.has("intent")) return NO_INTENT;
    this.model = (query.get("model") ?? "").slice(0, MODEL_CHARS_MAX);
    const lm = table.logicalModel(key.ve, this.model);
    if (lm === undefined) return errors.modelNotFound(this.model);
    if (node.draining || !journal.accepting) return errors.JOURNAL_UNAVAILABLE;
    if (node.count > node.limits.sessionsMax) return TOO_MANY;
    this.key = key;
    this.lm = lm;
    return this.takeRates();
  }

  /** The session is one request, without tokens; each turn is another, with them. */
  private takeRates(): errors.ErrorAnswer | null {
    const { rates } = this.core.deps;
    if (rates === undefined) return null;
    const taken = takeRates(rates, this.key, { all: 0, input: 0 });
    if (!Array.isArray(taken)) return errors.rateLimitReached(taken, 0);
    this.rates = taken;
    return null;
  }

  /** Nothing is held between turns: this only asks whether there is anything at all. */
  private askWallet(): void {
    const { budget } = this.core.deps;
    const { ve } = this.key;
    const pms = this.lm.spec.group.pms.filter((pm) => routable(pm) && speaksRealtime(pm));
    if (pms.length === 0) return this.refuse(errors.noTarget(this.model));
    const least = pms.some(({ rates }) => rates!.dearInput + rates!.dearOutput + rates!.request > 0n) ? 1n : 0n;
    const held = budget.reserve(ve.id, least);
    if (held !== null) {
      budget.settle(held, 0n);
      return this.open();
    }
    budget.reserveSlow(ve.id, least, least, (result) => {
      if (typeof result !== "string") {
        budget.settle(result, 0n);
        return this.open();
      }
      const empty = result === "exhausted";
      this.refuse(
        empty ? errors.exhausted(ve.exhaustedStatus, checkoutUrl(ve, this.core.wallNow())) : errors.BUDGET_UNAVAILABLE,
      );
    });
  }

  private open(): void {
    if (this.gone) return this.leave();
    if (this.node.draining) return this.refuse(errors.JOURNAL_UNAVAILABLE);
    this.opening = new Opening(this, this.lm, this.model, this.arriveMs, headerOf(this.request, "openai-beta"));
    this.opening.begin();
  }

  onOpened(opened: Opened): void {
    this.ignore();
    this.socket.pause();
    const { peer, choice, attempts, first, binary, rate } = opened;
    const { core, key, lm, model, node } = this;
    if (rate !== null) this.rates = [...this.rates, rate];
    node.accept(this.request, this.socket, Buffer.concat(this.early), this.id, (client) => {
      if (client === null) {
        peer.terminate();
        return this.leave();
      }
      const tier = tierOf(lm.spec.group, choice.pm);
      const session = new Session({
        party: { core, key, lm, model, pm: choice.pm, kind: choice.kind, tier },
        client,
        upstream: peer,
        attempts,
        limits: node.limits,
        onOver: (over) => {
          node.sessions.delete(over);
          for (const hold of this.rates) hold.settle(0);
          this.rates = [];
          node.count--;
        },
      });
      node.sessions.add(session);
      session.begin(first, binary);
      if (node.draining) session.drain();
    });
  }

  onFailed(error: errors.ErrorAnswer, attempts: readonly AttemptEntry[], clientFault: boolean): void {
    if (attempts.length > 0 && !this.gone) {
      const record = asideOf(this, {
        id: this.id,
        startMs: this.arriveMs,
        outcome: clientFault ? Outcome.CLIENT_ERROR : Outcome.UPSTREAM_ERROR,
        units: [],
        credits: 0n,
        pmId: "",
        priceId: "",
        httpStatus: error.status,
        attempts,
        errorCode: error.code,
      });
      this.core.deps.journal.settle(record, () => undefined);
    }
    this.refuse(error);
  }

  private readonly onGone = (): void => {
    this.gone = true;
    this.ignore();
    this.socket.destroy();
    // While the wallet is asked there is nothing to stop.
    if (this.opening === null) return;
    this.opening.leave();
    this.leave();
  };

  private readonly onEarly = (chunk: Buffer): void => {
    this.early.push(chunk);
    this.earlyBytes += chunk.length;
    if (this.earlyBytes > EARLY_BYTES_MAX) this.onGone();
  };

  private ignore(): void {
    const { socket } = this;
    socket.removeListener("data", this.onEarly).removeListener("end", this.onGone);
    socket.removeListener("close", this.onGone);
  }

  private refuse(error: errors.ErrorAnswer): void {
    this.ignore();
    this.core.deps.metrics.request(0, error.status, 0, 0);
    replyRaw(this.socket, this.id, error);
    this.leave();
  }

  /** Something went wrong that nothing can be said of. */
  abandon(): void {
    this.ignore();
    this.socket.destroy();
    this.leave();
  }

  private leave(): void {
    if (this.left) return;
    this.left = true;
    for (const hold of this.rates) hold.release();
    this.rates = [];
    this.node.count--;
  }
}

class RealtimeNode implements Realtime {
  readonly core: Core;
  readonly dialer: Dialer;
  readonly auth: Authorize;
  readonly limits: RealtimeLimits;
  readonly sessions = new Set<Session>();
  draining = false;
  /** Upgrades and sessions. */
  count = 0;
  private readonly server: WebSocketServer;
  private readonly ids = new WeakMap<IncomingMessage, string>();

  constructor(deps: PipelineDeps, options: RealtimeOptions) {
    this.core = new Core(deps);
    this.auth = options.auth ?? realtimeAuth(deps.auth);
    this.limits = { ...REALTIME_LIMITS, ...options.limits };
    const { frameBytesMax, bufferBytesMax } = this.limits;
    this.dialer = createDialer({ ...options, frameBytesMax, bufferBytesMax });
    const server = {
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: frameBytesMax,
      closeTimeout: CLOSE_MS,
      handleProtocols: (protocols: Set<string>) => (protocols.has(PROTOCOL) ? PROTOCOL : false),
    };
    this.server = new WebSocketServer(server as never);
    this.server.on("headers", (headers, request) => {
      const id = this.ids.get(request);
      if (id !== undefined) headers.push(`x-request-id: ${id}`);
    });
  }

  takes(request: IncomingMessage): boolean {
    return isWebSocket(request) && parseTarget(request.url ?? "").path === PATH;
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.count++;
    const entry = new Entry(this, request, socket, head);
    try {
      entry.begin();
    } catch (error) {
      this.core.deps.log.error({ err: error, id: entry.id }, "request failed");
      entry.abandon();
    }
  }

  /** `done` is called before this returns; with null if the client is gone or not understood. */
  accept(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    id: string,
    done: (client: Peer | null) => void,
  ): void {
    this.ids.set(request, id);
    let client: Peer | null = null;
    this.server.handleUpgrade(request, socket, head, (ws) => {
      client = new Peer(ws, this.limits.bufferBytesMax);
    });
    done(client);
  }

  drain(): void {
    this.draining = true;
    for (const session of [...this.sessions]) session.drain();
  }

  get live(): number {
    return this.core.liveCount;
  }

  idle(): Promise<void> {
    return this.core.idle();
  }

  abortAll(): void {
    this.core.abortAll();
  }

  close(): void {
    this.core.close();
  }
}

export function createRealtime(deps: PipelineDeps, options: RealtimeOptions): Realtime {
  return new RealtimeNode(deps, options);
}

/** Requests and sessions together, for a server that ends when both are over. */
export function joined(pipeline: Pipeline, realtime: Realtime): Pipeline {
  return {
    handle: (exchange) => pipeline.handle(exchange),
    get live() {
      return pipeline.live + realtime.live;
    },
    async idle() {
      while (pipeline.live + realtime.live > 0) await Promise.all([pipeline.idle(), realtime.idle()]);
    },
    abortAll() {
      pipeline.abortAll();
      realtime.abortAll();
    },
    close() {
      pipeline.close();
      realtime.close();
    },
  };
}
