/**
 * An admitted request: attempts one after the other, or beside each other where it is hedged, then the relay of the one
 * that has content first; meter, settle, journal, finish. It settles its reservation exactly once.
 */

import { type Admitted, identityOf } from "./admitted.ts";
import { type Attempt, type AttemptFailure, type AttemptHost, detailOf } from "./attempt.ts";
import { Attempts } from "./attempts.ts";
import { Client } from "./client.ts";
import { errorFrame, shaped } from "./client_errors.ts";
import { checkoutUrl } from "./checkout_link.ts";
import type { Core, Live } from "./core.ts";
import * as deadlines from "./deadlines.ts";
import { DRAIN_MS_MAX, type Drain } from "./drains.ts";
import * as errors from "./errors.ts";
import { addExplanation } from "./explain.ts";
import type { RefusedFieldError, UpstreamError } from "./formats/hub.ts";
import { refusalOf } from "./formats/refusal.ts";
import { Growth } from "./growth.ts";
import type { AttemptEntry } from "./journal/journal.ts";
import { AttemptResult, OnDisconnect, Outcome, Phase } from "./outcome.ts";
import { type Delivered, lastFrames } from "./relay.ts";
import { NOBODY_SERVED, progressOf } from "./settlement.ts";
import { ESTIMATE_WAIT_MS, Settling, type SettlingHost } from "./settling.ts";
import type { Timed } from "./timers.ts";
import { Timing } from "./timing.ts";
import { type Shortage, Trail } from "./trail.ts";
import type { Exchange, ExchangeSink } from "./transport.ts";

export class Serving implements ExchangeSink, AttemptHost, SettlingHost, Timed, Live {
  private readonly core: Core;
  private readonly client: Client;
  private readonly request: Admitted;
  private readonly trail: Trail;
  private readonly timing: Timing;
  liveAt = -1;
  private phase: Phase = Phase.TRYING;
  private drain: Drain | null = null;
  private readonly attempts: Attempts;
  private growth: Growth | null = null;
  /** How the present attempt is written down, once it is. */
  private entry: AttemptEntry | null = null;
  /** Output tokens at the last progress note. */
  private noted = -1;
  private settling: Settling | null = null;
  /** What the target of a hedge said of a request that is the client's fault. */
  private refusal: errors.ErrorAnswer | null = null;

  constructor(core: Core, exchange: Exchange, request: Admitted) {
    this.core = core;
    this.client = new Client(exchange, request.headers);
    this.request = request;
    const { spec } = request.lm;
    this.timing = new Timing(core, this, request.arriveMs, deadlines.totalMs(spec.deadlines));
    this.trail = new Trail(core, request.group, this.timing.arriveUs, request.stream, request.sticky);
    this.attempts = new Attempts(core, request, exchange, this.trail, this.timing, this);
  }

  private get current(): Attempt | null {
    return this.attempts.current;
  }

  begin(): void {
    try {
      this.core.opened(this);
      this.client.exchange.setSink(this);
      if (this.request.stream)
        this.core.deps.journal.intent({ ...identityOf(this.request), arriveUnixUs: this.timing.arriveUnixUs });
      this.next();
    } catch (error) {
      this.crash(error);
    }
  }

  // --- attempts -------------------------------------------------------------------------------------------------------

  /** On to the next target, if the client is still there. */
  private next(): void {
    if (this.client.gone) return this.settle(Outcome.CLIENT_GONE, null, null, 0);
    if (this.refusal !== null) return this.finishWithError(this.refusal, Outcome.CLIENT_ERROR);
    if (this.attempts.next()) return;
    const error = this.trail.error(this.request.body.model);
    this.finishWithError(error, error.status === 400 ? Outcome.CLIENT_ERROR : Outcome.UPSTREAM_ERROR);
  }

  answers(attempt: Attempt): void {
    this.attempts.answers(attempt);
  }

  received(_: Attempt, bytes: number): void {
    if (this.drain !== null && !this.drain.took(bytes)) this.leave(true);
  }

  passedOver(attempt: Attempt, why: Shortage, retryMs: number, detail: string): void {
    const wasHedge = attempt !== this.current;
    attempt.end();
    attempt.release();
    this.trail.passedOver(attempt, why, retryMs, detail);
    if (!this.attempts.drop(attempt)) this.next();
    else if (wasHedge) this.attempts.hedgeAgain();
  }

  failed(attempt: Attempt, failure: AttemptFailure): void {
    const { trail, attempts } = this;
    attempt.end();
    trail.record(attempt, failure.result, failure.detail);
    if (failure.refusal !== undefined) trail.refusedHere(failure.refusal);
    trail.failed(attempt.pm, failure.health, failure.retryAfterMs, failure.again === "resend");
    attempt.release();
    if (attempts.drop(attempt)) return;
    if (this.client.gone || !attempts.again(attempt, failure)) this.next();
  }

  unsupported(attempt: Attempt, error: RefusedFieldError): void {
    this.trail.cannot(errors.badRequest(error.message, error.param, error.code));
    this.passedOver(attempt, "unsupported", 0, detailOf(error.param ?? ""));
  }

  refused(attempt: Attempt, error: UpstreamError): void {
    const { core, request, trail, attempts } = this;
    const { pm } = attempt;
    const refusal = refusalOf(attempt.httpStatus, error, pm.provider, {
      upstream: pm.upstreamName,
      client: request.body.model,
    });
    core.health.succeed(pm, core.deps.now(), request.stream, 0);
    if (attempt !== this.current) {
      // A hedge must not fail what would be served without it: this counts only if the slow one fails too.
      this.refusal = refusal;
      attempt.end();
      attempt.release();
      trail.record(attempt, AttemptResult.CLIENT_ERROR, "");
      attempts.drop(attempt);
      return;
    }
    attempts.endBy(attempt, AttemptResult.HEDGE_LOST);
    attempt.end();
    trail.record(attempt, AttemptResult.CLIENT_ERROR, "");
    this.finishWithError(refusal, Outcome.CLIENT_ERROR);
  }

  // --- relay ----------------------------------------------------------------------------------------------------------

  committed(attempt: Attempt, contentType: string, bytes: number | null): void {
    const { core, timing, request, trail } = this;
    this.attempts.serveBy(attempt);
    const { pm, startUs, head } = attempt;
    core.health.succeed(pm, core.deps.now(), request.stream, attempt.sinceSentMs);
    // Images and recordings are held for as a whole: only text grows.
    this.growth =
      request.stream && request.endpoint.hasOutput
        ? new Growth(core.deps.budget, request.reservation, pm.rates!, request.size, request.key.ve.strict)
        : null;
    timing.firstContentUs = timing.sinceArrivalUs();
    timing.firstByteUs = Math.max(1, startUs - timing.arriveUs + attempt.firstByteUs);
    core.deps.metrics.firstContent(timing.firstContentUs);
    this.phase = Phase.RELAYING;
    // From here on the stream is billed even if the node dies in its first second.
    this.onProgressTick();
    if (request.key.ve.explainHeaders) addExplanation(request, attempt, trail.tries + 1);
    this.client.writeHead(head!.status, request.stream, contentType, bytes, trail.tries + 1);
    this.within(this.idleMs());
  }

  write(bytes: Uint8Array): void {
    if (!this.client.write(bytes)) this.current?.pause();
  }

  progressed(): void {
    if (this.phase === Phase.RELAYING) this.within(this.client.paused ? deadlines.CLIENT_STALL_MS : this.idleMs());
  }

  onDrain(): void {
    if (!this.client.paused) return;
    this.client.paused = false;
    if (this.phase === Phase.RELAYING) this.within(this.idleMs());
    this.current?.resume();
  }

  metered(textBytes: number, pieces: number): void {
    if (this.growth === null || this.growth.covers(textBytes, pieces)) return;
    const fields = errors.exhaustedFields(checkoutUrl(this.request.key.ve, this.core.wallNow()));
    this.cut(Outcome.BUDGET_CUT, AttemptResult.SERVED, fields, "");
  }

  complete(final: Uint8Array | null): void {
    const attempt = this.current!;
    attempt.done();
    this.record(AttemptResult.SERVED, "");
    this.client.last = final;
    const outcome = this.client.gone ? Outcome.CLIENT_GONE : Outcome.COMPLETED;
    this.settle(outcome, attempt, attempt.relay!.delivered(), attempt.httpStatus, "", true);
  }

  broken(detail: string): void {
    this.core.health.fail(this.current!.pm, "failure", 0, this.core.deps.now());
    this.cut(Outcome.UPSTREAM_CUT, AttemptResult.CUT, errors.STREAM_CUT, detail);
  }

  /** Ends an answer that has begun: a stream says why in a last frame, anything else just breaks off. */
  private cut(outcome: Outcome, result: AttemptResult, fields: errors.ErrorFields, detail: string): void {
    const attempt = this.current!;
    const relay = attempt.relay!;
    attempt.end();
    this.record(result, detail);
    const { stream, body, endpoint, id } = this.request;
    const choices = outcome === Outcome.BUDGET_CUT ? body.choices : 0;
    this.client.last = stream ? lastFrames(relay, choices, errorFrame(endpoint.shape, fields, id)) : "break";
    const ended = this.client.gone ? Outcome.CLIENT_GONE : outcome;
    this.settle(ended, attempt, relay.delivered(), attempt.httpStatus, fields.code ?? "");
  }

  onProgressTick(): void {
    const { request, current } = this;
    if (this.phase !== Phase.RELAYING || !request.stream) return;
    const delivered = current!.relay!.delivered();
    if (delivered.outputTokens === this.noted) return;
    this.noted = delivered.outputTokens;
    this.core.deps.journal.progress(progressOf(request, current!.bill, delivered));
  }

  // --- ends -----------------------------------------------------------------------------------------------------------

  onGone(): void {
    this.guard(() => {
      this.client.gone = true;
      if (this.phase >= Phase.SETTLING) return;
      this.attempts.abandon();
      const attempt = this.current;
      // Nobody was called yet: there is nothing to wait for.
      if (attempt === null || attempt.bill === NOBODY_SERVED) return this.leave(false);
      const { id, onDisconnect } = attempt.pm.provider;
      if (onDisconnect === OnDisconnect.FREE) return this.leave(false);
      if (onDisconnect === OnDisconnect.DRAIN) this.drain = this.core.drains.begin(id, this.core.deps.now());
      if (this.drain === null) return this.leave(true);
      attempt.disarm();
      this.within(DRAIN_MS_MAX);
      if (this.client.paused) attempt.resume();
      this.client.paused = false;
    });
  }

  /** The client is gone and nothing more is read. `billed` false: what arrived is free. */
  private leave(billed: boolean): void {
    const attempt = this.current;
    if (attempt === null) return this.settle(Outcome.CLIENT_GONE, null, null, 0);
    const delivered = attempt.relay?.delivered() ?? null;
    if (this.phase === Phase.TRYING) this.core.health.release(attempt.pm);
    attempt.end();
    this.record(AttemptResult.CLIENT_GONE, "");
    // An upstream that has accepted the request (there is a relay) reads the input, and bills it, content or not.
    this.settle(Outcome.CLIENT_GONE, attempt, billed ? delivered : null, attempt.httpStatus);
  }

  onDeadline(): void {
    this.guard(() => {
      if (this.phase === Phase.FINISHED) return this.current?.stopCall();
      if (this.phase === Phase.SETTLING) return this.settling!.conclude();
      if (this.client.gone) return this.leave(true);
      const total = this.timing.isOver;
      if (this.phase === Phase.TRYING) {
        if (total) this.giveUp(errors.TOTAL_TIMEOUT);
        else if (!this.attempts.goOn()) this.next();
        return;
      }
      if (this.client.paused && !total) {
        // It stalls: as good as gone.
        this.client.destroy();
        return this.onGone();
      }
      if (!total) this.core.health.fail(this.current!.pm, "failure", 0, this.core.deps.now());
      const result = total ? AttemptResult.TOTAL_TIMEOUT : AttemptResult.IDLE_TIMEOUT;
      this.cut(Outcome.TIMEOUT, result, errors.STREAM_TIMEOUT, "");
    });
  }

  abort(): void {
    this.guard(() => {
      if (this.phase >= Phase.SETTLING) return this.settling!.conclude();
      if (this.client.gone) return this.leave(true);
      if (this.phase === Phase.TRYING) return this.giveUp(errors.JOURNAL_UNAVAILABLE);
      this.cut(Outcome.UPSTREAM_CUT, AttemptResult.CUT, errors.SHUTTING_DOWN, "");
    });
  }

  /** Time is up, for the request or for the node: no more attempts. */
  private giveUp(error: errors.ErrorAnswer): void {
    const { attempts, current } = this;
    attempts.stopTrying();
    if (current !== null) {
      attempts.endBy(current, AttemptResult.TOTAL_TIMEOUT);
      this.core.health.release(current.pm);
      current.end();
      this.trail.record(current, AttemptResult.TOTAL_TIMEOUT, "");
    }
    this.finishWithError(error, Outcome.UPSTREAM_ERROR);
  }

  /** Nobody served, and nothing is billed. */
  private finishWithError(error: errors.ErrorAnswer, outcome: Outcome): void {
    this.client.last = shaped(error, this.request.endpoint.shape, this.request.id);
    this.current?.release();
    this.settle(this.client.gone ? Outcome.CLIENT_GONE : outcome, null, null, error.status, error.code);
  }

  /** The bill. `served` null: nobody did. `delivered` null: nothing is billed. */
  private settle(
    outcome: Outcome,
    served: Attempt | null,
    delivered: Delivered | null,
    status: number,
    errorCode = "",
    whole = false,
  ): void {
    const { core, request, timing, trail, current, growth, entry } = this;
    this.phase = Phase.SETTLING;
    timing.stop();
    this.drain?.end();
    this.attempts.close();
    const end = {
      outcome,
      bill: served?.bill ?? NOBODY_SERVED,
      model: served?.pm.upstreamName ?? "",
      delivered,
      whole,
      limits: current?.limits ?? null,
      rates: current?.rate ? [...request.rates, current.rate] : request.rates,
      attempt: entry,
      growth,
      status,
      errorCode,
      upstreamRequestId: current?.head?.requestId() ?? "",
    };
    this.settling = new Settling(core, request, timing, trail.sorted(), end, this);
    if (!this.settling.begin()) timing.after(ESTIMATE_WAIT_MS);
  }

  /** The settlement is in the journal: the last bytes may leave. */
  onSettled(): void {
    this.phase = Phase.FINISHED;
    this.timing.stop();
    if (this.current?.calling === true) this.timing.after(deadlines.AFTER_DONE_MS);
    this.client.finish();
    this.close();
  }

  // --- small things -----------------------------------------------------------------------------------------------------

  private idleMs(): number {
    return deadlines.idleMs(this.current!.times);
  }

  /** As `Timing.within`, and before a drain ends. */
  private within(ms: number): void {
    this.timing.within(ms, this.drain?.until);
  }

  private close(): void {
    this.request.form?.close();
    this.core.closed(this);
  }

  private record(result: AttemptResult, detail: string): void {
    this.entry = this.trail.record(this.current!, result, detail);
  }

  /** While the bill is made the deadline is the tokenizer's. */
  callOver(): void {
    if (this.phase === Phase.FINISHED) this.timing.stop();
  }

  /** Callbacks come from sockets and timers: what goes wrong here must end here. The most frequent do without closures. */
  private guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.crash(error);
    }
  }

  crash(error: unknown): void {
    this.core.deps.log.error({ err: error, id: this.request.id }, "request failed");
    this.attempts.crash();
    this.current?.stopCall();
    this.timing.stop();
    if (this.phase >= Phase.SETTLING) {
      if (this.settling?.rescue() === true) return;
      this.client.destroy();
      return this.close();
    }
    if (this.current?.relay?.committed === true)
      return this.cut(Outcome.UPSTREAM_CUT, AttemptResult.CUT, errors.STREAM_CUT, "");
    if (this.current !== null) this.core.health.release(this.current.pm);
    this.current?.end();
    this.finishWithError(errors.INTERNAL, Outcome.UPSTREAM_ERROR);
  }
}
