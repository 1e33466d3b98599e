/** One response of a session: what it holds, what arrived of it, and its record. */

import { type Credits } from "../../core/credits.ts";
import { UnitKind, type UnitQuantity, unitsOfKind } from "../../core/meters.ts";
import { priceUsage } from "../../core/pricing.ts";
import { limitAccount, LimitKind, UNIT } from "../budget/accounts.ts";
import type { Reservation } from "../budget/budget.ts";
import { GROW_AT_PERCENT, sliceCost } from "../budget/estimate.ts";
import type { Core } from "../core.ts";
import { Endpoint } from "../endpoints.ts";
import type { AttemptEntry, Intent, LimitUse, Progress, Settlement } from "../journal/journal.ts";
import type { LimitHolds } from "../limits.ts";
import { AttemptResult, Outcome } from "../outcome.ts";
import type { RateHold } from "../rates/rates.ts";
import type { RouteKey, RouteLm, RoutePm } from "../route_types.ts";
import { Answer } from "./tally.ts";
import { inputCost, outputCost, type TurnPrice } from "./turn_cost.ts";
import { estimatedTurnUnits, type InputTokens } from "./usage.ts";

/** Whom a session is from, and who serves it. */
export interface Party {
  readonly core: Core;
  /** As the table has it now. */
  key: RouteKey;
  readonly lm: RouteLm;
  /** The model as the client calls it. */
  readonly model: string;
  readonly pm: RoutePm;
  /** What the record of the target says. */
  readonly kind: number;
  readonly tier: number;
}

/** The status of an answer that is a WebSocket. */
const SWITCHING = 101;
const RESPONSE_ID = /^[\x21-\x7e]{1,128}$/;

/** What is held for a turn. */
export interface Held {
  readonly reservation: Reservation;
  readonly rates: readonly RateHold[];
  readonly limits: LimitHolds | null;
}

export class Turn {
  readonly id: string;
  readonly price: TurnPrice;
  readonly input: InputTokens;
  /** The client's own id of its `response.create`, "" if it gave none or did not ask. */
  readonly eventId: string;
  readonly answer = new Answer();
  readonly startMs: number;
  responseId = "";
  /** Bytes of audio per second that it is answered with. */
  bytesPerS: number;
  /** When the upstream last said something of it. */
  heardMs: number;
  /** The gateway ended it: how. */
  cut: Outcome | null = null;
  /** The code that the client was told then, "" if none. */
  cutCode = "";
  private readonly party: Party;
  private readonly held: Held;
  private readonly strict: boolean;
  private firstByteUs = 0;
  private firstContentUs = 0;
  private growAt: Credits = 0n;
  private noted = -1;

  constructor(party: Party, price: TurnPrice, input: InputTokens, eventId: string, held: Held, bytesPerS: number) {
    const { core } = party;
    this.party = party;
    this.price = price;
    this.input = input;
    this.eventId = eventId;
    this.held = held;
    this.bytesPerS = bytesPerS;
    this.strict = party.key.ve.strict;
    this.id = core.deps.newId("usg_");
    this.startMs = this.heardMs = core.deps.now();
  }

  get created(): boolean {
    return this.firstByteUs > 0;
  }

  get hasContent(): boolean {
    return this.answer.hasContent;
  }

  /** The upstream took it up: from here on it is billed, also if the node dies. */
  begun(responseId: string, bytesPerS: number): void {
    const { key, lm, model, core } = this.party;
    this.responseId = responseId;
    this.bytesPerS = bytesPerS;
    this.heardMs = core.deps.now();
    this.firstByteUs = Math.max(1, this.sinceStartUs());
    const intent: Intent = {
      id: this.id,
      veId: key.ve.id,
      accessKeyId: key.id,
      logicalModelId: lm.id,
      logicalModel: model,
      endpoint: Endpoint.REALTIME,
      arriveUnixUs: this.arriveUnixUs(),
    };
    core.deps.journal.intent(intent);
  }

  /** False: the wallet does not cover what arrived. */
  delta(type: string, bytes: number): boolean {
    this.heardMs = this.party.core.deps.now();
    this.answer.delta(type, bytes);
    if (this.firstContentUs === 0) {
      this.firstContentUs = Math.max(1, this.sinceStartUs());
      this.note();
    }
    return this.cut !== null || this.covers();
  }

  /** Writes down how far it is, if it went on. */
  note(): void {
    if (!this.hasContent) return;
    const { text, audio } = this.answer.tokens(this.bytesPerS);
    if (text + audio === this.noted) return;
    this.noted = text + audio;
    const units = this.estimate();
    const progress: Progress = {
      id: this.id,
      physicalModelId: this.party.pm.id,
      priceId: this.price.price.id,
      units,
      credits: priceUsage(this.price.price, units),
    };
    this.party.core.deps.journal.progress(progress);
  }

  estimate(): UnitQuantity[] {
    return estimatedTurnUnits(this.input, this.answer.tokens(this.bytesPerS));
  }

  /** The bill, once. `before`: attempts at other targets that the record tells of too. */
  settle(
    outcome: Outcome,
    units: readonly UnitQuantity[],
    errorCode: string,
    before: readonly AttemptEntry[],
    written: () => void,
  ): void {
    const { core, key, lm, model, pm, kind, tier } = this.party;
    const { budget, journal, metrics } = core.deps;
    const { reservation, limits, rates } = this.held;
    const credits = priceUsage(this.price.price, units);
    const durationUs = this.sinceStartUs();
    budget.settle(reservation, credits);
    const uses = limits?.settle(units, credits) ?? useLimits(this.party, units, credits);
    const tokens = Number(unitsOfKind(units, UnitKind.TOKENS) / UNIT);
    for (const hold of rates) hold.settle(tokens);
    metrics.request(Endpoint.REALTIME, SWITCHING, outcome, durationUs);
    const attempt: AttemptEntry = {
      physicalModelId: pm.id,
      tier,
      result: resultOf(outcome),
      httpStatus: SWITCHING,
      startUs: 0,
      durationUs,
      kind,
      firstByteUs: this.firstByteUs,
      firstContentUs: this.firstContentUs,
      detail: "",
      credits,
    };
    const served = units.length > 0;
    const settlement: Settlement = {
      id: this.id,
      veId: key.ve.id,
      accessKeyId: key.id,
      logicalModelId: lm.id,
      logicalModel: model,
      endpoint: Endpoint.REALTIME,
      stream: true,
      physicalModelId: served ? pm.id : "",
      priceId: served ? this.price.price.id : "",
      units,
      credits,
      outcome,
      httpStatus: SWITCHING,
      attempts: [...before, attempt],
      arriveUnixUs: this.arriveUnixUs(),
      firstByteUs: this.firstByteUs,
      firstContentUs: this.firstContentUs,
      durationUs,
      upstreamRequestId: RESPONSE_ID.test(this.responseId) ? this.responseId : "",
      errorCode,
      ...(uses.length > 0 && { limits: uses }),
    };
    journal.settle(settlement, written);
  }

  /**
   * True if the wallet covers what arrived, in BALANCED but for half a slice, having taken more from it where needed.
   * Audio comes faster than it is spoken, so that a whole turn may be here before this ends it.
   */
  private covers(): boolean {
    const { price, strict } = this;
    const { reservation } = this.held;
    const { budget } = this.party.core.deps;
    const answer = this.answer.tokens(this.bytesPerS);
    const cost = inputCost(price, this.input, false) + outputCost(price, answer);
    const slice = sliceCost(price.rates, true);
    if (cost < this.growAt) return true;
    while (cost * 100n > reservation.held * (strict ? 100n : GROW_AT_PERCENT)) {
      if (slice > 0n && budget.grow(reservation, slice)) continue;
      this.growAt = cost + slice / 8n;
      return cost <= reservation.held + (strict ? 0n : slice / 2n);
    }
    return true;
  }

  private sinceStartUs(): number {
    return Math.max(0, Math.round((this.party.core.deps.now() - this.startMs) * 1000));
  }

  private arriveUnixUs(): number {
    return Math.round(this.startMs * 1000) + this.party.core.wallLeadUs();
  }
}

function resultOf(outcome: Outcome): AttemptResult {
  switch (outcome) {
    case Outcome.CLIENT_ERROR:
      return AttemptResult.CLIENT_ERROR;
    case Outcome.CLIENT_GONE:
      return AttemptResult.CLIENT_GONE;
    case Outcome.UPSTREAM_CUT:
    case Outcome.UPSTREAM_ERROR:
      return AttemptResult.CUT;
    case Outcome.TIMEOUT:
      return AttemptResult.IDLE_TIMEOUT;
    default:
      return AttemptResult.SERVED;
  }
}

/** Counts against the limits of the target what nothing was held for. */
function useLimits({ core, pm }: Party, units: readonly UnitQuantity[], credits: Credits): LimitUse[] {
  const uses: LimitUse[] = [];
  const use = (kind: LimitKind, amount: bigint): void => {
    if (amount === 0n) return;
    const account = limitAccount(pm.id, kind);
    // To hold nothing is always possible.
    core.deps.budget.settle(core.deps.budget.reserve(account, 0n)!, amount);
    uses.push({ account, amount });
  };
  if (pm.unitLimit !== 0) use(LimitKind.UNITS, unitsOfKind(units, pm.unitLimit));
  if (pm.creditLimited) use(LimitKind.CREDITS, credits);
  return uses;
}

/** A record of something that has no turn: a transcription, or a session that no target would serve. */
export interface Aside {
  readonly id: string;
  readonly startMs: number;
  readonly outcome: Outcome;
  readonly units: readonly UnitQuantity[];
  readonly credits: Credits;
  readonly pmId: string;
  readonly priceId: string;
  readonly httpStatus: number;
  readonly attempts: readonly AttemptEntry[];
  readonly errorCode: string;
}

/** What a transcription used, taken from the wallet and the limits; then its record must be written. */
export function payAside(party: Party, units: readonly UnitQuantity[], credits: Credits): LimitUse[] {
  const { budget } = party.core.deps;
  budget.settle(budget.reserve(party.key.ve.id, 0n)!, credits);
  return useLimits(party, units, credits);
}

export function asideOf(
  { core, key, lm, model }: Pick<Party, "core" | "key" | "lm" | "model">,
  aside: Aside,
  limits: readonly LimitUse[] = [],
): Settlement {
  return {
    id: aside.id,
    veId: key.ve.id,
    accessKeyId: key.id,
    logicalModelId: lm.id,
    logicalModel: model,
    endpoint: Endpoint.REALTIME,
    stream: true,
    physicalModelId: aside.pmId,
    priceId: aside.priceId,
    units: aside.units,
    credits: aside.credits,
    outcome: aside.outcome,
    httpStatus: aside.httpStatus,
    attempts: aside.attempts,
    arriveUnixUs: Math.round(aside.startMs * 1000) + core.wallLeadUs(),
    firstByteUs: 0,
    firstContentUs: 0,
    durationUs: Math.max(0, Math.round((core.deps.now() - aside.startMs) * 1000)),
    upstreamRequestId: "",
    errorCode: aside.errorCode,
    ...(limits.length > 0 && { limits }),
  };
}
