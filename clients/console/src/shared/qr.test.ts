import { encode } from "uqr";
import { expect, test } from "vitest";
import { qrPath } from "./qr.ts";

/** The modules that the path covers. */
function drawn({ size, path }: { size: number; path: string }): boolean[][] {
  const rows = Array.from({ length: size }, () => Array.from({ length: size }, () => false));
  for (const [, x, y, width] of path.matchAll(/M(\d+) (\d+)h(\d+)v1h-\3z/g)) {
    for (let i = 0; i < Number(width); i++) rows[Number(y)]![Number(x) + i] = true;
  }
  return rows;
}

test.each(["weixin://wxpay/bizpayurl?pr=kZ4Qm7Yzz", "x", "充值"])("%s is drawn module for module", (text) => {
  const qr = qrPath(text);
  expect(drawn(qr)).toEqual(encode(text, { ecc: "M", border: 4 }).data);
  expect(qr.path.replace(/M\d+ \d+h\d+v1h-\d+z/g, "")).toBe("");
});

test("a text that is too long is refused", () => {
  expect(() => qrPath("x".repeat(3_000))).toThrow();
});
