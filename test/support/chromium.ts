/** A real browser for tests: the system's Chromium, driven by Playwright. */

import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { aptInstall } from "./postgres_server.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"] as const;
const PACKAGE = "chromium";
/** No sandbox, because tests may run as root; and nothing that calls home. */
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];

async function look(): Promise<string | undefined> {
  for (const name of NAMES) {
    for (const dir of [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin"]) {
      const path = join(dir, name);
      const isThere = await access(path, constants.X_OK).then(
        () => true,
        () => false,
      );
      if (isThere) return path;
    }
  }
  return undefined;
}

/** The browser's program, installed if the machine lacks it. @throws saying precisely what is missing */
export async function findChromium(): Promise<string> {
  const present = await look();
  if (present !== undefined) return present;
  const missing = `Chromium is missing: none of ${NAMES.join(", ")} is on PATH. Install Chromium.`;
  await aptInstall([PACKAGE], missing);
  const installed = await look();
  if (installed === undefined) throw new Error(missing);
  return installed;
}

export async function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: await findChromium(), args: ARGUMENTS });
}
