/** For tests of the wallets: a node without a reporter, whose reports and answers a test makes by hand. */

import { expect } from "vitest";
import type { Reservation, ReserveFailure } from "./budget.ts";
import { WalletState } from "./wallet.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";
import { Wallets } from "./wallets.ts";

export const VE = "ve_a";
export const TTL_MS = 60_000;
export const NOTHING: ReadonlyMap<string, bigint> = new Map();

/** A clock and timers that a test moves by hand. */
export class Time {
  now = 1_000;
  #timers: { at: number; fn: () => void }[] = [];
  readonly timer = (ms: number, fn: () => void): (() => void) => {
    const entry = { at: this.now + ms, fn };
    this.#timers.push(entry);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== entry);
    };
  };
  pass(ms: number): void {
    this.now += ms;
    const due = this.#timers.filter(({ at }) => at <= this.now);
    this.#timers = this.#timers.filter(({ at }) => at > this.now);
    for (const { fn } of due) fn();
  }
}

export interface Asked {
  result: Reservation | ReserveFailure | null;
}

/** What is held, null while nothing is. */
export function held({ result }: Asked): bigint | null {
  return result === null || typeof result === "string" ? null : result.held;
}

export function state(granted: bigint, more: Partial<LeaseAnswer> = {}): LeaseAnswer {
  return { account: VE, granted, ttlMs: TTL_MS, state: WalletState.OK, creditRemaining: 1_000n, resetAt: 0, ...more };
}

export class TestNode {
  readonly time = new Time();
  readonly wallets: Wallets;
  woken: string[] = [];
  balance: { creditRemaining: bigint; creditBudget: bigint; state: number } | null = null;
  flushed: number[] = [];

  constructor(walletsMax?: number) {
    this.wallets = new Wallets(() => this.time.now, this.time.timer, walletsMax);
    this.wallets.attach({
      wake: (reason) => this.woken.push(reason),
      flush: async (ms) => void this.flushed.push(ms),
      getWallet: async () => this.balance,
    });
  }

  cut(spent: ReadonlyMap<string, bigint> = NOTHING): LeaseLine[] {
    return this.wallets.cut(spent, 1_000);
  }

  /** One report and its answer. */
  report(granted: bigint, spent: ReadonlyMap<string, bigint> = NOTHING, more: Partial<LeaseAnswer> = {}): LeaseLine[] {
    const lines = this.cut(spent);
    this.wallets.answer(lines, spent, [state(granted, more)], this.time.now, false);
    return lines;
  }

  ask(amount: bigint, minimum = amount, account = VE): Asked {
    const asked: Asked = { result: null };
    this.wallets.reserveSlow(account, amount, minimum, (result) => {
      expect(asked.result).toBeNull();
      asked.result = result;
    });
    return asked;
  }

  /** A lease of `credits`, asked for as a request would. */
  lease(credits: bigint): void {
    const first = this.ask(1n);
    this.report(credits);
    this.wallets.settle(first.result as Reservation, 0n);
    this.cut();
    this.wallets.answer([], NOTHING, [state(credits)], this.time.now, false);
  }
}
