import { describe, expect, test } from "vitest";
import { NO_GRANT, NOTHING_ASKED } from "./leases.ts";
import { WalletState } from "./wallet.ts";
import { isRefused, toldAfterReport } from "./wallet_alert.ts";

const { OK, LOW, EXHAUSTED } = WalletState;

describe("isRefused", () => {
  const cases: [
    why: string,
    want: bigint,
    need: bigint,
    granted: bigint,
    lease: bigint,
    others: bigint,
    is: boolean,
  ][] = [
    ["nothing was asked for", 0n, 0n, 0n, 0n, 0n, false],
    ["the need was met", 5n, 3n, 3n, 3n, 0n, false],
    ["too little is there for the request that waits", 5n, 3n, 2n, 2n, 0n, true],
    ["also beside a lease that others hold", 5n, 3n, 0n, 0n, 9n, true],
    ["a wish came to nothing, and there is nothing anywhere", 5n, 0n, 0n, 0n, 0n, true],
    ["a wish came to nothing, but something is left here", 5n, 0n, 0n, 1n, 0n, false],
    ["a wish came to nothing, but others could give back", 5n, 0n, 0n, 0n, 1n, false],
  ];
  test.each(cases)("%s", (_why, want, need, granted, lease, others, is) => {
    const grant = { ...NO_GRANT, credits: granted };
    expect(isRefused({ ...NOTHING_ASKED, want, need }, { grant, lease }, others)).toBe(is);
    // While others are asked to give back, nobody is refused.
    expect(isRefused({ ...NOTHING_ASKED, want, need }, { grant: { ...grant, recall: true }, lease }, others)).toBe(
      false,
    );
  });
});

test.each([
  [OK, OK, false, OK],
  [OK, LOW, false, LOW],
  [OK, EXHAUSTED, false, EXHAUSTED],
  [OK, OK, true, EXHAUSTED],
  [LOW, LOW, false, LOW],
  [LOW, LOW, true, EXHAUSTED],
  [LOW, OK, false, OK],
  [EXHAUSTED, OK, false, EXHAUSTED],
  [EXHAUSTED, LOW, true, EXHAUSTED],
] as const)("told %i, now %i, refused %s: %i", (told, state, refused, after) => {
  expect(toldAfterReport(told, state, refused)).toBe(after);
});
