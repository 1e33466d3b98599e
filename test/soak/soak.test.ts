/** The short form of `npm run soak`. */

import { expect, test } from "vitest";
import { printingRun } from "../fault/scenario.ts";
import { DEFAULTS, parseSoakArgs } from "./options.ts";
import { soak } from "./soak.ts";

const MINUTES = 0.35;
const TIMEOUT_MS = 180_000;

test("no client sees an error while one healthy target exists", { timeout: TIMEOUT_MS }, async ({ signal }) => {
  await soak({ ...DEFAULTS, minutes: MINUTES, clients: 8 }, printingRun("soak", signal));
});

test("its command line", () => {
  expect(parseSoakArgs([])).toEqual(DEFAULTS);
  expect(parseSoakArgs(["--minutes", "0.5", "--seed", "7", "--nodes", "3"])).toMatchObject({
    minutes: 0.5,
    seed: 7,
    nodes: 3,
  });
  expect(() => parseSoakArgs(["--minutes", "none"])).toThrow("--minutes");
  expect(() => parseSoakArgs(["--hours", "1"])).toThrow();
});
