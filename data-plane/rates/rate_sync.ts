/** Shares the rate limits of this node with the others through the control plane. No request waits for it. */

import type { Logger } from "pino";
import type { RateGrant } from "./account.ts";
import type { RateLimiter, RateLine, TightLimit } from "./rate_limiter.ts";

/** How often it looks for what is due, and how soon it sends when somebody needs it. */
export const LOOK_MS = 50;
export const SEND_MIN_MS = 20;
/**
 * The control plane hears from a node at least so often, so that it knows how many there are; and so often the node asks
 * which limits are tight.
 */
export const HEARTBEAT_MS = 1_000;
/** A call that takes longer is given up. */
export const CALL_TIMEOUT_MS = 1_000;
/** The pause after failures: doubling up to this. */
export const PAUSE_MS_MAX = 2_000;
/** Lines in one report; what is left goes with the next. */
export const LINES_MAX = 500;
/** Lines in the last one. */
const FINAL_LINES_MAX = 10_000;

export interface ShareAnswer {
  /** In the order of the lines; of no meaning if `shared` is false. */
  readonly grants: readonly RateGrant[];
  readonly shared: boolean;
  readonly nodes: number;
  /** From sending on. */
  readonly ttlMs: number;
  /** Of no meaning if it was not asked for, or `shared` is false. */
  readonly tight: readonly TightLimit[];
}

export interface ShareKind {
  /** The node stops. */
  readonly final: boolean;
  readonly withTight: boolean;
}

/** One call of ShareRates. Rejects when there is no answer. */
export type ShareRates = (lines: readonly RateLine[], kind: ShareKind, timeoutMs: number) => Promise<ShareAnswer>;

export interface RateSyncOptions {
  readonly limiter: RateLimiter;
  readonly share: ShareRates;
  readonly log: Logger;
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** Calls `fn` after `ms`; the returned function cancels that. */
  timer(ms: number, fn: () => void): () => void;
}

export interface RateSyncStats {
  readonly answered: number;
  /** Answers that could not tell how the other nodes stand. */
  readonly unshared: number;
  readonly failed: number;
  /** Whether the last answer was a good one. */
  readonly shared: boolean;
}

export class RateSync {
  readonly #options: RateSyncOptions;
  #cancel: (() => void) | null = null;
  /** When the timer fires. */
  #armedAt = Number.POSITIVE_INFINITY;
  #sentAt = Number.NEGATIVE_INFINITY;
  #askedTightAt = Number.NEGATIVE_INFINITY;
  #underWay: Promise<void> | null = null;
  #failures = 0;
  #stopped = true;
  #needed = false;
  #answered = 0;
  #unshared = 0;
  #failed = 0;
  #shared = false;
  #saidUnshared = false;

  constructor(options: RateSyncOptions) {
    this.#options = options;
  }

  get stats(): RateSyncStats {
    return { answered: this.#answered, unshared: this.#unshared, failed: this.#failed, shared: this.#shared };
  }

  /** Sends at once, so that the node knows how many there are before its first request. */
  start(): void {
    this.#stopped = false;
    this.#options.limiter.onNeed = () => this.#need();
    this.#arm(0);
  }

  /** Gives back what is held. Safe to call twice. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#disarm();
    await this.#underWay;
    const { limiter, share, log } = this.#options;
    await share(limiter.all(FINAL_LINES_MAX), { final: true, withTight: false }, CALL_TIMEOUT_MS).catch(
      (error: unknown) =>
        log.debug({ reason: (error as Error).message }, "the last use of rate limits could not be reported"),
    );
  }

  #need(): void {
    this.#needed = true;
    // While calls fail, more of them do not help.
    if (this.#stopped || this.#underWay !== null || this.#failures > 0) return;
    this.#arm(Math.max(0, this.#sentAt + SEND_MIN_MS - this.#options.now()));
  }

  #arm(ms: number): void {
    const at = this.#options.now() + ms;
    if (at >= this.#armedAt) return;
    this.#disarm();
    this.#armedAt = at;
    this.#cancel = this.#options.timer(ms, () => this.#look());
  }

  #disarm(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#armedAt = Number.POSITIVE_INFINITY;
  }

  #look(): void {
    this.#disarm();
    const { limiter, now } = this.#options;
    this.#needed = false;
    const lines = limiter.due(LINES_MAX);
    if (lines.length === 0 && this.#askedTightAt + HEARTBEAT_MS > now()) return this.#arm(LOOK_MS);
    this.#underWay = this.#send(lines).finally(() => {
      this.#underWay = null;
      if (!this.#stopped) this.#arm(this.#pauseMs(lines.length));
    });
  }

  #pauseMs(lines: number): number {
    if (this.#failures > 0) return Math.min(PAUSE_MS_MAX, LOOK_MS * 2 ** Math.min(this.#failures, 16));
    if (!this.#needed && lines < LINES_MAX) return LOOK_MS;
    return Math.max(0, this.#sentAt + SEND_MIN_MS - this.#options.now());
  }

  async #send(lines: readonly RateLine[]): Promise<void> {
    const { limiter, share, now } = this.#options;
    this.#sentAt = now();
    const withTight = this.#askedTightAt + HEARTBEAT_MS <= this.#sentAt;
    if (withTight) this.#askedTightAt = this.#sentAt;
    try {
      const answer = await share(lines, { final: false, withTight }, CALL_TIMEOUT_MS);
      const { grants, shared, nodes, ttlMs, tight } = answer;
      limiter.setNodes(nodes);
      if (shared && grants.length === lines.length) limiter.answered(lines, grants, ttlMs);
      else limiter.unanswered(lines);
      if (shared && withTight) limiter.setTight(tight);
      this.#heard(shared);
    } catch (error) {
      limiter.unanswered(lines);
      this.#missed(error);
    }
  }

  #heard(shared: boolean): void {
    const { log } = this.#options;
    if (this.#failures > 0) log.info({ failures: this.#failures }, "rate limits are reported again");
    this.#failures = 0;
    this.#answered++;
    if (!shared) this.#unshared++;
    if (shared && this.#saidUnshared) log.info("rate limits are shared among the nodes again");
    if (!shared && !this.#saidUnshared) log.warn("rate limits cannot be shared now; each node keeps to its share");
    this.#saidUnshared = !shared;
    this.#shared = shared;
  }

  #missed(error: unknown): void {
    this.#failures++;
    this.#failed++;
    this.#shared = false;
    if (this.#failures !== 1) return;
    const reason = (error as Error).message;
    this.#options.log.warn({ reason }, "rate limits cannot be shared: the control plane does not answer");
  }
}
