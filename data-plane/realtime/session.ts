/**
 * One session: two WebSockets that stand, and what is done with the frames between them. They pass untouched, but for those
 * that begin a turn, end one, or concern the gateway's own account. Money is in turns.ts.
 */

import type { Live } from "../core.ts";
import { DRAIN_MS_MAX } from "../drains.ts";
import type { ErrorFields } from "../errors.ts";
import type { AttemptEntry } from "../journal/journal.ts";
import { OnDisconnect, Outcome } from "../outcome.ts";
import { Deadline } from "../timers.ts";
import { ClientEvents, type ClientHost } from "./client_events.ts";
import * as events from "./events.ts";
import * as said from "./farewell.ts";
import { Lane } from "./lane.ts";
import { CloseCode, type RealtimeLimits } from "./limits.ts";
import { observeServer } from "./observe.ts";
import type { Peer } from "./peer.ts";
import { isDelta } from "./tally.ts";
import type { Party, Turn } from "./turn.ts";
import { type TurnRefusal, Turns } from "./turns.ts";
import { errorFrameOf, failedFrameOf, wordsOf } from "./upstream_words.ts";
import { turnUnits } from "./usage.ts";
import { brokenVerdict, doneVerdict } from "./verdict.ts";
import { Watch } from "./watch.ts";

const Phase = { OPEN: 0, ENDING: 1, OVER: 2 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

export interface SessionParts {
  readonly party: Party;
  readonly client: Peer;
  readonly upstream: Peer;
  /** Attempts at other targets, for the first record. */
  readonly attempts: readonly AttemptEntry[];
  readonly limits: RealtimeLimits;
  /** Everything is settled, and nothing is called any more. */
  onOver(session: Session): void;
}

export class Session implements Live, ClientHost {
  liveAt = -1;
  readonly party: Party;
  private readonly client: Peer;
  private readonly upstream: Peer;
  private readonly limits: RealtimeLimits;
  private readonly onOver: (session: Session) => void;
  readonly turns: Turns;
  readonly up: Lane;
  private readonly down: Lane;
  private readonly deadline = new Deadline({ onDeadline: () => this.guard(() => this.late()) });
  private readonly startMs: number;
  private phase: Phase = Phase.OPEN;
  /** Nothing goes to the client any more. */
  private silent = false;
  /** How turns end that are open when the session ends. */
  private outcome: Outcome = Outcome.CLIENT_GONE;
  /** What is said when everything is settled. */
  private farewell: said.Farewell | null = null;
  /** It ends when no turn is open. */
  retiring: said.Farewell | null = null;
  private heardMs: number;
  private readonly watch: Watch;
  private readonly events: ClientEvents;

  constructor(parts: SessionParts) {
    const { party, client, upstream } = parts;
    this.party = party;
    this.client = client;
    this.upstream = upstream;
    this.limits = parts.limits;
    this.onOver = (session) => parts.onOver(session);
    this.turns = new Turns(party, parts.attempts, () => this.guard(() => this.settled()));
    this.up = new Lane(client, upstream, (data, binary) => this.fromClient(data, binary));
    this.down = new Lane(upstream, client, (data, binary) => this.fromUpstream(data, binary));
    this.startMs = this.heardMs = party.core.deps.now();
    this.events = new ClientEvents(this);
    this.watch = new Watch(this.up, this.down, parts.limits, this.startMs);
  }

  /** `first`: the event by which the upstream said that the session stands. */
  begin(first: Buffer, binary: boolean): void {
    this.party.core.opened(this);
    this.guard(() => {
      this.client.setSink({
        onFrame: (data, isBinary) => this.guard(() => this.up.take(data, isBinary)),
        onRoom: () => this.down.onRoom(),
        onClosed: () => this.guard(() => this.clientGone()),
      });
      this.upstream.setSink({
        onFrame: (data, isBinary) => this.guard(() => this.down.take(data, isBinary)),
        onRoom: () => this.up.onRoom(),
        onClosed: (code) => this.guard(() => this.down.whenOpen(() => this.upstreamGone(code))),
      });
      this.down.take(first, binary);
      this.upstream.resume();
      this.client.resume();
    });
  }

  /** The node stops: what is being said may be finished, within `drainMs`. */
  drain(): void {
    this.guard(() => this.retire(said.STOPPING));
  }

  abort(): void {
    this.guard(() => {
      if (this.phase === Phase.OPEN) this.leave(said.STOPPING, Outcome.UPSTREAM_CUT);
      this.settleRest();
    });
  }

  onProgressTick(): void {
    this.guard(() => this.check());
  }

  // --- from the client --------------------------------------------------------------------------------------------------

  private fromClient(data: Buffer, binary: boolean): void {
    if (this.phase !== Phase.OPEN) return;
    this.heardMs = this.now();
    this.events.take(data, binary);
  }

  granted(turn: Turn): boolean {
    if (this.phase === Phase.OPEN) return true;
    this.turns.settle(turn, this.outcome, [], "");
    return false;
  }

  // --- from the upstream ------------------------------------------------------------------------------------------------

  private fromUpstream(data: Buffer, binary: boolean): void {
    this.heardMs = this.now();
    const head = events.readHead(data);
    if (head === null) return this.deliver(data, binary);
    if (isDelta(head.type)) this.delta(head);
    switch (head.type) {
      case "response.created":
        return this.created(data, binary);
      case "response.done":
        return this.done(data, binary);
      case "error":
        return this.failed(data, binary);
      case "conversation.item.input_audio_transcription.completed":
        return this.transcribed(data, binary);
      default:
        observeServer(this.turns.conversation, head.type, data);
    }
    this.deliver(data, binary);
  }

  deliver(data: Buffer, binary: boolean): void {
    if (!this.silent) this.down.forward(data, binary);
  }

  private created(data: Buffer, binary: boolean): void {
    const response = events.fieldsOf(events.parseEvent(data)["response"]);
    const id = events.textOf(response["id"]);
    const perS = this.turns.conversation.outputBytesPerS;
    const pending = this.turns.pending();
    if (pending !== undefined || this.phase !== Phase.OPEN) {
      const turn = pending ?? this.turns.uncovered();
      turn.begun(id, perS);
      if (this.phase !== Phase.OPEN) this.cancel(turn, this.outcome);
      return this.deliver(data, binary);
    }
    const invalid = said.invalid(this.party);
    if (invalid !== null) {
      this.turns.uncovered().begun(id, perS);
      return this.leave(invalid, Outcome.BUDGET_CUT);
    }
    this.down.close();
    const asked = events.outputLimitOf(response);
    this.turns.begin({ eventId: "", asked, limitable: false, media: null }, (covered, refusal) => {
      const turn = covered ?? this.turns.uncovered();
      turn.begun(id, perS);
      if (covered === null) this.uncovered(turn, refusal!);
      else if (this.phase !== Phase.OPEN) this.cancel(turn, this.outcome);
      this.deliver(data, binary);
      this.down.open();
    });
  }

  /** The upstream began by itself what nothing covers. */
  private uncovered(turn: Turn, { why, fields }: TurnRefusal): void {
    this.cancel(turn, this.phase === Phase.OPEN ? Outcome.BUDGET_CUT : this.outcome, fields.code ?? "");
    if (this.phase !== Phase.OPEN) return;
    if (why === "other") return this.tell(fields, "");
    this.leave(said.exhausted(fields), Outcome.BUDGET_CUT);
  }

  private delta({ type, responseId, deltaBytes }: events.EventHead): void {
    const turn = this.turns.byResponse(responseId);
    if (turn === undefined || turn.delta(type, deltaBytes)) return;
    const fields = said.exhaustedOf(this.party);
    this.cancel(turn, Outcome.BUDGET_CUT, fields.code!);
    if (this.phase === Phase.OPEN) this.tell(fields, "");
  }

  /** The bill first, then the frame by which the client knows that the turn is over. */
  private done(data: Buffer, binary: boolean): void {
    const response = events.fieldsOf(events.parseEvent(data)["response"]);
    const turn = this.turns.byResponse(events.textOf(response["id"]));
    if (turn === undefined) return this.deliver(data, binary);
    const failed = response["status"] === "failed";
    const words = failed ? this.words(events.fieldsOf(events.fieldsOf(response["status_details"])["error"])) : null;
    const reported = turnUnits(response["usage"], turn.hasContent);
    if (reported !== null && response["conversation_id"] !== null) this.turns.conversation.used(reported);
    const ended = this.phase === Phase.OPEN ? Outcome.COMPLETED : this.outcome;
    const { outcome, units } = doneVerdict(turn, reported, failed, ended);
    this.down.close();
    this.turns.settle(turn, outcome, this.isFree(outcome) ? [] : units, words?.code ?? turn.cutCode, () => {
      this.deliver(words === null ? data : failedFrameOf(data, words), binary);
      this.down.open();
      this.rested();
    });
  }

  private failed(data: Buffer, binary: boolean): void {
    const words = this.words(events.fieldsOf(events.parseEvent(data)["error"]));
    const turn = this.turns.asked(events.textOf(words.error["event_id"]));
    if (turn !== undefined) this.turns.settle(turn, Outcome.CLIENT_ERROR, [], words.code);
    this.deliver(errorFrameOf(data, words), binary);
    this.rested();
  }

  /** What went wrong upstream, and what it says of the target. */
  private words(error: events.Fields) {
    const { core, pm } = this.party;
    const words = wordsOf(error, pm.provider);
    if (words.health !== "ignore") core.health.fail(pm, words.health, 0, this.now());
    return words;
  }

  private transcribed(data: Buffer, binary: boolean): void {
    this.down.close();
    this.turns.transcribed(events.parseEvent(data)["usage"], () => {
      this.deliver(data, binary);
      this.down.open();
    });
    // A session that only transcribes has no turns at which the wallet would be asked.
    this.turns.checkCover((fields) => {
      const farewell = said.exhausted(fields);
      this.leave(farewell, Outcome.BUDGET_CUT);
    });
  }

  // --- ends -------------------------------------------------------------------------------------------------------------

  private clientGone(): void {
    this.silent = true;
    if (this.phase !== Phase.OPEN) return;
    this.end(Outcome.CLIENT_GONE);
  }

  private upstreamGone(code: number): void {
    if (this.phase === Phase.OVER) return;
    const { core, pm } = this.party;
    const sound = this.turns.open.length === 0 && (code === CloseCode.NORMAL || code === CloseCode.GOING_AWAY);
    if (this.phase === Phase.OPEN) {
      if (!sound) core.health.fail(pm, "failure", 0, this.now());
      this.phase = Phase.ENDING;
      this.outcome = Outcome.UPSTREAM_CUT;
      this.farewell = sound ? { code, reason: "upstream_closed", fields: null } : said.CUT;
      this.turns.end();
    }
    this.settleRest();
  }

  /** The client hears why, and the session ends. */
  leave(farewell: said.Farewell, outcome: Outcome): void {
    if (this.phase !== Phase.OPEN) return;
    this.bid(farewell);
    this.end(outcome);
  }

  private bid({ code, reason, fields }: said.Farewell): void {
    if (fields !== null) this.tell(fields, "");
    this.silent = true;
    this.client.close(code, reason);
  }

  /** Open turns are cancelled, so that the upstream says what they used; if it does not, that is estimated. */
  private end(outcome: Outcome): void {
    this.phase = Phase.ENDING;
    this.outcome = outcome;
    this.turns.end();
    this.down.drop();
    if (this.isFree(outcome)) return this.settleRest();
    const drains = outcome === Outcome.CLIENT_GONE && this.party.pm.provider.onDisconnect === OnDisconnect.DRAIN;
    if (!drains) for (const turn of [...this.turns.open]) if (turn.created) this.cancel(turn, outcome);
    this.arm(drains ? DRAIN_MS_MAX : this.limits.cancelMs);
    this.settled();
  }

  /** The merchant does not bill clients that leave. */
  private isFree(outcome: Outcome): boolean {
    return outcome === Outcome.CLIENT_GONE && this.party.pm.provider.onDisconnect === OnDisconnect.FREE;
  }

  private cancel(turn: Turn, outcome: Outcome, code = ""): void {
    if (turn.cut !== null) return;
    turn.cut = outcome;
    turn.cutCode = code;
    this.upstream.send(events.cancelEvent(turn.responseId), false);
    if (this.phase === Phase.OPEN) this.arm(this.limits.cancelMs);
  }

  /** Nothing more is waited for. */
  private settleRest(): void {
    if (this.phase === Phase.OVER) return;
    this.upstream.terminate();
    for (const turn of [...this.turns.open]) {
      const { outcome, units } = brokenVerdict(turn, this.outcome);
      this.turns.settle(
        turn,
        outcome,
        this.isFree(outcome) ? [] : units,
        turn.cutCode || (this.farewell?.fields?.code ?? ""),
      );
    }
    this.settled();
  }

  /** All turns are settled, so that an ended session is over. */
  private settled(): void {
    if (this.phase !== Phase.ENDING || this.turns.busy) return;
    this.phase = Phase.OVER;
    const { core } = this.party;
    core.wheel.clear(this.deadline);
    if (this.farewell !== null && !this.silent) this.bid(this.farewell);
    if (!this.upstream.closed) this.upstream.close(CloseCode.NORMAL, "");
    core.closed(this);
    this.onOver(this);
  }

  private retire(farewell: said.Farewell): void {
    if (this.phase !== Phase.OPEN || this.retiring !== null) return;
    this.retiring = farewell;
    this.arm(this.limits.drainMs);
    this.rested();
  }

  /** A turn is over: who retires goes now. */
  private rested(): void {
    if (this.retiring !== null && !this.turns.busy) this.leave(this.retiring, Outcome.UPSTREAM_CUT);
  }

  private late(): void {
    if (this.phase === Phase.ENDING) return this.settleRest();
    if (this.retiring !== null) return this.leave(this.retiring, Outcome.UPSTREAM_CUT);
    // A response was cancelled, and the upstream does not say that it ended.
    const cut = this.turns.open.find((turn) => turn.cut !== null);
    if (cut === undefined) return;
    const fields = said.exhaustedOf(this.party);
    this.leave(cut.cutCode === fields.code ? said.exhausted(fields) : said.SLOW, Outcome.BUDGET_CUT);
  }

  // --- every second -------------------------------------------------------------------------------------------------------

  private check(): void {
    for (const turn of this.turns.open) turn.note();
    if (this.phase !== Phase.OPEN) return;
    const now = this.now();
    const { limits } = this;
    if (!this.turns.busy) {
      const invalid = said.invalid(this.party);
      if (invalid !== null) return this.leave(invalid, Outcome.CLIENT_GONE);
    }
    if (now - this.heardMs >= limits.idleMs) return this.leave(said.IDLE, Outcome.TIMEOUT);
    if (now - this.startMs >= limits.sessionMsMax) this.retire(said.EXPIRED);
    const { untaken, stalled } = this.turns.overdue(now, limits);
    for (const turn of untaken) {
      this.turns.settle(turn, Outcome.UPSTREAM_ERROR, [], "timeout");
      this.tell(said.NOT_TAKEN, turn.eventId);
    }
    if (!stalled) return this.watch.check(now);
    this.party.core.health.fail(this.party.pm, "failure", 0, now);
    this.leave(said.SLOW, Outcome.TIMEOUT);
  }

  // --- small things -------------------------------------------------------------------------------------------------------

  tell(fields: ErrorFields, to: string): void {
    this.deliver(events.errorEvent(this.party.core.deps.newId("usg_"), fields, to), false);
  }

  private now(): number {
    return this.party.core.deps.now();
  }

  private arm(ms: number): void {
    this.party.core.wheel.set(this.deadline, this.now() + ms);
  }

  /** Callbacks come from sockets and timers: what goes wrong here must end here. */
  private guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.party.core.deps.log.error({ err: error }, "a realtime session failed");
      this.client.terminate();
      if (this.phase === Phase.OPEN) {
        this.phase = Phase.ENDING;
        this.outcome = Outcome.UPSTREAM_CUT;
        this.silent = true;
        this.turns.end();
      }
      setImmediate(() => this.rescue());
    }
  }

  private rescue(): void {
    try {
      this.settleRest();
    } catch (error) {
      this.party.core.deps.log.error({ err: error }, "a realtime session could not be settled");
      this.party.core.closed(this);
    }
  }
}
