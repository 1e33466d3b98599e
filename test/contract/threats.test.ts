/** Every line of docs/threats.md names tests that there are, or says that there is none. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

/** Threats that nothing here can show to be stopped; a change of their number is looked at. */
const UNTESTED = 2;

const lines = read("docs/threats.md").split("\n");
const rows = lines
  .filter((line) => line.startsWith("| ") && !line.startsWith("| threat"))
  .map((line) =>
    line
      .slice(1, -1)
      .split("|")
      .map((cell) => cell.trim()),
  );

interface Named {
  readonly file: string;
  readonly title: string;
}

/** `file`: "title"<br>"title"<br>`file`: "title"; a title without a file is of the file before. */
function namedIn(cell: string): Named[] {
  let file = "";
  return cell.split("<br>").map((part) => {
    const match = /^(?:`([^`]+)`: )?"([^"]+)"$/.exec(part);
    if (match === null) throw new Error(`not a test: ${part}`);
    file = match[1] ?? file;
    return { file, title: match[2]! };
  });
}

/** Titles as they are written: those of tests, and of the rows of a table of tests. */
function titlesOf(file: string): Set<string> {
  const literals = read(file).matchAll(/"((?:[^"\\\n]|\\.)+)"|`((?:[^`\\\n]|\\.)+)`/g);
  return new Set([...literals].map((match) => match[1] ?? match[2]!));
}

test("every line is whole, and no threat is there twice", () => {
  expect(rows.length).toBeGreaterThan(80);
  for (const row of rows) expect(row.length === 3 && row.every((cell) => cell !== ""), row.join(" | ")).toBe(true);
  const threats = rows.map(([threat]) => threat);
  expect(threats.filter((threat, at) => threats.indexOf(threat) !== at)).toEqual([]);
  expect(rows.filter(([, , tests]) => tests === "no test")).toHaveLength(UNTESTED);
});

test("every test that it names is there", () => {
  const titles = new Map<string, Set<string>>();
  const missing: string[] = [];
  for (const [threat, , tests] of rows) {
    for (const { file, title } of tests === "no test" ? [] : namedIn(tests!)) {
      expect(file, threat).toMatch(/\.test\.ts$/);
      if (!titles.has(file)) titles.set(file, titlesOf(file));
      if (!titles.get(file)!.has(title)) missing.push(`${file}: ${title}`);
    }
  }
  expect(missing).toEqual([]);
});
