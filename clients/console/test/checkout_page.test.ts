/** The built page in a real browser, served with its policy, against a CheckoutService with a memory. */

import { readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import axe from "axe-core";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CheckoutState, PaymentMethod } from "../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { buildPage, CACHE, openBrowser } from "./browser.ts";
import { FakeCheckout, LINK, refusedPayment } from "./fake_checkout.ts";
import { type PageServer, servePage } from "./page_server.ts";
import { FACES } from "./states.ts";
import { openWatched, type Watched } from "./watch.ts";

const SCRIPT_BYTES_MAX = 150_000;
const WECHAT_AGENT = "Mozilla/5.0 (Linux; Android 14) Chrome/120.0 Mobile Safari/537.36 MicroMessenger/8.0.49";

const fake = new FakeCheckout();
let dist: string;
let strictDist: string;
let server: PageServer;
let browser: Browser;
let watched: Watched;
let page: Page;

beforeAll(async () => {
  browser = await openBrowser();
  dist = await buildPage();
  strictDist = await buildPage("development");
  server = await servePage(dist, fake);
  await mkdir(join(CACHE, "console_shots"), { recursive: true });
});

afterAll(async () => {
  await watched?.close();
  await browser?.close();
  await server?.close();
});

async function open(options: BrowserContextOptions = {}): Promise<void> {
  await watched?.close();
  watched = await openWatched(browser, server.url, options);
  page = watched.page;
}

beforeEach(async ({ task }) => {
  fake.reset();
  if (!shares(task.name)) await open();
});

afterEach(() => {
  expect(watched.problems).toEqual([]);
});

/** Many tests that only look use one window, one after the other. */
function shares(test: string): boolean {
  return test.includes("in both themes and languages") && !test.startsWith(FACES[0]!.name + ",");
}

const link = (returnPath = ""): string =>
  `/checkout?ve_id=ve_test&link=${LINK}${returnPath === "" ? "" : `&return_url=${encodeURIComponent(server.url + returnPath)}`}`;
const press = (name: string | RegExp): Promise<void> => page.getByRole("button", { name }).click();
const title = (name: string | RegExp) => page.getByRole("heading", { name }).waitFor();
const theSession = () => [...fake.sessions.values()].at(-1)!;
const atSession = ({ id, secret } = theSession()): string => `/checkout/${id}#${secret}`;

test("the scripts are small, and nothing is inline", () => {
  const assets = readdirSync(join(dist, "assets"));
  const scripts = assets.filter((name) => name.endsWith(".js")).map((name) => readFileSync(join(dist, "assets", name)));
  const gzip = scripts.reduce((sum, script) => sum + gzipSync(script, { level: 9 }).length, 0);
  const brotli = scripts.reduce((sum, script) => sum + brotliCompressSync(script).length, 0);
  console.log(`scripts of the checkout page: ${gzip} bytes with gzip, ${brotli} with brotli`);
  expect(gzip).toBeLessThan(SCRIPT_BYTES_MAX);
  // The rules' schema alone would be as large as the page.
  expect(scripts.some((script) => script.includes("buf.validate.FieldRules"))).toBe(false);
  const html = readFileSync(join(dist, "checkout.html"), "utf8");
  expect(html).not.toMatch(/<style|\sstyle=|\son\w+=/);
  for (const [, attributes, inside] of html.matchAll(/<script([^>]*)>([^<]*)</g)) {
    expect(attributes).toMatch(/src="\/console\/assets\/checkout-[\w-]+\.js"/);
    expect(inside).toBe("");
  }
});

describe("paying", () => {
  test("from a link to the processor and back to the caller, with one session", async () => {
    await page.goto(link("/caller"));
    await title("Top up Ada’s workspace");
    expect(new URL(page.url()).pathname + new URL(page.url()).search).toBe(`/checkout/${theSession().id}`);
    expect(await page.getByText("12,345.678900000001").isVisible()).toBe(true);
    await page.reload();
    await page.getByText("Studio").click();
    await page.getByText("5,500,000 Credits").waitFor();
    // Leaves without paying, by its link and by the browser's button: the same payment goes on.
    await press("Pay $50.00");
    await page.getByRole("link", { name: "Leave" }).click();
    await title("Your payment is not finished yet");
    await press("Continue to the payment");
    await page.getByRole("link", { name: "Approve" }).waitFor();
    await page.goBack();
    await press("Continue to the payment");
    await page.getByRole("link", { name: "Approve" }).click();
    await title("Payment received");
    await page.getByText("+5,500,000 Credits").waitFor();
    expect(await page.locator(".balance").innerText()).toContain("5,512,345.678900000001");
    expect(theSession().session.payments.length).toBe(1);
    expect(fake.countOf("create")).toBe(1);
    expect(fake.starts[0]).toMatchObject({
      creditPackId: "pack_2",
      amount: "",
      paymentAccountId: "pay_s",
      language: "en",
    });
    // Going back can be stopped, and does not start again on a reload.
    await press("Stay here");
    await page.reload();
    await title("Payment received");
    expect(await page.getByText("You go back automatically").count()).toBe(0);
    await page.getByRole("link", { name: /^Back to 127\.0\.0\.1/ }).click();
    await title("Caller");
  });

  test("the payer goes back by themselves after a success, and the link opens a new session then", async () => {
    await page.clock.install();
    await page.goto(link("/caller"));
    await press("Pay $10.00");
    await page.getByRole("link", { name: "Approve" }).click();
    await title("Payment received");
    await page.getByText("You go back automatically in 6 s.").first().waitFor();
    for (let i = 0; i < 20 && !page.url().endsWith("/caller"); i++) await page.clock.runFor(1_000);
    await title("Caller");
    await page.goto(link("/caller"));
    await title("Choose a pack");
    expect(fake.countOf("create")).toBe(2);
  });

  test("a second click does nothing, and one choice is one payment", async () => {
    await page.goto(link());
    await page.getByRole("button", { name: "Pay $10.00" }).dblclick({ noWaitAfter: true });
    await page.getByRole("link", { name: "Approve" }).waitFor();
    expect(fake.countOf("start")).toBe(1);
  });

  test("a lost connection is told, keeps everything, and pays once", async () => {
    await page.goto(link());
    await page.getByText("Studio").click();
    await watched.context.setOffline(true);
    await press("Pay $50.00");
    await page.getByText("No connection. Trying again…").waitFor();
    expect(await page.getByRole("button", { name: "One moment…" }).isDisabled()).toBe(true);
    expect(fake.countOf("start")).toBe(0);
    await watched.context.setOffline(false);
    await page.getByRole("link", { name: "Approve" }).waitFor();
    expect(theSession().session.payments.length).toBe(1);
    expect(fake.starts.map(({ creditPackId }) => creditPackId)).toEqual(["pack_2"]);
  });

  test("a QR code comes back after a reload, and the page notices the payment", async () => {
    await page.goto(link());
    await page.getByText("WeChat Pay").click();
    await press("Pay $10.00");
    const code = page.getByRole("img", { name: "QR code for paying $10.00 with WeChat" });
    await code.waitFor();
    const drawn = await code.locator("path").getAttribute("d");
    await page.reload();
    await code.waitFor();
    expect(await code.locator("path").getAttribute("d")).toBe(drawn);
    expect(theSession().session.payments.length).toBe(1);
    // Another way is chosen, and then not: the code is still there.
    await press("Choose another pack or way to pay");
    await title("Choose again");
    await press("Back to the payment");
    await code.waitFor();
    fake.fulfil(theSession().id);
    await title("Payment received");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Payment received");
  });

  test("an amount of one's own", async () => {
    await page.goto(link());
    await page.getByText("Your own amount").click();
    await press("Pay");
    await page.getByText("Enter an amount.").waitFor();
    const field = page.getByLabel("Amount in USD");
    expect(await field.evaluate((input) => document.activeElement === input)).toBe(true);
    await field.fill("2,500.01");
    await page.getByText("The most is $2,500.00.").waitFor();
    await field.fill("12.34");
    await page.getByText("1,234,000.617 Credits").waitFor();
    await press("Pay $12.34");
    await page.getByRole("link", { name: "Approve" }).waitFor();
    expect(fake.starts[0]).toMatchObject({ creditPackId: "pack_4", amount: "12.34" });
  });

  test("a refusal is told, and another try is possible", async () => {
    fake.refusal = refusedPayment("card_declined");
    await page.goto(link());
    await press("Pay $10.00");
    expect(await page.getByRole("alert").innerText()).toContain("The payment could not be started.");
    fake.refusal = null;
    await press("Pay $10.00");
    await page.getByRole("link", { name: "Approve" }).waitFor();
  });

  test("nobody is sent to an address that is not safe", async () => {
    for (const address of ["javascript:document.title='owned'", "http://shop.example/pay", "data:text/html,x"]) {
      fake.redirectTo = address;
      await page.goto(atSession(fake.make()));
      await press("Pay $10.00");
      await title("This payment cannot be opened");
      expect(page.url()).toBe(`${server.url}/checkout/${theSession().id}`);
      expect(await page.title()).not.toBe("owned");
    }
  });

  test("inside WeChat, its own window pays, with a code that is used once", async () => {
    await open({ userAgent: WECHAT_AGENT, viewport: { width: 390, height: 844 }, locale: "zh-CN" });
    await page.addInitScript(() => {
      const results = ["cancel", "ok"];
      Object.assign(window, {
        WeixinJSBridge: {
          invoke: (name: string, params: object, done: (result: object) => void) => {
            sessionStorage.setItem("invoked", JSON.stringify([name, params]));
            setTimeout(() => done({ err_msg: `get_brand_wcpay_request:${results.shift()}` }), 20);
          },
        },
      });
    });
    await page.goto(link());
    await press("支付 US$10.00");
    await page.getByText("您在付款前关闭了微信窗口。").waitFor();
    expect(page.url()).toBe(`${server.url}/checkout/${theSession().id}`);
    expect(fake.starts).toMatchObject([
      { method: PaymentMethod.WECHAT_JSAPI, wechatCode: "wechat_code", language: "zh" },
    ]);
    expect(JSON.parse((await page.evaluate(() => sessionStorage.getItem("invoked")))!)).toEqual([
      "getBrandWCPayRequest",
      { appId: "wx1", timeStamp: "1", nonceStr: "n", package: "prepay_id=1", signType: "RSA", paySign: "s" },
    ]);
    fake.paidAtProcessor.add(theSession().id);
    await press("重新打开微信付款窗口");
    await title("付款成功");
    expect(fake.countOf("start")).toBe(1);
  });
});

describe("sessions", () => {
  test("a secret leaves the address at once, and is there for the way back", async () => {
    const made = fake.make();
    await page.goto(atSession(made));
    await title("Choose a pack");
    expect(page.url()).toBe(`${server.url}/checkout/${made.id}`);
    const other = await watched.context.newPage();
    await other.goto(`/checkout/${made.id}`);
    await other.getByRole("heading", { name: "Choose a pack" }).waitFor();
  });

  test("React's strict mode, which does everything twice, opens one session", async () => {
    const strict = await servePage(strictDist, fake);
    const other = await openWatched(browser, strict.url);
    await other.page.goto(link());
    await other.page.getByRole("heading", { name: "Choose a pack" }).waitFor();
    expect(fake.countOf("create")).toBe(1);
    expect(other.problems).toEqual([]);
    await other.close();
    await strict.close();
    fake.url = server.url;
  });

  test("a session that expires meanwhile begins anew, with the same link", async () => {
    await page.goto(link());
    await title("Choose a pack");
    const first = theSession();
    first.session.state = CheckoutState.EXPIRED;
    await press("Pay $10.00");
    await title("This checkout has expired");
    await press("Start again");
    await title("Top up Ada’s workspace");
    await title("Choose a pack");
    expect(theSession().id).not.toBe(first.id);
    expect(page.url()).toBe(`${server.url}/checkout/${theSession().id}`);
  });

  test("giving up, and money that was paid nevertheless", async () => {
    await page.goto(link());
    await page.getByText("WeChat Pay").click();
    await press("Pay $10.00");
    await title("Scan with WeChat");
    await press("Cancel");
    await title("The top-up was cancelled");
    fake.paidAtProcessor.add(theSession().id);
    await page.reload();
    await title("Payment received");
  });

  test("without a good link there are packs and no wallet, and the language stays chosen", async () => {
    await page.goto("/checkout?ve_id=ve_test&link=old&lang=zh&return_url=https%3A%2F%2Fnot.allowed%2F");
    await title("选择套餐");
    expect(await page.locator(".wallet").count()).toBe(0);
    expect(await page.getAttribute("html", "lang")).toBe("zh-Hans");
    await page.reload();
    await title("选择套餐");
    await press("English");
    await title("Choose a pack");
    expect(await page.title()).toBe("Choose a pack – Lighthouse AI");
  });

  test("names are text, whatever they are made of", async () => {
    const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    fake.offer.merchantName = evil;
    fake.offer.payerWallet!.veName = evil;
    fake.offer.creditPacks[0]!.label = evil;
    await page.goto(link());
    await title(`Top up ${evil}`);
    expect(await page.getByText(evil).count()).toBeGreaterThanOrEqual(2);
    expect(await page.locator("body img, body script:not([src])").count()).toBe(0);
    expect(await page.title()).not.toBe("owned");
  });

  test("automatic top-ups are agreed to by a tick, and switched off in two steps", async () => {
    FACES.find(({ name }) => name === "choose_custom_auto")!.prepare(fake);
    await page.goto(atSession());
    const tick = page.getByRole("checkbox", { name: "Top up automatically from now on" });
    expect(await tick.isChecked()).toBe(false);
    await page.getByText("WeChat Pay").click();
    expect(await tick.count()).toBe(0);
    await page.getByText("Card and other ways").click();
    await tick.check();
    await press("Pay $10.00");
    await page.getByRole("link", { name: "Approve" }).waitFor();
    expect(fake.starts[0]).toMatchObject({ autoTopUp: true });
    fake.offer.autoTopUp!.enabled = true;
    await page.goto(atSession(fake.make()));
    await press("Switch off");
    await press("Yes, switch off");
    await page.getByText("Automatic top-up is off.").waitFor();
    expect(fake.countOf("autoTopUpOff")).toBe(1);
  });

  test("the keyboard alone is enough", async () => {
    await page.goto(link());
    await title("Choose a pack");
    const focused = () => page.evaluate(() => (document.activeElement as HTMLInputElement | null)?.value);
    for (let i = 0; i < 4 && (await focused()) !== "pack_1"; i++) await page.keyboard.press("Tab");
    await page.keyboard.press("ArrowDown");
    expect(await focused()).toBe("pack_2");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Approve" }).waitFor();
    expect(fake.starts[0]).toMatchObject({ creditPackId: "pack_2" });
  });
});

describe("every face", () => {
  interface Audited {
    readonly violations: readonly string[];
    readonly wide: number;
    readonly small: readonly string[];
  }

  /** Rules of accessibility, what is wider than the window, and what is too small to be hit. */
  function audit(): Promise<Audited> {
    return page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run(document, {
        resultTypes: ["violations"],
      });
      const targets = [...document.querySelectorAll("button, a, label.option, label.tick, input[type=text]")];
      return {
        violations: violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`)),
        wide: document.documentElement.scrollWidth - window.innerWidth,
        small: targets.filter((it) => it.getBoundingClientRect().height < 44).map(({ outerHTML }) => outerHTML),
      };
    });
  }

  const good: Audited = { violations: [], wide: 0, small: [] };

  // Colours do not depend on words, nor names on colours: two of the four together are all of each.
  test.each(FACES)("$name, in both themes and languages", async (face) => {
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 1280, height: 900 });
    const at = new URL(face.prepare(fake), server.url);
    at.searchParams.set("lang", "en");
    await page.goto(at.href);
    await page.getByText(face.text).first().waitFor();
    await page.evaluate(axe.source);
    expect(await audit()).toEqual(good);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 320, height: 640 });
    await press("中文");
    expect(await audit()).toEqual(good);
    await page.screenshot({ path: join(CACHE, "console_shots", `test-${face.name}.png`), fullPage: true });
  });

  test("nothing moves while the page comes up", async () => {
    await page.addInitScript(() => {
      Object.assign(window, { shift: 0 });
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
          (window as unknown as { shift: number }).shift += (entry as unknown as { value: number }).value;
        }
      }).observe({ type: "layout-shift", buffered: true });
    });
    await page.goto(link());
    await title("Choose a pack");
    await page.waitForTimeout(200);
    expect(await page.evaluate(() => (window as unknown as { shift: number }).shift)).toBeLessThan(0.01);
  });
});
