/**
 * One call of a request to one target: what it holds of the target's limits, the upstream's answer up to its first content
 * within the target's deadlines, and the relay of what follows. What comes of it is for the host to decide.
 */

import { type Admitted, outboundOf } from "./admitted.ts";
import { authorizeAll } from "./authorize.ts";
import type { Core } from "./core.ts";
import type { ErrorAnswer } from "./errors.ts";
import * as deadlines from "./deadlines.ts";
import type { AnswerHeaders, Bridge } from "./formats/format.ts";
import { type UpstreamError, RefusedFieldError } from "./formats/hub.ts";
import { bridgeOf, serves } from "./formats/index.ts";
import { refusalCode, refusalOf } from "./formats/refusal.ts";
import type { FailureKind } from "./health.ts";
import { type LimitFailure, LimitHolds } from "./limits.ts";
import { type AttemptKind, AttemptResult } from "./outcome.ts";
import { isRefusal, type RateHold } from "./rates/rates.ts";
import { type Relay, relayFor, type RelayHost, streams } from "./relay.ts";
import { routable, type RouteDeadlines, type RoutePm } from "./route_types.ts";
import { type Bill, NOBODY_SERVED } from "./settlement.ts";
import { Deadline, type Timed } from "./timers.ts";
import type { AttemptFacts, Choice, Shortage } from "./trail.ts";
import type { CallErrorKind, Exchange, OutboundCall, OutboundRequest, OutboundSink } from "./transport.ts";
import { AuthError, blamesAccount } from "./upstream_auth.ts";
import { AnswerHead, StatusBody } from "./upstream_head.ts";

/** How an attempt came to nothing, with the client having seen nothing of it. */
export interface AttemptFailure {
  readonly result: AttemptResult;
  readonly health: FailureKind;
  /** The upstream's wish, 0 if it had none. */
  readonly retryAfterMs: number;
  /** `safe`: nothing was sent, so the same call can be made again. `resend`: a kept connection broke before an answer. */
  readonly again: "no" | "safe" | "resend";
  /** A word for the request log. */
  readonly detail: string;
  /** What the upstream refused, should no other target take it. */
  readonly refusal?: ErrorAnswer;
}

/** Whose attempt it is. After `end` nothing is called, but `callOver`. */
export interface AttemptHost {
  /** The head of an answer came, so the target is not slow to respond. */
  answers(attempt: Attempt): void;
  /** It has content first: the head goes to the client. What the relay says from then on concerns the client. */
  committed(attempt: Attempt, contentType: string, bytes: number | null): void;
  /** So many bytes of the answer came, before anything is made of them. */
  received(attempt: Attempt, bytes: number): void;
  /** More of the answer came after its content began. */
  progressed(): void;
  failed(attempt: Attempt, failure: AttemptFailure): void;
  /** The upstream says that the request is the client's fault. */
  refused(attempt: Attempt, error: UpstreamError): void;
  /** Nothing was called. */
  passedOver(attempt: Attempt, why: Shortage, retryMs: number, detail: string): void;
  /** The target cannot do what the request asks for. Nothing was called. */
  unsupported(attempt: Attempt, error: RefusedFieldError): void;
  write(bytes: Uint8Array): void;
  metered(textBytes: number, pieces: number): void;
  complete(final: Uint8Array | null): void;
  broken(detail: string): void;
  /** The upstream ended the call after everything else was over. */
  callOver(): void;
  crash(error: unknown): void;
}

/** Refused, or reset while connecting: the other side has seen nothing of the request, and may take it in a moment. */
const SAFE_CODES = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE"]);
const DETAIL_CHARS_MAX = 64;

/** Details go into the request log: a word of printable ASCII. */
export function detailOf(text: string): string {
  return text.replace(/[^\x21-\x7e]+/g, "_").slice(0, DETAIL_CHARS_MAX);
}

export class Attempt implements OutboundSink, RelayHost, Timed, AttemptFacts {
  readonly pm: RoutePm;
  readonly kind: AttemptKind;
  readonly startUs: number;
  bill: Bill = NOBODY_SERVED;
  bridge: Bridge | null = null;
  head: AnswerHead | null = null;
  relay: Relay | null = null;
  /** What is held of Unit Limit and Credit Limit; null: the target has none. Whoever ends the attempt takes it. */
  limits: LimitHolds | null = null;
  /** What is held of the target's rate limits, likewise. */
  rate: RateHold | null = null;
  /** After `startUs`; 0: it never came to that. */
  firstByteUs = 0;
  firstContentUs = 0;
  private readonly core: Core;
  private readonly request: Admitted;
  private readonly exchange: Exchange;
  private readonly host: AttemptHost;
  /** Of this target. */
  readonly times: RouteDeadlines;
  private readonly deadline = new Deadline(this);
  private call: OutboundCall | null = null;
  private refusal: StatusBody | null = null;
  /** When the request was on its way, in milliseconds; 0: not yet. */
  private sentMs = 0;
  private over = false;

  constructor(core: Core, request: Admitted, exchange: Exchange, { pm, kind }: Choice, host: AttemptHost) {
    this.core = core;
    this.request = request;
    this.exchange = exchange;
    this.pm = pm;
    this.kind = kind;
    this.host = host;
    this.times = deadlines.deadlinesOf(request.lm.spec, pm);
    this.startUs = core.nowUs();
  }

  get httpStatus(): number {
    return this.head?.status ?? 0;
  }

  /** The call stands, or may: the upstream could still send something. */
  get calling(): boolean {
    return this.call !== null;
  }

  get sent(): boolean {
    return this.sentMs > 0;
  }

  /** From sending to now, in milliseconds. */
  get sinceSentMs(): number {
    return this.sentMs === 0 ? 0 : Math.max(0, this.core.deps.now() - this.sentMs);
  }

  /** May call the host before it returns. */
  begin(): void {
    const { core, request, pm, host } = this;
    const { rates } = core.deps;
    if (pm.rateLimits !== null && rates !== undefined) {
      const taken = rates.take(pm.id, pm.rateLimits, request.tokens.all, request.tokens.input);
      if (isRefusal(taken)) return host.passedOver(this, taken.tooLarge ? "too_large" : "rate", taken.retryMs, "");
      this.rate = taken;
    }
    if (!pm.limited) return this.send();
    this.limits = new LimitHolds(core.deps.budget, pm, (failure, retryMs) => {
      this.guard(() => this.limitsKnown(failure, retryMs));
    });
    // Until the answer comes, which is soon, only the deadline of the whole counts.
    if (this.limits.take(request)) this.send();
  }

  /** The answer is whole: the upstream may end the call by itself. */
  done(): void {
    this.over = true;
    this.disarm();
  }

  /** Takes no more notice of the upstream; what it holds of limits stays held. */
  end(): void {
    this.over = true;
    this.relay?.stop();
    this.disarm();
    this.stopCall();
  }

  /** Gives back what is held of limits: nothing of it was used, but the call itself where one was made. */
  release(): void {
    this.limits?.release();
    this.limits = null;
    if (this.sent) this.rate?.settle(0);
    else this.rate?.release();
    this.rate = null;
  }

  stopCall(): void {
    this.call?.abort();
    this.call = null;
  }

  pause(): void {
    this.call?.pause();
  }

  resume(): void {
    this.call?.resume();
  }

  /** Its own deadlines no longer matter. */
  disarm(): void {
    this.core.wheel.clear(this.deadline);
  }

  onSent(): void {
    if (this.over) return;
    const sending = this.sentMs === 0 && this.request.form !== null;
    this.sentMs = this.core.deps.now();
    const { times, request } = this;
    if (sending) return this.arm(deadlines.UPLOAD_MS);
    // Content cannot come before the head: who waits less long for it waits no longer for the head.
    const headMs = Math.min(
      deadlines.firstByteMs(times, request.stream),
      deadlines.firstContentMs(times, request.stream),
    );
    this.arm(headMs);
  }

  /** A long body has arrived: only now can the upstream be late. */
  onBodySent(): void {
    if (!this.over && this.head === null) this.onSent();
  }

  onHead(status: number, headers: AnswerHeaders): void {
    try {
      if (this.over) return;
      const head = new AnswerHead(status, headers);
      this.head = head;
      this.firstByteUs = this.sinceStartUs();
      this.host.answers(this);
      if (!head.ok) {
        this.refusal = new StatusBody();
        this.arm(deadlines.REFUSAL_MS);
      } else if (!head.fits(streams(this.bridge!, this.request, head))) {
        this.badAnswer("wrong_content_type");
      } else {
        this.relay = relayFor(this, this.bridge!, this.request, this.pm, head);
        this.armContent(Number.POSITIVE_INFINITY);
      }
    } catch (error) {
      this.host.crash(error);
    }
  }

  onChunk(chunk: Buffer): void {
    try {
      const { relay } = this;
      if (relay === null) return this.refusal?.add(chunk);
      if (this.over) return;
      this.host.received(this, chunk.length);
      if (this.over) return;
      relay.onChunk(chunk);
      if (this.over) return;
      if (relay.committed) this.host.progressed();
      // Comments and roles are no progress: until there is content, the deadline of the first content holds.
      else if (!this.request.stream) this.armContent(deadlines.idleMs(this.times));
    } catch (error) {
      this.host.crash(error);
    }
  }

  onEnd(): void {
    try {
      this.call = null;
      if (this.over) return this.host.callOver();
      if (this.refusal !== null) this.statusFailed(this.refusal);
      else if (this.relay === null) this.badAnswer("empty");
      else this.relay.onEnd();
    } catch (error) {
      this.host.crash(error);
    }
  }

  onError(kind: CallErrorKind, detail: string): void {
    this.guard(() => {
      this.call = null;
      if (this.over) return this.host.callOver();
      this.core.deps.log.debug({ id: this.request.id, pm: this.pm.id, kind, detail }, "upstream call failed");
      if (this.refusal !== null) this.statusFailed(this.refusal);
      else if (this.relay?.committed === true) this.broken(detail);
      else if (kind === "body") this.host.passedOver(this, "connection", 0, detailOf(detail));
      else if (kind === "shortage") this.host.passedOver(this, "connection", 0, detailOf(detail));
      else if (kind === "address_not_allowed") this.fail(AttemptResult.ADDRESS_NOT_ALLOWED, "account", "");
      else if (kind === "protocol" || this.head !== null) this.badAnswer(detail);
      else this.connectionFailed(kind, detail);
    });
  }

  onDeadline(): void {
    this.guard(() => {
      if (this.over) return;
      if (this.refusal !== null) return this.statusFailed(this.refusal);
      const { CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, FIRST_CONTENT_TIMEOUT } = AttemptResult;
      if (!this.sent) this.fail(CONNECT_TIMEOUT, "connection", "");
      else this.fail(this.head === null ? FIRST_BYTE_TIMEOUT : FIRST_CONTENT_TIMEOUT, "failure", "");
    });
  }

  // --- what the relay says ----------------------------------------------------------------------------------------------

  commit(contentType: string, bytes: number | null): void {
    this.firstContentUs = this.sinceStartUs();
    this.disarm();
    this.host.committed(this, contentType, bytes);
  }

  write(bytes: Uint8Array): void {
    this.host.write(bytes);
  }

  metered(textBytes: number, pieces: number): void {
    this.host.metered(textBytes, pieces);
  }

  complete(final: Uint8Array | null): void {
    this.host.complete(final);
  }

  badAnswer(detail: string): void {
    this.fail(AttemptResult.BAD_ANSWER, "failure", detail);
  }

  broken(detail: string): void {
    this.host.broken(detailOf(detail));
  }

  // --- small things -----------------------------------------------------------------------------------------------------

  private limitsKnown(failure: LimitFailure | null, retryMs: number): void {
    if (this.over) return;
    // The model may have been taken away meanwhile.
    if (failure === null && routable(this.pm)) return this.send();
    this.host.passedOver(this, failure ?? "unavailable", retryMs, "");
  }

  private send(): void {
    const { core, request, pm } = this;
    const bridge = serves(request.endpoint, pm) ? bridgeOf(request.endpoint, pm) : null;
    if (bridge === null) return this.host.passedOver(this, "unsupported", 0, "endpoint");
    this.bridge = bridge;
    let outbound: OutboundRequest;
    try {
      outbound = outboundOf(request, bridge, pm, this.exchange);
    } catch (error) {
      if (!(error instanceof RefusedFieldError)) throw error;
      return this.host.unsupported(this, error);
    }
    const authorized = authorizeAll(core.deps.auth, pm.provider, outbound, (result) =>
      this.guard(() => this.authorized(result)),
    );
    this.arm(deadlines.connectMs(this.times));
    if (authorized !== null) this.authorized(authorized);
  }

  private authorized(result: OutboundRequest | AuthError): void {
    if (this.over) return;
    if (result instanceof AuthError) {
      const health = blamesAccount(result) ? "account" : "connection";
      return this.fail(AttemptResult.NO_CREDENTIALS, health, result.code);
    }
    const { core, pm } = this;
    // The price of this moment holds to the end, whatever changes meanwhile.
    this.bill = { pmId: pm.id, price: pm.price };
    this.call = core.deps.upstream.send(result, this);
  }

  private connectionFailed(kind: CallErrorKind, detail: string): void {
    const safe = !this.sent && SAFE_CODES.has(detail);
    const again = safe ? "safe" : kind === "reset" ? "resend" : "no";
    this.fail(AttemptResult.CONNECTION_ERROR, kind === "connect" ? "connection" : "failure", detail, again);
  }

  private statusFailed(refusal: StatusBody): void {
    const { bridge, pm, core } = this;
    const head = this.head!;
    const body = refusal.bytes();
    const error = bridge!.error(head.status, head.headers, body);
    // Before an answer that refuses credentials nothing was done: the same call with better ones is safe.
    if (error.health === "account" && core.deps.auth?.refused(pm.provider, head.status, head.headers, body) === true)
      return this.fail(AttemptResult.STATUS, "ignore", "credentials_renewed", "safe");
    if (error.clientFault) return this.host.refused(this, error);
    const retryAfterMs = head.retryAfterMs(core.deps.now()) || (error.retryAfterMs ?? 0);
    const detail = detailOf(refusalCode(error, pm.provider));
    const failure = { result: AttemptResult.STATUS, health: error.health, retryAfterMs, again: "no", detail } as const;
    const refused = error.elsewhere === true;
    if (!refused) return this.host.failed(this, failure);
    const names = { upstream: pm.upstreamName, client: this.request.body.model };
    this.host.failed(this, { ...failure, refusal: refusalOf(head.status, error, pm.provider, names) });
  }

  private fail(
    result: AttemptResult,
    health: FailureKind,
    detail: string,
    again: AttemptFailure["again"] = "no",
  ): void {
    this.host.failed(this, { result, health, retryAfterMs: 0, again, detail: detailOf(detail) });
  }

  private sinceStartUs(): number {
    return Math.max(1, this.core.nowUs() - this.startUs);
  }

  private arm(ms: number): void {
    this.core.wheel.set(this.deadline, this.core.deps.now() + ms);
  }

  /** The first content must be there in time, counted from sending, and the next chunk within `idleMs`. */
  private armContent(idleMs: number): void {
    const contentAt = this.sentMs + deadlines.firstContentMs(this.times, this.request.stream);
    this.core.wheel.set(this.deadline, Math.min(contentAt, this.core.deps.now() + idleMs));
  }

  /** Callbacks come from sockets and timers: what goes wrong here must end here. The most frequent do without closures. */
  private guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.host.crash(error);
    }
  }
}
