/** The sandbox's page in a real browser: without scripts, by keyboard, on a phone, and for those who cannot see it. */

import axe, { type AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium } from "../../test/support/chromium.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { type Sandbox, startSandbox } from "./testing_sandbox.ts";

let db: Database;
let sandbox: Sandbox;
let browser: Browser;
let returnUrl = "";
const PHONE = { width: 320, height: 640 };

beforeAll(async () => {
  db = await openTestDatabases()[1]!.open();
  [sandbox, browser] = await Promise.all([startSandbox(db), launchChromium()]);
  returnUrl = `${sandbox.cp.url}/checkout/cs_${"a".repeat(26)}`;
});
afterAll(async () => {
  await browser?.close();
  await sandbox?.cp.close();
  await db?.close();
});

async function violations(page: Page): Promise<string[]> {
  // As the page's own script it would be refused.
  await page.evaluate(axe.source);
  const results = await page.evaluate<AxeResults>("axe.run()");
  return results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}

test("it can be read by everybody, on the narrowest phone, in the light and in the dark", async () => {
  const opened = await sandbox.start({ saveMethod: true, returnUrl });
  const page = await browser.newPage({ locale: "zh-CN", colorScheme: "light", viewport: PHONE });
  await page.goto(opened.url);
  expect(await violations(page)).toEqual([]);
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(PHONE.width);
  await sandbox.press(opened, "approve");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.reload();
  expect(await page.getByRole("button").count()).toBe(3);
  expect(await violations(page)).toEqual([]);
  await page.close();
});

test("it works without scripts and by keyboard alone; the browser lets its forms through", async () => {
  const opened = await sandbox.start({ returnUrl });
  const page = await browser.newPage({ javaScriptEnabled: false, locale: "en-US" });
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(message.text()));
  await page.goto(opened.url);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForURL(returnUrl);
  expect(await sandbox.account.find(opened.known)).toMatchObject({ state: "paid" });
  await page.goto(opened.url);
  await page.getByRole("button", { name: /^Refund half/ }).click();
  await page.getByText("Given back so far: $5.00").waitFor();
  expect(page.url()).toBe(opened.url);
  expect(complaints.filter((text) => /policy|refused/i.test(text))).toEqual([]);
  await page.close();
});
