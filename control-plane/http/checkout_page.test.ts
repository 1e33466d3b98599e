/** The checkout page as a browser gets it, from a build like Vite's. */

import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckoutPage } from "./checkout_page.ts";
import type { HttpAnswer, HttpRoute } from "./route.ts";

const FILES: Readonly<Record<string, string | Uint8Array>> = {
  "checkout.html": '<!doctype html><title>Top up</title><script src="/console/assets/checkout-Ab12_-xy.js"></script>',
  "assets/checkout-Ab12_-xy.js": "console.log(1);".repeat(500),
  "assets/checkout-Ab12_-xy.css": "a{}",
  "assets/checkout-Ab12_-xy.js.map": "{}",
  "assets/font-Ab12Cd34.woff2": new Uint8Array(randomBytes(64)),
  "favicon.svg": "<svg/>",
  ".sources": "digest",
  "other.html": "<p>",
};
let dist = "";
let routes: readonly HttpRoute[];
const logLines: string[] = [];
const log = pino({ level: "info" }, { write: (line: string) => void logLines.push(line) });

beforeAll(() => {
  dist = mkdtempSync(join(tmpdir(), "tokenbill-dist-"));
  for (const [name, content] of Object.entries(FILES)) {
    mkdirSync(dirname(join(dist, name)), { recursive: true });
    writeFileSync(join(dist, name), content);
  }
  ({ routes } = openCheckoutPage(log, "http://127.0.0.1:8080", dist));
});
afterAll(() => rmSync(dist, { recursive: true, force: true }));

async function get(path: string, encoding = "", among = routes): Promise<HttpAnswer | null> {
  const route = among.find((each) => each.matches(path));
  if (route === undefined) return null;
  return route.handle({
    method: "GET",
    path,
    query: new URLSearchParams(),
    headers: { "accept-encoding": encoding },
    clientAddress: "",
    body: async () => new Uint8Array(0),
  });
}

describe("the page", () => {
  test.each(["/checkout", "/checkout/", `/checkout/cs_${"a".repeat(26)}`])(
    "is at %s, and is not kept",
    async (path) => {
      expect(await get(path)).toMatchObject({
        status: 200,
        headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" },
      });
    },
  );

  test.each(["/checkout/x", "/checkout/cs_", "/checkouts", `/checkout/cs_${"a".repeat(26)}/x`])(
    "is not at %s",
    async (path) => expect(await get(path)).toBeNull(),
  );

  test("finds its files where a proxy has put the whole", async () => {
    const proxied = openCheckoutPage(log, "https://shop.example/a$&b/pay", dist);
    const answer = await get("/checkout", "", proxied.routes);
    expect(Buffer.from(answer!.body).toString()).toContain('src="/a$&b/pay/console/assets/checkout-Ab12_-xy.js"');
    expect(Buffer.from((await get("/checkout"))!.body).toString()).toContain('src="/console/assets/');
  });

  test("says how to make it where it was not made, and so does the log", async () => {
    const missing = openCheckoutPage(log, "http://127.0.0.1:8080", join(dist, "nowhere"));
    expect(logLines.join("")).toContain("npm run build");
    const answer = await get("/checkout", "", missing.routes);
    expect(answer).toMatchObject({ status: 200, body: expect.stringContaining("npm run build") });
    await expect(get("/console/favicon.svg", "", missing.routes)).rejects.toMatchObject({ status: 404 });
  });
});

describe("its files", () => {
  test("have their types, and those with a hash in the name are kept for ever", async () => {
    expect(await get("/console/assets/checkout-Ab12_-xy.js")).toMatchObject({
      headers: {
        "content-type": "text/javascript; charset=utf-8",
        "cache-control": "public, max-age=31536000, immutable",
        vary: "accept-encoding",
      },
    });
    const icon = await get("/console/favicon.svg");
    expect(icon!.headers).toMatchObject({ "content-type": "image/svg+xml", "cache-control": "public, max-age=3600" });
    const font = await get("/console/assets/font-Ab12Cd34.woff2", "br, gzip");
    expect(font!.headers["content-encoding"]).toBeUndefined();
    expect(Buffer.from(font!.body as Uint8Array)).toEqual(Buffer.from(FILES["assets/font-Ab12Cd34.woff2"]!));
  });

  test("are compressed as the browser likes it, the same time and again", async () => {
    const path = "/console/assets/checkout-Ab12_-xy.js";
    for (let round = 0; round < 2; round += 1) {
      const br = await get(path, "gzip, br");
      expect(br!.headers["content-encoding"]).toBe("br");
      expect(br!.body.length).toBeLessThan(200);
      expect(brotliDecompressSync(br!.body).toString()).toBe(FILES["assets/checkout-Ab12_-xy.js"]);
      const gz = await get(path, "gzip");
      expect(gunzipSync(gz!.body as Uint8Array).toString()).toBe(FILES["assets/checkout-Ab12_-xy.js"]);
    }
  });

  test.each([
    "/console/",
    "/console/checkout.html",
    "/console/other.html",
    "/console/.sources",
    "/console/assets/checkout-Ab12_-xy.js.map",
    "/console/../package.json",
    "/console/assets/../checkout.html",
    "/console/%2e%2e/package.json",
    "/console/assets//checkout-Ab12_-xy.js",
    "/console/assets\\checkout-Ab12_-xy.js",
    "/console/constructor",
  ])("are no others: %s", async (path) => {
    await expect(get(path)).rejects.toMatchObject({ status: 404 });
  });
});
