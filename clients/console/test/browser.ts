/** Chromium and a fresh build of the page, for tests. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { build } from "vite";

const CONSOLE = fileURLToPath(new URL("..", import.meta.url));
export const CACHE = fileURLToPath(new URL("../../../.cache", import.meta.url));

export type Mode = "production" | "development";

/** Not into `dist/`: somebody may be serving that. React's strict mode shows itself in development only. */
export async function buildPage(mode: Mode = "production"): Promise<string> {
  const outDir = join(CACHE, `console_test_${mode}`);
  const before = process.env["NODE_ENV"];
  process.env["NODE_ENV"] = mode; // What Vite goes by, and Vitest has set it.
  try {
    await build({
      root: CONSOLE,
      configFile: join(CONSOLE, "vite.config.ts"),
      mode,
      logLevel: "error",
      build: { outDir, emptyOutDir: true, reportCompressedSize: false },
    });
  } finally {
    process.env["NODE_ENV"] = before;
  }
  return outDir;
}

export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM_PATH"] ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
}
