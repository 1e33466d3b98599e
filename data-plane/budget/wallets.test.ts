import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import type { Reservation } from "./budget.ts";
import { IDLE_RELEASE_MS, RENEW_MS_MAX } from "./lease.ts";
import { held, NOTHING, state, TestNode, type Time, TTL_MS, VE } from "./testing.ts";
import { shareOut, WalletState } from "./wallet.ts";
import { EXHAUSTED_ASK_MS } from "./waiting_line.ts";
import { BALANCE_WAIT_MS, type Wallets } from "./wallets.ts";

let node: TestNode;
let time: Time;
let wallets: Wallets;
const cut: TestNode["cut"] = (...given) => node.cut(...given);
const report: TestNode["report"] = (...given) => node.report(...given);
const ask: TestNode["ask"] = (...given) => node.ask(...given);
const lease: TestNode["lease"] = (credits) => node.lease(credits);

beforeEach(() => {
  start();
});

function start(walletsMax?: number): void {
  node = new TestNode(walletsMax);
  ({ time, wallets } = node);
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
    node.woken = [];
    expect(wallets.reserve(VE, 50n)!.held).toBe(50n);
    expect(node.woken).toEqual([]);
    expect(wallets.reserve(VE, 30n)!.held).toBe(30n);
    expect(wallets.reserve(VE, 30n)).toBeNull();
    expect(wallets.reserve(VE, 20n)!.held).toBe(20n);
    expect(node.woken).toEqual(["low"]);
    expect(cut()[0]).toMatchObject({ account: VE, reserved: 100n, need: 0n, release: 0n, want: 160n });
  });

  test("never before those who wait already", () => {
    lease(100n);
    ask(200n, 150n);
    expect(wallets.reserve(VE, 1n)).toBeNull();
  });
});

describe("grow", () => {
  test("within the lease; beyond it a report asks for the slice", () => {
    lease(10n);
    const live = wallets.reserve(VE, 4n)!;
    expect(wallets.grow(live, 6n)).toBe(true);
    expect(live.held).toBe(10n);
    node.woken = [];
    expect(wallets.grow(live, 6n)).toBe(false);
    expect(node.woken).toEqual(["need"]);
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
    node.woken = [];
    wallets.grow(live, 6n);
    expect(node.woken).toEqual([]);
    time.pass(EXHAUSTED_ASK_MS);
    wallets.grow(live, 6n);
    expect(node.woken).toEqual(["need"]);
  });
});

describe("giving back", () => {
  test("a recall gives back what is not reserved", () => {
    lease(100n);
    wallets.reserve(VE, 30n);
    node.woken = [];
    wallets.push(VE, { recall: true, toppedUp: false });
    expect(node.woken).toEqual(["recall"]);
    expect(report(30n)[0]).toMatchObject({ release: 70n, want: 0n, need: 0n });
    expect(wallets.reserve(VE, 1n)).toBeNull();
  });

  test("a recall is obeyed also while somebody waits here, who could not have it anyway", () => {
    lease(100n);
    const asked = ask(150n, 120n);
    wallets.push(VE, { recall: true, toppedUp: false });
    const lines = cut();
    expect(lines[0]).toMatchObject({ release: 100n, need: 120n });
    wallets.answer(lines, NOTHING, [state(120n)], time.now, false);
    expect(held(asked)).toBe(120n);
  });

  test("the lease of an ample wallet is kept for longer, and is renewed every minute", () => {
    const ample = { ttlMs: 900_000 };
    const first = ask(10n);
    report(1_000n, NOTHING, ample);
    wallets.settle(first.result as Reservation, 0n);
    report(1_000n, NOTHING, ample);
    for (let minute = 0; minute < 14; minute++) {
      time.pass(RENEW_MS_MAX - 1);
      wallets.tick();
      wallets.tick();
      expect(wallets.hasWork()).toBe(false);
      time.pass(1);
      wallets.tick();
      expect(report(1_000n, NOTHING, ample)[0]).toMatchObject({ release: 0n, burn: 80n });
    }
    time.pass(RENEW_MS_MAX);
    wallets.tick();
    expect(report(0n)[0]).toMatchObject({ release: 1_000n });
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
    node.balance = { creditRemaining: 500n, creditBudget: 900n, state: WalletState.LOW };
    expect(await read()).toEqual({ creditRemaining: 490n, creditBudget: 900n });
    expect(node.flushed).toEqual([BALANCE_WAIT_MS]);
    expect(wallets.isLow(VE)).toBe(true);
  });

  test("what was last heard, while the control plane does not answer or is away", async () => {
    expect(await read()).toBeNull();
    node.balance = { creditRemaining: 500n, creditBudget: 900n, state: WalletState.OK };
    await read();
    node.balance = null;
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
    .map(([minimum, more]) => ({ minimum, amount: minimum + more }));
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
