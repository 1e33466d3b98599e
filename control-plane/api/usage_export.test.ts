import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Pieces } from "./usage_export.ts";

describe("Pieces", () => {
  it("cuts at whole lines, never above the limit, and loses nothing", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.string({ maxLength: 30, unit: "grapheme" }).map((text) => `${text.replaceAll("\n", "")}\n`),
          { maxLength: 40 },
        ),
        (lines) => {
          const pieces = new Pieces(150);
          const parts: Buffer[] = [];
          for (const line of lines) {
            const full = pieces.add(line);
            if (full !== null) parts.push(Buffer.from(full));
          }
          const rest = pieces.take();
          if (rest !== null) parts.push(Buffer.from(rest));
          const longest = Math.max(150, ...lines.map((line) => Buffer.byteLength(line)));
          for (const part of parts) {
            expect(part.length).toBeLessThanOrEqual(longest);
            expect(part.at(-1)).toBe(10);
          }
          expect(Buffer.concat(parts).toString("utf8")).toBe(lines.join(""));
        },
      ),
    );
  });
});
