/**
 * PURE. One limit of one subject on this node: what the node used, and up to where it may go. The control plane splits a
 * limit among the nodes: each holds a cap on its own use, and the caps of all never come to more than the limit. So use
 * that leaves the window may be used again without asking.
 */

import { RateKind } from "./rates.ts";
import { SlidingWindow } from "./window.ts";

/** How often an account is reported: */
/** while less than a fifth of the limit is left, or the node got less than it wants; */
export const TIGHT_MS = 100;
/** while less than half is left; */
export const BUSY_MS = 400;
/** of concurrent requests, while few more could run; */
export const PLACES_MS = 200;
const PLACES_FEW = 8;
/** otherwise, with and without recent use. The control plane's grants hold for several of these. */
export const CALM_MS = 1_000;
export const IDLE_MS = 3_000;
/** What could not be answered is reported again after this, or after the second one if somebody asks for it. */
export const AGAIN_MS = 1_000;
export const ASKED_AGAIN_MS = 250;
const TIGHT_PART = 0.2;
const BUSY_PART = 0.5;
/** What nobody asked for in this time is given back while others may need it. */
const UNASKED_MS = 3_000;
/** The same of concurrent requests, where it is known that others lack some: nothing of them frees itself with time. */
const IDLE_PLACE_MS = 300;
/** The rate of demand is smoothed over this time. */
const SMOOTHING_MS = 500;
/** What is wanted at hand: the demand of two reports; while there is enough, with a half on top. */
const WANT_INTERVALS = 2;
const WANT_MARGIN = 1.5;
/** While there is enough, at least so many requests of the largest size. */
const CALM_PIECES = 3;
/**
 * While others may need it, so much of what leaves the window is given back rather than used again: otherwise the nodes
 * that came first would keep the whole limit among them.
 */
const RETURNED_PART = 0.25;

/** What the control plane answers about one account. */
export interface RateGrant {
  readonly allowance: number;
  /** Of the whole limit, over all nodes. */
  readonly remaining: number;
}

/** What is reported. */
export interface RateFigures {
  readonly used: number;
  readonly held: number;
  readonly want: number;
}

const NEVER = Number.NEGATIVE_INFINITY;

export class RateAccount {
  readonly subject: string;
  readonly kind: RateKind;
  limit: number;
  /** Null: of concurrent requests, `running` counts. */
  readonly #window: SlidingWindow | null;
  #running = 0;

  /** How far own use may go, as told; counts until `knownUntil`. */
  #cap = 0;
  #knownUntil = NEVER;
  /** Over all nodes, when the own use was `#usedThen`. */
  #remaining = 0;
  #usedThen = 0;
  #answeredAt = NEVER;
  /** At the other nodes, at the last answer. */
  #othersUsed = 0;

  /** Owed to the other nodes, and how much had left the window when that was last counted. */
  #owed = 0;
  #leftThen = 0;

  /** Demand since the last report, refused or not, and the largest piece of it. */
  #asked = 0;
  #largest = 0;
  #askedAt = NEVER;
  #ratePerMs = 0;
  #want = 0;
  /** With no more room than this it is reported sooner. */
  #lowWater = 0;
  /** The last answer was less than wanted: asking sooner than TIGHT_MS brings nothing. */
  #starved = false;
  #sentAt = NEVER;
  /** When it is to be reported next. */
  dueAt = NEVER;
  /** True while it is among those that are looked at with every report. */
  queued = false;
  /** Its subject was forgotten. */
  gone = false;
  /** Until then other nodes may be waiting for what this one does not use. */
  #needyUntil = NEVER;

  /** While nothing is known, nothing may be used until then: there is less left than a share. */
  readonly #tightUntil: number;

  constructor(subject: string, kind: RateKind, limit: number, tightUntil = 0) {
    this.subject = subject;
    this.kind = kind;
    this.limit = limit;
    this.#tightUntil = tightUntil;
    this.#window = kind === RateKind.CONCURRENT ? null : new SlidingWindow();
  }

  used(now: number): number {
    return this.#window === null ? this.#running : this.#window.used(now);
  }

  isKnown(now: number): boolean {
    return now < this.#knownUntil;
  }

  get reported(): boolean {
    return this.#sentAt !== NEVER;
  }

  /** What may be used now. In its share of a limit that is not known a node serves at least one request at a time. */
  room(now: number, nodes: number): number {
    const used = this.used(now);
    if (this.isKnown(now)) {
      const room = Math.min(this.#cap - Math.floor(this.#owed), this.limit) - used;
      return room < 1 && this.#allIdle() ? 1 : room;
    }
    if (now < this.#tightUntil) return 0;
    if (used === 0) return this.limit;
    return this.#share(nodes) - used;
  }

  /** Returns what `untake` needs. */
  take(now: number, amount: number): number {
    this.noteDemand(now, amount);
    if (this.#window !== null) return this.#window.add(now, amount);
    this.#running += amount;
    return 0;
  }

  untake(tick: number, amount: number): void {
    if (this.#window === null) this.#running = Math.max(0, this.#running - amount);
    else this.#window.remove(tick, amount);
  }

  /** Use that is known only now, beyond what was taken. */
  addUse(now: number, amount: number): void {
    this.#window?.add(now, amount);
  }

  noteDemand(now: number, amount: number): void {
    this.#asked += amount;
    if (amount > this.#largest) this.#largest = amount;
    this.#askedAt = now;
  }

  /** True: with so little room left it should be reported sooner than planned; `dueAt` says when. */
  hurry(now: number, room: number): boolean {
    if (this.isKnown(now) ? this.#starved || room > this.#lowWater : this.#sentAt + ASKED_AGAIN_MS > now) return false;
    const was = this.dueAt;
    this.dueAt = Math.min(was, now);
    return this.dueAt < was || !this.queued;
  }

  /** Some node lacks some of it. True: how this one stands should be reported now. */
  lacking(now: number, untilMs: number): boolean {
    this.#needyUntil = untilMs;
    if (this.dueAt <= now || this.#sentAt + TIGHT_MS > now) return false;
    this.dueAt = now;
    return true;
  }

  /**
   * Until the control plane has answered, each of the nodes may take its part of what was added, which comes to no more than
   * all of it: so a limit that is raised refuses nobody. What is left changes by as much as the limit.
   */
  limitChanged(limit: number, nodes: number): void {
    const more = limit - this.limit;
    if (more > 0) this.#cap = Math.min(this.#cap, this.limit) + Math.floor(more / nodes);
    this.#remaining = Math.max(0, this.#remaining + more);
    this.limit = limit;
    this.dueAt = NEVER;
  }

  /** Nothing of it would be missed. */
  isEmpty(now: number, forgetMs: number): boolean {
    return this.#askedAt + forgetMs <= now && this.used(now) === 0;
  }

  /**
   * The figures of a report that is sent now. What is given back with it must not be used from here on. A node that knows
   * nothing holds its share: it may use all of that before the answer comes.
   */
  report(now: number, nodes: number): RateFigures {
    const used = this.used(now);
    const elapsed = Math.max(1, now - Math.max(this.#sentAt, now - IDLE_MS));
    const weight = this.#sentAt === NEVER ? 1 : 1 - Math.exp(-elapsed / SMOOTHING_MS);
    this.#ratePerMs += (this.#asked / elapsed - this.#ratePerMs) * weight;
    const known = this.isKnown(now);
    const tight = known && this.#isTight();
    this.#countOwed(known ? Math.max(0, this.#cap - used) : 0, tight);
    this.#want = Math.min(this.#wantOf(now, tight), this.limit);
    this.#asked = 0;
    if (now - this.#askedAt >= UNASKED_MS) this.#largest = 0;
    this.#sentAt = now;
    this.#usedThen = used;
    const most = known ? this.#cap : now < this.#tightUntil ? 0 : this.#share(nodes);
    return { used, held: Math.max(0, most - used), want: this.#want };
  }

  /** The answer to the last report. `random` is in [0, 1). */
  answered({ allowance, remaining }: RateGrant, now: number, ttlMs: number, random: number): void {
    this.#cap = this.#usedThen + allowance;
    this.#remaining = remaining;
    this.#othersUsed = Math.max(0, this.limit - remaining - this.#usedThen);
    this.#answeredAt = this.#sentAt;
    this.#knownUntil = this.#sentAt + ttlMs;
    this.#starved = allowance < this.#want;
    this.#lowWater = Math.max(allowance, this.#want) / 2;
    const tight = this.#starved || this.#isTight();
    const calm = this.#calmMs(now - this.#askedAt);
    // Nodes that report in step would always find the same one first at what became free.
    this.dueAt = this.#sentAt + (tight ? TIGHT_MS : calm) * (0.75 + random / 2);
  }

  /** There was no answer, or it could say nothing. */
  unanswered(): void {
    this.dueAt = this.#sentAt + AGAIN_MS;
  }

  /** It is looked at with every report. */
  isUrgent(): boolean {
    return this.dueAt < this.#sentAt + BUSY_MS * 0.75;
  }

  /** Left of the limit over all nodes as best known; of this node's share while nothing is known. */
  remaining(now: number, nodes: number): number {
    if (!this.isKnown(now)) return Math.max(0, Math.min(this.room(now, nodes), this.limit - this.used(now)));
    const left = this.#remaining + this.#usedThen - this.used(now);
    return Math.max(0, Math.min(left, this.limit));
  }

  /** Until nothing is used: what others used is known to have been used before the answer, and no better. */
  resetMs(now: number, windowMs: number): number {
    const own = this.#window?.emptyInMs(now) ?? 0;
    const others = this.isKnown(now) && this.#remaining + this.#usedThen < this.limit;
    return others ? Math.max(own, this.#answeredAt + windowMs - now) : own;
  }

  /** When `missing` may be there, as far as own use decides it; null: it does not. */
  retryMs(now: number, missing: number): number | null {
    if (this.#window === null || this.#window.used(now) === 0) return null;
    return this.#window.freeInMs(now, missing);
  }

  /**
   * No request runs on any node, as far as this one was told. It serves one then, as if it knew nothing: the place may be
   * with another node that has no use for it, and a limit of one would refuse every other caller while nobody is served.
   */
  #allIdle(): boolean {
    return this.#window === null && this.#running === 0 && this.#othersUsed === 0;
  }

  #share(nodes: number): number {
    return Math.max(1, Math.floor(this.limit / nodes));
  }

  #calmMs(unaskedMs: number): number {
    // Places come and go with every request: where there are few, what is known of them is soon too old.
    if (this.#window === null && this.#remaining <= PLACES_FEW) return unaskedMs < UNASKED_MS ? PLACES_MS : CALM_MS;
    if (this.#remaining < this.limit * BUSY_PART) return BUSY_MS;
    return unaskedMs < CALM_MS ? CALM_MS : IDLE_MS;
  }

  #wantOf(now: number, tight: boolean): number {
    const places = this.#window === null;
    const needy = now < this.#needyUntil;
    const unaskedMs = places && needy ? IDLE_PLACE_MS : UNASKED_MS;
    if (now - this.#askedAt >= unaskedMs) return tight || (places && needy) ? 0 : 1;
    // A place is free again with the end of a request, so there is no need to have many at hand.
    const scarce = tight || places;
    const horizon = scarce ? TIGHT_MS * WANT_INTERVALS : CALM_MS * WANT_INTERVALS * WANT_MARGIN;
    return Math.max(this.#largest * (scarce ? 1 : CALM_PIECES), Math.ceil(this.#ratePerMs * horizon));
  }

  /** What is owed is given back as soon as it is there. */
  #countOwed(spare: number, tight: boolean): void {
    const left = this.#window?.left ?? 0;
    this.#owed = tight ? this.#owed + (left - this.#leftThen) * RETURNED_PART : 0;
    this.#leftThen = left;
    const returned = Math.min(Math.floor(this.#owed), spare);
    this.#owed -= returned;
    this.#cap -= returned;
  }

  #isTight(): boolean {
    return this.#remaining < this.limit * TIGHT_PART;
  }
}
