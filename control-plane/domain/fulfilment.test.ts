import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CheckoutState, PaymentProcessor } from "./checkout.ts";
import {
  CHECK_FIRST_MS,
  CHECK_LAST_MS,
  CHECK_LATE_MS,
  CHECK_STOP_MS,
  creditsFor,
  disputed,
  leftToRefund,
  mismatch,
  movedAlong,
  nextCheckMs,
  payReference,
  undisputed,
} from "./fulfilment.ts";

const ASKED = { paymentId: "pmt_a", currency: "USD", amountMinor: 1000n };

describe("mismatch", () => {
  it.each([
    [{}, null],
    [{ amountMinor: 999n }, "wrong_amount"],
    [{ amountMinor: 1001n }, "wrong_amount"],
    [{ currency: "JPY" }, "wrong_currency"],
    [{ currency: "usd" }, "wrong_currency"],
    [{ paymentId: "pmt_b" }, "wrong_payment"],
    [{ paymentId: "", amountMinor: 1n }, "wrong_payment"],
  ])("of %o is %s", (paid, problem) => {
    expect(mismatch(ASKED, { ...ASKED, ...paid })).toBe(problem);
  });
});

it("names money by processor, account and the processor's name of it", () => {
  expect(payReference(PaymentProcessor.STRIPE, "pay_a", "pi_1")).toBe("pay:stripe:pay_a:pi_1");
  expect(payReference(PaymentProcessor.WECHAT_PAY, "pay_b", "42")).toBe("pay:wechat:pay_b:42");
  expect(payReference(PaymentProcessor.SANDBOX, "pay_c", "x")).toBe("pay:sandbox:pay_c:x");
});

describe("creditsFor", () => {
  it.each([
    // granted, taken, amount, refunded, part -> credits
    [120n, 0n, 1000n, 0n, 1000n, 120n],
    [120n, 0n, 1000n, 0n, 250n, 30n],
    [120n, 30n, 1000n, 250n, 750n, 90n],
    // Rounded down, and the last part brings what was left over.
    [100n, 0n, 3n, 0n, 1n, 33n],
    [100n, 66n, 3n, 2n, 1n, 34n],
    // More than is left counts as all that is left.
    [100n, 33n, 3n, 1n, 5n, 67n],
    [0n, 0n, 1000n, 0n, 1000n, 0n],
  ])(
    "of %d granted, %d taken, %d paid, %d refunded, for %d: %d",
    (granted, taken, amountMinor, refundedMinor, part, credits) => {
      expect(creditsFor({ granted, taken, amountMinor, refundedMinor }, part)).toBe(credits);
    },
  );

  it("takes exactly what was granted, in however many parts", () => {
    const parts = fc.array(fc.bigInt(1n, 10n ** 6n), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(fc.bigInt(1n, 10n ** 24n), parts, (granted, amounts) => {
        const amountMinor = amounts.reduce((sum, each) => sum + each, 0n);
        let payment = { granted, taken: 0n, amountMinor, refundedMinor: 0n };
        for (const part of amounts) {
          const credits = creditsFor(payment, part);
          expect(credits).toBeGreaterThanOrEqual(0n);
          payment = { ...payment, taken: payment.taken + credits, refundedMinor: payment.refundedMinor + part };
        }
        expect(payment.taken).toBe(granted);
        expect(leftToRefund(payment)).toBe(0n);
      }),
    );
  });
});

describe("the standing of a session", () => {
  const { EXPIRED, FULFILLED, PARTIALLY_REFUNDED, REFUNDED, DISPUTED, PAID } = CheckoutState;
  const at = (state: CheckoutState, undisputed_state: CheckoutState | null = null) => ({ state, undisputed_state });

  it("follows money that comes after all", () => {
    expect(movedAlong(at(EXPIRED), "paid", "fulfil")).toEqual(at(FULFILLED));
    expect(movedAlong(at(REFUNDED), "paid", "fulfil")).toEqual(at(PARTIALLY_REFUNDED));
    expect(movedAlong(at(CheckoutState.OPEN), "refund_all")).toEqual(at(CheckoutState.OPEN));
  });

  it("remembers in a dispute where it would be without", () => {
    const open = disputed(at(PAID));
    expect(open).toEqual(at(DISPUTED, PAID));
    expect(disputed(open)).toEqual(open);
    const fulfilled = movedAlong(open, "paid", "fulfil");
    expect(fulfilled).toEqual(at(DISPUTED, FULFILLED));
    expect(undisputed(fulfilled)).toEqual(at(FULFILLED));
    expect(undisputed(movedAlong(fulfilled, "refund_part"))).toEqual(at(PARTIALLY_REFUNDED));
    expect(movedAlong(fulfilled, "refund_all")).toEqual(at(REFUNDED));
    expect(undisputed(at(REFUNDED))).toEqual(at(REFUNDED));
    expect(undisputed(at(DISPUTED))).toEqual(at(FULFILLED));
    expect(disputed(at(CheckoutState.OPEN))).toEqual(at(CheckoutState.OPEN));
  });
});

describe("nextCheckMs", () => {
  it.each([
    [0, 0, CHECK_FIRST_MS],
    [1, 0, 2 * CHECK_FIRST_MS],
    [6, 0, 64 * CHECK_FIRST_MS],
    [7, 0, CHECK_LAST_MS],
    [5000, 999, 999 + CHECK_LAST_MS],
    [0, 1000, 1000 + CHECK_LATE_MS],
    [9, 1000 + CHECK_STOP_MS - 1, 999 + CHECK_STOP_MS + CHECK_LATE_MS],
    [9, 1000 + CHECK_STOP_MS, null],
  ])("after %d checks at %d: %s", (checks, nowMs, next) => {
    expect(nextCheckMs({ checks, nowMs, expiresAtMs: 1000 })).toBe(next);
  });
});
