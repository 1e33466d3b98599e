/** The turns of one session, and their money: admitted one by one, settled one by one. */

import { priceUsage } from "../../core/pricing.ts";
import type { UnitQuantity } from "../../core/meters.ts";
import type { Reservation, ReserveFailure } from "../budget/budget.ts";
import { STREAM_OUTPUT_TOKENS } from "../budget/estimate.ts";
import {
  BUDGET_UNAVAILABLE,
  type ErrorAnswer,
  type ErrorFields,
  JOURNAL_UNAVAILABLE,
  limitUnavailable,
  modelLimitReached,
  rateLimitReached,
} from "../errors.ts";
import type { AttemptEntry } from "../journal/journal.ts";
import { type LimitFailure, LimitHolds } from "../limits.ts";
import { AttemptResult, Outcome } from "../outcome.ts";
import { takeRates } from "../rates/request_rates.ts";
import { isRefusal, type RateHold, type RateLimits } from "../rates/rates.ts";
import type { RouteKey } from "../route_types.ts";
import type { Media } from "./events.ts";
import { exhaustedOf } from "./farewell.ts";
import type { RealtimeLimits } from "./limits.ts";
import { Conversation } from "./tally.ts";
import { asideOf, type Party, payAside, Turn } from "./turn.ts";
import { longestOutput, outputCovered, turnAdmission, type TurnPrice, turnSize } from "./turn_cost.ts";
import { transcriptionUnits } from "./usage.ts";

/** Why a turn may not begin, and the words for the client. */
export interface TurnRefusal {
  /** `exhausted`: the wallet. */
  readonly why: "exhausted" | "other";
  readonly fields: ErrorFields;
}

/** What is asked for. */
export interface TurnWish {
  readonly eventId: string;
  /** The longest answer that the client wants, 0: it does not say. */
  readonly asked: number;
  /** False: the upstream began it by itself. */
  readonly limitable: boolean;
  /** What it says besides the conversation; null: nothing. */
  readonly media: Media | null;
}

/** `limit`: the answer must be limited to so many tokens; 0: as the client wishes. */
export type TurnAnswer = (turn: Turn | null, refusal: TurnRefusal | null, limit: number) => void;

/** The fields of an error that is an HTTP answer elsewhere. */
function fieldsOfAnswer({ body }: ErrorAnswer): ErrorFields {
  return (JSON.parse(body.toString("utf8")) as { error: ErrorFields }).error;
}

/** A session counts as one concurrent request, its turns as none beside it. */
function calm(limits: RateLimits | null): RateLimits | null {
  return limits === null ? null : { ...limits, concurrentRequests: 0 };
}

function calmKey(key: RouteKey): RouteKey {
  return { ...key, rateLimits: calm(key.rateLimits), ve: { ...key.ve, rateLimits: calm(key.ve.rateLimits) } };
}

export class Turns {
  readonly conversation = new Conversation();
  readonly open: Turn[] = [];
  /** Answers of the budget that must be waited for: they may hold Credits. */
  asking = 0;
  /** Settlements that are not written yet. */
  writing = 0;
  private readonly party: Party;
  private readonly idle: () => void;
  private over = false;
  /** What the next record tells of besides its own attempt. */
  private attempts: readonly AttemptEntry[];

  /** `idle` is called when the last of what must be waited for is over. */
  constructor(party: Party, attempts: readonly AttemptEntry[], idle: () => void) {
    this.party = party;
    this.attempts = attempts;
    this.idle = idle;
  }

  get busy(): boolean {
    return this.open.length + this.asking + this.writing > 0;
  }

  /** No more turns: what is still being asked for is given back. */
  end(): void {
    this.over = true;
  }

  /** Answers at once, if the lease covers it. */
  begin(wish: TurnWish, done: TurnAnswer): void {
    const { core, key, pm } = this.party;
    const { budget, journal } = core.deps;
    // What cannot be written down is not begun.
    if (!journal.accepting) return done(null, { why: "other", fields: fieldsOfAnswer(JOURNAL_UNAVAILABLE) }, 0);
    const price: TurnPrice = { price: pm.price!, rates: pm.rates!, maxOutputTokens: pm.maxOutputTokens };
    const { strict, id } = key.ve;
    const asked = wish.asked || this.conversation.outputLimit;
    if (wish.media !== null) this.conversation.added(wish.media);
    const input = this.conversation.tokens(strict);
    const admission = turnAdmission(price, input, asked, strict, wish.limitable);
    const rates = this.takeRates(input.text + input.audio + input.image);
    if (!Array.isArray(rates)) return done(null, { why: "other", fields: fieldsOfAnswer(rates) }, 0);
    const reserved = (result: Reservation | ReserveFailure): void => {
      if (typeof result === "string" || this.over) return this.unreserved(rates, result, done);
      const limit = strict && wish.limitable ? this.strictLimit(price, asked, result) : 0;
      this.takeLimits(rates, result, (limits, refusal) => {
        if (refusal !== null) return done(null, refusal, 0);
        done(this.opened(price, wish, { reservation: result, rates, limits }), null, limit);
      });
    };
    const reservation = budget.reserve(id, admission.amount);
    if (reservation !== null) return reserved(reservation);
    this.asking++;
    budget.reserveSlow(id, admission.amount, admission.minimum, (result) => {
      this.asking--;
      reserved(result);
      this.rest();
    });
  }

  /** A turn that the upstream makes although nothing covers it: what it costs until it is cancelled is owed all the same. */
  uncovered(): Turn {
    const { core, key, pm } = this.party;
    const price: TurnPrice = { price: pm.price!, rates: pm.rates!, maxOutputTokens: pm.maxOutputTokens };
    const reservation = core.deps.budget.reserve(key.ve.id, 0n)!;
    return this.opened(
      price,
      { eventId: "", asked: 0, limitable: false, media: null },
      { reservation, rates: [], limits: null },
    );
  }

  /** The oldest that waits for its response. */
  pending(): Turn | undefined {
    return this.open.find((turn) => !turn.created);
  }

  /** The oldest of those that were asked for by this event; "": by one without an id. */
  asked(eventId: string): Turn | undefined {
    return this.open.find((turn) => !turn.created && turn.eventId === eventId);
  }

  byResponse(responseId: string): Turn | undefined {
    const created = this.open.filter((turn) => turn.created);
    return created.find((turn) => turn.responseId === responseId) ?? (responseId === "" ? created[0] : undefined);
  }

  /** Those that the upstream did not take up in time, and whether it fell silent in another. */
  overdue(now: number, { pendingMs, turnIdleMs }: RealtimeLimits): { untaken: Turn[]; stalled: boolean } {
    return {
      untaken: this.open.filter((turn) => !turn.created && now - turn.startMs >= pendingMs),
      stalled: this.open.some((turn) => turn.created && now - turn.heardMs >= turnIdleMs),
    };
  }

  /** `units` null: what arrived is estimated. */
  settle(
    turn: Turn,
    outcome: Outcome,
    units: readonly UnitQuantity[] | null,
    errorCode: string,
    written: () => void = () => undefined,
  ): void {
    const at = this.open.indexOf(turn);
    if (at === -1) return;
    this.open.splice(at, 1);
    this.writing++;
    const { attempts } = this;
    this.attempts = [];
    turn.settle(outcome, units ?? turn.estimate(), errorCode, attempts, () => {
      this.writing--;
      written();
      this.rest();
    });
  }

  /** A transcription is a record of its own: it is made by another model, and billed when it is done. */
  transcribed(usage: unknown, written: () => void): void {
    const { core, pm, kind, tier } = this.party;
    const { journal, newId } = core.deps;
    const price = pm.price!;
    const units = transcriptionUnits(usage, price);
    if (units === null) return written();
    const credits = priceUsage(price, units);
    const uses = payAside(this.party, units, credits);
    const attempt: AttemptEntry = {
      physicalModelId: pm.id,
      tier,
      result: AttemptResult.SERVED,
      httpStatus: 101,
      startUs: 0,
      durationUs: 0,
      kind,
      firstByteUs: 0,
      firstContentUs: 0,
      detail: "transcription",
      credits,
    };
    const record = asideOf(
      this.party,
      {
        id: newId("usg_"),
        startMs: core.deps.now(),
        outcome: Outcome.COMPLETED,
        units,
        credits,
        pmId: pm.id,
        priceId: price.id,
        httpStatus: 101,
        attempts: [attempt],
        errorCode: "",
      },
      uses,
    );
    this.writing++;
    journal.settle(record, () => {
      this.writing--;
      written();
      this.rest();
    });
  }

  /** Says so if the wallet is known to have nothing left. */
  checkCover(exhausted: (fields: ErrorFields) => void): void {
    const { core, key, pm } = this.party;
    const { budget } = core.deps;
    const { dearInput, dearOutput, request } = pm.rates!;
    if (dearInput + dearOutput + request === 0n) return;
    const held = budget.reserve(key.ve.id, 1n);
    if (held !== null) return budget.settle(held, 0n);
    this.asking++;
    budget.reserveSlow(key.ve.id, 1n, 1n, (result) => {
      this.asking--;
      if (typeof result !== "string") budget.settle(result, 0n);
      else if (result === "exhausted") exhausted(exhaustedOf(this.party));
      this.rest();
    });
  }

  private rest(): void {
    if (!this.busy) this.idle();
  }

  private opened(price: TurnPrice, wish: TurnWish, held: ConstructorParameters<typeof Turn>[4]): Turn {
    const { conversation } = this;
    const turn = new Turn(
      this.party,
      price,
      conversation.tokens(false),
      wish.eventId,
      held,
      conversation.outputBytesPerS,
    );
    this.open.push(turn);
    return turn;
  }

  private unreserved(rates: readonly RateHold[], result: Reservation | ReserveFailure, done: TurnAnswer): void {
    for (const hold of rates) hold.release();
    if (typeof result !== "string") {
      this.party.core.deps.budget.settle(result, 0n);
      return done(null, { why: "other", fields: fieldsOfAnswer(BUDGET_UNAVAILABLE) }, 0);
    }
    const exhausted = result === "exhausted";
    const fields = exhausted ? exhaustedOf(this.party) : fieldsOfAnswer(BUDGET_UNAVAILABLE);
    done(null, { why: exhausted ? "exhausted" : "other", fields }, 0);
  }

  /** What the answer is limited to upstream; 0: as the client wishes, since that is no longer. */
  private strictLimit(price: TurnPrice, asked: number, { held }: Reservation): number {
    const covered = outputCovered(price, this.conversation.tokens(true), asked, held);
    return asked > 0 && covered >= asked && longestOutput(price, asked) === asked ? 0 : covered;
  }

  /** Of the key, the VE and the target. */
  private takeRates(input: number): RateHold[] | ErrorAnswer {
    const { core, key, pm } = this.party;
    const { rates } = core.deps;
    if (rates === undefined) return [];
    const tokens = { input, all: input + STREAM_OUTPUT_TOKENS };
    const taken = takeRates(rates, calmKey(key), tokens);
    if (!Array.isArray(taken)) return rateLimitReached(taken, tokens.all);
    const limits = calm(pm.rateLimits);
    if (limits === null) return taken;
    const ofTarget = rates.take(pm.id, limits, tokens.all, tokens.input);
    if (!isRefusal(ofTarget)) return [...taken, ofTarget];
    for (const hold of taken) hold.release();
    return rateLimitReached(ofTarget, tokens.all);
  }

  /** Of the target's Unit Limit and Credit Limit. On a refusal everything is given back. */
  private takeLimits(
    rates: readonly RateHold[],
    reservation: Reservation,
    done: (limits: LimitHolds | null, refusal: TurnRefusal | null) => void,
  ): void {
    const { core, pm, model } = this.party;
    const { budget } = core.deps;
    if (!pm.limited) return done(null, null);
    const known = (failure: LimitFailure | null, retryMs: number): void => {
      if (failure === null && !this.over) return done(limits, null);
      limits.release();
      for (const hold of rates) hold.release();
      budget.settle(reservation, 0n);
      const reached = failure === "reached";
      const answer = reached ? modelLimitReached(model, retryMs / 1000) : limitUnavailable(model);
      done(null, { why: "other", fields: fieldsOfAnswer(answer) });
    };
    const limits = new LimitHolds(budget, pm, (failure, retryMs) => {
      this.asking--;
      known(failure, retryMs);
      this.rest();
    });
    const { text, audio, image } = this.conversation.tokens(false);
    const size = turnSize(text + audio + image, true);
    this.asking++;
    if (!limits.takeSize(size)) return;
    this.asking--;
    known(null, 0);
  }
}
