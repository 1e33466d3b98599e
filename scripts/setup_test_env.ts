/**
 * Brings what tests need and the machine lacks: PostgreSQL, Redis, Go, Chromium, and the checkout page as it is served. Says
 * precisely what is missing if it cannot.
 */

import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { findChromium } from "../test/support/chromium.ts";
import { aptInstall, findBinaries } from "../test/support/postgres_server.ts";
import { findRedis } from "../test/support/redis_server.ts";
import { buildConsole } from "./build_console.ts";
import { GO_HOME, mustRun, run } from "./run.ts";

/** From 1.21 on, Go fetches the exact toolchain that a go.mod names by itself. */
const GO_MINOR_MIN = 21;
/** What an older Go is told to fetch. */
const GO_VERSION = "1.26.8";

async function goMinor(): Promise<number> {
  const { code, output } = await run("go", ["version"]);
  return code === 0 ? Number(/go1\.(\d+)/.exec(output)?.[1] ?? 0) : 0;
}

/** A toolchain is a Go module, so any Go can fetch a newer one; the module cache only drops the execute bits. */
async function fetchToolchain(): Promise<void> {
  const platform = `${process.platform}-${process.arch === "x64" ? "amd64" : process.arch}`;
  const module = `golang.org/toolchain@v0.0.1-go${GO_VERSION}.${platform}`;
  const { Dir } = JSON.parse(await mustRun("go", ["mod", "download", "-json", module])) as { Dir: string };
  await rm(GO_HOME, { recursive: true, force: true });
  await cp(Dir, GO_HOME, { recursive: true });
  await mustRun("chmod", ["-R", "u+w", GO_HOME]);
  await mustRun("chmod", ["-R", "a+x", join(GO_HOME, "bin"), join(GO_HOME, "pkg/tool")]);
}

async function ensureGo(): Promise<void> {
  const missing = `Go is missing (\`go\` on PATH or in /usr/local/go/bin); see go.dev/doc/install.`;
  if ((await goMinor()) === 0) await aptInstall(["golang-go"], missing);
  if ((await goMinor()) < GO_MINOR_MIN) await fetchToolchain();
}

export async function setUpTestEnvironment(): Promise<void> {
  await ensureGo();
  await findRedis();
  // The tests of the page look nowhere else.
  process.env["CHROMIUM_PATH"] ??= await findChromium();
  if ((await buildConsole({ ifChanged: true })) === "no vite") throw new Error("Vite is missing: run `npm ci`.");
  const given = process.env["TEST_DATABASE_URL"];
  if (given === undefined || given === "") await findBinaries();
}

if (import.meta.main) {
  try {
    await setUpTestEnvironment();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
