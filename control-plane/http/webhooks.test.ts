/** What reaches whoever takes notifications in, and what does not. */

import pino from "pino";
import { afterEach, expect, test } from "vitest";
import { PaymentProcessor } from "../domain/checkout.ts";
import type { RawNotification } from "../payments/payment.ts";
import { type ControlPlaneServer, listen } from "../server.ts";
import { NOTIFICATION_BYTES_MAX, NOTIFICATION_LIMITS, type Receive, webhookRoute } from "./webhooks.ts";

const ACCOUNT = `pay_${"b".repeat(26)}`;
const STRIPE = `/webhooks/stripe/${ACCOUNT}`;
const log = pino({ level: "silent" });
let server: ControlPlaneServer | undefined;

afterEach(() => server?.close({ drainMs: 0 }));

interface Received {
  readonly processor: number;
  readonly accountId: string;
  readonly raw: RawNotification;
}

async function serve(
  answer: () => ReturnType<Receive>,
  limits = NOTIFICATION_LIMITS,
): Promise<{ url: string; received: Received[] }> {
  const received: Received[] = [];
  const receive: Receive = (processor, accountId, raw) => {
    received.push({ processor, accountId, raw });
    return answer();
  };
  server = await listen({ host: "127.0.0.1", port: 0 }, log);
  server.serve({
    rpc: { knows: () => false, handle: async () => {} },
    routes: [webhookRoute({ receive, now: () => 1_700_000_000_000, log, limits })],
    settings: { publicUrl: "", trustedProxyHops: 0 },
    ping: async () => {},
    shutdown: new AbortController(),
  });
  return { url: `http://127.0.0.1:${server.address.port}`, received };
}

const ok = async () => ({ status: 200, type: "application/json", body: '{"code":"SUCCESS"}' });

test("a notification arrives byte for byte, and the processor's answer goes back", async () => {
  const { url, received } = await serve(ok);
  const body = Buffer.from([0, 255, 13, 10, 123]);
  const headers = { "stripe-signature": "t=1,v1=x", "content-type": "application/json" };
  const answer = await fetch(`${url}${STRIPE}?a=1`, { method: "POST", headers, body });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("application/json");
  expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
  expect(await answer.text()).toBe('{"code":"SUCCESS"}');
  const [{ processor, accountId, raw }] = received as [Received];
  expect({ processor, accountId }).toEqual({ processor: PaymentProcessor.STRIPE, accountId: ACCOUNT });
  expect(Buffer.from(raw.body)).toEqual(body);
  expect(raw).toMatchObject({ method: "POST", nowMs: 1_700_000_000_000, headers });
  expect(raw.query.get("a")).toBe("1");
});

test("WeChat's check of the address comes by GET; Stripe takes POST alone", async () => {
  const { url, received } = await serve(async () => ({ status: 200, type: "", body: "echo" }));
  const answer = await fetch(`${url}/webhooks/wechat/${ACCOUNT}?echostr=echo`);
  expect(await answer.text()).toBe("echo");
  expect(received[0]).toMatchObject({ processor: PaymentProcessor.WECHAT_PAY, raw: { method: "GET" } });
  expect((await fetch(`${url}${STRIPE}`)).status).toBe(405);
});

test.each(["/webhooks/paypal/" + ACCOUNT, "/webhooks/stripe/", "/webhooks/stripe/pay_x", `${STRIPE}/x`])(
  "nothing is taken at %s",
  async (path) => {
    const { url, received } = await serve(ok);
    expect((await fetch(url + path, { method: "POST", body: "x" })).status).toBe(404);
    expect(received).toEqual([]);
  },
);

test("too large a body is refused, and a failure says nothing", async () => {
  const { url, received } = await serve(async () => {
    throw new Error("secret detail");
  });
  const post = (body: string | Uint8Array<ArrayBuffer>) => fetch(url + STRIPE, { method: "POST", body });
  expect((await post(new Uint8Array(NOTIFICATION_BYTES_MAX + 1))).status).toBe(413);
  expect(received).toEqual([]);
  const failed = await post("<script>");
  expect(failed.status).toBe(500);
  expect(await failed.text()).not.toMatch(/secret|script/);
});

test("so many a minute, and so many at once", async () => {
  const release = Promise.withResolvers<void>();
  let hold = false;
  const limits = { ...NOTIFICATION_LIMITS, perMinuteMax: 4, atOncePerAddressMax: 1 };
  const { url, received } = await serve(async () => {
    if (hold) await release.promise;
    return ok();
  }, limits);
  const post = () => fetch(url + STRIPE, { method: "POST", body: "x" });
  expect((await post()).status).toBe(200);
  hold = true;
  const slow = post();
  await expect.poll(() => received.length).toBe(2);
  const busy = await post();
  expect([busy.status, busy.headers.get("retry-after")]).toEqual([503, "1"]);
  release.resolve();
  expect((await slow).status).toBe(200);
  expect([(await post()).status, (await post()).status, (await post()).status]).toEqual([200, 200, 429]);
  expect(received.length).toBe(4);
});
