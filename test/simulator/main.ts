/**
 *     npm run simulate -- [--seeds 10000] [--first 1] [--workers 2] [--mutation name]
 *     npm run simulate -- --seed 17 --trace
 */

import { startCrowd } from "./crowd.ts";
import { type Options, parseOptions } from "./options.ts";
import { type Failure, figuresOf } from "./totals.ts";

const PROGRESS_MS = 5_000;

function show({ seed, plot, violations, trace }: Failure, mutation: string | null): void {
  const planted = mutation === null ? "" : ` --mutation ${mutation}`;
  console.log(`\nseed ${seed} (${plot}) broke:`);
  for (const { invariant, detail, at } of violations) console.log(`  ${invariant}: ${detail} (at ${at.toFixed(1)} ms)`);
  console.log("the last events:");
  for (const line of trace) console.log(`  ${line}`);
  console.log(`again: npm run simulate -- --seed ${seed} --trace${planted}`);
}

async function runMany(options: Options): Promise<boolean> {
  const { first, seeds, mutation } = options;
  const began = performance.now();
  let shownAt = began;
  const crowd = startCrowd(options, (totals) => {
    if (performance.now() - shownAt < PROGRESS_MS) return;
    shownAt = performance.now();
    const failed = totals.failures.length === 0 ? "" : `, ${totals.failures.length} failed`;
    console.log(`${totals.seeds} of ${seeds} seeds${failed}`);
  });
  let interrupted = false;
  process.once("SIGINT", () => {
    interrupted = true;
    crowd.stop();
  });
  await crowd.ended;
  const { totals } = crowd;
  for (const failure of totals.failures) show(failure, mutation);
  console.log(`\n${figuresOf(totals)}`);
  console.log(`  ${"seeds a second".padEnd(22)} ${((totals.seeds * 1000) / (performance.now() - began)).toFixed(1)}`);
  if (interrupted) {
    const next = crowd.next();
    console.log(`interrupted; go on with: npm run simulate -- --first ${next} --seeds ${first + seeds - next}`);
  }
  return totals.failures.length === 0;
}

function runOne(seed: number, { trace, mutation }: Options): void {
  // From a timer, not from a promise, and the mutation is planted before the modules are loaded.
  void (async () => {
    if (mutation !== null) {
      process.env["SIMULATOR_MUTATION"] = mutation;
      await import("./plant.ts");
    }
    const { runSeed } = await import("./run.ts");
    setImmediate(() => {
      const verdict = runSeed(seed, trace);
      if (trace) console.log(verdict.trace.join("\n"));
      if (verdict.violations.length > 0) show(verdict, mutation);
      console.log(`seed ${seed} (${verdict.plot}): ${verdict.violations.length} violations, trace ${verdict.hash}`);
      process.exit(verdict.violations.length === 0 ? 0 : 1);
    });
  })();
}

const options = parseOptions(process.argv.slice(2));
if (options.seed !== null) runOne(options.seed, options);
else process.exitCode = (await runMany(options)) ? 0 : 1;
