/** Who waits for the control plane, and what becomes of them. */

import { beforeEach, describe, expect, test } from "vitest";
import type { Reservation } from "./budget.ts";
import { held, NOTHING, state, TestNode, type Time, VE } from "./testing.ts";
import { EXHAUSTED_ASK_MS, EXHAUSTED_WAITERS_MAX, RESERVE_WAIT_MS, SHORT_WAIT_MS } from "./waiting_line.ts";
import type { Wallets } from "./wallets.ts";

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

describe("reserveSlow", () => {
  test("asks for the least that is of use, and takes what it would like", () => {
    const asked = ask(100n, 40n);
    expect(node.woken).toEqual(["need"]);
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

  test("an exhausted wallet is asked again after a while; who comes before that waits for it", () => {
    const first = ask(10n);
    report(9n);
    expect(first.result).toBe("exhausted");
    node.woken = [];
    const second = ask(10n);
    time.pass(EXHAUSTED_ASK_MS - 1);
    expect([second.result, node.woken, wallets.hasWork()]).toEqual([null, [], false]);
    time.pass(1);
    expect(node.woken).toEqual(["need"]);
    expect(report(9n)[0]).toMatchObject({ need: 1n });
    expect(second.result).toBe("exhausted");
    // Credits that came back meanwhile, from wherever, are found.
    const third = ask(10n);
    time.pass(EXHAUSTED_ASK_MS);
    report(10n);
    expect(held(third)).toBe(10n);
  });

  test("a smaller wish does not wait for a larger one that was refused", async () => {
    ask(10n);
    report(9n);
    const smaller = ask(9n);
    await Promise.resolve();
    expect(held(smaller)).toBe(9n);
    node.woken = [];
    ask(8n);
    expect(node.woken).toEqual(["need"]);
  });

  test("a top-up ends the wait", () => {
    ask(10n);
    report(9n);
    const second = ask(10n);
    node.woken = [];
    wallets.push(VE, { recall: false, toppedUp: true });
    expect(node.woken).toEqual(["need"]);
    report(10n);
    expect(held(second)).toBe(10n);
  });

  test("an answer that a top-up overtook refuses nobody", () => {
    const asked = ask(10n);
    const lines = cut();
    wallets.push(VE, { recall: false, toppedUp: true });
    wallets.answer(lines, NOTHING, [state(0n)], time.now, false);
    expect(asked.result).toBeNull();
    report(10n);
    expect(held(asked)).toBe(10n);
  });

  test("who came after the report was cut is not refused by its answer", () => {
    const first = ask(10n);
    const lines = cut();
    const second = ask(10n);
    wallets.answer(lines, NOTHING, [state(0n)], time.now, false);
    expect([first.result, second.result]).toEqual(["exhausted", null]);
    time.pass(EXHAUSTED_ASK_MS);
    report(10n);
    expect(held(second)).toBe(10n);
  });

  test("what a live request gives back goes to those who wait, at once", async () => {
    lease(10n);
    const live = wallets.reserve(VE, 10n)!;
    const asked = ask(6n);
    cut();
    wallets.settle(live, 3n);
    await Promise.resolve();
    expect(held(asked)).toBe(6n);
  });

  test("a request that began after the report was cut does not make a wallet look empty", async () => {
    lease(10n);
    const live = wallets.reserve(VE, 4n)!;
    expect(wallets.grow(live, 8n)).toBe(false);
    const lines = cut();
    expect(lines[0]).toMatchObject({ need: 2n });
    wallets.reserve(VE, 6n);
    // What the stream asked for is granted, and spent otherwise.
    wallets.answer(lines, NOTHING, [state(12n)], time.now, false);
    node.woken = [];
    const asked = ask(5n);
    await Promise.resolve();
    expect([asked.result, node.woken]).toEqual([null, ["need"]]);
  });

  test("only so many wait to ask again about one exhausted wallet", async () => {
    ask(10n);
    report(0n);
    const waiting = Array.from({ length: EXHAUSTED_WAITERS_MAX }, () => ask(10n));
    const more = ask(10n);
    await Promise.resolve();
    expect([waiting.at(-1)!.result, more.result]).toEqual([null, "exhausted"]);
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
    // But if nothing better comes in time, that is what is known.
    time.pass(SHORT_WAIT_MS);
    expect(asked.result).toBe("exhausted");
  });

  test("who is left out because others got what was there is asked for next, and told if it is not there", () => {
    const large = ask(100n);
    const small = [ask(1n)];
    expect(report(1n)[0]).toMatchObject({ need: 1n });
    small.push(ask(1n));
    expect(report(2n)[0]).toMatchObject({ need: 100n });
    expect(small.map(held)).toEqual([1n, 1n]);
    expect(large.result).toBe("exhausted");
  });

  test("smaller requests that keep coming do not keep a larger one from its share", () => {
    const large = ask(100n);
    const small: ReturnType<typeof ask>[] = [];
    for (let round = 0; round < 2; round++) {
      small.push(ask(1n));
      const [line] = cut();
      // What is asked for at the least, but half of what is left if that is more.
      const grant = line!.need > 50n ? line!.need : 50n;
      wallets.answer([line!], NOTHING, [state(wallets.totals().leased + grant)], time.now, false);
    }
    expect([large, ...small].map(held)).toEqual([100n, 1n, null]);
    expect(cut()[0]).toMatchObject({ need: 1n });
  });

  test("who was left out and never got a straight answer is told after a while", () => {
    const large = ask(100n);
    ask(1n);
    report(1n);
    wallets.answer(cut(), NOTHING, [state(1n)], time.now, true);
    expect(large.result).toBeNull();
    time.pass(SHORT_WAIT_MS);
    expect(large.result).toBe("exhausted");
  });

  test("unavailable when no answer comes in time; what came meanwhile is used", () => {
    const asked = ask(10n);
    time.pass(SHORT_WAIT_MS);
    time.pass(RESERVE_WAIT_MS - SHORT_WAIT_MS - 1);
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
    // Their report is under way, and does not get through.
    cut();
    wallets.setOnline(false);
    expect(asked.map(held)).toEqual([8n, null]);
    time.pass(SHORT_WAIT_MS);
    time.pass(RESERVE_WAIT_MS - SHORT_WAIT_MS);
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
    start(1);
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
    expect(cut()[0]).toMatchObject({ account: "ve_b", need: 1n });
  });
});
