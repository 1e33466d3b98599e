import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import type { Reservation, ReserveFailure } from "./budget.ts";
import { BALANCE_WAIT_MS, EXHAUSTED_ASK_MS, RESERVE_WAIT_MS, Wallets } from "./wallets.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";
import { IDLE_RELEASE_MS } from "./lease.ts";
import { shareOut, WalletState } from "./wallet.ts";

const VE = "ve_a";
const TTL_MS = 60_000;

/** A clock and timers that a test moves by hand. */
class Time {
  now = 1_000;
  #timers: { at: number; fn: () => void }[] = [];
  timer = (ms: number, fn: () => void): (() => void) => {
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

let time: Time;
let wallets: Wallets;
let woken: string[];
let balance: { creditRemaining: bigint; creditBudget: bigint; state: number } | null;
let flushed: number[];

beforeEach(() => {
  time = new Time();
  woken = [];
  flushed = [];
  balance = null;
  wallets = make();
});

function make(max?: number): Wallets {
  const made = new Wallets(() => time.now, time.timer, max);
  made.attach({
    wake: (reason) => woken.push(reason),
    flush: async (ms) => void flushed.push(ms),
    getWallet: async () => balance,
  });
  return made;
}

const NOTHING: ReadonlyMap<string, bigint> = new Map();

function cut(spent: ReadonlyMap<string, bigint> = NOTHING): LeaseLine[] {
  return wallets.cut(spent, 1_000);
}

function state(granted: bigint, more: Partial<LeaseAnswer> = {}): LeaseAnswer {
  return { veId: VE, granted, ttlMs: TTL_MS, state: WalletState.OK, creditRemaining: 1_000n, ...more };
}

/** One report and its answer. */
function report(
  granted: bigint,
  spent: ReadonlyMap<string, bigint> = NOTHING,
  more: Partial<LeaseAnswer> = {},
): LeaseLine[] {
  const lines = cut(spent);
  wallets.answer(lines, spent, [state(granted, more)], time.now, false);
  return lines;
}

function ask(amount: bigint, minimum = amount): { result: Reservation | ReserveFailure | null } {
  const asked: { result: Reservation | ReserveFailure | null } = { result: null };
  wallets.reserveSlow(VE, amount, minimum, (result) => {
    expect(asked.result).toBeNull();
    asked.result = result;
  });
  return asked;
}

function held(asked: { result: unknown }): bigint | null {
  const result = asked.result as Reservation | string | null;
  return result === null || typeof result === "string" ? null : result.held;
}

/** A lease of `credits`, asked for as a request would. */
function lease(credits: bigint): void {
  const first = ask(1n);
  report(credits);
  wallets.settle(first.result as Reservation, 0n);
  cut();
  wallets.answer([], NOTHING, [state(credits)], time.now, false);
}

describe("reserve", () => {
  test("nothing without a lease, but a zero amount always", () => {
    expect(wallets.reserve(VE, 1n)).toBeNull();
    const free = wallets.reserve(VE, 0n)!;
    expect(free.held).toBe(0n);
    wallets.settle(free, 0n);
    expect(wallets.hasWork()).toBe(false);
  });

  test("spend without a reservation is still kept", () => {
    wallets.settle(wallets.reserve(VE, 0n)!, 7n);
    expect(wallets.totals()).toMatchObject({ unacked: 7n, reserved: 0n });
  });

  test("as much as the lease covers, and asks for more below half of it", () => {
    lease(100n);
    woken = [];
    expect(wallets.reserve(VE, 50n)!.held).toBe(50n);
    expect(woken).toEqual([]);
    expect(wallets.reserve(VE, 30n)!.held).toBe(30n);
    expect(wallets.reserve(VE, 30n)).toBeNull();
    expect(wallets.reserve(VE, 20n)!.held).toBe(20n);
    expect(woken).toEqual(["low"]);
    expect(cut()[0]).toMatchObject({ veId: VE, reserved: 100n, need: 0n, release: 0n, want: 160n });
  });

  test("never before those who wait already", () => {
    lease(100n);
    ask(200n, 150n);
    expect(wallets.reserve(VE, 1n)).toBeNull();
  });
});

describe("reserveSlow", () => {
  test("asks for the least that is of use, and takes what it would like", () => {
    const asked = ask(100n, 40n);
    expect(woken).toEqual(["need"]);
    const [line] = cut();
    expect(line).toMatchObject({ need: 40n, want: 100n });
    wallets.answer([line!], NOTHING, [state(70n)], time.now, false);
    expect(held(asked)).toBe(70n);
  });

  test("calls of one VE share one report, and none takes what another needs at the least", () => {
    const asked = [ask(100n, 10n), ask(100n, 10n), ask(100n, 10n)];
    const lines = report(50n);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ need: 10n, want: 300n });
    expect(asked.map(held)).toEqual([30n, 10n, 10n]);
  });

  test("whoever is left over after another was served asks again", () => {
    const asked = [ask(10n), ask(10n)];
    report(10n);
    expect(asked.map(held)).toEqual([10n, null]);
    expect(asked[1]!.result).toBeNull();
    expect(report(20n)[0]).toMatchObject({ need: 10n });
    expect(held(asked[1]!)).toBe(10n);
  });

  test("exhausted is told at once for a while, asked again after it, and forgotten on a top-up", async () => {
    const first = ask(10n);
    report(9n);
    expect(first.result).toBe("exhausted");
    woken = [];
    const second = ask(10n);
    await Promise.resolve();
    expect(second.result).toBe("exhausted");
    expect(woken).toEqual([]);
    const smaller = ask(9n);
    await Promise.resolve();
    expect(held(smaller)).toBe(9n);
    time.pass(EXHAUSTED_ASK_MS);
    woken = [];
    ask(10n);
    expect(woken).toEqual(["need"]);
    report(9n);
    wallets.push(VE, { recall: false, toppedUp: true });
    woken = [];
    ask(10n);
    expect(woken).toEqual(["need"]);
  });

  test("a stream that grew meanwhile does not make a wallet look empty", () => {
    lease(10n);
    const live = wallets.reserve(VE, 1n)!;
    const asked = ask(12n);
    const lines = cut();
    expect(lines[0]).toMatchObject({ need: 3n });
    expect(wallets.grow(live, 5n)).toBe(true);
    wallets.answer(lines, NOTHING, [state(13n)], time.now, false);
    expect(asked.result).toBeNull();
    expect(cut()[0]).toMatchObject({ need: 5n });
  });

  test("a repeated answer decides nothing", () => {
    const asked = ask(10n);
    const lines = cut();
    wallets.answer(lines, NOTHING, [state(0n)], time.now, true);
    expect(asked.result).toBeNull();
    expect(cut()[0]).toMatchObject({ need: 10n });
  });

  test("unavailable when no answer comes in time; what came meanwhile is used", () => {
    const asked = ask(10n);
    time.pass(RESERVE_WAIT_MS - 1);
    expect(asked.result).toBeNull();
    time.pass(1);
    expect(asked.result).toBe("unavailable");
    expect(wallets.totals().waiting).toBe(0);
    // Its report is answered late: no harm, and the lease is there for the next.
    report(10n);
    expect(wallets.reserve(VE, 10n)!.held).toBe(10n);
  });

  test("while the control plane is away: grace, then unavailable at once", async () => {
    wallets.setGrace(VE, 10n);
    const asked = [ask(8n), ask(8n)];
    wallets.setOnline(false);
    expect(asked.map(held)).toEqual([8n, null]);
    time.pass(RESERVE_WAIT_MS);
    expect(asked[1]!.result).toBe("unavailable");
    const later = ask(8n);
    await Promise.resolve();
    expect(later.result).toBe("unavailable");
    const small = ask(8n, 2n);
    await Promise.resolve();
    expect(held(small)).toBe(2n);
    wallets.setOnline(true);
    expect(wallets.reserve(VE, 1n)).toBeNull();
  });

  test("only so many wallets are kept, and empty ones make room", async () => {
    wallets = make(1);
    const first = ask(5n);
    report(5n);
    const other: unknown[] = [];
    const askOther = (): void => wallets.reserveSlow("ve_b", 1n, 1n, (result) => other.push(result));
    askOther();
    await Promise.resolve();
    expect(other).toEqual(["unavailable"]);
    wallets.settle(first.result as Reservation, 5n);
    report(0n, new Map([[VE, 5n]]));
    askOther();
    expect(cut()[0]).toMatchObject({ veId: "ve_b", need: 1n });
  });
});

describe("grow", () => {
  test("within the lease; beyond it a report asks for the slice", () => {
    lease(10n);
    const live = wallets.reserve(VE, 4n)!;
    expect(wallets.grow(live, 6n)).toBe(true);
    expect(live.held).toBe(10n);
    woken = [];
    expect(wallets.grow(live, 6n)).toBe(false);
    expect(woken).toEqual(["need"]);
    expect(report(16n)[0]).toMatchObject({ need: 6n });
    expect(wallets.grow(live, 6n)).toBe(true);
    wallets.settle(live, 15n);
    expect(wallets.totals()).toMatchObject({ reserved: 0n, unacked: 15n, leased: 16n });
  });

  test("an empty wallet is not asked about at every chunk", () => {
    lease(10n);
    const live = wallets.reserve(VE, 10n)!;
    wallets.grow(live, 6n);
    report(10n);
    woken = [];
    wallets.grow(live, 6n);
    expect(woken).toEqual([]);
    time.pass(EXHAUSTED_ASK_MS);
    wallets.grow(live, 6n);
    expect(woken).toEqual(["need"]);
  });
});

describe("giving back", () => {
  test("a recall gives back what is not reserved", () => {
    lease(100n);
    wallets.reserve(VE, 30n);
    woken = [];
    wallets.push(VE, { recall: true, toppedUp: false });
    expect(woken).toEqual(["recall"]);
    expect(report(30n)[0]).toMatchObject({ release: 70n, want: 0n, need: 0n });
    expect(wallets.reserve(VE, 1n)).toBeNull();
  });

  test("an idle lease goes back, and one in use is renewed before it ends", () => {
    lease(100n);
    const live = wallets.reserve(VE, 10n)!;
    wallets.tick();
    report(100n);
    time.pass(TTL_MS / 2);
    wallets.tick();
    expect(report(100n)[0]).toMatchObject({ release: 0n });
    wallets.settle(live, 10n);
    report(90n, new Map([[VE, 10n]]));
    time.pass(IDLE_RELEASE_MS);
    wallets.tick();
    expect(report(0n)[0]).toMatchObject({ release: 90n });
    time.pass(3_600_000);
    wallets.tick();
    expect(wallets.totals().wallets).toBe(0);
  });

  test("a refused report is said again", () => {
    lease(100n);
    wallets.push(VE, { recall: true, toppedUp: false });
    const lines = cut();
    expect(wallets.hasWork()).toBe(false);
    wallets.recut(lines);
    expect(cut()).toHaveLength(1);
  });
});

describe("readBalance", () => {
  const read = (): Promise<unknown> => new Promise((done) => wallets.readBalance(VE, done));

  test("reports first, then asks, and takes off what was spent since", async () => {
    lease(100n);
    wallets.settle(wallets.reserve(VE, 10n)!, 10n);
    balance = { creditRemaining: 500n, creditBudget: 900n, state: WalletState.LOW };
    expect(await read()).toEqual({ creditRemaining: 490n, creditBudget: 900n });
    expect(flushed).toEqual([BALANCE_WAIT_MS]);
    expect(wallets.isLow(VE)).toBe(true);
  });

  test("what was last heard, while the control plane does not answer or is away", async () => {
    expect(await read()).toBeNull();
    balance = { creditRemaining: 500n, creditBudget: 900n, state: WalletState.OK };
    await read();
    balance = null;
    lease(100n);
    report(100n, NOTHING, { creditRemaining: 400n });
    wallets.settle(wallets.reserve(VE, 10n)!, 10n);
    report(90n, new Map([[VE, 10n]]), { creditRemaining: 390n });
    wallets.settle(wallets.reserve(VE, 5n)!, 5n);
    expect(await read()).toEqual({ creditRemaining: 385n, creditBudget: 900n });
    wallets.setOnline(false);
    expect(await read()).toEqual({ creditRemaining: 385n, creditBudget: 900n });
  });
});

test("shareOut gives each at least its minimum or nothing, and never more than there is", () => {
  const waiter = fc
    .tuple(fc.bigInt({ min: 0n, max: 50n }), fc.bigInt({ min: 0n, max: 50n }))
    .map(([minimum, more]) => ({ minimum, amount: minimum + more, done: () => undefined, cancel: () => undefined }));
  fc.assert(
    fc.property(fc.array(waiter, { maxLength: 8 }), fc.bigInt({ min: -20n, max: 300n }), (waiters, free) => {
      const shares = shareOut(waiters, free);
      const sum = shares.reduce((total, [, credits]) => total + credits, 0n);
      expect(sum <= (free > 0n ? free : 0n)).toBe(true);
      for (const [{ minimum, amount }, credits] of shares) expect(credits >= minimum && credits <= amount).toBe(true);
      const minimums = waiters.reduce((total, { minimum }) => total + minimum, 0n);
      if (minimums <= free) expect(shares).toHaveLength(waiters.length);
    }),
  );
});
