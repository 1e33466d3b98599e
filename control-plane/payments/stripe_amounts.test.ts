import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fromStripeAmount, STRIPE_AMOUNT_MAX, toStripeAmount } from "./stripe_amounts.ts";

describe("to Stripe", () => {
  // currency, our smallest units, Stripe's
  test.each([
    ["USD", 1000n, 1000],
    ["EUR", 1n, 1],
    ["JPY", 500n, 500],
    ["KRW", 500n, 500],
    // Two digits at Stripe, none at ISO 4217.
    ["ISK", 5n, 500],
    ["UGX", 5n, 500],
    // None at Stripe, two at ISO 4217.
    ["MGA", 500n, 5],
    // Two digits for payments, none for payouts only.
    ["HUF", 17_550n, 17_550],
    ["TWD", 1050n, 1050],
    ["KWD", 5120n, 5120],
    ["TND", 10n, 10],
  ])("%s %i is %i", (currency, minor, amount) => {
    expect(toStripeAmount({ currency, minor })).toStrictEqual({ ok: true, currency: currency.toLowerCase(), amount });
    expect(fromStripeAmount(currency.toLowerCase(), amount)).toStrictEqual({ currency, minor });
  });

  test.each([
    ["KWD", 5124n, "amount_not_exact"],
    ["BHD", 1n, "amount_not_exact"],
    ["MGA", 550n, "amount_not_exact"],
    ["IQD", 1000n, "currency_not_supported"],
    ["LYD", 1000n, "currency_not_supported"],
    ["USD", STRIPE_AMOUNT_MAX + 1n, "amount_too_large"],
    ["ISK", STRIPE_AMOUNT_MAX, "amount_too_large"],
  ])("%s %i is refused: %s", (currency, minor, failure) => {
    expect(toStripeAmount({ currency, minor })).toStrictEqual({ ok: false, failure });
  });
});

test.each([
  ["isk", 150],
  ["ugx", 1],
  ["iqd", 1000],
  ["USD", 100],
  ["", 1],
  ["usd", -1],
  ["usd", 1.5],
  ["usd", Number.NaN],
  ["usd", Number.MAX_SAFE_INTEGER + 1],
])("%s %d from Stripe is no amount", (currency, amount) => {
  expect(fromStripeAmount(currency, amount)).toBeNull();
});

test("what Stripe takes comes back as it was, exactly", () => {
  const currencies = fc.constantFrom(...Intl.supportedValuesOf("currency"));
  fc.assert(
    fc.property(currencies, fc.bigInt(0n, 99_999_999_999_999n), (currency, minor) => {
      const sent = toStripeAmount({ currency, minor });
      if (!sent.ok) return;
      expect(Number.isSafeInteger(sent.amount)).toBe(true);
      expect(fromStripeAmount(sent.currency, sent.amount)).toStrictEqual({ currency, minor });
    }),
  );
});
