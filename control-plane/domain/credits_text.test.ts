import fc from "fast-check";
import { expect, test } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { creditsText } from "./credits_text.ts";

test.each([
  ["5000000", "5,000,000 Credits"],
  ["1", "1 Credit"],
  ["0.5", "0.5 Credits"],
  ["999", "999 Credits"],
  ["1000", "1,000 Credits"],
  ["1234567.000000000001", "1,234,567.000000000001 Credits"],
  ["1000000000000000000000000", "1,000,000,000,000,000,000,000,000 Credits"],
])("%s is %s", (credits, text) => {
  expect(creditsText(parseCredits(credits))).toBe(text);
});

test("no digit is lost", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 36n }), (credits) => {
      expect(creditsText(credits).replace(/,| Credits?$/g, "")).toBe(formatCredits(credits));
    }),
  );
});
