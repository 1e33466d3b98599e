/**
 * The leases of all VEs on this node: admits, asks for more, gives back. The reporter carries what is said here to the
 * control plane and brings the answers; only one report is under way at a time.
 */

import { type Credits, minCredits } from "../../core/credits.ts";
import type { Budget, Reservation, ReserveFailure, WalletBalance } from "./budget.ts";
import { Hold, shareOut, sumWallets, type WalletTotals, type Waiter, Wallet, WalletState } from "./wallet.ts";
import { type LeaseAnswer, type LeaseLine, NO_LINK, type Timer, type WalletLink } from "./wallet_link.ts";

/** A request waits this long for the control plane, then gets `unavailable`. */
export const RESERVE_WAIT_MS = 2_000;
/** An exhausted wallet is asked about again no sooner than this. */
export const EXHAUSTED_ASK_MS = 250;
/** `/tokenbill` waits this long for the control plane, then shows what was last heard. */
export const BALANCE_WAIT_MS = 1_000;
/** VEs with figures in memory. Idle ones are forgotten first. */
export const WALLETS_MAX = 500_000;
/** Requests that wait for the control plane, all VEs together. */
export const WAITERS_MAX = 10_000;
/** VEs that one tick looks at for expiry and idleness. */
const SWEEP_MAX = 20_000;
/** An empty wallet's last known balance is kept this long after its last use. */
const FORGET_MS = 600_000;
/** Old wallets that are looked at to make room for a new one. */
const MAKE_ROOM_MAX = 100;

export class Wallets implements Budget {
  #link: WalletLink = NO_LINK;
  readonly #now: () => number;
  readonly #timer: Timer;
  readonly #walletsMax: number;
  readonly #wallets = new Map<string, Wallet>();
  readonly #grace = new Map<string, Credits>();
  readonly #dirty = new Set<Wallet>();
  readonly #waiting = new Set<Wallet>();
  #waiters = 0;
  #offlineSince: number | null = null;
  #sweep: Iterator<Wallet> | null = null;

  /** `now`: milliseconds of a clock that only goes forward. */
  constructor(now: () => number, timer: Timer, walletsMax = WALLETS_MAX) {
    this.#now = now;
    this.#timer = timer;
    this.#walletsMax = walletsMax;
  }

  attach(link: WalletLink): void {
    this.#link = link;
  }

  reserve(veId: string, amount: Credits): Reservation | null {
    const wallet = this.#wallets.get(veId);
    if (amount === 0n) return new Hold(veId, 0n, wallet ?? null);
    // Those who wait were first.
    if (wallet === undefined || wallet.waiters.length > 0) return null;
    const now = this.#now();
    if (wallet.lease.free(now, this.#offlineSince !== null) < amount) return null;
    return this.#hold(wallet, amount, now);
  }

  reserveSlow(
    veId: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    const now = this.#now();
    const wallet = this.#open(veId, now);
    const at =
      wallet === null || this.#waiters >= WAITERS_MAX
        ? "unavailable"
        : this.#answerAtOnce(wallet, amount, minimum, now);
    if (at !== null) {
      queueMicrotask(() => done(at));
      return;
    }
    const waiter: Waiter = { amount, minimum, done, cancel: () => undefined };
    waiter.cancel = this.#timer(RESERVE_WAIT_MS, () => this.#timeOut(wallet!, waiter));
    wallet!.waiters.push(waiter);
    this.#waiters++;
    this.#waiting.add(wallet!);
    this.#link.wake("need");
  }

  grow(reservation: Reservation, amount: Credits): boolean {
    const hold = reservation as Hold;
    const now = this.#now();
    const wallet = this.#walletOf(hold, now, false);
    if (wallet === null) return amount === 0n;
    hold.wallet = wallet;
    if (wallet.lease.free(now, this.#offlineSince !== null) >= amount) {
      wallet.lease.hold(amount, now);
      wallet.grown = true;
      hold.held += amount;
      this.#noteUse(wallet, now);
      return true;
    }
    if (wallet.growNeed === null || amount < wallet.growNeed) wallet.growNeed = amount;
    if (!wallet.isExhausted(amount, now)) {
      this.#waiting.add(wallet);
      this.#link.wake("need");
    }
    return false;
  }

  settle(reservation: Reservation, spent: Credits): void {
    const hold = reservation as Hold;
    const now = this.#now();
    if (hold.held === 0n && spent === 0n) return;
    const wallet = this.#walletOf(hold, now, true)!;
    wallet.lease.settle(hold.held, spent, now);
    hold.held = 0n;
    this.#dirty.add(wallet);
    this.#noteUse(wallet, now);
  }

  readBalance(veId: string, done: (balance: WalletBalance | null) => void): void {
    void this.#readBalance(veId).then(done);
  }

  remaining(veId: string): Credits | null {
    const wallet = this.#wallets.get(veId);
    return wallet === undefined || wallet.creditRemaining === null
      ? null
      : wallet.creditRemaining - wallet.lease.unacked;
  }

  isLow(veId: string): boolean {
    const wallet = this.#wallets.get(veId);
    if (wallet === undefined) return false;
    // Refused, and not topped up since: what is left is too little for somebody.
    if (wallet.exhaustedUntil > 0) return true;
    return wallet.state === WalletState.LOW || wallet.state === WalletState.EXHAUSTED;
  }

  /** A wallet event of the feed. */
  push(veId: string, event: { readonly recall: boolean; readonly toppedUp: boolean }): void {
    const wallet = this.#wallets.get(veId);
    if (wallet === undefined) return;
    if (event.toppedUp) {
      wallet.exhaustedUntil = 0;
      wallet.state = WalletState.UNKNOWN;
      if (wallet.waiters.length > 0) this.#link.wake("need");
    }
    if (event.recall) {
      wallet.recalled = true;
      this.#dirty.add(wallet);
      this.#link.wake("recall");
    }
  }

  /** What a VE may spend beyond its lease while the control plane is away; from the route table. */
  setGrace(veId: string, grace: Credits): void {
    if (grace > 0n) this.#grace.set(veId, grace);
    else this.#grace.delete(veId);
    const wallet = this.#wallets.get(veId);
    if (wallet !== undefined) wallet.lease.grace = grace;
  }

  /** VEs with a grace amount, to find those that a new snapshot no longer names. */
  graced(): Iterable<string> {
    return this.#grace.keys();
  }

  /** False from the first report that could not be delivered until the next that could. */
  setOnline(online: boolean): void {
    if (online) {
      this.#offlineSince = null;
      return;
    }
    if (this.#offlineSince !== null) return;
    const now = this.#now();
    this.#offlineSince = now;
    for (const wallet of [...this.#waiting]) this.#serve(wallet, now, null);
  }

  /** True if a report would say something. */
  hasWork(): boolean {
    return this.#dirty.size > 0 || this.#waiting.size > 0;
  }

  /**
   * The lease lines of the next report, whose records carry `spentByVe`; at most `max` beyond those of the records.
   * Released Credits are no longer counted on from here.
   */
  cut(spentByVe: ReadonlyMap<string, Credits>, max: number): LeaseLine[] {
    const now = this.#now();
    const lines: LeaseLine[] = [];
    for (const veId of spentByVe.keys()) {
      const wallet = this.#wallets.get(veId);
      if (wallet !== undefined) lines.push(this.#cutLine(wallet, spentByVe, now));
    }
    for (const wallets of [this.#waiting, this.#dirty]) {
      for (const wallet of wallets) {
        if (lines.length >= spentByVe.size + max) return lines;
        // Cutting takes a wallet out of both sets, so none is met twice.
        lines.push(this.#cutLine(wallet, spentByVe, now));
      }
    }
    return lines;
  }

  /** A report was refused and will be cut anew: what it said must be said again. */
  recut(lines: readonly LeaseLine[]): void {
    for (const { veId } of lines) {
      const wallet = this.#wallets.get(veId);
      if (wallet === undefined) continue;
      wallet.inFlight = false;
      this.#dirty.add(wallet);
      if (wallet.waiters.length > 0) this.#waiting.add(wallet);
    }
  }

  /**
   * The answer to the report of `lines`. `sentAt`: when it was sent; the first time if it may have been applied then.
   * `repeated`: it had been applied before, so what it asked for may have been granted then or not at all.
   */
  answer(
    lines: readonly LeaseLine[],
    spentByVe: ReadonlyMap<string, Credits>,
    answers: readonly LeaseAnswer[],
    sentAt: number,
    repeated: boolean,
  ): void {
    const now = this.#now();
    for (const [veId, spent] of spentByVe) this.#wallets.get(veId)?.lease.acknowledge(spent);
    const answered = new Set<Wallet>();
    for (const { veId, granted, ttlMs, state, creditRemaining } of answers) {
      const wallet = this.#wallets.get(veId);
      if (wallet === undefined) continue;
      wallet.lease.renew(granted, ttlMs, sentAt);
      wallet.state = state;
      wallet.creditRemaining = creditRemaining;
      wallet.lowAsked = false;
      answered.add(wallet);
    }
    for (const { veId } of lines) {
      const wallet = this.#wallets.get(veId);
      if (wallet === undefined) continue;
      wallet.inFlight = false;
      this.#serve(wallet, now, answered.has(wallet) && !repeated ? wallet.askedMinimum : null);
    }
  }

  /** Looks at some of the wallets: gives idle leases back, renews those that end soon, forgets empty ones. */
  tick(): void {
    const now = this.#now();
    this.#sweep ??= this.#wallets.values();
    for (let seen = 0; seen < SWEEP_MAX; seen++) {
      const next = this.#sweep.next();
      if (next.done === true) {
        this.#sweep = null;
        return;
      }
      this.#look(next.value, now);
    }
  }

  totals(): WalletTotals {
    return sumWallets(this.#wallets.values(), this.#wallets.size, this.#waiters);
  }

  #look(wallet: Wallet, now: number): void {
    const { lease } = wallet;
    if (lease.lapsed) {
      this.#dirty.add(wallet);
    } else if (lease.isIdle(now)) {
      if (lease.lease > 0n) this.#dirty.add(wallet);
      else if (now - lease.usedAt >= FORGET_MS) this.#forget(wallet);
    } else if (lease.lease > 0n && now >= lease.renewAt) {
      this.#dirty.add(wallet);
    }
  }

  #forget(wallet: Wallet): boolean {
    const busy = !wallet.lease.isEmpty() || wallet.inFlight || wallet.waiters.length > 0;
    if (busy || this.#dirty.has(wallet) || this.#waiting.has(wallet)) return false;
    return this.#wallets.delete(wallet.veId);
  }

  /** The wallet, made if need be; null if there are too many. `always`: there is spend to keep, whatever the limit. */
  #open(veId: string, now: number, always = false): Wallet | null {
    const known = this.#wallets.get(veId);
    if (known !== undefined) return known;
    if (this.#wallets.size >= this.#walletsMax && !this.#makeRoom() && !always) return null;
    const wallet = new Wallet(veId, now, this.#grace.get(veId) ?? 0n);
    this.#wallets.set(veId, wallet);
    return wallet;
  }

  /** A wallet may have been forgotten while a reservation held nothing of it. */
  #walletOf(hold: Hold, now: number, always: boolean): Wallet | null {
    return hold.wallet !== null && hold.held > 0n ? hold.wallet : this.#open(hold.veId, now, always);
  }

  /** Forgets one of the oldest wallets, if one of them is empty. */
  #makeRoom(): boolean {
    let looked = 0;
    for (const wallet of this.#wallets.values()) {
      if (this.#forget(wallet) || ++looked >= MAKE_ROOM_MAX) break;
    }
    return this.#wallets.size < this.#walletsMax;
  }

  #hold(wallet: Wallet, amount: Credits, now: number): Hold {
    wallet.lease.hold(amount, now);
    this.#noteUse(wallet, now);
    return new Hold(wallet.veId, amount, wallet);
  }

  /** Asks for more before the lease is used up. */
  #noteUse(wallet: Wallet, now: number): void {
    if (wallet.lowAsked || !wallet.lease.isLow(now)) return;
    wallet.lowAsked = true;
    this.#dirty.add(wallet);
    this.#link.wake("low");
  }

  /** What can be said without asking, or null. */
  #answerAtOnce(wallet: Wallet, amount: Credits, minimum: Credits, now: number): Hold | ReserveFailure | null {
    if (wallet.waiters.length > 0) return null;
    const free = wallet.lease.free(now, this.#offlineSince !== null);
    if (free >= amount) return this.#hold(wallet, amount, now);
    const away = this.#offlineSince !== null && now - this.#offlineSince >= RESERVE_WAIT_MS;
    const exhausted = wallet.isExhausted(minimum, now);
    if (!away && !exhausted) return null;
    if (free >= minimum) return this.#hold(wallet, minCredits(free, amount), now);
    // An away control plane is tried again in the background, as fast as its back-off allows.
    if (away) this.#link.wake("need");
    return exhausted ? "exhausted" : "unavailable";
  }

  #timeOut(wallet: Wallet, waiter: Waiter): void {
    this.#remove(wallet, waiter);
    const now = this.#now();
    const free = wallet.lease.free(now, this.#offlineSince !== null);
    waiter.done(free >= waiter.minimum ? this.#hold(wallet, minCredits(free, waiter.amount), now) : "unavailable");
  }

  #remove(wallet: Wallet, waiter: Waiter): void {
    const index = wallet.waiters.indexOf(waiter);
    if (index < 0) return;
    wallet.waiters.splice(index, 1);
    waiter.cancel();
    this.#waiters--;
    if (wallet.waiters.length === 0 && wallet.growNeed === null) this.#waiting.delete(wallet);
  }

  #cutLine(wallet: Wallet, spentByVe: ReadonlyMap<string, Credits>, now: number): LeaseLine {
    const { lease } = wallet;
    this.#dirty.delete(wallet);
    this.#waiting.delete(wallet);
    const least = wallet.leastWaiting();
    const free = lease.free(now, false);
    const need = least !== null && least > free ? least - free : 0n;
    const giveBack = least === null && (wallet.recalled || lease.isIdle(now));
    const release = giveBack ? lease.release(now) : 0n;
    const want = giveBack ? 0n : lease.want(now, wallet.amountWaiting());
    wallet.recalled = false;
    wallet.askedMinimum = least;
    wallet.growNeed = null;
    wallet.grown = false;
    wallet.inFlight = true;
    const spent = spentByVe.get(wallet.veId) ?? 0n;
    return { veId: wallet.veId, spent, reserved: lease.reserved, want, release, need };
  }

  /**
   * Gives waiting requests what is there, in order, each at least its minimum. `asked`: the least that was asked for, and
   * the control plane has decided; if that helped nobody, the wallet is exhausted. Whoever is left over asks again.
   */
  #serve(wallet: Wallet, now: number, asked: Credits | null): void {
    const shares = shareOut(wallet.waiters, wallet.lease.free(now, this.#offlineSince !== null));
    for (const [waiter, credits] of shares) {
      this.#remove(wallet, waiter);
      waiter.done(this.#hold(wallet, credits, now));
    }
    if (asked !== null && shares.length === 0 && !wallet.grown && wallet.lease.free(now, false) < asked) {
      wallet.exhaustedUntil = now + EXHAUSTED_ASK_MS;
      wallet.exhaustedMinimum = asked;
      for (const waiter of wallet.waiters.filter(({ minimum }) => minimum >= asked)) {
        this.#remove(wallet, waiter);
        waiter.done("exhausted");
      }
    }
    if (wallet.waiters.length === 0) return;
    this.#waiting.add(wallet);
    this.#link.wake("need");
  }

  async #readBalance(veId: string): Promise<WalletBalance | null> {
    if (this.#offlineSince === null) {
      if (this.#wallets.get(veId)?.lease.unacked) await this.#link.flush(BALANCE_WAIT_MS);
      const read = await this.#link.getWallet(veId, BALANCE_WAIT_MS);
      const wallet = this.#open(veId, this.#now());
      if (read !== null) {
        if (wallet === null) return read;
        wallet.creditRemaining = read.creditRemaining;
        wallet.creditBudget = read.creditBudget;
        wallet.state = read.state;
        return wallet.balance();
      }
    }
    return this.#wallets.get(veId)?.balance() ?? null;
  }
}
