/** Command line of the benchmarks, and the frame every one of them runs in. */

import { parseArgs } from "node:util";
import { stopAll } from "./processes.ts";

export interface BenchOptions {
  /** Interleaved rounds; undefined: the bench's own default. */
  readonly rounds: number | undefined;
  /** Seconds of each measurement; undefined: the bench's own default. */
  readonly seconds: number | undefined;
}

const FLAGS = { rounds: { type: "string" }, seconds: { type: "string" } } as const;

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!(number > 0)) fail(`--${name} needs a positive number, not "${text}"`);
  return number;
}

function fail(message: string): never {
  console.error(message);
  process.exit(64);
}

/** The benches to run, and the flags to hand to each. Ends the process when the command line makes no sense. */
export function parseBenchArgs(
  args: string[],
  known: readonly string[],
): { names: readonly string[]; flags: string[] } {
  try {
    const { values, positionals } = parseArgs({ args, options: FLAGS, allowPositionals: true });
    const unknown = positionals.filter((name) => !known.includes(name));
    if (unknown.length > 0) fail(`There is no bench "${unknown[0]}"; there are ${known.join(", ")}`);
    positive("rounds", values.rounds);
    positive("seconds", values.seconds);
    const flags = Object.entries(values).flatMap(([name, value]) => [`--${name}`, value!]);
    return { names: positionals.length > 0 ? positionals : known, flags };
  } catch (error) {
    return fail((error as Error).message);
  }
}

/** Runs one bench as a program: options in, everything that it started stopped at the end, however it ends. */
export async function benchMain(run: (options: BenchOptions) => Promise<void>): Promise<void> {
  const { values } = parseArgs({ options: FLAGS });
  const options = { rounds: positive("rounds", values.rounds), seconds: positive("seconds", values.seconds) };
  let stopping = false;
  // It comes twice on Ctrl-C: from the terminal and from main.ts.
  const onSignal = (): void => {
    if (stopping) return;
    stopping = true;
    void stopAll().then(() => process.exit(130));
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, onSignal);
  try {
    await run(options);
  } catch (error) {
    // What was stopped on the way fails in many ways; that is no news.
    if (stopping) return;
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    process.exitCode = 1;
  }
  if (stopping) return;
  await stopAll();
  // Pools and timers of the parts under test may still hold the process.
  process.exit();
}
