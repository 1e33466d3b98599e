/** The imitation itself, where the adapter does not show that it is as strict as Stripe. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Stripe } from "stripe";
import { afterAll, beforeAll, expect, test } from "vitest";
import { STRIPE_API_VERSION } from "./stripe_client.ts";
import { startStripeImitation, type StripeImitation } from "./testing_stripe.ts";
import { stripeFixture } from "./testing_stripe_fixture.ts";

let stripe: StripeImitation;

beforeAll(async () => {
  stripe = await startStripeImitation();
});
afterAll(() => stripe.close());

async function post(path: string, body: string, headers: Record<string, string> = {}): Promise<[number, string]> {
  const response = await fetch(stripe.url + path, {
    method: "POST",
    headers: {
      authorization: `Bearer ${stripe.secretKey}`,
      "stripe-version": STRIPE_API_VERSION,
      "content-type": "application/x-www-form-urlencoded",
      ...headers,
    },
    body,
  });
  const { error } = (await response.json()) as { error?: { code?: string; type: string } };
  return [response.status, error?.code ?? error?.type ?? ""];
}

const GOOD =
  "mode=payment&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd&line_items[0][price_data][unit_amount]=500&line_items[0][price_data][product_data][name]=x&success_url=http://a.test/&cancel_url=http://a.test/";

test.each([
  ["what is right", GOOD, {}, [200, ""]],
  ["another version", GOOD, { "stripe-version": "2020-08-27" }, [400, "invalid_request_error"]],
  ["JSON", "{}", { "content-type": "application/json" }, [400, "invalid_request_error"]],
  ["no key", GOOD, { authorization: "" }, [401, "invalid_request_error"]],
  ["unknown parameters", `${GOOD}&surprise=1`, {}, [400, "parameter_unknown"]],
  ["capitals", GOOD.replace("usd", "USD"), {}, [400, "invalid_request_error"]],
  ["an end too soon", `${GOOD}&expires_at=${Math.floor(Date.now() / 1000) + 1700}`, {}, [400, "invalid_request_error"]],
  [
    "an end too late",
    `${GOOD}&expires_at=${Math.floor(Date.now() / 1000) + 90_000}`,
    {},
    [400, "invalid_request_error"],
  ],
  ["no amount", GOOD.replace("=500", "="), {}, [400, "parameter_missing"]],
] as const)("answers %s", async (_name, body, headers, expected) => {
  expect(await post("/v1/checkout/sessions", body, headers)).toStrictEqual(expected);
});

test("keeps answers under their key, for a day and for the same request only", async () => {
  const client = new Stripe(stripe.secretKey, {
    apiVersion: STRIPE_API_VERSION,
    host: "127.0.0.1",
    port: new URL(stripe.url).port,
    protocol: "http",
    telemetry: false,
  });
  const key = { "idempotency-key": "one" };
  expect(await post("/v1/checkout/sessions", GOOD, key)).toStrictEqual([200, ""]);
  expect(await post("/v1/checkout/sessions", GOOD, key)).toStrictEqual([200, ""]);
  const before = await client.checkout.sessions.list({ limit: 100 });
  expect(await post("/v1/checkout/sessions", `${GOOD}&locale=zh`, key)).toStrictEqual([400, "idempotency_error"]);
  // What is not valid is not carried out, and so not kept.
  const other = { "idempotency-key": "two" };
  expect(await post("/v1/checkout/sessions", "mode=payment", other)).toStrictEqual([400, "invalid_request_error"]);
  expect(await post("/v1/checkout/sessions", GOOD, other)).toStrictEqual([200, ""]);
  stripe.clock.offsetMs += 25 * 3_600_000;
  expect(await post("/v1/checkout/sessions", `${GOOD}&locale=zh`, key)).toStrictEqual([200, ""]);
  const after = await client.checkout.sessions.list({ limit: 100 });
  expect(after.data.length - before.data.length).toBe(2);
});

test("has a page to pay on, and tells the webhook before it sends the payer back", async () => {
  const received: string[] = [];
  const hook = createServer((request, response) => {
    request.resume().on("end", () => {
      received.push(String(request.headers["stripe-signature"]));
      response.end();
    });
  });
  await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
  stripe.webhookUrl = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/`;
  const fixture = stripeFixture(stripe);
  const order = fixture.order({ description: "<b>5</b> Credits" });
  const { action } = await fixture.open(stripe).start(order);
  const url = action.kind === "redirect" ? action.url : "";
  const page = await (await fetch(url)).text();
  expect(page).toContain('<button id="pay">');
  expect(page).not.toContain("<b>5");
  const declined = await fetch(`${url}/decline`, { method: "POST", redirect: "manual" });
  expect([declined.status, declined.headers.get("location")]).toStrictEqual([303, new URL(url).pathname]);
  const paid = await fetch(`${url}/pay`, { method: "POST", redirect: "manual" });
  expect([paid.status, paid.headers.get("location")]).toStrictEqual([303, order.returnUrl]);
  expect(received).toHaveLength(3);
  for (const signature of received) expect(signature).toMatch(/^t=\d+,v1=[0-9a-f]{64}$/);
  stripe.webhookUrl = null;
  hook.closeAllConnections();
  await new Promise<void>((resolve) => hook.close(() => resolve()));
});
