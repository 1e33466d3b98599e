import { describe, expect, test } from "vitest";
import { base32, newId } from "./ids.ts";

function decode(letters: string): Uint8Array {
  let bits = "";
  for (const letter of letters) {
    bits += "abcdefghijklmnopqrstuvwxyz234567".indexOf(letter).toString(2).padStart(5, "0");
  }
  return Uint8Array.from({ length: bits.length >> 3 }, (_, i) => Number.parseInt(bits.slice(8 * i, 8 * i + 8), 2));
}

describe("ids", () => {
  test("are a prefix and 16 bytes in base32, padded with zero bits, and never the same", () => {
    const seen = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const id = newId("usg_");
      expect(id).toMatch(/^usg_[a-z2-7]{26}$/);
      expect(base32(decode(id.slice(4)))).toBe(id.slice(4));
      seen.add(id);
    }
    expect(seen.size).toBe(2000);
  });

  test("every letter of an id varies", () => {
    const letters = Array.from({ length: 26 }, () => new Set<string>());
    for (let i = 0; i < 500; i++) [...newId("x_").slice(2)].forEach((letter, at) => letters[at]!.add(letter));
    // The last one stands for three bits.
    expect(letters.map(({ size }) => size >= 8)).toEqual(letters.map(() => true));
  });

  test("a prefix may be of any length", () => {
    for (const length of [0, 32, 33, 200]) {
      const prefix = "p".repeat(length);
      const id = newId(prefix);
      expect([id.startsWith(prefix), id.length]).toEqual([true, length + 26]);
    }
  });
});
