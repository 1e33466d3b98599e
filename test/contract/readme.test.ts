/** What the README says about settings and commands must be what there is. The quickstart is run by test/e2e. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const read = (path: string): Promise<string> =>
  readFile(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8");

test("the configuration table lists every environment variable that is read, and no other", async () => {
  const sources = await Promise.all(["start.ts", "control-plane/settings.ts", "data-plane/settings.ts"].map(read));
  const used = sources.flatMap((text) =>
    [...text.matchAll(/(?:env\["|\(env, ")([A-Z][A-Z0-9_]+)"/g)].map((match) => match[1]!),
  );
  const section = /^## Operators([\s\S]*?)^### /m.exec(await read("README.md"))![1]!;
  const listed = [...section.matchAll(/^\| `([A-Z][A-Z0-9_]+)` \|/gm)].map((match) => match[1]!);
  expect(listed.toSorted()).toEqual([...new Set(used)].toSorted());
});

test("every npm command it names exists", async () => {
  const { scripts } = JSON.parse(await read("package.json")) as { scripts: Record<string, string> };
  const named = [...(await read("README.md")).matchAll(/npm (?:run ([\w-]+)|(start|test))/g)].map(
    (match) => match[1] ?? match[2]!,
  );
  expect(new Set(named).size).toBeGreaterThan(4);
  for (const name of named) expect(Object.keys(scripts)).toContain(name);
});
