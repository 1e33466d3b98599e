import { describe, expect, it } from "vitest";
import { auditWallet, type WalletEvidence } from "./audit.ts";

const GOOD: WalletEvidence = {
  veId: "ve_a",
  wallet: { purchased: 10n, settled: 12n, escrowed: 1n, debt: 3n },
  leases: 1n,
  daily: 12n,
  events: 12n,
  ledger: 1n,
  ledgerUsage: 12n,
  ledgerDebt: 3n,
  ledgerPurchased: 10n,
};

describe("auditWallet", () => {
  it("finds nothing where everything agrees", () => {
    expect(auditWallet(GOOD)).toEqual([]);
    expect(auditWallet({ ...GOOD, events: null })).toEqual([]);
  });

  it.each(["leases", "daily", "events", "ledger", "ledgerUsage", "ledgerDebt", "ledgerPurchased"] as const)(
    "notices a wrong %s",
    (field) => {
      expect(auditWallet({ ...GOOD, [field]: 2n })).toHaveLength(1);
    },
  );

  it("notices a wallet that is overdrawn", () => {
    const breaks = auditWallet({ ...GOOD, wallet: { ...GOOD.wallet, escrowed: 2n }, leases: 2n });
    expect(breaks).toMatchObject([{ invariant: "available >= 0", veId: "ve_a", found: "-0.000000000001" }]);
  });
});
