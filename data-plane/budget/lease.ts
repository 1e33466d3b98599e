/**
 * PURE arithmetic of this node's lease of one account (see accounts.ts). Times are milliseconds of one clock that only
 * goes forward.
 *
 *     lease     what the last answer granted, less what was given back since
 *     unacked   spend of finished requests that no answered report has carried
 *     reserved  held by live requests
 *     free      lease - unacked - reserved: what a new request may hold
 */

import { type Credits, maxCredits, minCredits } from "../../core/credits.ts";

/** A lease that nothing used for this long is given back. */
export const IDLE_RELEASE_MS = 30_000;
/** A lease with a longer ttl than this is one of an ample account, made to outlive an outage of the control plane. */
const ORDINARY_TTL_MS = 60_000;
/** Such a lease is kept idle for this long: nobody misses it, and who does can recall it. */
export const IDLE_AMPLE_MS = 900_000;
/** A lease is renewed when half of its ttl is over, and no later than this, so that an outage finds it nearly full. */
export const RENEW_MS_MAX = 60_000;
/** The node stops this much before the ttl ends, or a tenth of the ttl if that is less: clocks run at different speeds. */
export const EXPIRY_MARGIN_MS = 2_000;
/** How far ahead a lease should last. */
export const BURN_MS = 10_000;
/** Until the burn is known, and for bursts, as many requests of the present size as should fit into the lease. */
const AHEAD_REQUESTS = 8n;
/** The burn is brought up to date in steps of at least this, which keeps the division off most requests. */
const BURN_STEP_MS = 100;

export class Lease {
  lease: Credits = 0n;
  unacked: Credits = 0n;
  reserved: Credits = 0n;
  /** After this the lease may be with somebody else. */
  expiresAt = 0;
  /** From here on the lease should be renewed, if it is still of use. */
  renewAt = 0;
  /** Some of it ran out here, while the server may still hold it for us: the next answer tells. */
  lapsed = false;
  /** When a request last held or spent something. */
  usedAt: number;
  /** What may be spent beyond the lease while the control plane is away. */
  grace: Credits = 0n;
  #ttlMs = 0;
  #amount: Credits = 0n;
  #burn: Credits = 0n;
  #burnAdded: Credits = 0n;
  #burnAt: number;

  constructor(now: number) {
    this.usedAt = now;
    this.#burnAt = now;
  }

  /** What a new request may hold now; negative when more was spent than the lease covers. */
  free(now: number, offline: boolean): Credits {
    const used = this.unacked + this.reserved;
    // What is spent or held stays covered for as long as the server holds an expired lease; the rest may be gone.
    if (now >= this.expiresAt && this.lease > used) {
      this.lease = maxCredits(used, 0n);
      this.lapsed = true;
    }
    return offline ? this.lease + this.grace - used : this.lease - used;
  }

  /** Holds `amount`; the caller has looked at `free`. */
  hold(amount: Credits, now: number): void {
    this.reserved += amount;
    this.#amount = amount;
    this.usedAt = now;
  }

  settle(held: Credits, spent: Credits, now: number): void {
    this.reserved -= held;
    this.usedAt = now;
    if (spent === 0n) return;
    this.unacked += spent;
    this.#burnAdded += spent;
  }

  /** What was spent in the last `BURN_MS`, older spend fading out. */
  burn(now: number): Credits {
    const elapsed = now - this.#burnAt;
    if (elapsed >= BURN_STEP_MS) {
      const left = BigInt(Math.max(0, BURN_MS - Math.floor(elapsed)));
      this.#burn = (this.#burn * left) / BigInt(BURN_MS) + this.#burnAdded;
      this.#burnAdded = 0n;
      this.#burnAt = now;
      return this.#burn;
    }
    return this.#burn + this.#burnAdded;
  }

  /** What is expected to be spent within `BURN_MS`. */
  expected(now: number): Credits {
    return maxCredits(this.burn(now), AHEAD_REQUESTS * this.#amount);
  }

  /** What the node would like in addition; `waiting` is the sum of what waiting requests would like to hold. */
  want(now: number, waiting: Credits): Credits {
    const target = this.expected(now) + waiting;
    const free = this.free(now, false);
    // Half full is full enough: asking for every drop would move figures about for nothing.
    if (waiting === 0n && free * 2n >= target) return 0n;
    return target > free ? target - free : 0n;
  }

  isIdle(now: number): boolean {
    const idleMs = this.#ttlMs > ORDINARY_TTL_MS ? IDLE_AMPLE_MS : IDLE_RELEASE_MS;
    return this.reserved === 0n && now - this.usedAt >= idleMs;
  }

  /** Less than half of the lease is free. */
  isLow(now: number): boolean {
    return this.lease > 0n && this.free(now, false) * 2n < this.lease;
  }

  /** The account counts something else from now on: what was granted is worth nothing. The next answer tells. */
  forfeit(): void {
    this.lease = 0n;
    this.lapsed = true;
  }

  /** Stops counting on everything that is free, and returns it. */
  release(now: number): Credits {
    const free = this.free(now, false);
    if (free <= 0n) return 0n;
    this.lease -= free;
    return free;
  }

  /** The lease after an answer, whose report was sent at `sentAt`. `acknowledged`: the spend that the report carried. */
  renew(granted: Credits, ttlMs: number, sentAt: number): void {
    this.lease = granted;
    this.lapsed = false;
    const ttl = Math.max(0, ttlMs);
    this.#ttlMs = ttl;
    this.expiresAt = sentAt + ttl - Math.min(EXPIRY_MARGIN_MS, ttl / 10);
    this.renewAt = sentAt + Math.min(ttl / 2, RENEW_MS_MAX);
  }

  /** A report with this spend was answered; `renew` follows with the new figure. */
  acknowledge(spent: Credits): void {
    this.unacked -= spent;
    this.lease -= minCredits(spent, this.lease);
  }

  /** Nothing is held, owed or live: forgetting it loses nothing. */
  isEmpty(): boolean {
    return !this.lapsed && this.lease === 0n && this.unacked === 0n && this.reserved === 0n;
  }
}
