/** PURE. The accounts that are in memory: idle ones are forgotten, so that there is room for those in use. */

import type { Credits } from "../../core/credits.ts";
import { Wallet } from "./wallet.ts";

/** Accounts with figures in memory. Idle ones are forgotten first. */
export const WALLETS_MAX = 500_000;
/** Accounts that one tick looks at for expiry and idleness. */
const SWEEP_MAX = 20_000;
/** Old accounts that are looked at to make room for a new one. */
const MAKE_ROOM_MAX = 100;

export class WalletStore {
  readonly #max: number;
  readonly #wallets = new Map<string, Wallet>();
  readonly #grace = new Map<string, Credits>();
  /** True if somebody else still points at it. */
  readonly #isNeeded: (wallet: Wallet) => boolean;
  #sweep: Iterator<Wallet> | null = null;

  constructor(max: number, isNeeded: (wallet: Wallet) => boolean) {
    this.#max = max;
    this.#isNeeded = isNeeded;
  }

  get(account: string): Wallet | undefined {
    return this.#wallets.get(account);
  }

  all(): Iterable<Wallet> {
    return this.#wallets.values();
  }

  /** The account, made if need be; null if there are too many. `always`: there is spend to keep, whatever the limit. */
  open(account: string, now: number, always = false): Wallet | null {
    const known = this.#wallets.get(account);
    if (known !== undefined) return known;
    if (this.#wallets.size >= this.#max && !this.#makeRoom() && !always) return null;
    const wallet = new Wallet(account, now, this.#grace.get(account) ?? 0n);
    this.#wallets.set(account, wallet);
    return wallet;
  }

  /** True if it is gone. */
  forget(wallet: Wallet): boolean {
    const busy = !wallet.lease.isEmpty() || wallet.inFlight || wallet.waiters.length > 0;
    if (busy || this.#isNeeded(wallet)) return false;
    return this.#wallets.delete(wallet.account);
  }

  /** Passes some of the accounts to `look`, going on where the last call stopped. */
  sweep(look: (wallet: Wallet) => void): void {
    this.#sweep ??= this.#wallets.values();
    for (let seen = 0; seen < SWEEP_MAX; seen++) {
      const next = this.#sweep.next();
      if (next.done === true) {
        this.#sweep = null;
        return;
      }
      look(next.value);
    }
  }

  setGrace(veId: string, grace: Credits): void {
    if (grace > 0n) this.#grace.set(veId, grace);
    else this.#grace.delete(veId);
    const wallet = this.#wallets.get(veId);
    if (wallet !== undefined) wallet.lease.grace = grace;
  }

  graced(): Iterable<string> {
    return this.#grace.keys();
  }

  /** Forgets one of the oldest accounts, if one of them is empty. */
  #makeRoom(): boolean {
    let looked = 0;
    for (const wallet of this.#wallets.values()) {
      if (this.forget(wallet) || ++looked >= MAKE_ROOM_MAX) break;
    }
    return this.#wallets.size < this.#max;
  }
}
