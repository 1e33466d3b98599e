/**
 * `npm run soak [-- --minutes 10 --seed N --nodes 2 --clients 16]`: exits with 1 when a promise broke. Ctrl-C ends it, after
 * the books of what was done until then.
 */

import { printingRun } from "../fault/scenario.ts";
import { parseSoakArgs, type SoakOptions } from "./options.ts";
import { soak } from "./soak.ts";

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // Everything that was started ends with this process.
    if (stop.signal.aborted) process.exit(130);
    console.error("\nstopping; once more to leave at once");
    stop.abort();
  });
}

async function main(options: SoakOptions): Promise<number> {
  console.log(
    `soak: ${Object.entries(options)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ")}`,
  );
  try {
    await soak(options, printingRun("soak", stop.signal));
  } catch (error) {
    console.error(`soak FAILED: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
    return 1;
  }
  console.log(stop.signal.aborted ? "Stopped early; every promise was kept until then." : "Every promise was kept.");
  return stop.signal.aborted ? 130 : 0;
}

let options: SoakOptions | undefined;
try {
  options = parseSoakArgs(process.argv.slice(2));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 64;
}
if (options !== undefined) process.exit(await main(options));
