/**
 * `npm test`: everything. Arguments go to vitest, so `npm test -- core` runs a part. Counts go to `.cache/vitest*.json`.
 *
 * Without arguments there are three runs. The files of `FIRST` stop and starve real processes and ask how soon they are well
 * again, so nothing else runs meanwhile. Then two go side by side: the files of `BESIDE` need hours of simulated time, whose
 * processes give way to all others, or minutes of real time without doing much. What they leave of the processors the
 * others use.
 */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ROOT, run } from "./run.ts";
import { setUpTestEnvironment } from "./setup_test_env.ts";

/** Of all runs; those after the first are there only if all was run. */
export const COUNTS = ["vitest.json", "vitest_first.json", "vitest_beside.json"].map((name) =>
  join(ROOT, ".cache", name),
);
const [COUNTS_MAIN, COUNTS_FIRST, COUNTS_BESIDE] = COUNTS as [string, string, string];

const FIRST = ["test/fault/"] as const;
const BESIDE = ["test/simulator/", "test/rates/real.test.ts"] as const;

async function vitest(args: readonly string[], counts: string, show: boolean): Promise<number> {
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${counts}`];
  const { code, output } = await run("vitest", ["run", ...reporters, ...args], { show });
  if (output !== "") console.log(output);
  return code;
}

async function main(args: readonly string[]): Promise<number> {
  for (const file of COUNTS) await rm(file, { force: true });
  await setUpTestEnvironment();
  if (args.length > 0) return vitest(args, COUNTS_MAIN, true);
  const first = await vitest(FIRST, COUNTS_FIRST, true);
  console.log(`Beside, with their output at the end: ${BESIDE.join(", ")}`);
  const others = [...FIRST, ...BESIDE];
  const excludes = others.flatMap((path) => ["--exclude", path.endsWith("/") ? `${path}**` : path]);
  const codes = await Promise.all([vitest(excludes, COUNTS_MAIN, true), vitest(BESIDE, COUNTS_BESIDE, false)]);
  return Math.max(first, ...codes);
}

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
