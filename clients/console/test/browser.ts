/** Chromium and a fresh build of the page, for tests. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { build } from "vite";

const CONSOLE = fileURLToPath(new URL("..", import.meta.url));
export const CACHE = fileURLToPath(new URL("../../../.cache", import.meta.url));

/** Not into `dist/`: somebody may be serving that. */
export async function buildPage(): Promise<string> {
  const outDir = join(CACHE, "console_test");
  await build({
    root: CONSOLE,
    configFile: join(CONSOLE, "vite.config.ts"),
    mode: "production",
    logLevel: "error",
    build: { outDir, emptyOutDir: true },
  });
  return outDir;
}

export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM_PATH"] ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
}
