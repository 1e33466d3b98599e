/** Ten thousand worlds, and the ones that once broke. */

import { expect, test } from "vitest";
import { startCrowd } from "./crowd.ts";
import { parseOptions } from "./options.ts";
import { REGRESSIONS } from "./regressions.ts";
import { runSeed, runWorld, type Verdict } from "./run.ts";

const SEEDS = 10_000;
const WORKERS = 2;
/** A loaded machine may take many times what a quiet one does. */
const TIMEOUT_MS = 1_200_000;

/** A simulation runs in a turn of its own: not inside of a promise. */
function inTurn(run: () => Verdict): Promise<Verdict> {
  return new Promise((done, fail) => {
    setImmediate(() => {
      try {
        done(run());
      } catch (error) {
        fail(error as Error);
      }
    });
  });
}

/** What must have happened often in so many worlds, and how often at the least. */
const HAPPENED: Readonly<Record<string, number>> = {
  requests: 500_000,
  overtaken: 5_000,
  report_applied: 200_000,
  report_duplicate: 10_000,
  messages_lost: 2_000,
  messages_twice: 1_000,
  torn_writes: 500,
  recalls: 10_000,
  leases_taken: 500,
  top_ups: 5_000,
  take_outs: 500,
  outages: 100,
  silences: 200,
  phantom_checks: 10_000,
  refused_exhausted: 10_000,
  left: 5_000,
  bits_rotten: 200,
  fault_kill: 500,
  fault_kill_at_write: 500,
  fault_power: 500,
  fault_disk_gone: 200,
  fault_disk_full: 200,
  fault_disk_broken: 200,
  fault_sync_fails: 200,
  fault_freeze: 200,
  fault_clock_jump: 200,
  fault_restart: 200,
  fault_partition: 500,
  fault_storm: 500,
  fault_replica_dies: 200,
  fault_commit_unanswered: 500,
  fault_database_away: 200,
  fault_database_clock: 200,
};

test("equal seeds are equal worlds, to the last event", async () => {
  for (const seed of [3, 12, 19]) {
    const first = await inTurn(() => runSeed(seed));
    const second = await inTurn(() => runSeed(seed));
    expect([second.hash, second.steps]).toEqual([first.hash, first.steps]);
    const other = await inTurn(() => runSeed(seed + 1));
    expect(other.hash).not.toBe(first.hash);
  }
});

test.each(REGRESSIONS.map((each) => [each.name, each] as const))(
  "what broke once holds: %s",
  async (_, { act, plan }) => {
    const verdict = await inTurn(() => runWorld(plan, act));
    expect(verdict.violations).toEqual([]);
  },
);

test(
  "in ten thousand worlds nothing is lost, counted twice or overspent, and nobody is refused for nothing",
  { timeout: TIMEOUT_MS },
  async () => {
    const crowd = startCrowd({ first: 1, seeds: SEEDS, workers: WORKERS, mutation: null }, () => undefined);
    await crowd.ended;
    const { failures, seeds, counts } = crowd.totals;
    expect(
      failures.map(({ seed, violations }) => ({ again: `npm run simulate -- --seed ${seed}`, violations })),
    ).toEqual([]);
    expect(seeds).toBe(SEEDS);
    const rare = Object.entries(HAPPENED).filter(([what, least]) => (counts[what] ?? 0) < least);
    expect(rare.map(([what, least]) => `${what}: ${counts[what] ?? 0} of ${least}`)).toEqual([]);
  },
);

test("the command line", () => {
  expect(parseOptions(["--seed", "7", "--trace"])).toMatchObject({ seed: 7, trace: true, mutation: null });
  expect(parseOptions(["--seeds", "50", "--first", "8", "--workers", "3", "--mutation", "x"])).toMatchObject({
    seeds: 50,
    first: 8,
    workers: 3,
    mutation: "x",
    seed: null,
  });
  expect(() => parseOptions(["--sedes", "5"])).toThrow("unknown option --sedes");
  expect(() => parseOptions(["--seeds", "many"])).toThrow("--seeds needs a whole number, not many");
});
