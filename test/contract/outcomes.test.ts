/** The table of how requests end is one table, and every row of it has a test that carries its name. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Outcome } from "../../data-plane/outcome.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

/** The rows below the heading that begins with `| row |`. */
function rowsOf(text: string): string[][] {
  const lines = text.split("\n").map((line) => line.replace(/^ \* /, ""));
  const head = lines.findIndex((line) => line.startsWith("| row |"));
  const rows = lines.slice(head + 2);
  return rows
    .slice(
      0,
      rows.findIndex((line) => !line.startsWith("|")),
    )
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
}

const rows = rowsOf(read("data-plane/outcome.ts"));
const names = rows.map(([name]) => name!.replaceAll("`", ""));

test("it is complete, and the same in ARCHITECTURE.md", () => {
  expect(rows.length).toBeGreaterThan(20);
  expect(new Set(names).size).toBe(names.length);
  for (const row of rows) expect(row.every((cell) => cell !== "") && row.length === 5, row.join()).toBe(true);
  expect(rowsOf(read("ARCHITECTURE.md"))).toEqual(rows);
});

test("every outcome has a row", () => {
  const told = new Set(rows.map((row) => row[1]!.replaceAll("`", "")));
  expect(Object.keys(Outcome).filter((outcome) => !told.has(outcome))).toEqual([]);
});

test("every row has a test, and no test names a row that is not there", () => {
  const tested = new Set<string>();
  for (const file of readdirSync(join(ROOT, "data-plane"), { recursive: true, withFileTypes: true })) {
    if (!file.name.endsWith(".test.ts")) continue;
    const text = readFileSync(join(file.parentPath, file.name), "utf8");
    for (const [, titles] of text.matchAll(/["'`]((?:\[[a-z]+(?:-[a-z]+)+\] )+)/g))
      for (const [, name] of titles!.matchAll(/\[([a-z-]+)\]/g)) tested.add(name!);
  }
  expect([...tested].toSorted()).toEqual(names.toSorted());
});
