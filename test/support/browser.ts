/** Pages of a real browser for tests, whose troubles are kept, and pictures of them. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";

/** Where screenshots go; git ignores it. */
export const SCREENSHOTS = fileURLToPath(new URL("../../.cache/screenshots/", import.meta.url));

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
    if (message.type() === "error") troubles.push(`console: ${message.text()} at ${message.location().url}`);
  });
  return { context, page, troubles };
}

export async function screenshot(page: Page, name: string): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}
