/** PURE. What the node knows of one wallet, and who waits for it. */

import { type Credits, maxCredits, minCredits } from "../../core/credits.ts";
import type { Reservation, ReserveFailure, WalletBalance } from "./budget.ts";
import { Lease } from "./lease.ts";

/** Numbers of `tokenbill.v1.WalletState`. */
export const WalletState = { UNKNOWN: 0, OK: 1, LOW: 2, EXHAUSTED: 3 } as const;

/** A request that waits for the control plane. */
export interface Waiter {
  readonly amount: Credits;
  readonly minimum: Credits;
  readonly done: (result: Reservation | ReserveFailure) => void;
  /** Calls its time-out off. */
  cancel: () => void;
}

/** A Reservation as the wallets see it. */
export class Hold implements Reservation {
  readonly veId: string;
  held: Credits;
  /** Null: nothing was ever held, because the amount was 0 and the VE is not known here. */
  wallet: Wallet | null;
  constructor(veId: string, held: Credits, wallet: Wallet | null) {
    this.veId = veId;
    this.held = held;
    this.wallet = wallet;
  }
}

/**
 * Divides `free` among those who wait, in order: each as much as it would like, but nothing that those behind it need at
 * the least. Who cannot have its minimum is left out.
 */
export function shareOut(waiters: readonly Waiter[], free: Credits): [Waiter, Credits][] {
  const shares: [Waiter, Credits][] = [];
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

export class Wallet {
  readonly veId: string;
  readonly lease: Lease;
  readonly waiters: Waiter[] = [];
  state: number = WalletState.UNKNOWN;
  /** What the control plane last said is left, all reported spend off; null: not heard yet. */
  creditRemaining: Credits | null = null;
  creditBudget: Credits | null = null;
  /** Until then, who needs `exhaustedMinimum` or more is told so without asking. */
  exhaustedUntil = 0;
  exhaustedMinimum: Credits = 0n;
  /** The least slice that a live stream could not get since the last report; null: none. */
  growNeed: Credits | null = null;
  /** The least that somebody waited for when the report under way was cut; null: nobody. */
  askedMinimum: Credits | null = null;
  /** A stream took from the lease since then, so that the answer may fall short without the wallet being empty. */
  grown = false;
  /** A report that speaks of this wallet is under way. */
  inFlight = false;
  /** Another node needs what is not reserved here. */
  recalled = false;
  /** More was asked for since the lease became low. */
  lowAsked = false;

  constructor(veId: string, now: number, grace: Credits) {
    this.veId = veId;
    this.lease = new Lease(now);
    this.lease.grace = grace;
  }

  isExhausted(minimum: Credits, now: number): boolean {
    return now < this.exhaustedUntil && minimum >= this.exhaustedMinimum;
  }

  /** The least that anyone waits for, or null. */
  leastWaiting(): Credits | null {
    let least = this.growNeed;
    for (const { minimum } of this.waiters) {
      if (least === null || minimum < least) least = minimum;
    }
    return least;
  }

  /** What all who wait would like together. */
  amountWaiting(): Credits {
    let sum = this.growNeed ?? 0n;
    for (const { amount } of this.waiters) sum += amount;
    return sum;
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

export function sumWallets(all: Iterable<Wallet>, wallets: number, waiting: number): WalletTotals {
  let [leased, unacked, reserved] = [0n, 0n, 0n];
  for (const { lease } of all) {
    leased += lease.lease;
    unacked += lease.unacked;
    reserved += lease.reserved;
  }
  return { wallets, waiting, leased, unacked, reserved };
}
