/** Who waits for the control plane, account by account: in which order they are served, and when they are turned away. */

import { type Credits, minCredits } from "../../core/credits.ts";
import type { Reservation, ReserveFailure } from "./budget.ts";
import { type Hold, shareOut, type Waiter, type Wallet } from "./wallet.ts";
import type { Timer } from "./wallet_link.ts";

/** A request waits this long for the control plane, then gets `unavailable`. */
export const RESERVE_WAIT_MS = 2_000;
/** A request that an answer left out, because others got what was there, waits this long, then gets `exhausted`. */
export const SHORT_WAIT_MS = 1_000;
/** An exhausted account is asked about again no sooner than this; who comes meanwhile waits for it. */
export const EXHAUSTED_ASK_MS = 250;
/** Requests that wait for the control plane, all accounts together. */
export const WAITERS_MAX = 10_000;
/** Requests that wait to ask again about one exhausted account; more are told so at once. */
export const EXHAUSTED_WAITERS_MAX = 500;

/** What the line needs of the wallets. */
export interface LineHost {
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  readonly timer: Timer;
  free(wallet: Wallet, now: number): Credits;
  hold(wallet: Wallet, amount: Credits, now: number): Hold;
  /** The next report, which comes at once, asks for what is waited for. */
  ask(wallet: Wallet): void;
  /** Nobody waits there any more. */
  left(wallet: Wallet): void;
}

export class WaitingLine {
  readonly #host: LineHost;
  /** Where requests wait. */
  readonly #crowded = new Set<Wallet>();
  #count = 0;

  constructor(host: LineHost) {
    this.#host = host;
  }

  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count >= WAITERS_MAX;
  }

  add(
    wallet: Wallet,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
    now: number,
  ): void {
    const waiter: Waiter = { amount, minimum, done, cancel: () => undefined, asked: false, short: false };
    waiter.cancel = this.#host.timer(SHORT_WAIT_MS, () => this.#timeOut(wallet, waiter, false));
    wallet.waiters.push(waiter);
    this.#count++;
    this.#crowded.add(wallet);
    if (wallet.isExhausted(minimum, now)) this.#askLater(wallet, now);
    else this.ask(wallet);
  }

  ask(wallet: Wallet): void {
    wallet.pause?.();
    wallet.pause = null;
    this.#host.ask(wallet);
  }

  /** Gives waiting requests what is there, in order, each at least its minimum. Whoever is left over asks (again). */
  serve(wallet: Wallet, now: number): void {
    for (const [waiter, credits] of shareOut(wallet.waiters, this.#host.free(wallet, now))) {
      this.#remove(wallet, waiter);
      waiter.done(this.#host.hold(wallet, credits, now));
    }
    // A limit has other targets behind it: nobody waits for one that is known to be reached.
    if (wallet.isLimit) this.#turnAway(wallet, ({ minimum }) => wallet.isExhausted(minimum, now));
    if (wallet.waiters.length === 0 || wallet.inFlight) return;
    if (wallet.waiters.every(({ minimum }) => wallet.isExhausted(minimum, now))) this.#askLater(wallet, now);
    else this.ask(wallet);
  }

  serveAll(now: number): void {
    for (const wallet of [...this.#crowded]) this.serve(wallet, now);
  }

  /**
   * What was asked for is not there: those it was asked for are told, unless something came free here meanwhile; they ask
   * again then, and so do those who came later.
   */
  refuse(wallet: Wallet, now: number): void {
    const { minimum } = wallet.asked!;
    const shares = shareOut(wallet.waiters, this.#host.free(wallet, now));
    if (shares.some(([waiter]) => waiter.minimum >= minimum)) return;
    if (!wallet.isExhausted(minimum, now)) wallet.exhaust(minimum, now + EXHAUSTED_ASK_MS);
    this.#turnAway(wallet, (waiter) => waiter.asked && waiter.minimum >= minimum);
  }

  #turnAway(wallet: Wallet, which: (waiter: Waiter) => boolean): void {
    for (const waiter of wallet.waiters.filter(which)) {
      this.#remove(wallet, waiter);
      waiter.done("exhausted");
    }
  }

  /** Asks when an exhausted account may be asked about again. */
  #askLater(wallet: Wallet, now: number): void {
    wallet.pause ??= this.#host.timer(wallet.exhaustedUntil - now, () => {
      wallet.pause = null;
      if (wallet.waiters.length > 0) this.ask(wallet);
    });
  }

  #timeOut(wallet: Wallet, waiter: Waiter, last: boolean): void {
    const { timer } = this.#host;
    if (!waiter.short && !last) {
      waiter.cancel = timer(RESERVE_WAIT_MS - SHORT_WAIT_MS, () => this.#timeOut(wallet, waiter, true));
      return;
    }
    this.#remove(wallet, waiter);
    const now = this.#host.now();
    const free = this.#host.free(wallet, now);
    if (free >= waiter.minimum) return waiter.done(this.#host.hold(wallet, minCredits(free, waiter.amount), now));
    waiter.done(waiter.short ? "exhausted" : "unavailable");
  }

  #remove(wallet: Wallet, waiter: Waiter): void {
    const index = wallet.waiters.indexOf(waiter);
    if (index < 0) return;
    wallet.waiters.splice(index, 1);
    waiter.cancel();
    this.#count--;
    if (wallet.waiters.length > 0) return;
    this.#crowded.delete(wallet);
    wallet.pause?.();
    wallet.pause = null;
    this.#host.left(wallet);
  }
}
