import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addCredits, formatDecimal, isPositive, parseDecimal, permille, trimDecimal } from "./decimal.ts";
import { LANGUAGES } from "./i18n/language.ts";
import { currencyDigits, formatCount, formatCredits, formatMoney, formatTime, splitCredits } from "./numbers.ts";

const digits = fc.integer({ min: 0, max: 12 });
const amount = fc.bigInt({ min: 0n, max: 10n ** 26n });

describe("decimals", () => {
  test.each([
    ["12.5", 2, 1250n],
    ["12.50", 1, 125n],
    ["0", 12, 0n],
    ["-3.25", 2, -325n],
    ["12.55", 1, null],
    ["", 2, null],
    ["1e3", 2, null],
    [".5", 2, null],
    ["1,000", 2, null],
  ])("%s with %i digits", (text, count, value) => expect(parseDecimal(text, count)).toBe(value));

  test("what is written is what is read", () => {
    fc.assert(
      fc.property(amount, digits, (value, count) => parseDecimal(formatDecimal(value, count), count) === value),
    );
  });

  test("sums, trims, compares and divides exactly", () => {
    expect(addCredits("0.1", "0.2")).toBe("0.3");
    expect(addCredits("99999999999999.999999999999", "0.000000000001")).toBe("100000000000000");
    expect(addCredits("", "5")).toBe("5");
    expect(trimDecimal("12.00")).toBe("12");
    expect(trimDecimal("100")).toBe("100");
    expect([isPositive("0"), isPositive("0.000000000001"), isPositive("-1"), isPositive("")]).toEqual([
      false,
      true,
      false,
      false,
    ]);
    expect([permille("1", "3"), permille("5", "0"), permille("-1", "3"), permille("4", "3")]).toEqual([
      333, 0, 0, 1000,
    ]);
  });
});

describe("for people", () => {
  test.each([
    ["USD", "10.00", "en", "$10.00"],
    ["USD", "10", "en", "$10.00"],
    ["CNY", "68.00", "zh", "¥68.00"],
    ["USD", "50.00", "zh", "US$50.00"],
    ["JPY", "1500", "en", "¥1,500"],
    ["KWD", "1.250", "en", "KWD 1.250"],
    // More than a float holds.
    ["USD", "90071992547409.93", "en", "$90,071,992,547,409.93"],
    ["USD", "oops", "en", "oops USD"],
    ["usd", "1.00", "en", "1.00 usd"],
  ] as const)("%s %s in %s", (currency, text, language, shown) => {
    expect(formatMoney({ currency, amount: text }, language).replaceAll("\u00a0", " ")).toBe(shown);
  });

  test("digits of a currency: what the server writes counts more than what the browser knows", () => {
    expect([
      currencyDigits("USD"),
      currencyDigits("JPY"),
      currencyDigits("IQD", "1.250"),
      currencyDigits("??"),
    ]).toEqual([2, 0, 3, 2]);
  });

  test("Credits are grouped, and every digit is there", () => {
    expect(splitCredits("4821337.482913", "en")).toEqual(["4,821,337", ".482913"]);
    expect(splitCredits("-0.5", "en")).toEqual(["-0", ".5"]);
    expect(formatCredits("5000000.000000000000", "zh")).toBe("5,000,000");
    expect(formatCredits("?", "en")).toBe("?");
    fc.assert(
      fc.property(amount, fc.constantFrom(...LANGUAGES), (value, language) => {
        const text = trimDecimal(formatDecimal(value, 12));
        return formatCredits(text, language).replaceAll(",", "") === text;
      }),
    );
  });

  test("counts and times", () => {
    expect(formatCount(12_345_678_901_234_567_890n, "en")).toBe("12,345,678,901,234,567,890");
    const noon = new Date(2026, 4, 6, 12, 30).getTime();
    expect(formatTime(noon, noon, "zh")).toBe("12:30");
    expect(formatTime(noon, noon - 86_400_000, "en")).toContain("May 6, 2026");
  });
});
