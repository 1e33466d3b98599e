import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Account, NewTransfer } from "./transfer.ts";
import {
  available,
  planAdjustment,
  planGiveBack,
  planTaking,
  planTopUp,
  remaining,
  WALLET_CREDITS_MAX,
  type WalletRow,
} from "./wallet.ts";

const TRANSFER = { veId: "ve_a", merchantId: "mer_a", reference: "pay:x", reason: "paid", transferId: "tr_1" };

const row = (purchased: bigint, settled: bigint, escrowed: bigint, debt: bigint): WalletRow => ({
  purchased,
  settled,
  escrowed,
  debt,
});
const lines = (transfers: readonly NewTransfer[]) =>
  transfers.map(({ debit, credit, credits, reference }) => `${debit} -> ${credit} ${credits} ${reference}`);

describe("planTopUp", () => {
  it.each([
    [row(0n, 0n, 0n, 0n), row(50n, 0n, 0n, 0n), ["payment -> wallet 50 pay:x"]],
    // Debt is repaid first, as far as it goes, and leases are not touched.
    [row(10n, 20n, 5n, 15n), row(60n, 20n, 5n, 0n), ["payment -> wallet 50 pay:x", "wallet -> debt 15 repay:tr_1"]],
    [row(10n, 90n, 0n, 80n), row(60n, 90n, 0n, 30n), ["payment -> wallet 50 pay:x", "wallet -> debt 50 repay:tr_1"]],
  ])("of 50 to %o", (before, after, transfers) => {
    const plan = planTopUp(before, 50n, TRANSFER);
    expect(plan.wallet).toEqual(after);
    expect(lines(plan.transfers)).toEqual(transfers);
  });

  it("is refused where the wallet is full, but what was taken by mistake always comes back", () => {
    const full = row(WALLET_CREDITS_MAX, 0n, 0n, 0n);
    expect(() => planTopUp(full, 1n, TRANSFER)).toThrow(expect.objectContaining({ code: "limit_reached" }));
    expect(planGiveBack(full, 1n, TRANSFER).wallet.purchased).toBe(WALLET_CREDITS_MAX + 1n);
  });
});

describe("planTaking", () => {
  it.each([
    // All there: it leaves.
    [row(100n, 20n, 10n, 0n), 70n, row(30n, 20n, 10n, 0n), ["wallet -> payment 70 pay:x"]],
    // Part of it was spent or is leased: that becomes debt, and nothing is available any more.
    [
      row(100n, 60n, 10n, 0n),
      100n,
      row(0n, 60n, 10n, 70n),
      ["debt -> wallet 70 pay:x:debt", "wallet -> payment 100 pay:x"],
    ],
    [
      row(100n, 130n, 0n, 30n),
      50n,
      row(50n, 130n, 0n, 80n),
      ["debt -> wallet 50 pay:x:debt", "wallet -> payment 50 pay:x"],
    ],
    // Never more than was put in.
    [row(40n, 0n, 0n, 0n), 100n, row(0n, 0n, 0n, 0n), ["wallet -> payment 40 pay:x"]],
    [row(0n, 5n, 0n, 5n), 100n, row(0n, 5n, 0n, 5n), []],
  ])("from %o of %d", (before, entitled, after, transfers) => {
    const plan = planTaking(before, entitled, TRANSFER);
    expect(plan.wallet).toEqual(after);
    expect(lines(plan.transfers)).toEqual(transfers);
    expect(plan.becameDebt).toBe(plan.wallet.debt - before.debt);
    expect(plan.taken).toBe(before.purchased - after.purchased);
  });
});

it("keeps every wallet sound and every transfer balanced, whatever follows what", () => {
  const credits = fc.bigInt(1n, 1000n);
  const step = fc.oneof(
    fc.record({ kind: fc.constant("pay" as const), credits }),
    fc.record({ kind: fc.constant("take" as const), credits }),
    fc.record({ kind: fc.constant("back" as const), credits }),
    fc.record({
      kind: fc.constant("adjust" as const),
      credits: fc.bigInt(-1000n, 1000n).filter((each) => each !== 0n),
    }),
    fc.record({ kind: fc.constant("spend" as const), credits }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let wallet = row(0n, 0n, 0n, 0n);
      const sums: Record<Account, bigint> = { wallet: 0n, usage: 0n, debt: 0n, adjustment: 0n, payment: 0n };
      for (const { kind, credits: amount } of steps) {
        if (kind === "spend") {
          // As a report does: what is not covered is new debt.
          const free = available(wallet);
          const owed = amount > free ? amount - free : 0n;
          wallet = { ...wallet, settled: wallet.settled + amount, debt: wallet.debt + owed };
          sums.wallet -= amount - owed;
          sums.usage += amount;
          sums.debt -= owed;
          continue;
        }
        if (kind === "adjust" && amount < 0n && -amount > available(wallet)) continue;
        if (kind === "adjust" && wallet.purchased + amount < 0n) continue;
        const plan =
          kind === "pay"
            ? planTopUp(wallet, amount, TRANSFER)
            : kind === "back"
              ? planGiveBack(wallet, amount, TRANSFER)
              : kind === "take"
                ? planTaking(wallet, amount, TRANSFER)
                : planAdjustment(wallet, { ...TRANSFER, credits: amount });
        wallet = plan.wallet;
        for (const transfer of plan.transfers) {
          expect(transfer.credits).toBeGreaterThan(0n);
          sums[transfer.debit] -= transfer.credits;
          sums[transfer.credit] += transfer.credits;
        }
        expect(new Set(plan.transfers.map(({ id }) => id)).size).toBe(plan.transfers.length);
      }
      expect(available(wallet)).toBeGreaterThanOrEqual(0n);
      expect(wallet.purchased).toBeGreaterThanOrEqual(0n);
      expect(wallet.debt === 0n || available(wallet) === 0n).toBe(true);
      expect(-(sums.adjustment + sums.payment)).toBe(wallet.purchased);
      expect(-sums.debt).toBe(wallet.debt);
      expect(sums.usage).toBe(wallet.settled);
      expect(sums.wallet).toBe(remaining(wallet));
    }),
  );
});
