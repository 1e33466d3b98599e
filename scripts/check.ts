/** `npm run check [name …]`: everything that is not a test. Each check says what it did; the exit code is the sum. */

import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchDeps, generate, GENERATED } from "./gen.ts";
import { mustRun, type Result, ROOT, run } from "./run.ts";

interface Check {
  readonly name: string;
  readonly run: () => Promise<Result>;
}

async function inTemporaryDir<T>(fn: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "tokenbill-check-"));
  try {
    return await fn(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function git(...args: string[]): Promise<string | undefined> {
  const { code, output } = await run("git", args);
  return code === 0 ? output.trim() : undefined;
}

/** The state to stay compatible with: main as others have it, else the commit before, else none. */
async function schemaBase(): Promise<string | undefined> {
  const head = await git("rev-parse", "HEAD");
  const candidates = ["origin/main", "HEAD~1"];
  if ((await git("status", "--porcelain", "--", "proto")) !== "") candidates.unshift("HEAD");
  for (const ref of candidates) {
    const commit = await git("rev-parse", "--verify", "--quiet", `${ref}^{commit}`);
    if (commit === undefined || (commit === head && ref !== "HEAD")) continue;
    if ((await git("cat-file", "-e", `${commit}:proto/tokenbill`)) !== undefined) return commit;
  }
  return undefined;
}

async function breaking(): Promise<Result> {
  const base = await schemaBase();
  if (base === undefined) return { code: 0, output: "No earlier schema in this clone: nothing can have been broken." };
  await fetchDeps();
  return inTemporaryDir(async (dir) => {
    await mustRun("git", ["archive", "--output", join(dir, "base.tar"), base, "proto", "buf.yaml"]);
    const old = join(dir, "base");
    await mkdir(old);
    await mustRun("tar", ["-xf", join(dir, "base.tar"), "-C", old]);
    await cp(join(ROOT, "proto/deps"), join(old, "proto/deps"), { recursive: true });
    const { code, output } = await run("buf", ["breaking", "--against", old]);
    return { code, output: `Compared with ${base}.\n${output}` };
  });
}

async function drift(): Promise<Result> {
  return inTemporaryDir(async (dir) => {
    await generate(dir);
    for (const folder of GENERATED) {
      const result = await run("git", ["diff", "--no-index", "--stat", "--exit-code", folder, join(dir, folder)]);
      if (result.code !== 0)
        return { code: 1, output: `${folder} is not what the schema gives; run \`npm run gen\`.\n${result.output}` };
    }
    return { code: 0, output: "" };
  });
}

async function bufWithDeps(...args: string[]): Promise<Result> {
  await fetchDeps();
  return run("buf", args);
}

/** The SDK's example is checked against what would be published, so that is built first. */
async function types(): Promise<Result> {
  const build = await run("tsc", ["-p", "clients/ts/tsconfig.build.json"]);
  return build.code === 0 ? run("tsc", ["--noEmit"]) : build;
}

/** It has a tsconfig of its own, because it is made for browsers. */
async function consoleTypes(): Promise<Result> {
  const config = "clients/console/tsconfig.json";
  if (!existsSync(join(ROOT, config))) return { code: 0, output: "" };
  return run("tsc", ["--noEmit", "-p", config]);
}

export const CHECKS: readonly Check[] = [
  { name: "lint", run: () => run("oxlint", ["--deny-warnings"]) },
  { name: "format", run: () => run("oxfmt", ["--check"]) },
  { name: "types", run: types },
  { name: "console types", run: consoleTypes },
  { name: "schema lint", run: () => bufWithDeps("lint") },
  { name: "schema format", run: () => bufWithDeps("format", "--diff", "--exit-code", "--path", "proto/tokenbill") },
  { name: "schema compatibility", run: breaking },
  { name: "generated code", run: drift },
];

/** Runs the checks one after the other; returns how many passed and failed. */
export async function runChecks(checks: readonly Check[]): Promise<{ passed: number; failed: number }> {
  let passed = 0;
  let failed = 0;
  for (const check of checks) {
    const { code, output } = await check.run().catch((error: unknown) => ({ code: 1, output: String(error) }));
    if (code === 0) passed++;
    else failed++;
    const note = code === 0 && check.run !== breaking ? "" : output.trim();
    console.log(
      `${code === 0 ? "ok    " : "FAILED"} ${check.name}${note === "" ? "" : `\n${note.replace(/^/gm, "       ")}`}`,
    );
  }
  return { passed, failed };
}

if (import.meta.main) {
  const names = process.argv.slice(2);
  const { failed } = await runChecks(
    names.length === 0 ? CHECKS : CHECKS.filter((check) => names.includes(check.name)),
  );
  process.exitCode = failed === 0 ? 0 : 1;
}
