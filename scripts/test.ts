/** `npm test`: everything. Arguments go to vitest, so `npm test -- core` runs a part. Counts go to .cache/vitest.json. */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ROOT, run } from "./run.ts";
import { setUpTestEnvironment } from "./setup_test_env.ts";

export const COUNTS = join(ROOT, ".cache", "vitest.json");

async function main(): Promise<number> {
  await rm(COUNTS, { force: true });
  await setUpTestEnvironment();
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${COUNTS}`];
  return (await run("vitest", ["run", ...reporters, ...process.argv.slice(2)], { show: true })).code;
}

if (import.meta.main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
