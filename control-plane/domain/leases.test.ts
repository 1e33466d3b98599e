import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import { applyGrant, decideGrant, type GrantInput, LEASE_TTL_AMPLE_MS, LEASE_TTL_MS, settleSpend } from "./leases.ts";
import { available, remaining, repayable, WalletState, walletState } from "./wallet.ts";

const c = parseCredits;

describe("decideGrant", () => {
  const cases: [
    name: string,
    input: Partial<Record<"available" | "lease" | "want" | "need" | "burn" | "recallable", string>> & {
      nodes?: number;
    },
    credits: string,
    ttlMs: number,
    recall: boolean,
  ][] = [
    ["nothing asked", { available: "100" }, "0", LEASE_TTL_MS, false],
    ["nothing there", { want: "5" }, "0", LEASE_TTL_MS, false],
    ["what is wanted", { available: "100", want: "5" }, "5", LEASE_TTL_MS, false],
    ["at most half", { available: "8", want: "5" }, "4", LEASE_TTL_MS, false],
    ["half shared among the nodes", { available: "8", want: "5", nodes: 4 }, "1", LEASE_TTL_MS, false],
    [
      "a waiting request's need above the share",
      { available: "8", want: "9", need: "7", nodes: 4 },
      "7",
      LEASE_TTL_MS,
      false,
    ],
    ["need exactly all", { available: "8", need: "8", nodes: 4 }, "8", LEASE_TTL_MS, false],
    ["everything when the need cannot be met", { available: "3", want: "1", need: "7" }, "3", LEASE_TTL_MS, false],
    [
      "nothing yet while others could give back",
      { available: "3", need: "7", recallable: "4" },
      "0",
      LEASE_TTL_MS,
      true,
    ],
    [
      "everything when what others hold is too little",
      { available: "3", need: "7", recallable: "3.9" },
      "3",
      LEASE_TTL_MS,
      false,
    ],
    ["ample: 90 x want and a long ttl", { available: "5000", want: "5" }, "450", LEASE_TTL_AMPLE_MS, false],
    [
      "ample: up to 90 x want, with the lease",
      { available: "5000", want: "5", lease: "440" },
      "10",
      LEASE_TTL_AMPLE_MS,
      false,
    ],
    ["ample: at least want", { available: "5000", want: "5", lease: "449" }, "5", LEASE_TTL_AMPLE_MS, false],
    ["ample: not beyond the share", { available: "5000", want: "5", nodes: 10 }, "250", LEASE_TTL_AMPLE_MS, false],
    ["just not ample", { available: "4999.999999999999", want: "5" }, "5", LEASE_TTL_MS, false],
    ["a large need is not ample", { available: "5000", want: "5", need: "6" }, "6", LEASE_TTL_MS, false],
    [
      "a renewed lease stays long while the wallet is ample",
      { available: "5000", lease: "450" },
      "0",
      LEASE_TTL_AMPLE_MS,
      false,
    ],
    [
      "an ample lease is filled up before it is wanted",
      { available: "5000", lease: "399.9", burn: "5" },
      "50.1",
      LEASE_TTL_AMPLE_MS,
      false,
    ],
    ["but not while it lasts", { available: "5000", lease: "400", burn: "5" }, "0", LEASE_TTL_AMPLE_MS, false],
    ["what is leased counts", { available: "4600", lease: "400", burn: "5" }, "0", LEASE_TTL_AMPLE_MS, false],
    ["nor beyond the share", { available: "500", burn: "0.5", want: "300" }, "250", LEASE_TTL_AMPLE_MS, false],
    [
      "with several nodes it takes that many times as much",
      { available: "50000", burn: "5", nodes: 10 },
      "450",
      LEASE_TTL_AMPLE_MS,
      false,
    ],
    ["or it is not ample", { available: "49999", burn: "5", want: "1", nodes: 10 }, "1", LEASE_TTL_MS, false],
    ["just not ample by its burn", { available: "4600", lease: "399", burn: "5" }, "0", LEASE_TTL_MS, false],
    ["a renewed lease is short when the wallet drained", { available: "4499", lease: "450" }, "0", LEASE_TTL_MS, false],
  ];
  it.each(cases)("%s", (_, given, credits, ttlMs, recall) => {
    const input: GrantInput = {
      available: c(given.available ?? "0"),
      lease: c(given.lease ?? "0"),
      want: c(given.want ?? "0"),
      need: c(given.need ?? "0"),
      burn: c(given.burn ?? "0"),
      nodes: given.nodes ?? 1,
      recallable: c(given.recallable ?? "0"),
    };
    expect(decideGrant(input)).toEqual({ credits: c(credits), ttlMs, recall });
  });

  const amount = fc.oneof(fc.bigInt(0n, 50n), fc.bigInt(0n, 10n ** 20n));
  const inputs = fc.record({
    available: amount,
    lease: amount,
    want: amount,
    need: amount,
    nodes: fc.integer({ min: 1, max: 50 }),
    recallable: amount,
  });

  it("never grants more than is there, nor more than the share unless a request needs it", () => {
    fc.assert(
      fc.property(inputs, (input) => {
        const { credits, ttlMs, recall } = decideGrant(input);
        expect(credits >= 0n && credits <= input.available).toBe(true);
        const share = input.available / (2n * BigInt(input.nodes));
        expect(credits <= share || credits <= input.need).toBe(true);
        if (input.need <= input.available) expect(credits >= input.need).toBe(true);
        if (recall) expect(credits === 0n && input.need > input.available && input.recallable > 0n).toBe(true);
        expect([LEASE_TTL_MS, LEASE_TTL_AMPLE_MS]).toContain(ttlMs);
        if (ttlMs === LEASE_TTL_MS) expect(credits <= input.want || credits <= input.need).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("settleSpend", () => {
  const step = fc.record({
    boot: fc.integer({ min: 0, max: 3 }),
    spent: fc.bigInt(0n, 400n),
    release: fc.bigInt(0n, 300n),
    want: fc.bigInt(0n, 300n),
    need: fc.bigInt(0n, 300n),
    topUp: fc.bigInt(0n, 200n),
  });

  it("keeps every invariant over any history of several boots", () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2000n), fc.array(step, { maxLength: 60 }), (purchased, steps) => {
        let wallet = { purchased, settled: 0n, escrowed: 0n, debt: 0n };
        const leases = [0n, 0n, 0n, 0n];
        let spentAll = 0n;
        let debtPosted = 0n;
        let debtRepaid = 0n;
        for (const { boot, spent, release, want, need, topUp } of steps) {
          const result = settleSpend({ wallet, lease: leases[boot]!, spent, release });
          const free = available(result.wallet);
          const grant = decideGrant({ available: free, lease: result.lease, want, need, nodes: 4, recallable: 0n });
          wallet = applyGrant(result.wallet, grant.credits);
          leases[boot] = result.lease + grant.credits;
          wallet = { ...wallet, purchased: wallet.purchased + topUp };
          const repaid = repayable(wallet);
          wallet = { ...wallet, debt: wallet.debt - repaid };
          spentAll += spent;
          debtPosted += result.debt;
          debtRepaid += result.repaid + repaid;
          expect(available(wallet) >= 0n).toBe(true);
          expect(wallet.escrowed).toBe(leases.reduce((sum, lease) => sum + lease, 0n));
          expect(wallet.settled).toBe(spentAll);
          expect(wallet.debt).toBe(debtPosted - debtRepaid);
          expect(wallet.debt >= 0n).toBe(true);
          // Debt and free Credits never stand side by side.
          expect(wallet.debt === 0n || available(wallet) === 0n).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("walletState", () => {
  it.each([
    ["10", "0", "0", WalletState.OK],
    ["10", "9", "2", WalletState.LOW],
    ["10", "8", "2", WalletState.OK],
    ["10", "10", "0", WalletState.EXHAUSTED],
    ["0", "0", "5", WalletState.EXHAUSTED],
  ])("purchased %s, settled %s, low below %s", (purchased, settled, low, state) => {
    const row = { purchased: c(purchased), settled: c(settled), escrowed: 0n, debt: 0n };
    expect(walletState(row, c(low))).toBe(state);
    expect(remaining(row)).toBe(c(purchased) - c(settled));
  });
});
