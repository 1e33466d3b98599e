/** An admitted request: attempts, relay, meter, settle, journal, finish. It settles its reservation exactly once. */

import { type Admitted, identityOf, outboundOf } from "./admitted.ts";
import { Client } from "./client.ts";
import type { Core, Live } from "./core.ts";
import * as deadlines from "./deadlines.ts";
import { DRAIN_MS_MAX, type Drain } from "./drains.ts";
import * as errors from "./errors.ts";
import type { Format } from "./formats/format.ts";
import { formatOf } from "./formats/index.ts";
import { Growth } from "./growth.ts";
import type { FailureKind } from "./health.ts";
import { AttemptResult, OnDisconnect, Outcome, Phase } from "./outcome.ts";
import { type LimitFailure, LimitHolds } from "./limits.ts";
import { type Delivered, lastFrames, type Relay, relayFor, type RelayHost } from "./relay.ts";
import { checkoutUrl, routable, type RoutePm } from "./route_types.ts";
import { type Bill, NOBODY_SERVED, progressOf } from "./settlement.ts";
import { ESTIMATE_WAIT_MS, Settling, type SettlingHost } from "./settling.ts";
import type { Timed } from "./timers.ts";
import { Timing } from "./timing.ts";
import { Trail } from "./trail.ts";
import type { CallErrorKind, Exchange, ExchangeSink, OutboundCall, OutboundSink } from "./transport.ts";
import { AnswerHead, type AnswerHeaders, StatusBody } from "./upstream_head.ts";

export class Serving implements ExchangeSink, OutboundSink, RelayHost, SettlingHost, Timed, Live {
  private readonly core: Core;
  private readonly client: Client;
  private readonly request: Admitted;
  private readonly trail: Trail;
  private readonly timing: Timing;
  liveAt = -1;
  private phase: Phase = Phase.TRYING;
  private drain: Drain | null = null;
  private pm: RoutePm | null = null;
  private format: Format | null = null;
  private bill: Bill = NOBODY_SERVED;
  /** What is held of the limits of `pm`; null: it has none. */
  private limits: LimitHolds | null = null;
  private growth: Growth | null = null;
  private call: OutboundCall | null = null;
  private head: AnswerHead | null = null;
  private refusal: StatusBody | null = null;
  private relay: Relay | null = null;
  private sent = false;
  /** Output tokens at the last progress note. */
  private noted = -1;
  private settling: Settling | null = null;

  constructor(core: Core, exchange: Exchange, request: Admitted) {
    this.core = core;
    this.client = new Client(exchange, request.headers);
    this.request = request;
    this.timing = new Timing(core, this, request.arriveMs, deadlines.totalMs(request.lm.spec.deadlines));
    this.trail = new Trail(core, request.lm.spec.group, this.timing.arriveUs);
  }

  begin(): void {
    try {
      this.core.opened(this);
      this.client.exchange.setSink(this);
      if (this.request.stream)
        this.core.deps.journal.intent({ ...identityOf(this.request), arriveUnixUs: this.timing.arriveUnixUs });
      this.attempt();
    } catch (error) {
      this.crash(error);
    }
  }

  // --- attempts -------------------------------------------------------------------------------------------------------

  private attempt(): void {
    const { core, request, trail } = this;
    const pm = trail.next();
    if (pm === null) return this.finishWithError(trail.error(request.body.model), Outcome.UPSTREAM_ERROR);
    this.pm = pm;
    this.bill = NOBODY_SERVED;
    this.head = this.refusal = this.relay = null;
    if (!pm.limited) return this.send(pm);
    this.limits = new LimitHolds(core.deps.budget, pm, (failure, retryMs) => {
      this.guard(() => this.limitsKnown(pm, failure, retryMs));
    });
    if (this.limits.take(request)) return this.send(pm);
    // Until the answer comes, which is soon, only the deadline of the whole counts.
    this.timing.untilTotal();
  }

  private limitsKnown(pm: RoutePm, failure: LimitFailure | null, retryMs: number): void {
    if (this.phase >= Phase.SETTLING) return;
    // The model may have been taken away meanwhile.
    if (failure === null && routable(pm)) return this.send(pm);
    this.dropLimits();
    this.trail.limited(pm, failure ?? "unavailable", retryMs);
    this.attempt();
  }

  private dropLimits(): void {
    this.limits?.release();
    this.limits = null;
  }

  private send(pm: RoutePm): void {
    const { core, request } = this;
    const format = formatOf(pm.provider.format)!;
    this.format = format;
    // The price of this moment holds to the end, whatever changes meanwhile.
    this.bill = { pmId: pm.id, price: pm.price };
    this.growth = request.stream
      ? new Growth(core.deps.budget, request.reservation, pm.rates!, request.body.bytes.length, request.key.ve.strict)
      : null;
    this.sent = this.client.paused = false;
    this.timing.firstByteUs = 0;
    this.call = core.deps.upstream.send(outboundOf(request, format, pm, this.client.exchange), this);
    this.within(deadlines.connectMs(request.lm.spec.deadlines));
  }

  onSent(): void {
    this.sent = true;
    this.within(deadlines.firstByteMs(this.request.lm.spec.deadlines, this.request.stream));
  }

  onHead(status: number, headers: AnswerHeaders): void {
    try {
      const head = new AnswerHead(status, headers);
      this.head = head;
      if (!head.ok) this.refusal = new StatusBody();
      else if (!head.fits(this.request.stream)) this.badAnswer();
      else this.relay = relayFor(this, this.format!, this.request, head.contentType);
    } catch (error) {
      this.crash(error);
    }
  }

  onChunk(chunk: Buffer): void {
    try {
      const { relay } = this;
      if (relay === null) return this.refusal?.add(chunk);
      if (this.phase >= Phase.SETTLING) return;
      if (this.drain !== null && !this.drain.took(chunk.length)) return this.leave(this.bill);
      relay.onChunk(chunk);
      if (this.relay !== relay || this.phase >= Phase.SETTLING) return;
      // Comments and roles are no progress: until there is content, the deadline of the first byte holds.
      if (!relay.committed && this.request.stream) return;
      if (this.timing.firstByteUs === 0) this.timing.firstByteUs = this.timing.sinceArrivalUs();
      this.within(this.client.paused ? deadlines.CLIENT_STALL_MS : deadlines.idleMs(this.request.lm.spec.deadlines));
    } catch (error) {
      this.crash(error);
    }
  }

  onEnd(): void {
    try {
      this.call = null;
      if (this.phase >= Phase.SETTLING) return this.callOver();
      if (this.refusal !== null) this.statusFailed(this.refusal);
      else if (this.relay === null) this.badAnswer();
      else this.relay.onEnd();
    } catch (error) {
      this.crash(error);
    }
  }

  onError(kind: CallErrorKind, detail: string): void {
    this.guard(() => {
      this.call = null;
      if (this.phase >= Phase.SETTLING) return this.callOver();
      this.core.deps.log.debug({ id: this.request.id, pm: this.pm?.id, kind, detail }, "upstream call failed");
      if (this.refusal !== null) this.statusFailed(this.refusal);
      else if (this.relay?.committed === true) this.broken();
      else if (kind === "shortage") this.next(detail);
      else if (kind === "address_not_allowed") this.failed(AttemptResult.ADDRESS_NOT_ALLOWED, "account");
      else if (kind === "protocol" || this.head !== null) this.badAnswer();
      else this.failed(AttemptResult.CONNECTION_ERROR, "failure", 0, kind === "reset");
    });
  }

  private statusFailed(refusal: StatusBody): void {
    const head = this.head!;
    const body = refusal.bytes();
    const verdict = this.format!.classify(head.status, body);
    if (!verdict.clientFault)
      return this.failed(AttemptResult.STATUS, verdict.health, head.retryAfterMs(this.core.deps.now()));
    this.core.health.succeed(this.pm!, this.core.deps.now(), this.request.stream, 0);
    this.record(AttemptResult.CLIENT_ERROR);
    this.finishWithError(this.format!.refusal(head.status, body, this.pm!.provider), Outcome.CLIENT_ERROR);
  }

  badAnswer(): void {
    this.failed(AttemptResult.BAD_ANSWER, "failure");
  }

  /** The attempt came to nothing, and the client has seen nothing: on to the next target. */
  private failed(result: AttemptResult, kind: FailureKind, retryAfterMs = 0, resendable = false): void {
    this.record(result);
    this.trail.failed(this.pm!, kind, retryAfterMs, resendable);
    this.stopCall();
    this.dropLimits();
    this.next();
  }

  /** On to the next target. `shortage`: why this node could not even try the present one. */
  private next(shortage = ""): void {
    if (shortage !== "") {
      this.trail.skipped(this.pm!, shortage);
      this.dropLimits();
    }
    if (this.client.gone) this.settle(Outcome.CLIENT_GONE, NOBODY_SERVED, null, 0);
    else this.attempt();
  }

  // --- relay ----------------------------------------------------------------------------------------------------------

  commit(contentType: string, bytes: number | null): void {
    const { core, timing } = this;
    core.health.succeed(this.pm!, core.deps.now(), this.request.stream, 0);
    timing.firstContentUs = timing.sinceArrivalUs();
    if (timing.firstByteUs === 0) timing.firstByteUs = timing.firstContentUs;
    core.deps.metrics.firstContent(timing.firstContentUs);
    this.phase = Phase.RELAYING;
    // From here on the stream is billed even if the node dies in its first second.
    this.onProgressTick();
    this.client.writeHead(this.head!.status, this.request.stream, contentType, bytes, this.trail.tries + 1);
  }

  write(bytes: Uint8Array): void {
    if (!this.client.write(bytes)) this.call?.pause();
  }

  onDrain(): void {
    if (!this.client.paused) return;
    this.client.paused = false;
    if (this.phase === Phase.RELAYING) this.within(deadlines.idleMs(this.request.lm.spec.deadlines));
    this.call?.resume();
  }

  metered(textBytes: number, pieces: number): void {
    if (this.growth === null || this.growth.covers(textBytes, pieces)) return;
    const fields = errors.exhaustedFields(checkoutUrl(this.request.key.ve));
    this.cut(Outcome.BUDGET_CUT, AttemptResult.SERVED, fields);
  }

  complete(final: Uint8Array | null): void {
    this.record(AttemptResult.SERVED);
    this.client.last = final;
    const outcome = this.client.gone ? Outcome.CLIENT_GONE : Outcome.COMPLETED;
    this.settle(outcome, this.bill, this.relay!.delivered(), this.head!.status, "", true);
  }

  broken(): void {
    this.core.health.fail(this.pm!, "failure", 0, this.core.deps.now());
    this.cut(Outcome.UPSTREAM_CUT, AttemptResult.BAD_ANSWER, errors.STREAM_CUT);
  }

  /** Ends an answer that has begun: a stream says why in a last frame, anything else just breaks off. */
  private cut(outcome: Outcome, result: AttemptResult, fields: errors.ErrorFields): void {
    const relay = this.relay!;
    relay.stop();
    this.stopCall();
    this.record(result);
    const { stream, body } = this.request;
    const choices = outcome === Outcome.BUDGET_CUT ? body.choices : 0;
    this.client.last = stream ? lastFrames(relay, choices, this.format!.errorFrame(fields)) : "break";
    const ended = this.client.gone ? Outcome.CLIENT_GONE : outcome;
    this.settle(ended, this.bill, relay.delivered(), this.head!.status, fields.code ?? "");
  }

  onProgressTick(): void {
    const { request, bill, relay } = this;
    if (this.phase !== Phase.RELAYING || !request.stream) return;
    const delivered = relay!.delivered();
    if (delivered.outputTokens === this.noted) return;
    this.noted = delivered.outputTokens;
    this.core.deps.journal.progress(progressOf(request, bill, delivered));
  }

  // --- ends -----------------------------------------------------------------------------------------------------------

  onGone(): void {
    this.guard(() => {
      this.client.gone = true;
      if (this.phase >= Phase.SETTLING) return;
      // Nobody was called yet: there is nothing to wait for.
      if (this.bill === NOBODY_SERVED) return this.leave(null);
      const { id, onDisconnect } = this.pm!.provider;
      if (onDisconnect === OnDisconnect.FREE) return this.leave(null);
      if (onDisconnect === OnDisconnect.DRAIN) this.drain = this.core.drains.begin(id, this.core.deps.now());
      if (this.drain === null) return this.leave(this.bill);
      this.within(DRAIN_MS_MAX);
      if (this.client.paused) this.call?.resume();
      this.client.paused = false;
    });
  }

  /** The client is gone and nothing more is read. `bill` null: what arrived is free. */
  private leave(bill: Bill | null): void {
    const delivered = this.relay?.delivered() ?? null;
    this.relay?.stop();
    if (this.phase === Phase.TRYING) this.core.health.release(this.pm!);
    this.stopCall();
    this.record(AttemptResult.CLIENT_GONE);
    // An upstream that has accepted the request (there is a relay) reads the input, and bills it, content or not.
    this.settle(Outcome.CLIENT_GONE, this.bill, bill === null ? null : delivered, this.head?.status ?? 0);
  }

  onDeadline(): void {
    this.guard(() => {
      if (this.phase === Phase.FINISHED) return this.stopCall();
      if (this.phase === Phase.SETTLING) return this.settling!.conclude();
      if (this.client.gone) return this.leave(this.bill);
      const total = this.timing.isOver;
      if (this.phase === Phase.TRYING) {
        if (total) return this.giveUp(errors.TOTAL_TIMEOUT);
        return this.failed(this.sent ? AttemptResult.FIRST_BYTE_TIMEOUT : AttemptResult.CONNECTION_ERROR, "failure");
      }
      if (this.client.paused && !total) {
        // It stalls: as good as gone.
        this.client.destroy();
        return this.onGone();
      }
      if (!total) this.core.health.fail(this.pm!, "failure", 0, this.core.deps.now());
      this.cut(Outcome.TIMEOUT, total ? AttemptResult.TOTAL_TIMEOUT : AttemptResult.BAD_ANSWER, errors.STREAM_TIMEOUT);
    });
  }

  abort(): void {
    this.guard(() => {
      if (this.phase >= Phase.SETTLING) return this.settling!.conclude();
      if (this.client.gone) return this.leave(this.bill);
      if (this.phase === Phase.TRYING) return this.giveUp(errors.JOURNAL_UNAVAILABLE);
      this.cut(Outcome.UPSTREAM_CUT, AttemptResult.BAD_ANSWER, errors.SHUTTING_DOWN);
    });
  }

  /** Time is up, for the request or for the node: no more attempts. */
  private giveUp(error: errors.ErrorAnswer): void {
    this.core.health.release(this.pm!);
    this.stopCall();
    this.record(AttemptResult.TOTAL_TIMEOUT);
    this.finishWithError(error, Outcome.UPSTREAM_ERROR);
  }

  private finishWithError(error: errors.ErrorAnswer, outcome: Outcome): void {
    this.client.last = error;
    this.settle(this.client.gone ? Outcome.CLIENT_GONE : outcome, NOBODY_SERVED, null, error.status, error.code);
  }

  /** The bill. `delivered` null: nothing is billed. */
  private settle(
    outcome: Outcome,
    bill: Bill,
    delivered: Delivered | null,
    status: number,
    errorCode = "",
    whole = false,
  ): void {
    const { core, request, timing, trail, limits, growth } = this;
    this.phase = Phase.SETTLING;
    timing.stop();
    this.drain?.end();
    const model = this.pm?.upstreamName ?? "";
    const upstreamRequestId = this.head?.requestId() ?? "";
    const end = { outcome, bill, model, delivered, whole, limits, growth, status, errorCode, upstreamRequestId };
    this.settling = new Settling(core, request, timing, trail.attempts, end, this);
    if (!this.settling.begin()) timing.after(ESTIMATE_WAIT_MS);
  }

  /** The settlement is in the journal: the last bytes may leave. */
  onSettled(): void {
    this.phase = Phase.FINISHED;
    this.timing.stop();
    if (this.call !== null) this.timing.after(deadlines.AFTER_DONE_MS);
    this.client.finish();
    this.core.closed(this);
  }

  // --- small things -----------------------------------------------------------------------------------------------------

  /** As `Timing.within`, and before a drain ends. */
  private within(ms: number): void {
    this.timing.within(ms, this.drain?.until);
  }

  private record(result: AttemptResult): void {
    this.trail.record(this.pm!, result, this.head?.status ?? 0);
  }

  /** While the bill is made the deadline is the tokenizer's. */
  private callOver(): void {
    if (this.phase === Phase.FINISHED) this.timing.stop();
  }

  private stopCall(): void {
    this.call?.abort();
    this.call = null;
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
    this.stopCall();
    this.timing.stop();
    if (this.phase >= Phase.SETTLING) {
      if (this.settling?.rescue() === true) return;
      this.client.destroy();
      return this.core.closed(this);
    }
    if (this.relay?.committed === true) this.cut(Outcome.UPSTREAM_CUT, AttemptResult.BAD_ANSWER, errors.STREAM_CUT);
    else this.finishWithError(errors.INTERNAL, Outcome.UPSTREAM_ERROR);
  }
}
