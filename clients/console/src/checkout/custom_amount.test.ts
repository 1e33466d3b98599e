import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatDecimal, parseDecimal, trimDecimal } from "../shared/decimal.ts";
import { checkCustomAmount, type CustomTerms, normalizeAmount } from "./custom_amount.ts";

const terms: CustomTerms = {
  price: { currency: "USD", amount: "3.00" },
  credits: "1000000",
  bonus: "0.5",
  min: "5.00",
  max: "2500.00",
};

test.each([
  ["25", "25"],
  [" 25.50 ", "25.50"],
  ["025", "25"],
  ["0.5", "0.5"],
  ["25.", "25"],
  ["1,234.5", "1234.5"],
  ["1 234", "1234"],
  ["２５。５", "25.5"],
  ["1,5", null],
  ["25,00", null],
  ["-5", null],
  ["1e3", null],
  ["$25", null],
  ["1.2.3", null],
])("%s is read as %s", (text, amount) => expect(normalizeAmount(text)).toBe(amount));

describe("an amount that the payer chooses", () => {
  test.each([
    ["", "empty"],
    ["  ", "empty"],
    ["abc", "malformed"],
    ["4.99", "too_small"],
    ["0", "too_small"],
    ["2500.01", "too_large"],
    ["25.001", "too_fine"],
  ])("%j is %s", (text, problem) => expect(checkCustomAmount(terms, text)).toEqual({ ok: false, problem }));

  test("brings Credits and bonus in proportion, rounded down at 12 decimals", () => {
    expect(checkCustomAmount(terms, "10")).toEqual({
      ok: true,
      amount: "10.00",
      credits: "3333333.333333333333",
      bonus: "1.666666666666",
    });
    expect(checkCustomAmount({ ...terms, bonus: "" }, "5.00")).toMatchObject({ ok: true, bonus: "0" });
    expect(checkCustomAmount(terms, "2,500")).toMatchObject({ ok: true, amount: "2500.00" });
  });

  test("follows the currency's digits", () => {
    const yen = { ...terms, price: { currency: "JPY", amount: "300" }, min: "100", max: "90000" };
    expect(checkCustomAmount(yen, "150")).toMatchObject({ ok: true, amount: "150", credits: "500000" });
    expect(checkCustomAmount(yen, "150.5")).toEqual({ ok: false, problem: "too_fine" });
    const dinar = { ...terms, price: { currency: "IQD", amount: "3.000" }, min: "1.000", max: "9.000" };
    expect(checkCustomAmount(dinar, "1.255")).toMatchObject({ ok: true, amount: "1.255" });
  });

  test("never brings more than its part, nor a picocredit too little", () => {
    const minor = fc.bigInt({ min: 1n, max: 10n ** 13n });
    const pico = fc.bigInt({ min: 1n, max: 10n ** 26n });
    fc.assert(
      fc.property(minor, minor, pico, (paid, price, credits) => {
        const check = checkCustomAmount(
          {
            price: { currency: "USD", amount: formatDecimal(price, 2) },
            credits: formatDecimal(credits, 12),
            bonus: "0",
            min: "0.01",
            max: formatDecimal(10n ** 13n, 2),
          },
          trimDecimal(formatDecimal(paid, 2)),
        );
        if (!check.ok) return false;
        const got = parseDecimal(check.credits, 12)!;
        return got * price <= credits * paid && (got + 1n) * price > credits * paid;
      }),
    );
  });
});
