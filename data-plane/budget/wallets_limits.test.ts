import { beforeEach, describe, expect, test } from "vitest";
import { Meter, UnitKind, unitsOfKind, UnitSource } from "../../core/meters.ts";
import { limitAccount, LimitKind, limitOf, UNIT } from "./accounts.ts";
import { NOTHING, state, TestNode, type Time } from "./testing.ts";
import { WalletState } from "./wallet.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";
import { EXHAUSTED_ASK_MS } from "./waiting_line.ts";
import { LIMIT_ASK_MS, type Wallets } from "./wallets.ts";

let node: TestNode;
let time: Time;
let wallets: Wallets;
const cut: TestNode["cut"] = (...given) => node.cut(...given);

beforeEach(() => {
  node = new TestNode();
  ({ time, wallets } = node);
});

describe("limits", () => {
  const LIMIT = limitAccount("pm_a", LimitKind.UNITS);
  const of = (granted: bigint, more: Partial<LeaseAnswer> = {}): LeaseAnswer =>
    state(granted, { account: LIMIT, creditRemaining: null, ...more });
  const askLimit = (amount: bigint): unknown[] => {
    const got: unknown[] = [];
    wallets.reserveSlow(LIMIT, amount, amount, (result) => got.push(typeof result === "string" ? result : result.held));
    return got;
  };
  const reportLimit = (granted: bigint, more: Partial<LeaseAnswer> = {}): LeaseLine[] => {
    const lines = cut();
    wallets.answer(lines, NOTHING, [of(granted, more)], time.now, false);
    return lines;
  };

  test("are leased like wallets, and are not counted among them", () => {
    const got = askLimit(5n);
    expect(reportLimit(20n)[0]).toMatchObject({ account: LIMIT, need: 5n, burn: 0n });
    expect(got).toEqual([5n]);
    const held = wallets.reserve(LIMIT, 10n)!;
    wallets.settle(held, 25n);
    const spent = new Map([[LIMIT, 25n]]);
    const [line] = cut(spent);
    expect(line).toMatchObject({ spent: 25n, reserved: 5n });
    wallets.answer([line!], spent, [of(7n)], time.now, false);
    expect(wallets.reserve(LIMIT, 2n)).not.toBeNull();
    expect(wallets.reserve(LIMIT, 1n)).toBeNull();
    expect(wallets.totals()).toMatchObject({ wallets: 0, leased: 0n, reserved: 0n });
  });

  test("one that is used up is passed over without asking, until it is raised or starts again", async () => {
    const first = askLimit(5n);
    const resetAt = time.now + LIMIT_ASK_MS / 2;
    reportLimit(0n, { state: WalletState.EXHAUSTED, resetAt });
    expect([first, wallets.retryMs(LIMIT)]).toEqual([["exhausted"], LIMIT_ASK_MS / 2]);
    const second = askLimit(1n);
    await Promise.resolve();
    expect(second).toEqual(["exhausted"]);
    time.pass(LIMIT_ASK_MS / 2);
    const third = askLimit(5n);
    expect(wallets.hasWork()).toBe(true);
    reportLimit(0n, { state: WalletState.EXHAUSTED });
    expect([third, wallets.retryMs(LIMIT)]).toEqual([["exhausted"], Number.POSITIVE_INFINITY]);
    wallets.push(LIMIT, { recall: false, toppedUp: true });
    const fourth = askLimit(5n);
    expect(reportLimit(5n)[0]).toMatchObject({ need: 5n });
    expect(fourth).toEqual([5n]);
  });

  test("one that others hold is passed over too, for a moment", async () => {
    askLimit(5n);
    reportLimit(0n);
    expect(wallets.retryMs(LIMIT)).toBe(EXHAUSTED_ASK_MS);
    const second = askLimit(5n);
    await Promise.resolve();
    expect(second).toEqual(["exhausted"]);
    time.pass(EXHAUSTED_ASK_MS);
    const third = askLimit(5n);
    reportLimit(5n);
    expect(third).toEqual([5n]);
  });

  test("an answer without a question tells it as well", async () => {
    askLimit(5n);
    reportLimit(20n);
    wallets.settle(wallets.reserve(LIMIT, 15n)!, 20n);
    const spent = new Map([[LIMIT, 20n]]);
    wallets.answer(cut(spent), spent, [of(0n, { state: WalletState.EXHAUSTED })], time.now, false);
    const got = askLimit(5n);
    await Promise.resolve();
    expect(got).toEqual(["exhausted"]);
  });

  test("nobody waits for one that is used up, also who asked for little", () => {
    const large = askLimit(50n);
    const lines = cut();
    const small = askLimit(1n);
    wallets.answer(lines, NOTHING, [of(0n, { state: WalletState.EXHAUSTED })], time.now, false);
    expect([large, small]).toEqual([["exhausted"], ["exhausted"]]);
  });

  test("an answer in the old kind of Unit that is still under way is worth nothing either", () => {
    const got = askLimit(5n);
    const lines = cut();
    wallets.forfeit(LIMIT);
    wallets.answer(lines, NOTHING, [of(1_000n)], time.now, false);
    expect(got).toEqual([]);
    expect(reportLimit(5n)[0]).toMatchObject({ need: 5n });
    expect(got).toEqual([5n]);
  });

  test("a lease of another kind of Unit is worth nothing", () => {
    askLimit(5n);
    reportLimit(20n);
    expect(wallets.reserve(LIMIT, 1n)).not.toBeNull();
    wallets.forfeit(LIMIT);
    expect(wallets.reserve(LIMIT, 1n)).toBeNull();
    expect(reportLimit(3n)).toHaveLength(1);
    // What lives was held in the old kind, and is covered first.
    expect(wallets.reserve(LIMIT, 1n)).toBeNull();
  });
});

test("an account's name says what it is, and Units are counted as core counts them", () => {
  for (const kind of [LimitKind.UNITS, LimitKind.CREDITS]) {
    expect(limitOf(limitAccount("pm_a", kind))).toEqual({ pmId: "pm_a", kind });
  }
  expect(limitOf("ve_a")).toBeNull();
  expect(unitsOfKind([{ meter: Meter.REQUESTS, quantity: 1, source: UnitSource.REPORTED }], UnitKind.REQUESTS)).toBe(
    UNIT,
  );
});
