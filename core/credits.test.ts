import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CreditsFormatError, formatCredits, maxCredits, minCredits, parseCredits, PICO_PER_CREDIT } from "./credits.ts";

describe("parseCredits and formatCredits", () => {
  test.each([
    ["0", 0n],
    ["1", PICO_PER_CREDIT],
    ["0.000000000001", 1n],
    ["12.5", 12_500_000_000_000n],
    ["-0.05", -50_000_000_000n],
    ["99999999999999999999999999.999999999999", 10n ** 38n - 1n],
  ])("%s", (text, pico) => {
    expect(parseCredits(text)).toBe(pico);
    expect(formatCredits(pico)).toBe(text);
  });

  test.each([
    ["1.50", "1.5"],
    ["1.000000000000", "1"],
    ["-0", "0"],
    ["-0.000", "0"],
    ["007", "7"],
  ])("%s has the canonical form %s", (text, canonical) => {
    expect(formatCredits(parseCredits(text))).toBe(canonical);
  });

  test.each([
    "",
    " 1",
    "1 ",
    "1.",
    ".5",
    "1e3",
    "+1",
    "--1",
    "0x10",
    "1,5",
    "NaN",
    "Infinity",
    "1.0000000000001",
    "1.2.3",
    "٣",
    "9".repeat(27),
  ])("%j is refused", (text) => {
    expect(() => parseCredits(text)).toThrow(CreditsFormatError);
  });

  test("the message of a refusal does not grow with the input", () => {
    expect(() => parseCredits("x".repeat(100_000))).toThrow(/^.{1,200}$/);
  });

  const amount = fc.bigInt({ min: -(10n ** 38n) + 1n, max: 10n ** 38n - 1n });

  test("every amount comes back as it was", () => {
    fc.assert(fc.property(amount, (credits) => parseCredits(formatCredits(credits)) === credits));
  });

  test("any text means what its digits say, or is refused", () => {
    const reference = (text: string): bigint | null => {
      const match = /^(-?)(\d{1,26})(?:\.(\d{1,12}))?$/.exec(text);
      if (match === null) return null;
      const pico = BigInt(match[2]! + (match[3] ?? "").padEnd(12, "0"));
      return match[1] === "-" ? -pico : pico;
    };
    const parsed = (text: string): bigint | null => {
      try {
        return parseCredits(text);
      } catch {
        return null;
      }
    };
    const digits = (maxLength: number) => fc.string({ unit: fc.constantFrom(..."0123456789"), maxLength });
    const decimal = fc
      .tuple(fc.constantFrom("", "", "", "-"), digits(28), fc.constantFrom("", ".", "."), digits(14))
      .map((parts) => parts.join(""));
    const junk = fc.string({ unit: fc.constantFrom(..."0123456789.-/: e\u0663"), maxLength: 24 });
    fc.assert(
      fc.property(fc.oneof(decimal, junk), (text) => {
        expect(parsed(text)).toBe(reference(text));
      }),
      { numRuns: 2000 },
    );
  });

  test("the text is canonical: no exponent, no trailing zero, no negative zero", () => {
    fc.assert(
      fc.property(amount, (credits) => {
        expect(formatCredits(credits)).toMatch(/^(0|-?(0\.\d{0,11}[1-9]|[1-9]\d*(\.\d{0,11}[1-9])?))$/);
      }),
    );
  });

  test("addition of texts is addition of amounts", () => {
    const half = fc.bigInt({ min: -(10n ** 37n), max: 10n ** 37n });
    fc.assert(
      fc.property(half, half, (a, b) => {
        expect(parseCredits(formatCredits(a)) + parseCredits(formatCredits(b))).toBe(
          parseCredits(formatCredits(a + b)),
        );
      }),
    );
  });
});

test("the smaller and the larger of two amounts", () => {
  expect(minCredits(1n, 2n)).toBe(1n);
  expect(minCredits(2n, 1n)).toBe(1n);
  expect(maxCredits(1n, 2n)).toBe(2n);
  expect(maxCredits(2n, 1n)).toBe(2n);
});
