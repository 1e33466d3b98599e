/** Faults that were planted on purpose are found: what the simulator says of the real thing can be believed. */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { startCrowd } from "./crowd.ts";
import { MUTATIONS } from "./mutations.ts";

/** Each is found sooner than this by far. */
const SEEDS_MAX = 5_000;
/** They give way to tests with real clocks, for as long as those run. */
const TIMEOUT_MS = 1_200_000;

describe.concurrent("planted faults", () => {
  test.each(MUTATIONS)("$name is in the source once", ({ file, from, to }) => {
    const source = readFileSync(new URL(`../../${file}`, import.meta.url), "utf8");
    expect(source.split(from).length).toBe(2);
    expect(to).not.toBe(from);
  });

  test.each(MUTATIONS)("$name is found: $fault", { timeout: TIMEOUT_MS }, async ({ name }) => {
    // To start a process costs more than most need to be found in: one for each, and several faults at a time.
    const crowd = startCrowd({ first: 1, seeds: SEEDS_MAX, workers: 1, mutation: name }, () => undefined, true);
    await crowd.ended;
    const [failure] = crowd.totals.failures;
    expect(failure, `${name} was not found in ${crowd.totals.seeds} seeds`).toBeDefined();
    console.log(`${name}: found by seed ${failure!.seed} (${failure!.plot}), ${failure!.violations[0]!.invariant}`);
  });
});
