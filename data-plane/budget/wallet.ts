/** PURE. What the node knows of one account (a VE's wallet, or a limit), and who waits for it. */

import { type Credits, maxCredits, minCredits } from "../../core/credits.ts";
import { isLimit } from "./accounts.ts";
import type { Reservation, ReserveFailure, WalletBalance } from "./budget.ts";
import { Lease } from "./lease.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";

/** Numbers of `tokenbill.v1.WalletState`. */
export const WalletState = { UNKNOWN: 0, OK: 1, LOW: 2, EXHAUSTED: 3 } as const;

/** A request that waits for the control plane. */
export interface Waiter {
  readonly amount: Credits;
  readonly minimum: Credits;
  readonly done: (result: Reservation | ReserveFailure) => void;
  /** Calls its time-out off. */
  cancel: () => void;
  /** The report under way asks for it. */
  asked: boolean;
  /** The control plane has answered, and what came was too little, or went to others. */
  short: boolean;
}

/** A Reservation as the wallets see it. */
export class Hold implements Reservation {
  readonly account: string;
  held: Credits;
  /** Null: nothing was ever held, because the amount was 0 and the account is not known here. */
  wallet: Wallet | null;
  constructor(account: string, held: Credits, wallet: Wallet | null) {
    this.account = account;
    this.held = held;
    this.wallet = wallet;
  }
}

/**
 * Divides `free` among those who wait, in order: each as much as it would like, but nothing that those behind it need at
 * the least. Who cannot have its minimum is left out.
 */
export function shareOut<W extends Pick<Waiter, "amount" | "minimum">>(
  waiters: readonly W[],
  free: Credits,
): [W, Credits][] {
  const shares: [W, Credits][] = [];
  let minimums = waiters.reduce((sum, { minimum }) => sum + minimum, 0n);
  let left = free;
  for (const waiter of waiters) {
    minimums -= waiter.minimum;
    if (left < waiter.minimum) continue;
    const most = maxCredits(left - minimums, waiter.minimum);
    const credits = minCredits(most, waiter.amount);
    shares.push([waiter, credits]);
    left -= credits;
  }
  return shares;
}

/** A report asks for the one request that waits longest and was left out no more often than this. */
const OLDEST_ASK_MS = 400;

/** What a report asked for, to judge its answer by. */
interface Asked {
  /** The least that somebody waited for. */
  readonly minimum: Credits;
  /** What live requests held and what was spent but not in the report: a lease must cover it first. */
  readonly used: Credits;
}

export class Wallet {
  readonly account: string;
  readonly isLimit: boolean;
  readonly lease: Lease;
  readonly waiters: Waiter[] = [];
  state: number = WalletState.UNKNOWN;
  /** What the control plane last said is left, all reported spend off; null: not heard yet. */
  creditRemaining: Credits | null = null;
  creditBudget: Credits | null = null;
  /** When a limit counts from 0 again, as last heard; 0: never, or it was not heard. */
  resetAt = 0;
  /** Until then, the control plane is not asked again for `exhaustedMinimum` or more. 0: never refused since a top-up. */
  exhaustedUntil = 0;
  exhaustedMinimum: Credits = 0n;
  /** Calls off what asks again then. */
  pause: (() => void) | null = null;
  /** The least slice that a live stream could not get since the last report; null: none. */
  growNeed: Credits | null = null;
  /** Null: nobody waited when the report under way was cut. */
  asked: Asked | null = null;
  /** Credits arrived while a report was under way, so that its answer says nothing about what is left. */
  toppedUp = false;
  /** The account began to count something else while a report was under way, so that its answer is worth nothing. */
  forfeited = false;
  /** A report that speaks of this account is under way. */
  inFlight = false;
  /** Another node needs what is not reserved here. */
  recalled = false;
  /** From then on a report may ask for what the oldest request that was left out needs. */
  oldestsTurnAt = 0;
  /** More was asked for since the lease became low. */
  lowAsked = false;

  constructor(account: string, now: number, grace: Credits) {
    this.account = account;
    this.isLimit = isLimit(account);
    this.lease = new Lease(now);
    this.lease.grace = grace;
  }

  isExhausted(minimum: Credits, now: number): boolean {
    return now < this.exhaustedUntil && minimum >= this.exhaustedMinimum;
  }

  exhaust(minimum: Credits, until: number): void {
    this.exhaustedMinimum = minimum;
    this.exhaustedUntil = until;
  }

  /**
   * What to ask for at the least, or null: the least that anyone waits for; but if the request that waits longest was left
   * out before, now and then what that one needs: a stream of smaller ones would keep it from its share for ever. No more
   * often, since that may mean waiting for a recall, while smaller ones could be served in many quick turns.
   */
  leastWaiting(now: number): Credits | null {
    if (this.isOldestsTurn(now)) return this.waiters[0]!.minimum;
    let least = this.growNeed;
    for (const { minimum } of this.waiters) {
      if (least === null || minimum < least) least = minimum;
    }
    return least;
  }

  private isOldestsTurn(now: number): boolean {
    return this.waiters[0]?.short === true && now >= this.oldestsTurnAt;
  }

  /** What all who wait would like together. */
  amountWaiting(): Credits {
    let sum = this.growNeed ?? 0n;
    for (const { amount } of this.waiters) sum += amount;
    return sum;
  }

  /**
   * What the next report says of this account. What it releases is no longer counted on from here. Who is asked to give
   * back does so even while somebody waits here: what is free is too little for them in any case.
   */
  cutLine(spent: Credits, now: number): LeaseLine {
    const { lease } = this;
    const least = this.leastWaiting(now);
    if (this.isOldestsTurn(now)) this.oldestsTurnAt = now + OLDEST_ASK_MS;
    const giveBack = this.recalled || (least === null && lease.isIdle(now));
    const release = giveBack ? lease.release(now) : 0n;
    const free = lease.free(now, false);
    const need = least !== null && least > free ? least - free : 0n;
    const want = giveBack && least === null ? 0n : lease.want(now, this.amountWaiting());
    this.asked = least === null ? null : { minimum: least, used: lease.unacked - spent + lease.reserved };
    for (const waiter of this.waiters) waiter.asked = true;
    this.recalled = false;
    this.toppedUp = false;
    this.growNeed = null;
    this.inFlight = true;
    return { account: this.account, spent, reserved: lease.reserved, want, release, need, burn: lease.expected(now) };
  }

  /** Takes in what the control plane says. True: what was asked for is not there. */
  take(answer: LeaseAnswer, sentAt: number): boolean {
    const { asked } = this;
    this.lease.renew(answer.granted, answer.ttlMs, sentAt);
    this.state = answer.state;
    this.creditRemaining = answer.creditRemaining;
    this.resetAt = answer.resetAt;
    this.lowAsked = false;
    // Judged by what was so when the report was cut: what began or ended here since then says nothing about the account.
    return asked !== null && answer.granted - asked.used < asked.minimum;
  }

  /** Null if not all of it was heard yet. */
  balance(): WalletBalance | null {
    if (this.creditRemaining === null || this.creditBudget === null) return null;
    return { creditRemaining: this.creditRemaining - this.lease.unacked, creditBudget: this.creditBudget };
  }
}

export interface WalletTotals {
  readonly wallets: number;
  readonly waiting: number;
  readonly leased: Credits;
  readonly unacked: Credits;
  readonly reserved: Credits;
}

/** Sums of the wallets, or of the limits: these count other things, and Credits a second time. */
export function sumWallets(all: Iterable<Wallet>, waiting: number, limits: boolean): WalletTotals {
  let [wallets, leased, unacked, reserved] = [0, 0n, 0n, 0n];
  for (const { isLimit: limit, lease } of all) {
    if (limit !== limits) continue;
    wallets++;
    leased += lease.lease;
    unacked += lease.unacked;
    reserved += lease.reserved;
  }
  return { wallets, waiting, leased, unacked, reserved };
}
