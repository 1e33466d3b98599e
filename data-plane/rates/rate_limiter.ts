/**
 * PURE. Admits and refuses by rate limits, from what this node knows: see account.ts. `rate_sync.ts` reports to the control
 * plane what `due` names, and tells what it answers.
 */

import { RateAccount, type RateFigures, type RateGrant } from "./account.ts";
import { type RateHold, RateKind, type RateLimits, type RateRefusal, type Rates, type RateView } from "./rates.ts";
import { WINDOW_MS } from "./window.ts";

/** Subjects with figures in memory; beyond that the ones that were seen first are forgotten, with what they used. */
export const SUBJECTS_MAX = 100_000;
/** A subject that was not used for so long is forgotten. */
export const FORGET_MS = WINDOW_MS;
/** When something may be free, where own use does not tell: of concurrent requests, or while others hold the rest. */
const RETRY_CONCURRENT_MS = 1_000;
const RETRY_HELD_MS = 200;
const RETRY_MS_MAX = WINDOW_MS;
/** What is tight counts so long; it is told anew every second. */
const TIGHT_MS = 3_000;
/** Subjects that one call of `due` looks at, at least; and the part of all of them. */
const SCAN_MIN = 200;
const SCAN_PART = 0.1;

const NO_HOLD = -1;

function tightKey(kind: number, subject: string): string {
  return `${kind}:${subject}`;
}

class RateSubject {
  readonly id: string;
  requests: RateAccount | null = null;
  tokens: RateAccount | null = null;
  concurrent: RateAccount | null = null;
  /** Holds that were not ended yet. */
  open = 0;

  constructor(id: string) {
    this.id = id;
  }
}

function accountOf({ requests, tokens, concurrent }: RateSubject, kind: RateKind): RateAccount | null {
  if (kind === RateKind.REQUESTS) return requests;
  return kind === RateKind.TOKENS ? tokens : concurrent;
}

class Hold implements RateHold {
  readonly #limiter: RateLimiter;
  readonly #subject: RateSubject;
  /** The ticks of what was taken; NO_HOLD: nothing. */
  readonly #requestTick: number;
  readonly #tokenTick: number;
  readonly #tokens: number;
  readonly #counted: boolean;
  #ended = false;

  constructor(
    limiter: RateLimiter,
    subject: RateSubject,
    requestTick: number,
    tokenTick: number,
    tokens: number,
    counted: boolean,
  ) {
    this.#limiter = limiter;
    this.#subject = subject;
    this.#requestTick = requestTick;
    this.#tokenTick = tokenTick;
    this.#tokens = tokens;
    this.#counted = counted;
  }

  settle(tokens: number): void {
    if (!this.#end() || this.#tokenTick === NO_HOLD) return;
    const account = this.#subject.tokens!;
    const used = Math.max(0, Math.ceil(tokens));
    // What was too much goes from where it was taken: taken off the present, it would outlive what it corrects.
    if (used < this.#tokens) account.untake(this.#tokenTick, this.#tokens - used);
    else account.addUse(this.#limiter.now(), used - this.#tokens);
  }

  release(): void {
    if (!this.#end()) return;
    if (this.#requestTick !== NO_HOLD) this.#subject.requests!.untake(this.#requestTick, 1);
    if (this.#tokenTick !== NO_HOLD) this.#subject.tokens!.untake(this.#tokenTick, this.#tokens);
  }

  #end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#subject.open--;
    if (this.#counted) this.#subject.concurrent!.untake(0, 1);
    return true;
  }
}

export interface RateLimiterOptions {
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  readonly subjectsMax?: number;
}

/** A figure of a report, and whose it is. */
export interface RateLine {
  readonly account: RateAccount;
  readonly figures: RateFigures;
}

/** A limit of which less is left than a node's share, or than a node wants. */
export interface TightLimit {
  readonly subject: string;
  readonly kind: RateKind;
}

export interface RateStats {
  readonly subjects: number;
  /** As last told. */
  readonly nodes: number;
  /** By kind. */
  readonly refusals: Readonly<Record<keyof typeof RateKind, number>>;
}

export class RateLimiter implements Rates {
  readonly now: () => number;
  readonly #random: () => number;
  readonly #subjectsMax: number;
  readonly #subjects = new Map<string, RateSubject>();
  /** Those whose report cannot wait until the scan comes by. */
  readonly #urgent = new Set<RateAccount>();
  /** Accounts of forgotten subjects, which are reported as empty once. */
  readonly #leaving: RateAccount[] = [];
  readonly #refusals = { REQUESTS: 0, TOKENS: 0, CONCURRENT: 0 };
  #scan: Iterator<RateSubject> | null = null;
  #nodes = 1;
  /** Limits that are tight, by kind and subject, as told at `#tightAt`. */
  #tight = new Set<string>();
  #tightAt = Number.NEGATIVE_INFINITY;
  /** Called when a report should not wait for its time. */
  onNeed: () => void = () => {};

  constructor({ now, random, subjectsMax = SUBJECTS_MAX }: RateLimiterOptions) {
    this.now = now;
    this.#random = random;
    this.#subjectsMax = subjectsMax;
  }

  get stats(): RateStats {
    return { subjects: this.#subjects.size, nodes: this.#nodes, refusals: this.#refusals };
  }

  take(subject: string, limits: RateLimits, tokens: number, inputTokens: number): RateHold | RateRefusal {
    const now = this.now();
    const { requestsPerMinute, tokensPerMinute, concurrentRequests } = limits;
    if (tokensPerMinute > 0 && inputTokens > tokensPerMinute) {
      return this.#refused({ kind: RateKind.TOKENS, limit: tokensPerMinute, retryMs: 0, tooLarge: true });
    }
    const known = this.#subject(subject, limits);
    const { requests, tokens: tokenAccount, concurrent } = known;
    const expected = Math.ceil(Math.min(tokens, tokensPerMinute));
    const requestRoom = requestsPerMinute > 0 ? requests!.room(now, this.#nodes) : 1;
    if (requestRoom < 1) return this.#refuse(requests!, now, 1);
    const tokenRoom = tokensPerMinute > 0 ? tokenAccount!.room(now, this.#nodes) : 0;
    if (tokenRoom < expected) return this.#refuse(tokenAccount!, now, expected);
    const concurrentRoom = concurrentRequests > 0 ? concurrent!.room(now, this.#nodes) : 1;
    if (concurrentRoom < 1) return this.#refuse(concurrent!, now, 1);
    const requestTick = requestsPerMinute > 0 ? this.#takeFrom(requests!, now, 1, requestRoom) : NO_HOLD;
    const tokenTick = tokensPerMinute > 0 ? this.#takeFrom(tokenAccount!, now, expected, tokenRoom) : NO_HOLD;
    if (concurrentRequests > 0) this.#takeFrom(concurrent!, now, 1, concurrentRoom);
    known.open++;
    return new Hold(this, known, requestTick, tokenTick, expected, concurrentRequests > 0);
  }

  refuses(subject: string, limits: RateLimits, tokens: number): boolean {
    const now = this.now();
    const known = this.#subject(subject, limits);
    const { requestsPerMinute, tokensPerMinute, concurrentRequests } = limits;
    if (requestsPerMinute > 0 && this.#lacks(known.requests!, now, 1)) return true;
    if (tokensPerMinute > 0 && this.#lacks(known.tokens!, now, Math.min(tokens, tokensPerMinute))) return true;
    return concurrentRequests > 0 && this.#lacks(known.concurrent!, now, 1);
  }

  view(subject: string, { requestsPerMinute, tokensPerMinute }: RateLimits): RateView {
    const now = this.now();
    const known = this.#subjects.get(subject);
    const left = (account: RateAccount | null | undefined, limit: number): number =>
      limit === 0 ? 0 : (account?.remaining(now, this.#nodes) ?? limit);
    const reset = (account: RateAccount | null | undefined, limit: number): number =>
      limit === 0 ? 0 : (account?.resetMs(now, WINDOW_MS) ?? 0);
    return {
      remainingRequests: left(known?.requests, requestsPerMinute),
      remainingTokens: left(known?.tokens, tokensPerMinute),
      resetRequestsMs: reset(known?.requests, requestsPerMinute),
      resetTokensMs: reset(known?.tokens, tokensPerMinute),
    };
  }

  /** What is to be reported now, `max` lines at most. They count as reported: `answered` or `unanswered` must follow. */
  due(max: number): RateLine[] {
    const now = this.now();
    const lines: RateLine[] = [];
    while (lines.length < max && this.#leaving.length > 0) {
      lines.push({ account: this.#leaving.pop()!, figures: { used: 0, held: 0, want: 0 } });
    }
    for (const account of this.#urgent) {
      if (lines.length >= max) return lines;
      if (account.dueAt <= now) lines.push(this.#line(account, now));
    }
    this.#scanSome(now, lines, max);
    return lines;
  }

  /** Everything, for a last report. */
  all(max: number): RateLine[] {
    const now = this.now();
    const accounts = [...this.#subjects.values()].flatMap(({ requests, tokens, concurrent }) =>
      [requests, tokens, concurrent].filter((account) => account !== null),
    );
    return accounts.slice(0, max).map((account) => {
      const { used } = account.report(now, this.#nodes);
      return { account, figures: { used, held: 0, want: 0 } };
    });
  }

  answered(lines: readonly RateLine[], grants: readonly RateGrant[], ttlMs: number): void {
    const now = this.now();
    lines.forEach(({ account }, i) => {
      account.answered(grants[i]!, now, ttlMs, this.#random());
      this.#place(account);
    });
  }

  unanswered(lines: readonly RateLine[]): void {
    for (const { account } of lines) {
      account.unanswered();
      this.#place(account);
    }
  }

  setNodes(nodes: number): void {
    this.#nodes = Math.max(1, nodes);
  }

  /** Until it knows more, this node admits nothing by its share of these, and gives back what it holds of them and needs not. */
  setTight(tight: readonly TightLimit[]): void {
    const now = this.now();
    this.#tight = new Set(tight.map(({ subject, kind }) => tightKey(kind, subject)));
    this.#tightAt = now;
    for (const { subject, kind } of tight) {
      const known = this.#subjects.get(subject);
      const account = known === undefined ? null : accountOf(known, kind);
      if (account?.lacking(now, now + TIGHT_MS) !== true) continue;
      account.queued = true;
      this.#urgent.add(account);
      this.onNeed();
    }
  }

  #takeFrom(account: RateAccount, now: number, amount: number, room: number): number {
    const tick = account.take(now, amount);
    this.#hurry(account, now, room - amount);
    return tick;
  }

  #lacks(account: RateAccount, now: number, amount: number): boolean {
    const room = account.room(now, this.#nodes);
    if (room >= amount) return false;
    account.noteDemand(now, amount);
    this.#hurry(account, now, room);
    return true;
  }

  #refuse(account: RateAccount, now: number, amount: number): RateRefusal {
    const room = account.room(now, this.#nodes);
    account.noteDemand(now, amount);
    this.#hurry(account, now, room);
    const missing = amount - room;
    const retryMs =
      account.kind === RateKind.CONCURRENT
        ? RETRY_CONCURRENT_MS
        : account.remaining(now, this.#nodes) >= amount
          ? RETRY_HELD_MS
          : (account.retryMs(now, missing) ?? Math.ceil((missing / account.limit) * WINDOW_MS));
    const bounded = Math.min(Math.max(retryMs, 1), RETRY_MS_MAX);
    return this.#refused({ kind: account.kind, limit: account.limit, retryMs: bounded, tooLarge: false });
  }

  #refused(refusal: RateRefusal): RateRefusal {
    if (refusal.kind === RateKind.REQUESTS) this.#refusals.REQUESTS++;
    else if (refusal.kind === RateKind.TOKENS) this.#refusals.TOKENS++;
    else this.#refusals.CONCURRENT++;
    return refusal;
  }

  #hurry(account: RateAccount, now: number, room: number): void {
    if (!account.hurry(now, room)) return;
    account.queued = true;
    this.#urgent.add(account);
    this.onNeed();
  }

  #subject(id: string, { requestsPerMinute, tokensPerMinute, concurrentRequests }: RateLimits): RateSubject {
    const subject = this.#subjects.get(id) ?? this.#newSubject(id);
    if (requestsPerMinute > 0 && subject.requests?.limit !== requestsPerMinute) {
      subject.requests = this.#account(subject, subject.requests, RateKind.REQUESTS, requestsPerMinute);
    }
    if (tokensPerMinute > 0 && subject.tokens?.limit !== tokensPerMinute) {
      subject.tokens = this.#account(subject, subject.tokens, RateKind.TOKENS, tokensPerMinute);
    }
    if (concurrentRequests > 0 && subject.concurrent?.limit !== concurrentRequests) {
      subject.concurrent = this.#account(subject, subject.concurrent, RateKind.CONCURRENT, concurrentRequests);
    }
    return subject;
  }

  #account(subject: RateSubject, account: RateAccount | null, kind: RateKind, limit: number): RateAccount {
    if (account === null) {
      const tight = this.#tight.has(tightKey(kind, subject.id));
      return new RateAccount(subject.id, kind, limit, tight ? this.#tightAt + TIGHT_MS : 0);
    }
    account.limitChanged(limit, this.#nodes);
    this.#urgent.add(account);
    account.queued = true;
    return account;
  }

  #newSubject(id: string): RateSubject {
    if (this.#subjects.size >= this.#subjectsMax) {
      for (const old of this.#subjects.values()) {
        if (old.open > 0) continue;
        this.#forget(old, false);
        break;
      }
    }
    const subject = new RateSubject(id);
    this.#subjects.set(id, subject);
    return subject;
  }

  /** What is not reported as empty counts at the control plane until it would have left the window. */
  #forget(subject: RateSubject, empty: boolean): void {
    this.#subjects.delete(subject.id);
    for (const account of [subject.requests, subject.tokens, subject.concurrent]) {
      if (account === null) continue;
      account.gone = true;
      // That is how the control plane is told.
      this.#urgent.delete(account);
      account.limit = 0;
      if (empty && account.reported && this.#leaving.length < this.#subjectsMax) this.#leaving.push(account);
    }
  }

  #line(account: RateAccount, now: number): RateLine {
    return { account, figures: account.report(now, this.#nodes) };
  }

  /** The scan goes round all subjects, a part with each call; it forgets what is empty. */
  #scanSome(now: number, lines: RateLine[], max: number): void {
    let left = Math.max(SCAN_MIN, Math.ceil(this.#subjects.size * SCAN_PART));
    this.#scan ??= this.#subjects.values();
    while (left-- > 0) {
      if (lines.length + 3 > max) return;
      const { value: subject, done } = this.#scan.next();
      if (done === true) {
        this.#scan = null;
        return;
      }
      this.#look(subject, now, lines);
    }
  }

  #look(subject: RateSubject, now: number, lines: RateLine[]): void {
    const { requests, tokens, concurrent } = subject;
    const empty = (account: RateAccount | null): boolean => account === null || account.isEmpty(now, FORGET_MS);
    if (subject.open === 0 && empty(requests) && empty(tokens) && empty(concurrent)) return this.#forget(subject, true);
    for (const account of [requests, tokens, concurrent]) {
      if (account !== null && !account.queued && account.dueAt <= now) lines.push(this.#line(account, now));
    }
  }

  #place(account: RateAccount): void {
    account.queued = account.isUrgent() && !account.gone;
    if (account.queued) this.#urgent.add(account);
    else this.#urgent.delete(account);
  }
}
