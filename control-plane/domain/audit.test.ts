import { describe, expect, it } from "vitest";
import {
  ALL_INVARIANTS,
  auditEvents,
  auditRecords,
  auditWallet,
  type EventEvidence,
  INVARIANTS,
  type LedgerSums,
  QUICK_INVARIANTS,
  type WalletEvidence,
} from "./audit.ts";

const GOOD: WalletEvidence = {
  veId: "ve_a",
  wallet: { purchased: 10n, settled: 12n, escrowed: 1n, debt: 3n },
  leases: 1n,
  daily: 12n,
  paid: 4n,
  ledger: { wallet: 1n, usage: 12n, debt: -3n, adjustment: -6n, payment: -4n },
};

const EVENTS: EventEvidence = {
  veId: "ve_a",
  settled: 12n,
  credits: 12n,
  events: 5n,
  dailyRequests: 5n,
  duplicates: 0n,
};

describe("auditWallet", () => {
  it("finds nothing where everything agrees", () => {
    expect(auditWallet(GOOD)).toEqual([]);
  });

  it.each(["leases", "daily", "paid"] as const)("notices a wrong %s", (field) => {
    expect(auditWallet({ ...GOOD, [field]: 2n })).toHaveLength(1);
  });

  it.each([
    ["wallet", 2],
    ["usage", 2],
    ["debt", 2],
    ["adjustment", 2],
    // Both the sum of what was bought, and what the payments say.
    ["payment", 3],
  ] as const)("notices an account %s that was changed", (account, breaks) => {
    const ledger: LedgerSums = { ...GOOD.ledger, [account]: GOOD.ledger[account] + 1n };
    const found = auditWallet({ ...GOOD, ledger }).map(({ invariant }) => invariant);
    expect(found).toContain(INVARIANTS.balanced);
    expect(found).toHaveLength(breaks);
  });

  it("notices a wallet that is overdrawn", () => {
    const breaks = auditWallet({ ...GOOD, wallet: { ...GOOD.wallet, escrowed: 2n }, leases: 2n });
    expect(breaks).toMatchObject([{ invariant: "available >= 0", subject: "ve_a", found: "-0.000000000001" }]);
  });
});

describe("auditEvents", () => {
  it("finds nothing where everything agrees", () => {
    expect(auditEvents(EVENTS)).toEqual([]);
  });

  it.each(["credits", "events", "duplicates"] as const)("notices wrong %s", (field) => {
    expect(auditEvents({ ...EVENTS, [field]: 99n })).toHaveLength(1);
  });
});

describe("auditRecords", () => {
  it("wants each number once", () => {
    expect(auditRecords({ bootId: "b", last: 0n, records: 0n, numbers: 0n })).toEqual([]);
    expect(auditRecords({ bootId: "b", last: 4n, records: 4n, numbers: 10n })).toEqual([]);
    // One lost, one twice, and one lost with another twice.
    expect(auditRecords({ bootId: "b", last: 4n, records: 3n, numbers: 7n })).toMatchObject([{ subject: "b" }]);
    expect(auditRecords({ bootId: "b", last: 4n, records: 5n, numbers: 12n })).toHaveLength(1);
    expect(auditRecords({ bootId: "b", last: 4n, records: 4n, numbers: 9n })).toHaveLength(1);
  });
});

it("knows which invariants an hourly audit checks", () => {
  expect(new Set(ALL_INVARIANTS).size).toBe(ALL_INVARIANTS.length);
  expect(QUICK_INVARIANTS.every((each) => ALL_INVARIANTS.includes(each))).toBe(true);
});
