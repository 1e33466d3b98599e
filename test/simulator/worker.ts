/** Runs its part of the seeds, in a process of its own, and tells its parent of a few at a time and of each that fails. */

import { parseOptions } from "./options.ts";
import { runSeed } from "./run.ts";
import { addTo, newTotals } from "./totals.ts";

const SEEDS_PER_MESSAGE = 25;

const { first, seeds, workers, part } = parseOptions(process.argv.slice(2));
let totals = newTotals();
let next = first + (part ?? 0);

/** A real timer: a simulation cannot run inside of a promise. */
function turn(): void {
  for (let n = 0; n < SEEDS_PER_MESSAGE && next < first + seeds && totals.failures.length === 0; n++, next += workers)
    addTo(totals, runSeed(next));
  const done = next >= first + seeds;
  process.send!({ totals, next, done });
  totals = newTotals();
  if (done) process.disconnect?.();
  else setImmediate(turn);
}

// The parent ends us as it is interrupted.
process.on("SIGINT", () => undefined);
process.on("disconnect", () => process.exit(0));
setImmediate(turn);
