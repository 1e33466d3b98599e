/** The short form of a scenario as a test: prints its figures, and fails where a promise breaks. */

import { test } from "vitest";
import { printingRun, type Scenario } from "./scenario.ts";

const TIMEOUT_MS = 180_000;

export function testShort(scenario: Scenario): void {
  test(scenario.title, { timeout: TIMEOUT_MS }, ({ signal }) => scenario.short(printingRun(scenario.name, signal)));
}
