/**
 * The way to an upstream: targets are tried as those of any request, until one says `session.created`. The client's
 * upgrade is answered only then, so that a target that fails is never seen, and a failure of all is an HTTP answer.
 */

import type { AnswerHeaders } from "../formats/format.ts";
import type { Core, Live } from "../core.ts";
import { connectMs, deadlinesOf, firstByteMs } from "../deadlines.ts";
import { type ErrorAnswer, INTERNAL, JOURNAL_UNAVAILABLE, TOTAL_TIMEOUT } from "../errors.ts";
import { openAiError } from "../formats/openai.ts";
import { refusalCode, refusalOf } from "../formats/refusal.ts";
import type { FailureKind } from "../health.ts";
import type { AttemptEntry } from "../journal/journal.ts";
import { LimitHolds } from "../limits.ts";
import { AttemptResult } from "../outcome.ts";
import { isRefusal, type RateHold } from "../rates/rates.ts";
import { routable, type RouteLm, type RoutePm } from "../route_types.ts";
import { Deadline } from "../timers.ts";
import { type AttemptFacts, type Choice, Trail } from "../trail.ts";
import type { CallErrorKind, OutboundRequest } from "../transport.ts";
import { retryAfterMs } from "../upstream_head.ts";
import type { Dialer, Dialing, DialSink } from "./dial.ts";
import { fieldsOf, parseEvent, readHead } from "./events.ts";
import type { Peer } from "./peer.ts";
import { turnSize } from "./turn_cost.ts";
import { type Authorize, realtimeGroup, realtimeRequest } from "./target.ts";
import { wordsOf } from "./upstream_words.ts";

/** All targets together have this long. */
export const OPENING_MS_MAX = 60_000;

/** A target serves. */
export interface Opened {
  readonly choice: Choice;
  readonly peer: Peer;
  /** The event by which the upstream said so; the peer is paused after it. */
  readonly first: Buffer;
  readonly binary: boolean;
  /** Of the target's requests at a time; null: it has no limit. */
  readonly rate: RateHold | null;
  /** Attempts before this one. */
  readonly attempts: readonly AttemptEntry[];
}

export interface OpeningHost {
  readonly core: Core;
  readonly dialer: Dialer;
  readonly auth: Authorize;
  onOpened(opened: Opened): void;
  /** `clientFault`: the upstream says that the request is at fault. */
  onFailed(error: ErrorAnswer, attempts: readonly AttemptEntry[], clientFault: boolean): void;
}

/** One target being called. */
class Attempt implements AttemptFacts {
  readonly pm: RoutePm;
  readonly kind: Choice["kind"];
  readonly startUs: number;
  firstByteUs = 0;
  firstContentUs = 0;
  httpStatus = 0;
  rate: RateHold | null = null;
  limits: LimitHolds | null = null;
  dialing: Dialing | null = null;
  peer: Peer | null = null;

  constructor({ pm, kind }: Choice, startUs: number) {
    this.pm = pm;
    this.kind = kind;
    this.startUs = startUs;
  }

  /** Gives back what is held, and leaves the upstream alone. */
  end(): void {
    this.dialing?.abort();
    this.peer?.terminate();
    this.limits?.release();
    this.rate?.release();
  }
}

export class Opening implements Live {
  liveAt = -1;
  private readonly host: OpeningHost;
  private readonly core: Core;
  private readonly lm: RouteLm;
  private readonly model: string;
  private readonly beta: string;
  private readonly trail: Trail;
  private readonly deadline = new Deadline({ onDeadline: () => this.guard(() => this.late()) });
  private readonly untilMs: number;
  private current: Attempt | null = null;
  private over = false;

  /** `beta`: the client's `openai-beta`. */
  constructor(host: OpeningHost, lm: RouteLm, model: string, arriveMs: number, beta: string) {
    this.host = host;
    this.core = host.core;
    this.lm = lm;
    this.model = model;
    this.beta = beta;
    this.untilMs = arriveMs + OPENING_MS_MAX;
    this.trail = new Trail(host.core, realtimeGroup(lm.spec.group), Math.round(arriveMs * 1000), true, 0);
  }

  begin(): void {
    this.core.opened(this);
    this.guard(() => this.next());
  }

  /** The client is gone. */
  leave(): void {
    if (this.over) return;
    if (this.current !== null) this.core.health.release(this.current.pm);
    this.finish();
  }

  onProgressTick(): void {}

  abort(): void {
    if (this.over) return;
    const { attempts } = this.trail;
    this.leave();
    this.host.onFailed(JOURNAL_UNAVAILABLE, attempts, false);
  }

  private next(): void {
    if (this.core.deps.now() >= this.untilMs) return this.fail(TOTAL_TIMEOUT, false);
    const choice = this.trail.next();
    if (choice === null) return this.fail(this.trail.error(this.model), false);
    const attempt = new Attempt(choice, this.core.nowUs());
    this.current = attempt;
    this.arm(OPENING_MS_MAX);
    const { pm } = choice;
    const { rates, budget } = this.core.deps;
    if (pm.rateLimits !== null && rates !== undefined) {
      const taken = rates.take(pm.id, pm.rateLimits, 0, 0);
      if (isRefusal(taken)) return this.passOver(attempt, "rate", taken.retryMs);
      attempt.rate = taken;
    }
    if (!pm.limited) return this.authorize(attempt);
    attempt.limits = new LimitHolds(budget, pm, (failure, retryMs) =>
      this.guard(() => {
        if (this.current !== attempt) return;
        if (failure !== null || !routable(pm)) return this.passOver(attempt, failure ?? "unavailable", retryMs);
        this.authorize(attempt);
      }),
    );
    // Whether there is anything left at all; each turn holds what it needs.
    const least = turnSize(1, false);
    if (attempt.limits.takeSize(least)) this.authorize(attempt);
  }

  private authorize(attempt: Attempt): void {
    attempt.limits?.release();
    attempt.limits = null;
    const { provider } = attempt.pm;
    const known = (result: OutboundRequest | Error): void => {
      if (this.current !== attempt) return;
      if (!(result instanceof Error)) return this.dial(attempt, result);
      const { code = "" } = result as { code?: string };
      const blamed = code === "no_credentials" || code === "token_refused";
      this.failed(attempt, AttemptResult.CONNECTION_ERROR, blamed ? "account" : "failure", code);
    };
    const request = realtimeRequest(attempt.pm, this.beta);
    const ready = this.host.auth.authorize(provider, request, (result) => this.guard(() => known(result)));
    if (ready !== null) known(ready);
  }

  private dial(attempt: Attempt, request: OutboundRequest): void {
    const mine = (run: () => void): void => {
      if (this.current === attempt) this.guard(run);
    };
    const sink: DialSink = {
      onOpen: (peer) => {
        if (this.current === attempt) this.guard(() => this.stands(attempt, peer));
        else peer.terminate();
      },
      onRefused: (status, headers, body) => mine(() => this.refused(attempt, status, headers, body)),
      onError: (kind, detail) => mine(() => this.unreachable(attempt, kind, detail)),
    };
    attempt.dialing = this.host.dialer.dial(request, sink);
    const times = deadlinesOf(this.lm.spec, attempt.pm);
    this.arm(connectMs(times) + firstByteMs(times, true));
  }

  private stands(attempt: Attempt, peer: Peer): void {
    attempt.peer = peer;
    attempt.httpStatus = 101;
    attempt.firstByteUs = Math.max(1, this.core.nowUs() - attempt.startUs);
    const mine = (run: () => void): void => {
      if (this.current === attempt) this.guard(run);
    };
    peer.setSink({
      onFrame: (data, binary) => mine(() => this.heard(attempt, data, binary)),
      onRoom: () => undefined,
      onClosed: (code) => mine(() => this.failed(attempt, AttemptResult.BAD_ANSWER, "failure", `closed_${code}`)),
    });
  }

  /** The first event decides. */
  private heard(attempt: Attempt, first: Buffer, binary: boolean): void {
    const { pm } = attempt;
    const head = readHead(first);
    if (head?.type === "error") {
      const error = fieldsOf(parseEvent(first)["error"]);
      const { health, detail } = wordsOf(error, pm.provider);
      // Nothing was asked for yet: whatever is wrong is not the client's fault.
      return this.failed(attempt, AttemptResult.STATUS, health === "ignore" ? "failure" : health, detail);
    }
    if (head === null || !head.type.endsWith("session.created"))
      return this.failed(attempt, AttemptResult.BAD_ANSWER, "failure", "no_session");
    const { core, trail } = this;
    core.health.succeed(pm, core.deps.now(), true, 0);
    core.deps.metrics.attempt(AttemptResult.SERVED, attempt.kind);
    attempt.peer!.pause();
    const opened: Opened = {
      choice: { pm, kind: attempt.kind },
      peer: attempt.peer!,
      first,
      binary,
      rate: attempt.rate,
      attempts: trail.attempts,
    };
    // What the attempt holds is the session's now.
    this.current = null;
    this.host.onOpened(opened);
    this.finish();
  }

  private refused(attempt: Attempt, status: number, headers: AnswerHeaders, body: Buffer): void {
    attempt.httpStatus = status;
    attempt.firstByteUs = Math.max(1, this.core.nowUs() - attempt.startUs);
    const { provider } = attempt.pm;
    this.host.auth.refused?.(provider, status, headers, body);
    const error = openAiError(status, {}, body);
    const { clientFault, health } = error;
    const code = refusalCode(error, provider);
    if (!clientFault) {
      const wishMs = retryAfterMs(headers, this.core.deps.now());
      return this.failed(attempt, AttemptResult.STATUS, health, code, wishMs);
    }
    this.core.health.release(attempt.pm);
    this.trail.record(attempt, AttemptResult.CLIENT_ERROR, code);
    this.fail(refusalOf(status, error, provider), true);
  }

  private unreachable(attempt: Attempt, kind: CallErrorKind, detail: string): void {
    this.core.deps.log.debug({ pm: attempt.pm.id, kind, detail }, "upstream call failed");
    if (kind === "shortage") return this.passOver(attempt, "connection", 0, detail);
    if (kind === "address_not_allowed") return this.failed(attempt, AttemptResult.ADDRESS_NOT_ALLOWED, "account", "");
    if (kind === "protocol") return this.failed(attempt, AttemptResult.BAD_ANSWER, "failure", detail);
    const health = kind === "connect" ? "connection" : "failure";
    this.failed(attempt, AttemptResult.CONNECTION_ERROR, health, detail);
  }

  private late(): void {
    const attempt = this.current;
    if (attempt === null) return;
    const { CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, FIRST_CONTENT_TIMEOUT } = AttemptResult;
    if (attempt.peer !== null) this.failed(attempt, FIRST_CONTENT_TIMEOUT, "failure", "");
    else if (attempt.dialing?.connected === true) this.failed(attempt, FIRST_BYTE_TIMEOUT, "failure", "");
    else this.failed(attempt, CONNECT_TIMEOUT, "connection", "");
  }

  private failed(attempt: Attempt, result: AttemptResult, health: FailureKind, detail: string, retryMs = 0): void {
    this.current = null;
    attempt.end();
    this.trail.record(attempt, result, wordOf(detail));
    this.trail.failed(attempt.pm, health, retryMs, false);
    this.next();
  }

  private passOver(attempt: Attempt, why: Parameters<Trail["passedOver"]>[1], retryMs: number, detail = ""): void {
    this.current = null;
    attempt.end();
    this.trail.passedOver(attempt, why, retryMs, wordOf(detail));
    this.next();
  }

  private fail(error: ErrorAnswer, clientFault: boolean): void {
    if (this.over) return;
    this.finish();
    this.host.onFailed(error, this.trail.attempts, clientFault);
  }

  private finish(): void {
    this.over = true;
    this.current?.end();
    this.current = null;
    this.core.wheel.clear(this.deadline);
    this.core.closed(this);
  }

  private arm(ms: number): void {
    this.core.wheel.set(this.deadline, Math.min(this.core.deps.now() + ms, this.untilMs));
  }

  private guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.core.deps.log.error({ err: error }, "a realtime session could not be opened");
      if (this.current !== null) this.core.health.release(this.current.pm);
      this.fail(INTERNAL, false);
    }
  }
}

/** Details go into the request log: a word of printable ASCII. */
function wordOf(text: string): string {
  return text.replace(/[^\x21-\x7e]+/g, "_").slice(0, 64);
}
