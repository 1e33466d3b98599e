/** Opens pages that are watched: what goes wrong in them, and where they call. */

import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";

export interface Watched {
  readonly context: BrowserContext;
  readonly page: Page;
  /** Errors of the console, of scripts, of the policy, and calls to other origins. */
  readonly problems: string[];
  close(): Promise<void>;
}

/** What the browser says of every call that fails, which tests let fail on purpose. */
const CALL_FAILED = /^Failed to load resource/;

export async function openWatched(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<Watched> {
  const context = await browser.newContext({
    baseURL: url,
    viewport: { width: 1280, height: 900 },
    locale: "en-US",
    reducedMotion: "reduce",
    ...options,
  });
  context.setDefaultTimeout(8_000);
  const problems: string[] = [];
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !CALL_FAILED.test(message.text()))
      problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(url) && !to.startsWith("data:")) problems.push(`called ${to}`);
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      console.error(`policy: ${event.violatedDirective}`),
    );
  });
  return { context, page, problems, close: () => context.close() };
}
