/**
 * `npm run fault [-- scenario …] [-- --short]`: breaks real processes on purpose and checks the promises, in the long
 * forms. Without names all scenarios, one after another. Ctrl-C stops it and ends what it started.
 */

import { SCENARIOS } from "./scenarios.ts";
import { printingRun, type Scenario } from "./scenario.ts";

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    console.error("\nstopping; once more to leave at once");
    stop.abort();
  });
}

async function runOne(scenario: Scenario, short: boolean): Promise<boolean> {
  console.log(`\n${scenario.name}: ${scenario.title}`);
  const run = printingRun(scenario.name, stop.signal);
  try {
    await (short ? scenario.short(run) : scenario.long(run));
    run.progress("every promise was kept");
    return true;
  } catch (error) {
    if (!stop.signal.aborted) console.error(`${scenario.name} FAILED`, error);
    return false;
  }
}

async function main(args: readonly string[]): Promise<number> {
  const names = args.filter((arg) => arg !== "--short");
  const unknown = names.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name));
  if (unknown.length > 0) {
    console.error(`No scenario is called ${unknown.join(", ")}. There are:`);
    for (const { name, title } of SCENARIOS) console.error(`  ${name.padEnd(10)} ${title}`);
    return 2;
  }
  const failed: string[] = [];
  for (const scenario of SCENARIOS.filter(({ name }) => names.length === 0 || names.includes(name))) {
    if (stop.signal.aborted) break;
    if (!(await runOne(scenario, args.includes("--short")))) failed.push(scenario.name);
  }
  if (stop.signal.aborted) return 130;
  console.log(failed.length === 0 ? "\nAll promises were kept." : `\nFAILED: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
