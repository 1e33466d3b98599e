/** Who may see the sandbox's page, what it says, and who may press its buttons. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { PAGE_POLICY } from "../http/headers.ts";
import { deletePaymentAccount, insertPaymentAccount } from "../store/payment_account.ts";
import { sandboxAvailable } from "./sandbox_available.ts";
import { fieldsOf, RETURN_URL, type Sandbox, startSandbox } from "./testing_sandbox.ts";

let db: Database;
let sandbox: Sandbox;

beforeAll(async () => {
  db = await openTestDatabases()[1]!.open();
  sandbox = await startSandbox(db);
});
afterAll(async () => {
  await sandbox.cp.close();
  await db.close();
});

const SECURE = {
  "content-security-policy": PAGE_POLICY,
  "x-frame-options": "DENY",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "x-robots-tag": "noindex, nofollow",
};

function expectSecure(answer: Response): void {
  for (const [name, value] of Object.entries(SECURE)) expect([name, answer.headers.get(name)]).toEqual([name, value]);
  expect(answer.headers.get("permissions-policy")).toContain("camera=()");
}

describe("the page", () => {
  test("says TEST, who sells, what and for how much, with nothing that runs", async () => {
    const opened = await sandbox.start();
    const answer = await sandbox.show(opened);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expectSecure(answer);
    const page = await answer.text();
    expect(page).toContain("<strong>TEST</strong>");
    expect(page).toContain("No money moves");
    expect(page).toContain("Acme &lt;b&gt;&amp; Sons&lt;/b&gt;");
    expect(page).toContain("$10.01");
    expect(page).toContain("5,000,000 Credits");
    expect(page).not.toMatch(/<script|<b>| style=| on\w+=/i);
    const choices = [...page.matchAll(/name="choice" value="(\w+)"/g)].map((match) => match[1]);
    expect(choices).toEqual([
      "approve",
      "decline",
      "approve_later",
      "approve_repeatedly",
      "approve_silently",
      "cancel",
    ]);
    const style = await fetch(new URL(/href="([^"]+\.css)"/.exec(page)![1]!, opened.url));
    expect(style.headers.get("content-type")).toBe("text/css; charset=utf-8");
    expectSecure(style);
  });

  test.each([
    ["zh-CN,zh;q=0.9", "zh-Hans", "支付成功", "¥10.01"],
    ["fr", "en", "Approve", "CN¥10.01"],
  ])("speaks the payer's language: %s", async (accepted, lang, word, amount) => {
    const opened = await sandbox.start({ currency: "CNY" });
    const page = await (await sandbox.show(opened, { "accept-language": accepted })).text();
    expect(page).toContain(`<html lang="${lang}">`);
    expect(page).toContain("TEST");
    expect(page).toContain(word);
    expect(page).toContain(amount);
  });

  test("shows amounts to the last digit, however large and in whatever currency", async () => {
    const amounts = [
      [{ currency: "JPY", amountMinor: 99_999_999_999_999n }, "¥99,999,999,999,999"],
      [{ currency: "KWD", amountMinor: 1n }, "0.001"],
      [{ currency: "USD", amountMinor: 99_999_999_999_999n }, "$999,999,999,999.99"],
    ] as const;
    for (const [order, text] of amounts)
      expect(await (await sandbox.show(await sandbox.start(order))).text()).toContain(text);
  });

  test("offers a card that fails later only where one is saved", async () => {
    expect(await (await sandbox.show(await sandbox.start())).text()).not.toContain('name="card"');
    expect(await (await sandbox.show(await sandbox.start({ saveMethod: true }))).text()).toContain('name="card"');
  });

  test("is not there for a payment that is not", async () => {
    const answer = await fetch(`${sandbox.cp.url}/sandbox/pay/sbp_${"a".repeat(26)}`);
    expect(answer.status).toBe(404);
    expectSecure(answer);
    expect((await fetch(`${sandbox.cp.url}/sandbox/pay/x`)).status).toBe(404);
    expect((await fetch(`${sandbox.cp.url}/sandbox/style.css`, { method: "POST" })).status).toBe(405);
  });
});

describe("pressing", () => {
  const pending = { state: "pending" };

  test.each([
    ["another site's page", { "sec-fetch-site": "cross-site", origin: "https://evil.example" }],
    ["a neighbour's page", { "sec-fetch-site": "same-site", origin: "http://evil.localhost" }],
    ["an old browser on another site's page", { origin: "https://evil.example" }],
  ])("from %s is refused, even with the token", async (_who, headers) => {
    const opened = await sandbox.start();
    const answer = await sandbox.press(opened, "approve", {}, headers);
    expect(answer.status).toBe(403);
    expectSecure(answer);
    expect(await sandbox.account.find(opened.known)).toEqual(pending);
  });

  test("without the payment's own token is refused", async () => {
    const [opened, other] = [await sandbox.start(), await sandbox.start()];
    const { token } = fieldsOf(await (await sandbox.show(other)).text());
    for (const wrong of [token!, "", `${token}x`]) {
      const answer = await sandbox.press(opened, "approve", { token: wrong }, { "sec-fetch-site": "same-origin" });
      expect(answer.status).toBe(403);
    }
    expect(await sandbox.account.find(opened.known)).toEqual(pending);
  });

  test.each([
    ["today's browsers", { "sec-fetch-site": "same-origin", origin: "null" }],
    ["older ones, which hide the origin", { origin: "null" }],
    ["those that tell it", { origin: "" }],
    ["those that say nothing", {}],
  ])("works in %s", async (_who, headers) => {
    const opened = await sandbox.start();
    const told = "origin" in headers && headers.origin === "" ? { origin: sandbox.cp.url } : headers;
    const answer = await sandbox.press(opened, "approve", {}, told);
    expect([answer.status, answer.headers.get("location")]).toEqual([303, RETURN_URL]);
    expectSecure(answer);
    expect(await sandbox.account.find(opened.known)).toMatchObject({ state: "paid" });
  });

  test("something else than a button, or in another form, is refused", async () => {
    const opened = await sandbox.start();
    expect((await sandbox.press(opened, "rob")).status).toBe(400);
    const { token } = fieldsOf(await (await sandbox.show(opened)).text());
    const json = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }) };
    expect((await fetch(opened.url, json)).status).toBe(415);
    const plain = { method: "POST", headers: { "content-type": "text/plain" }, body: `token=${token}&choice=approve` };
    expect((await fetch(opened.url, plain)).status).toBe(415);
    expect((await sandbox.press(opened, "approve", { more: "x".repeat(5000) })).status).toBe(413);
    expect(await sandbox.account.find(opened.known)).toEqual(pending);
  });

  test("many times at once decides once", async () => {
    const opened = await sandbox.start();
    const fields = fieldsOf(await (await sandbox.show(opened)).text());
    while ((await sandbox.tick()) > 0);
    const choices = ["approve", "decline", "cancel", "approve_later", "approve_repeatedly", "approve"];
    const answers = await Promise.all(
      choices.map((choice) =>
        fetch(opened.url, { method: "POST", body: new URLSearchParams({ ...fields, choice }), redirect: "manual" }),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(choices.map(() => 303));
    const status = await sandbox.account.find(opened.known);
    for (let n = 0; n < 3; n += 1) expect(await sandbox.account.find(opened.known)).toEqual(status);
    expect(await sandbox.tick()).toBeLessThanOrEqual(1);
  });
});

describe("where the sandbox is not available", () => {
  async function withReal<T>(work: () => Promise<T>): Promise<T> {
    const { deps } = sandbox.cp;
    const id = deps.newId("pay_");
    const [merchant] = await db.query<{ id: string }>("select id from merchant limit 1");
    const row = {
      id,
      merchant_id: merchant!.id,
      processor: PaymentProcessor.STRIPE,
      name: "real",
      credentials: new Uint8Array(1),
      methods: [PaymentMethod.STRIPE_CHECKOUT],
      test: false,
      hint: "",
      disabled: true,
    };
    await db.tx((tx) => insertPaymentAccount(tx, row, new Date()));
    try {
      return await work();
    } finally {
      await db.tx((tx) => deletePaymentAccount(tx, id));
    }
  }

  test("nothing is shown, started, approved, charged or disputed; what was paid can be given back", async () => {
    const { account } = sandbox;
    const saving = await sandbox.start({ saveMethod: true });
    await sandbox.press(saving, "approve");
    const status = await account.find(saving.known);
    if (status.state !== "paid") throw new Error("not paid");
    const opened = await sandbox.start();
    const fields = fieldsOf(await (await sandbox.show(opened)).text());
    await withReal(async () => {
      expect((await sandbox.show(opened)).status).toBe(404);
      for (const choice of ["approve", "approve_later", "approve_silently"]) {
        const body = new URLSearchParams({ ...fields, choice });
        expect((await fetch(opened.url, { method: "POST", body })).status).toBe(404);
      }
      expect(await account.find(opened.known)).toEqual({ state: "pending" });
      await expect(sandbox.start()).rejects.toMatchObject({ code: "refused", failure: "sandbox_unavailable" });
      await expect(account.chargeSaved!(sandbox.order(), status.savedMethod!.credentials)).rejects.toMatchObject({
        failure: "sandbox_unavailable",
      });
      expect((await sandbox.press(saving, "dispute", fieldsOf(""))).status).not.toBe(303);
      expect(await account.refund(sandbox.refundOrder(saving, "rfd_1", 1n))).toMatchObject({ state: "succeeded" });
      expect(await account.close(opened.known)).toEqual({ state: "closed" });
    });
    expect(await account.find(opened.known)).toEqual({ state: "closed" });
  });

  test.each([
    ["always", "https://pay.example", true, true],
    ["always", "http://127.0.0.1:8080", false, true],
    ["never", "http://127.0.0.1:8080", false, false],
    ["auto", "http://127.0.0.1:8080", false, true],
    ["auto", "http://localhost:8080", false, true],
    ["auto", "http://[::1]:8080/base", false, true],
    ["auto", "http://127.0.0.1:8080", true, false],
    ["auto", "https://pay.example", false, false],
    ["auto", "http://127.0.0.1.evil.example", false, false],
    ["auto", "http://localhost.evil.example", false, false],
    ["auto", "http://10.0.0.1:8080", false, false],
    ["auto", "", false, false],
  ] as const)("%s at %s, real accounts: %s -> %s", (sandboxPayments, publicUrl, anyReal, available) => {
    const address = { host: "127.0.0.1", port: 8080 };
    expect(sandboxAvailable({ sandboxPayments, publicUrl, address, trustedProxyHops: 0 }, anyReal)).toBe(available);
  });

  test("not where others reach the port, whatever the links say", () => {
    const settings = { sandboxPayments: "auto", publicUrl: "http://localhost:8080", trustedProxyHops: 0 } as const;
    expect(sandboxAvailable({ ...settings, address: { host: "0.0.0.0", port: 8080 } }, false)).toBe(false);
    expect(sandboxAvailable({ ...settings, address: { host: "::1", port: 8080 } }, false)).toBe(true);
    const proxied = { ...settings, address: { host: "::1", port: 8080 }, trustedProxyHops: 1 };
    expect(sandboxAvailable(proxied, false)).toBe(false);
    expect(sandboxAvailable({ ...proxied, sandboxPayments: "always" }, false)).toBe(true);
  });
});
