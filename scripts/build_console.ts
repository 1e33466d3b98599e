/**
 * `npm run build`: clients/console as the control plane serves it, by Vite. npm runs it with `--if-changed` after each
 * install, so that `npm ci && npm start` has the page: then it does nothing if nothing was changed, and goes on without
 * Vite, which an install for production leaves out.
 */

import { createHash } from "node:crypto";
import { access, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { ROOT, run } from "./run.ts";

const CONSOLE = join(ROOT, "clients/console");
/** Hidden, so that it is not served. */
const STAMP = join(CONSOLE, "dist", ".sources");
/** What the build is made from: its sources, the generated client, and the versions of the packages. */
const INPUTS = ["clients/console", "clients/ts/src", "proto/gen", "package-lock.json"] as const;
const NOT_INPUTS = /(^|\/)(node_modules|dist|\.[^/]*)(\/|$)|\.test\.tsx?$/;

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function filesIn(input: string): Promise<string[]> {
  const path = join(ROOT, input);
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => null);
  if (entries === null) return [input];
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .filter((name) => !NOT_INPUTS.test(name));
}

async function sourcesDigest(): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await Promise.all(INPUTS.map(filesIn))).flat().toSorted()) {
    const content = await readFile(join(ROOT, name));
    hash.update(`${name}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}

export type Built = "built" | "unchanged" | "no vite";

/** @throws with Vite's output when it fails */
export async function buildConsole({ ifChanged }: { readonly ifChanged: boolean }): Promise<Built> {
  const digest = await sourcesDigest();
  const before = await readFile(STAMP, "utf8").catch(() => "");
  if (ifChanged && before === digest && (await isThere(join(CONSOLE, "dist/checkout.html")))) return "unchanged";
  if (!(await isThere(join(ROOT, "node_modules/vite")))) return "no vite";
  const { code, output } = await run("vite", ["build"], { cwd: CONSOLE });
  if (code !== 0) throw new Error(`the checkout page was not built: vite ended with ${code}\n${output}`);
  await writeFile(STAMP, digest);
  return "built";
}

if (import.meta.main) {
  const ifChanged = process.argv.includes("--if-changed");
  try {
    const built = await buildConsole({ ifChanged });
    if (built === "built") console.log("The checkout page is built: clients/console/dist.");
    if (built === "no vite") {
      console.log(
        "Vite is not installed, so the checkout page is not built; after `npm ci` it is, or by `npm run build`.",
      );
      if (!ifChanged) process.exitCode = 1;
    }
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
