/** A real browser for tests: Chromium of the system, driven by Playwright. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

/** Where screenshots go; git ignores it. */
export const SCREENSHOTS = fileURLToPath(new URL("../../.cache/screenshots/", import.meta.url));

/** Chromium of the system's packages; the rest keeps it from looking for its maker's hosts. */
export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM_PATH"] ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
export const DESKTOP = { viewport: { width: 1280, height: 900 } };

export interface Watched {
  readonly context: BrowserContext;
  readonly page: Page;
  /** What went wrong in the page: errors, refused scripts, what the content security policy stopped. */
  readonly troubles: string[];
}

/** A page whose troubles are kept. */
export async function openPage(
  browser: Browser,
  options: Parameters<Browser["newContext"]>[0] = DESKTOP,
): Promise<Watched> {
  const context = await browser.newContext({ locale: "en-US", ...options });
  const page = await context.newPage();
  const troubles: string[] = [];
  page.on("pageerror", (error) => troubles.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") troubles.push(`console: ${message.text()}`);
  });
  return { context, page, troubles };
}

export async function screenshot(page: Page, name: string): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}
