/**
 * A request that one known upstream answers, and that costs nothing: what is stored there is made, read, cancelled or deleted.
 * Its body goes there as it comes. Its answer is passed on as it is, or changed as a whole. Nothing is retried, and no other
 * upstream is asked.
 */

import { authorizeAll } from "./authorize.ts";
import type { ClientBody, ClientBodyHost } from "./client_body.ts";
import type { Core, Live } from "./core.ts";
import {
  badAnswer,
  BODIES_UNAVAILABLE,
  bodyTooLarge,
  type ErrorAnswer,
  INTERNAL,
  REQUEST_TIMEOUT,
  SHUTTING_DOWN_ANSWER,
  TOTAL_TIMEOUT,
  upstreamBusy,
} from "./errors.ts";
import type { AnswerHeaders } from "./formats/format.ts";
import type { UpstreamError } from "./formats/hub.ts";
import { refusalOf } from "./formats/refusal.ts";
import type { RateHold } from "./rates/rates.ts";
import { addAnswerHeaders, replyError } from "./reply.ts";
import type { RouteProvider } from "./route_types.ts";
import { Deadline, type Timed } from "./timers.ts";
import type {
  BodyFailure,
  CallErrorKind,
  Exchange,
  ExchangeSink,
  OutboundCall,
  OutboundRequest,
  OutboundSink,
} from "./transport.ts";
import { AnswerHead, StatusBody } from "./upstream_head.ts";
import { AuthError } from "./upstream_auth.ts";

/** From sending to the head of the answer, unless the plan says more. */
export const PLAIN_HEAD_MS = 60_000;
/** Between the chunks of the answer. */
export const PLAIN_IDLE_MS = 60_000;
/** Until a request's body begins to flow, and between its chunks. */
export const PLAIN_STALL_MS = 60_000;
/** An answer that is changed as a whole is kept, up to this size. */
export const PLAIN_CHANGED_BYTES_MAX = 16 * 1024 * 1024;

export interface PlainPlan {
  readonly provider: RouteProvider;
  readonly request: OutboundRequest;
  /** The request's body where it is the client's; absent: it has none, or one that is here. */
  readonly body?: ClientBody | null;
  /** What the client is told if this upstream cannot be had. */
  readonly unavailable: ErrorAnswer;
  /** From sending the whole request to the head of the answer. */
  readonly headMs: number;
  /** Headers of the answer that the client gets besides its content-type; lower case. */
  readonly keeps: readonly string[];
  /** Held until the request is over. Absent: none. */
  readonly rates?: readonly RateHold[];
  /** Makes of a whole JSON answer what the client gets; null: its bytes pass through as they come. */
  readonly change: ((body: Buffer) => Buffer) | null;
  error(status: number, headers: AnswerHeaders, body: Buffer): UpstreamError;
  /** For metrics: a number of `tokenbill.v1.Endpoint`, or 0. */
  readonly endpoint: number;
}

/** Statuses that speak of our account at the upstream, and not of what the client asked for. */
const OURS = new Set([401, 402, 403]);

export class PlainCall implements OutboundSink, ExchangeSink, ClientBodyHost, Timed, Live {
  liveAt = -1;
  private readonly core: Core;
  private readonly exchange: Exchange;
  private readonly headers: string[];
  private readonly plan: PlainPlan;
  private readonly deadline = new Deadline(this);
  private call: OutboundCall | null = null;
  private head: AnswerHead | null = null;
  private refusal: StatusBody | null = null;
  private kept: Buffer[] = [];
  private keptBytes = 0;
  private begun = false;
  private over = false;

  constructor(core: Core, exchange: Exchange, headers: string[], plan: PlainPlan) {
    this.core = core;
    this.exchange = exchange;
    this.headers = headers;
    this.plan = plan;
  }

  begin(): void {
    const { core, plan } = this;
    core.opened(this);
    this.exchange.setSink(this);
    if (plan.body) plan.body.host = this;
    this.arm(plan.body ? PLAIN_STALL_MS : plan.headMs);
    this.guard(() => {
      const ready = authorizeAll(core.deps.auth, plan.provider, plan.request, (result) => this.send(result));
      if (ready !== null) this.send(ready);
    });
  }

  onSent(): void {}

  onBodyProgress(): void {
    if (this.head === null && !this.over) this.arm(PLAIN_STALL_MS);
  }

  onBodySent(): void {
    if (this.head === null && !this.over) this.arm(this.plan.headMs);
  }

  onBodyFailure(failure: BodyFailure): void {
    this.guard(() => this.fail(failure === "too_large" ? bodyTooLarge(this.plan.body!.bytesMax) : BODIES_UNAVAILABLE));
  }

  onHead(status: number, headers: AnswerHeaders): void {
    this.guard(() => {
      const head = new AnswerHead(status, headers);
      this.head = head;
      this.arm(PLAIN_IDLE_MS);
      if (!head.ok) this.refusal = new StatusBody();
      else if (this.plan.change === null) this.writeHead(head, null);
    });
  }

  onChunk(chunk: Buffer): void {
    this.guard(() => {
      this.arm(PLAIN_IDLE_MS);
      if (this.refusal !== null) return this.refusal.add(chunk);
      if (this.begun) {
        if (!this.exchange.write(chunk)) this.call?.pause();
        return;
      }
      this.kept.push(chunk);
      this.keptBytes += chunk.length;
      if (this.keptBytes > PLAIN_CHANGED_BYTES_MAX) this.fail(badAnswer());
    });
  }

  onEnd(): void {
    this.guard(() => {
      this.call = null;
      const { head, plan } = this;
      if (this.refusal !== null) return this.refuse(this.refusal.bytes());
      if (head === null) return this.fail(badAnswer());
      let last: Buffer | undefined;
      if (!this.begun) {
        last = plan.change!(Buffer.concat(this.kept));
        this.writeHead(head, last.length);
      }
      this.core.deps.metrics.request(plan.endpoint, head.status, 0, 0);
      this.leave();
      this.exchange.end(last);
    });
  }

  onError(kind: CallErrorKind, detail: string): void {
    this.guard(() => {
      this.call = null;
      this.core.deps.log.debug({ provider: this.plan.provider.id, kind, detail }, "upstream call failed");
      this.fail(this.plan.unavailable);
    });
  }

  onDrain(): void {
    // The upstream was not asked for more until now.
    if (!this.over) this.arm(PLAIN_IDLE_MS);
    this.call?.resume();
  }

  onGone(): void {
    this.stop();
  }

  onDeadline(): void {
    this.guard(() => {
      const waitsForClient = this.head === null && this.plan.body?.waitsForClient === true;
      this.fail(waitsForClient ? REQUEST_TIMEOUT : TOTAL_TIMEOUT);
    });
  }

  onProgressTick(): void {}

  abort(): void {
    this.guard(() => this.fail(SHUTTING_DOWN_ANSWER));
  }

  private send(result: OutboundRequest | AuthError): void {
    this.guard(() => {
      if (this.over) return;
      if (result instanceof AuthError) return this.fail(this.plan.unavailable);
      this.call = this.core.deps.upstream.send(result, this);
    });
  }

  private writeHead(head: AnswerHead, bytes: number | null): void {
    this.begun = true;
    addAnswerHeaders(this.headers, head.contentType.includes("event-stream"), head.contentType, bytes, 1);
    for (const name of this.plan.keeps) {
      const value = head.header(name);
      if (value !== "") this.headers.push(name, value);
    }
    this.exchange.writeHead(head.status, this.headers);
  }

  private refuse(body: Buffer): void {
    const { plan } = this;
    const head = this.head!;
    const error = plan.error(head.status, head.headers, body);
    if (error.health === "account") this.core.deps.auth?.refused(plan.provider, head.status, head.headers, body);
    if (OURS.has(head.status) || error.health === "account" || head.status >= 500) return this.fail(plan.unavailable);
    // Redirects are not followed: where they lead is nobody's business.
    if (head.status < 400) return this.fail(badAnswer());
    if (head.status === 429) return this.fail(upstreamBusy(head.retryAfterMs(this.core.deps.now()) / 1000));
    this.fail(refusalOf(head.status, error, plan.provider));
  }

  /** After the answer has begun it can only break off. */
  private fail(error: ErrorAnswer): void {
    if (this.over) return;
    const { begun } = this;
    this.stop();
    this.core.deps.metrics.request(this.plan.endpoint, error.status, 0, 0);
    if (begun) this.exchange.destroy();
    else replyError(this.exchange, this.headers, error);
  }

  private stop(): void {
    this.call?.abort();
    this.call = null;
    this.leave();
  }

  private leave(): void {
    this.over = true;
    this.kept = [];
    for (const hold of this.plan.rates ?? []) hold.settle(0);
    this.core.wheel.clear(this.deadline);
    this.core.closed(this);
  }

  private arm(ms: number): void {
    this.core.wheel.set(this.deadline, this.core.deps.now() + ms);
  }

  /** Callbacks come from sockets and timers: what goes wrong here must end here. */
  private guard(run: () => void): void {
    if (this.over) return;
    try {
      run();
    } catch (error) {
      this.core.deps.log.error({ err: error }, "request failed");
      this.fail(INTERNAL);
    }
  }
}
