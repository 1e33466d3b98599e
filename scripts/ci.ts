/** What `.ci/run` does after `npm ci`: the tests, then the checks, then one line that counts both. */

import { readFile } from "node:fs/promises";
import { CHECKS, runChecks } from "./check.ts";
import { run } from "./run.ts";
import { COUNTS } from "./test.ts";

interface Counts {
  readonly passed: number;
  readonly failed: number;
}

interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly unknown[] }[];
}

/** A test that did not run, a file that did not load, and a run that ended badly all count as failed. */
async function countsOf(file: string): Promise<Counts> {
  let report: VitestReport;
  try {
    report = JSON.parse(await readFile(file, "utf8")) as VitestReport;
  } catch {
    return { passed: 0, failed: 1 };
  }
  const notLoaded = report.testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  ).length;
  const failed = report.numFailedTests + report.numPendingTests + report.numTodoTests + notLoaded;
  return { passed: report.numPassedTests, failed };
}

async function testCounts(exitCode: number): Promise<Counts> {
  const all = await Promise.all(COUNTS.map(countsOf));
  const passed = all.reduce((sum, counts) => sum + counts.passed, 0);
  const failed = all.reduce((sum, counts) => sum + counts.failed, 0);
  return { passed, failed: failed === 0 && exitCode !== 0 ? 1 : failed };
}

const { code } = await run("npm", ["test"], { show: true });
const tests = await testCounts(code);
const checks = await runChecks(CHECKS);
const failed = tests.failed + checks.failed;
console.log(`${tests.passed + checks.passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
