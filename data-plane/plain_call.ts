/**
 * A request that one known upstream answers, and that costs nothing: what is stored there is read, cancelled or deleted. Its
 * answer is passed on as it is, or changed as a whole. Nothing is retried, and no other upstream is asked.
 */

import { authorizeAll } from "./authorize.ts";
import type { Core, Live } from "./core.ts";
import { badAnswer, type ErrorAnswer, INTERNAL, noTarget, SHUTTING_DOWN_ANSWER, TOTAL_TIMEOUT } from "./errors.ts";
import type { AnswerHeaders } from "./formats/format.ts";
import type { UpstreamError } from "./formats/hub.ts";
import { refusalOf } from "./formats/refusal.ts";
import { addAnswerHeaders, replyError } from "./reply.ts";
import type { RouteProvider } from "./route_types.ts";
import { Deadline, type Timed } from "./timers.ts";
import type {
  CallErrorKind,
  Exchange,
  ExchangeSink,
  OutboundCall,
  OutboundRequest,
  OutboundSink,
} from "./transport.ts";
import { AnswerHead, StatusBody } from "./upstream_head.ts";
import { AuthError } from "./upstream_auth.ts";

/** From sending to the head of the answer, and between its chunks. */
export const PLAIN_HEAD_MS = 60_000;
export const PLAIN_IDLE_MS = 60_000;
/** An answer that is changed as a whole is kept, up to this size. */
export const PLAIN_CHANGED_BYTES_MAX = 16 * 1024 * 1024;

export interface PlainPlan {
  /** What the client asked for, in words for its error: an id, or a path. */
  readonly subject: string;
  readonly provider: RouteProvider;
  readonly request: OutboundRequest;
  /** Makes of a whole JSON answer what the client gets; null: its bytes pass through as they come. */
  readonly change: ((body: Buffer) => Buffer) | null;
  error(status: number, headers: AnswerHeaders, body: Buffer): UpstreamError;
  /** For metrics: a number of `tokenbill.v1.Endpoint`, or 0. */
  readonly endpoint: number;
}

/** Statuses that speak of our account at the upstream, and not of what the client asked for. */
const OURS = new Set([401, 402, 403]);

export class PlainCall implements OutboundSink, ExchangeSink, Timed, Live {
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
    this.arm(PLAIN_HEAD_MS);
    this.guard(() => {
      const ready = authorizeAll(core.deps.auth, plan.provider, plan.request, (result) => this.send(result));
      if (ready !== null) this.send(ready);
    });
  }

  onSent(): void {}

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
      this.fail(noTarget(this.plan.subject));
    });
  }

  onDrain(): void {
    this.call?.resume();
  }

  onGone(): void {
    this.stop();
  }

  onDeadline(): void {
    this.guard(() => this.fail(TOTAL_TIMEOUT));
  }

  onProgressTick(): void {}

  abort(): void {
    this.guard(() => this.fail(SHUTTING_DOWN_ANSWER));
  }

  private send(result: OutboundRequest | AuthError): void {
    this.guard(() => {
      if (this.over) return;
      if (result instanceof AuthError) return this.fail(noTarget(this.plan.subject));
      this.call = this.core.deps.upstream.send(result, this);
    });
  }

  private writeHead(head: AnswerHead, bytes: number | null): void {
    this.begun = true;
    addAnswerHeaders(this.headers, head.contentType.includes("event-stream"), head.contentType, bytes, 1);
    this.exchange.writeHead(head.status, this.headers);
  }

  private refuse(body: Buffer): void {
    const { plan } = this;
    const head = this.head!;
    const error = plan.error(head.status, head.headers, body);
    if (error.health === "account") this.core.deps.auth?.refused(plan.provider, head.status, head.headers, body);
    if (OURS.has(head.status) || error.health === "account" || head.status >= 500)
      return this.fail(noTarget(plan.subject));
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
