/** `node clients/console/test/shots_main.ts [face …]`: pictures of all faces into .cache/console_shots, to look at. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { buildPage, CACHE, openBrowser } from "./browser.ts";
import { FakeCheckout } from "./fake_checkout.ts";
import { servePage } from "./page_server.ts";
import { FACES } from "./states.ts";

const SIZES = {
  phone: { width: 390, height: 844 },
  desktop: { width: 1280, height: 900 },
  small: { width: 320, height: 640 },
};
const wanted = process.argv.slice(2);
const out = join(CACHE, "console_shots");
await mkdir(out, { recursive: true });
const fake = new FakeCheckout();
const server = await servePage(await buildPage(), fake);
const browser = await openBrowser();
for (const face of FACES.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"] as const) {
      for (const lang of ["en", "zh"] as const) {
        if (size === "small" && (colorScheme === "dark" || lang === "zh")) continue;
        if ((colorScheme === "dark") !== (lang === "zh") && face.name !== "choose") continue;
        fake.reset();
        const context = await browser.newContext({ viewport, colorScheme, locale: lang === "zh" ? "zh-CN" : "en-US" });
        const page = await context.newPage();
        await page.goto(server.url + face.prepare(fake));
        await page.waitForSelector("#step-title", { timeout: 5_000 });
        await page.waitForTimeout(face.name === "scan" ? 500 : 100);
        await page.screenshot({ path: join(out, `${face.name}-${size}-${colorScheme}-${lang}.png`), fullPage: true });
        await context.close();
      }
    }
  }
}
await browser.close();
await server.close();
