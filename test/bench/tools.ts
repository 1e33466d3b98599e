/** The programs of the proxy benches: nginx, wrk, taskset; installed from Debian packages where they are missing. */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { aptInstall } from "../support/postgres_server.ts";

const PACKAGES = { nginx: "nginx-light", wrk: "wrk", taskset: "util-linux" } as const;
export type Tool = keyof typeof PACKAGES;

function find(tool: Tool): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/bin"];
  return folders
    .map((folder) => join(folder, tool))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Paths of the programs. Installs what is missing where that is allowed. @throws saying precisely what is missing */
export async function tools(...wanted: Tool[]): Promise<Record<Tool, string>> {
  const missing = wanted.filter((tool) => find(tool) === undefined);
  if (missing.length > 0) {
    const packages = missing.map((tool) => PACKAGES[tool]);
    const what = `This bench needs ${missing.join(", ")} on PATH (Debian: apt-get install ${packages.join(" ")}).`;
    if (process.getuid?.() !== 0) throw new Error(what);
    await aptInstall(packages, what);
  }
  const found = Object.fromEntries(wanted.map((tool) => [tool, find(tool)]));
  const still = wanted.find((tool) => found[tool] === undefined);
  if (still !== undefined) throw new Error(`${still} is still not on PATH after installing ${PACKAGES[still]}.`);
  return found as Record<Tool, string>;
}
