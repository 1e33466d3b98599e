/**
 * The leases of all accounts on this node: admits, asks for more, gives back. The reporter carries what is said here to the
 * control plane and brings the answers; only one report is under way at a time.
 */

import { type Credits, minCredits } from "../../core/credits.ts";
import type { Budget, Reservation, ReserveFailure, WalletBalance } from "./budget.ts";
import { EXHAUSTED_ASK_MS, EXHAUSTED_WAITERS_MAX, RESERVE_WAIT_MS, WaitingLine } from "./waiting_line.ts";
import { Hold, sumWallets, type WalletTotals, type Wallet, WalletState } from "./wallet.ts";
import { type LeaseAnswer, type LeaseLine, NO_LINK, type Timer, type WalletLink } from "./wallet_link.ts";
import { WALLETS_MAX, WalletStore } from "./wallet_store.ts";

/** A limit that is wholly used up is asked about again no sooner than this, unless it is raised or starts again. */
export const LIMIT_ASK_MS = 5_000;
/** `/tokenbill` waits this long for the control plane, then shows what was last heard. */
export const BALANCE_WAIT_MS = 1_000;
/** An empty account's last known figures are kept this long after its last use. */
const FORGET_MS = 600_000;

export class Wallets implements Budget {
  #link: WalletLink = NO_LINK;
  readonly #now: () => number;
  readonly #store: WalletStore;
  /** With something to say in the next report. */
  readonly #dirty = new Set<Wallet>();
  /** With something to ask for in the next report. */
  readonly #asking = new Set<Wallet>();
  readonly #line: WaitingLine;
  #offlineSince: number | null = null;

  /** `now`: milliseconds of a clock that only goes forward. */
  constructor(now: () => number, timer: Timer, walletsMax = WALLETS_MAX) {
    this.#now = now;
    this.#line = new WaitingLine({
      now,
      timer,
      free: (wallet, at) => wallet.lease.free(at, this.#offline),
      hold: (wallet, amount, at) => this.#hold(wallet, amount, at),
      ask: (wallet) => {
        this.#asking.add(wallet);
        this.#link.wake("need");
      },
      left: (wallet) => {
        if (wallet.growNeed === null) this.#asking.delete(wallet);
      },
    });
    this.#store = new WalletStore(walletsMax, (wallet) => this.#dirty.has(wallet) || this.#asking.has(wallet));
  }

  attach(link: WalletLink): void {
    this.#link = link;
  }

  reserve(account: string, amount: Credits): Reservation | null {
    const wallet = this.#store.get(account);
    if (amount === 0n) return new Hold(account, 0n, wallet ?? null);
    // Those who wait were first.
    if (wallet === undefined || wallet.waiters.length > 0) return null;
    const now = this.#now();
    if (wallet.lease.free(now, this.#offline) < amount) return null;
    return this.#hold(wallet, amount, now);
  }

  reserveSlow(
    account: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    const now = this.#now();
    const wallet = this.#store.open(account, now);
    const at = wallet === null || this.#line.isFull ? "unavailable" : this.#answerAtOnce(wallet, amount, minimum, now);
    if (at !== null) {
      queueMicrotask(() => done(at));
      return;
    }
    this.#line.add(wallet!, amount, minimum, done, now);
  }

  grow(reservation: Reservation, amount: Credits): boolean {
    const hold = reservation as Hold;
    const now = this.#now();
    const wallet = this.#walletOf(hold, now, false);
    if (wallet === null) return amount === 0n;
    hold.wallet = wallet;
    if (wallet.lease.free(now, this.#offline) >= amount) {
      wallet.lease.hold(amount, now);
      hold.held += amount;
      this.#noteUse(wallet, now);
      return true;
    }
    if (wallet.growNeed === null || amount < wallet.growNeed) wallet.growNeed = amount;
    if (!wallet.isExhausted(amount, now)) this.#line.ask(wallet);
    return false;
  }

  settle(reservation: Reservation, spent: Credits): void {
    const hold = reservation as Hold;
    const now = this.#now();
    if (hold.held === 0n && spent === 0n) return;
    const wallet = this.#walletOf(hold, now, true)!;
    const freed = hold.held > spent;
    wallet.lease.settle(hold.held, spent, now);
    hold.held = 0n;
    this.#dirty.add(wallet);
    this.#noteUse(wallet, now);
    // After the caller is done: whoever gets something goes on from there.
    if (freed && wallet.waiters.length > 0) queueMicrotask(() => this.#line.serve(wallet, this.#now()));
  }

  readBalance(veId: string, done: (balance: WalletBalance | null) => void): void {
    void this.#readBalance(veId).then(done);
  }

  remaining(veId: string): Credits | null {
    const wallet = this.#store.get(veId);
    return wallet === undefined || wallet.creditRemaining === null
      ? null
      : wallet.creditRemaining - wallet.lease.unacked;
  }

  isLow(veId: string): boolean {
    const wallet = this.#store.get(veId);
    if (wallet === undefined) return false;
    // Refused, and not topped up since: what is left is too little for somebody.
    if (wallet.exhaustedUntil > 0) return true;
    return wallet.state === WalletState.LOW || wallet.state === WalletState.EXHAUSTED;
  }

  retryMs(account: string): number {
    const wallet = this.#store.get(account);
    // It is with other nodes, or held by live requests: some of that may come back any moment.
    if (wallet === undefined || wallet.state !== WalletState.EXHAUSTED) return EXHAUSTED_ASK_MS;
    return wallet.resetAt === 0 ? Number.POSITIVE_INFINITY : Math.max(0, wallet.resetAt - this.#now());
  }

  /** A wallet event of the feed. */
  push(account: string, event: { readonly recall: boolean; readonly toppedUp: boolean }): void {
    const wallet = this.#store.get(account);
    if (wallet === undefined) return;
    if (event.toppedUp) {
      wallet.exhaustedUntil = 0;
      wallet.state = WalletState.UNKNOWN;
      wallet.toppedUp = wallet.inFlight;
      if (wallet.waiters.length > 0) this.#line.ask(wallet);
    }
    if (event.recall) {
      wallet.recalled = true;
      this.#dirty.add(wallet);
      this.#link.wake("recall");
    }
  }

  /** The account counts another kind of Unit from now on: its lease is worth nothing. */
  forfeit(account: string): void {
    const wallet = this.#store.get(account);
    if (wallet === undefined) return;
    wallet.lease.forfeit();
    wallet.forfeited = wallet.inFlight;
    wallet.exhaustedUntil = 0;
    this.#dirty.add(wallet);
  }

  /** What a VE may spend beyond its lease while the control plane is away; from the route table. */
  setGrace(veId: string, grace: Credits): void {
    this.#store.setGrace(veId, grace);
  }

  /** VEs with a grace amount, to find those that a new snapshot no longer names. */
  graced(): Iterable<string> {
    return this.#store.graced();
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
    // What grace there is goes to those who wait, also for an answer that is late now.
    this.#line.serveAll(now);
  }

  /** True if a report would say something. */
  hasWork(): boolean {
    return this.#dirty.size > 0 || this.#asking.size > 0;
  }

  /**
   * The lines of the next report, whose records carry `spentByAccount`; at most `max` beyond those of the records.
   * Released Credits are no longer counted on from here.
   */
  cut(spentByAccount: ReadonlyMap<string, Credits>, max: number): LeaseLine[] {
    const now = this.#now();
    const lines: LeaseLine[] = [];
    for (const account of spentByAccount.keys()) {
      const wallet = this.#store.get(account);
      if (wallet !== undefined) lines.push(this.#cutLine(wallet, spentByAccount, now));
    }
    for (const wallets of [this.#asking, this.#dirty]) {
      for (const wallet of wallets) {
        if (lines.length >= spentByAccount.size + max) return lines;
        // Cutting takes a wallet out of both sets, so none is met twice.
        lines.push(this.#cutLine(wallet, spentByAccount, now));
      }
    }
    return lines;
  }

  /** A report was refused and will be cut anew: what it said must be said again. */
  recut(lines: readonly LeaseLine[]): void {
    for (const { account } of lines) {
      const wallet = this.#store.get(account);
      if (wallet === undefined) continue;
      this.#forgetReport(wallet);
      this.#dirty.add(wallet);
      if (wallet.waiters.length > 0) this.#asking.add(wallet);
    }
  }

  /**
   * The answer to the report of `lines`. `sentAt`: when it was sent; the first time if it may have been applied then.
   * `repeated`: it had been applied before, so what it asked for may have been granted then or not at all.
   */
  answer(
    lines: readonly LeaseLine[],
    spentByAccount: ReadonlyMap<string, Credits>,
    answers: readonly LeaseAnswer[],
    sentAt: number,
    repeated: boolean,
  ): void {
    const now = this.#now();
    for (const [account, spent] of spentByAccount) this.#store.get(account)?.lease.acknowledge(spent);
    for (const answer of answers) {
      const wallet = this.#store.get(answer.account);
      if (wallet === undefined) continue;
      const short = wallet.take(answer, sentAt);
      if (wallet.forfeited) wallet.lease.forfeit();
      // What was granted before a top-up says nothing about what is left now.
      if (wallet.toppedUp || wallet.forfeited) continue;
      if (wallet.isLimit) this.#noteLimit(wallet, now);
      for (const waiter of wallet.waiters) if (waiter.asked) waiter.short = true;
      if (short && !repeated) this.#line.refuse(wallet, now);
    }
    for (const { account } of lines) {
      const wallet = this.#store.get(account);
      if (wallet === undefined) continue;
      this.#forgetReport(wallet);
      this.#line.serve(wallet, now);
    }
  }

  /** Looks at some of the accounts: gives idle leases back, renews those that end soon, forgets empty ones. */
  tick(): void {
    const now = this.#now();
    this.#store.sweep((wallet) => this.#look(wallet, now));
  }

  /** Sums over all wallets, or over all limits. */
  totals(of: "wallets" | "limits" = "wallets"): WalletTotals {
    return sumWallets(this.#store.all(), this.#line.count, of === "limits");
  }

  /** What is known of one account, to look at; undefined: nothing. */
  look(account: string): Readonly<Wallet> | undefined {
    return this.#store.get(account);
  }

  get #offline(): boolean {
    return this.#offlineSince !== null;
  }

  #look(wallet: Wallet, now: number): void {
    const { lease } = wallet;
    if (lease.lapsed) {
      this.#dirty.add(wallet);
    } else if (lease.isIdle(now)) {
      if (lease.lease > 0n) this.#dirty.add(wallet);
      else if (now - lease.usedAt >= FORGET_MS) this.#store.forget(wallet);
    } else if (lease.lease > 0n && now >= lease.renewAt) {
      this.#dirty.add(wallet);
    }
  }

  /** A wallet may have been forgotten while a reservation held nothing of it. */
  #walletOf(hold: Hold, now: number, always: boolean): Wallet | null {
    return hold.wallet !== null && hold.held > 0n ? hold.wallet : this.#store.open(hold.account, now, always);
  }

  #hold(wallet: Wallet, amount: Credits, now: number): Hold {
    wallet.lease.hold(amount, now);
    this.#noteUse(wallet, now);
    return new Hold(wallet.account, amount, wallet);
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
    const exhausted = wallet.isExhausted(minimum, now);
    const hopeless = exhausted && (wallet.isLimit || wallet.waiters.length >= EXHAUSTED_WAITERS_MAX);
    if (wallet.waiters.length > 0) return hopeless ? "exhausted" : null;
    const free = wallet.lease.free(now, this.#offline);
    if (free >= amount) return this.#hold(wallet, amount, now);
    const away = this.#offlineSince !== null && now - this.#offlineSince >= RESERVE_WAIT_MS;
    if (!away && !exhausted) return null;
    if (free >= minimum) return this.#hold(wallet, minCredits(free, amount), now);
    // An away control plane is tried again in the background, as fast as its back-off allows.
    if (away) this.#link.wake("need");
    // Credits may have come back to the wallet since it was asked. A limit has other targets behind it.
    if (hopeless || (away && exhausted)) return "exhausted";
    return away ? "unavailable" : null;
  }

  #cutLine(wallet: Wallet, spentByAccount: ReadonlyMap<string, Credits>, now: number): LeaseLine {
    this.#dirty.delete(wallet);
    this.#asking.delete(wallet);
    return wallet.cutLine(spentByAccount.get(wallet.account) ?? 0n, now);
  }

  #forgetReport(wallet: Wallet): void {
    wallet.inFlight = false;
    if (wallet.forfeited) this.#dirty.add(wallet);
    wallet.forfeited = false;
    wallet.toppedUp = false;
    wallet.asked = null;
    for (const waiter of wallet.waiters) waiter.asked = false;
  }

  /** Used up wholly: known without asking, until it is raised or starts again. */
  #noteLimit(wallet: Wallet, now: number): void {
    if (wallet.state !== WalletState.EXHAUSTED) {
      wallet.exhaustedUntil = 0;
      return;
    }
    const until = now + LIMIT_ASK_MS;
    wallet.exhaust(0n, wallet.resetAt === 0 ? until : Math.min(until, Math.max(wallet.resetAt, now)));
  }

  async #readBalance(veId: string): Promise<WalletBalance | null> {
    if (!this.#offline) {
      if (this.#store.get(veId)?.lease.unacked) await this.#link.flush(BALANCE_WAIT_MS);
      const read = await this.#link.getWallet(veId, BALANCE_WAIT_MS);
      const wallet = this.#store.open(veId, this.#now());
      if (read !== null) {
        if (wallet === null) return read;
        wallet.creditRemaining = read.creditRemaining;
        wallet.creditBudget = read.creditBudget;
        wallet.state = read.state;
        return wallet.balance();
      }
    }
    return this.#store.get(veId)?.balance() ?? null;
  }
}
