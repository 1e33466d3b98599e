import fc from "fast-check";
import { expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import { fillUp, resetReference } from "./budget_reset.ts";
import { available, remaining, type WalletRow } from "./wallet.ts";

const c = parseCredits;
const wallet = (purchased: string, settled: string, escrowed: string, debt: string): WalletRow => ({
  purchased: c(purchased),
  settled: c(settled),
  escrowed: c(escrowed),
  debt: c(debt),
});
const MAX = c("1000000");

it.each([
  // [what, wallet, filled with, debt paid, remains]
  ["an empty wallet gets all of it", wallet("0", "0", "0", "0"), "10", "0", "10"],
  ["a used one gets what is missing", wallet("10", "7.5", "0", "0"), "7.5", "0", "10"],
  ["leases remain, and count", wallet("10", "7", "3", "0"), "7", "0", "10"],
  ["a full one gets nothing", wallet("10", "0", "0", "0"), "0", "0", "10"],
  ["one that holds more keeps it", wallet("50", "20", "5", "0"), "0", "0", "30"],
  ["debt is paid first", wallet("10", "13", "0", "3"), "10", "3", "7"],
  ["debt beyond the budget stays in part", wallet("10", "35", "0", "25"), "10", "10", "0"],
  ["no wallet holds more than it can", wallet("999995", "999995", "0", "0"), "5", "0", "5"],
  ["a wallet at its bound gets nothing", wallet("1000000", "999999", "0", "0"), "0", "0", "1"],
] as const)("%s", (_what, before, credits, repaid, left) => {
  const fill = fillUp(before, c("10"), MAX);
  expect(fill.credits).toBe(c(credits));
  expect(fill.repaid).toBe(c(repaid));
  expect(remaining(fill.wallet)).toBe(c(left));
});

it("never takes anything, never leaves less, and twice is once where there is no debt", () => {
  const amount = fc.bigInt({ min: 0n, max: 1000n });
  fc.assert(
    fc.property(fc.tuple(amount, amount, amount, amount, amount), ([free, settled, escrowed, debt, target]) => {
      // A wallet as it can be: with debt there is nothing available.
      const open = debt > 0n ? 0n : free;
      const purchased = open + settled + escrowed - debt;
      fc.pre(purchased >= 0n);
      const before = { purchased, settled, escrowed, debt };
      const { wallet: after, credits, repaid } = fillUp(before, target, 10_000n);
      expect(remaining(after) + repaid).toBe(remaining(before) + credits);
      expect(remaining(after)).toBeGreaterThanOrEqual(remaining(before));
      expect(available(after)).toBeGreaterThanOrEqual(0n);
      expect(after.debt === 0n || available(after) === 0n).toBe(true);
      expect(after.settled).toBe(settled);
      expect(after.escrowed).toBe(escrowed);
      if (after.debt === 0n && repaid === 0n) expect(fillUp(after, target, 10_000n).credits).toBe(0n);
    }),
  );
});

it("has one reference for each period", () => {
  expect(resetReference("ve_a", Date.UTC(2026, 10, 30, 23))).toBe("reset:ve_a:2026-11-30T23:00:00.000Z");
});
