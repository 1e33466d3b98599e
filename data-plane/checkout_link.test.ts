/** Checkout links: their text, and that they are signed wherever a client sees one. */

import { createHmac } from "node:crypto";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { CHECKOUT_LINK_LIFE_S, checkoutLink, checkoutUrl, EXPIRY_STEP_S } from "./checkout_link.ts";
import { startRealtimeGateway } from "./realtime/testing.ts";
import { RouteTable } from "./route_table.ts";
import { CHECKOUT, type Gateway, resource, snapshot, startGateway, VE } from "./testing.ts";
import { chunk, sse } from "./testing_upstream.ts";

const SECRET = Buffer.alloc(32, 0xc3);
const LATIN1 = SECRET.toString("latin1");
/** Far from the clock of this machine: only what looks at the wall clock knows of it. */
const WALL_MS = Date.UTC(2031, 4, 6, 7, 8, 30);
const EXPIRY_S = Date.UTC(2031, 4, 6, 8, 9, 0) / 1000;

/** The rule once more, in other words. */
function macOf(secret: Uint8Array, veId: string, expiry: number): string {
  const hmac = createHmac("sha256", secret);
  for (const part of ["tokenbill checkout link", "\0", veId, "\0", String(expiry)]) hmac.update(Buffer.from(part));
  return hmac.digest().subarray(0, 16).toString("base64url");
}

const SIGNED = `${CHECKOUT}&link=${EXPIRY_S}.${macOf(SECRET, VE, EXPIRY_S)}`;

describe("a link", () => {
  test("is the HMAC in base64url, known from elsewhere", () => {
    // Made with: printf 'tokenbill checkout link\0ve_1\0%s' 1700003640 | openssl dgst -sha256 -hmac key -binary |
    //   head -c 16 | base64 | tr +/ -_ | tr -d =
    expect(checkoutLink("key", "ve_1", 1_700_000_000_000)).toBe("1700003640.lXCrvg0ChVWscjF_IkWR3Q");
    expect(checkoutLink("key", "ve_1", 1_699_999_999_999 - 39_000)).toBe("1700003580.tbOOCUsN4jw3l8jhw1ix3Q");
  });

  test("lives for an hour and the rest of a minute, and those of one minute are equal", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e12 }), fc.nat({ max: 60_000 }), (nowMs, laterMs) => {
        const [expiry, mac] = checkoutLink(LATIN1, VE, nowMs).split(".");
        const lifeS = Number(expiry) - Math.floor(nowMs / 1000);
        expect(lifeS).toBeGreaterThanOrEqual(CHECKOUT_LINK_LIFE_S);
        expect(lifeS).toBeLessThan(CHECKOUT_LINK_LIFE_S + EXPIRY_STEP_S);
        expect(mac).toBe(macOf(SECRET, VE, Number(expiry)));
        expect(mac).toMatch(/^[\w-]{22}$/);
        const later = checkoutLink(LATIN1, VE, nowMs + laterMs);
        const sameEnd = Math.floor((nowMs + laterMs) / 1000) + CHECKOUT_LINK_LIFE_S <= Number(expiry);
        expect(later === `${expiry}.${mac}`).toBe(sameEnd);
      }),
    );
  });

  test("says nothing to another VE, or with another secret", () => {
    const mine = checkoutLink(LATIN1, VE, WALL_MS);
    expect(checkoutLink(LATIN1, `${VE}x`, WALL_MS)).not.toBe(mine);
    expect(checkoutLink(LATIN1.slice(1), VE, WALL_MS)).not.toBe(mine);
  });

  test.each([
    ["in its query, after what is there", CHECKOUT, true, SIGNED],
    [
      "as its query",
      "https://pay.example/top-up",
      true,
      `https://pay.example/top-up${SIGNED.replace(CHECKOUT, "").replace("&", "?")}`,
    ],
    ["nowhere without a secret", CHECKOUT, false, CHECKOUT],
    ["nowhere without a URL", "", true, ""],
  ])("is %s", (_, url, signed, expected) => {
    const table = new RouteTable();
    const pinSecret = signed ? new Uint8Array(SECRET) : new Uint8Array(0);
    snapshot(table, [resource("virtualEndpoint", { id: VE, name: "v", checkoutUrl: url, pinSecret })]);
    expect(checkoutUrl(table.ve(VE)!, WALL_MS)).toBe(expected);
  });
});

const VE_FIELDS = { pinSecret: new Uint8Array(SECRET), passthroughProviderId: "prov_0" };
const wallNow = (): number => WALL_MS;
const MAGIC = [{ role: "user", content: "/tokenbill" }];

/** Every checkout URL in the text, as a client reads it; JSON may be in strings of JSON. */
function linksIn(text: string): string[] {
  return [...text.matchAll(/https:\/\/pay\.example\/checkout[^"\\\s]*/g)].map(([url]) => url);
}

describe("what clients see is signed", () => {
  let gateway: Gateway;
  let close: () => Promise<void>;
  afterEach(() => close());

  async function start(): Promise<void> {
    gateway = await startGateway({ ve: VE_FIELDS, wallNow });
    close = () => gateway.close();
  }
  /** The text is there, with one link at least, and no other than this one. */
  async function expectSigned(answer: Promise<Response>, status: number): Promise<void> {
    const response = await answer;
    const links = linksIn(await response.text());
    expect({ status: response.status, links: [...new Set(links)] }).toEqual({ status, links: [SIGNED] });
  }

  test.each([
    ["chat", "/v1/chat/completions", { model: "gpt", messages: [{ role: "user", content: "Hi" }] }],
    ["messages", "/v1/messages", { model: "gpt", max_tokens: 9, messages: [{ role: "user", content: "Hi" }] }],
    ["responses", "/v1/responses", { model: "gpt", input: "Hi" }],
    ["embeddings", "/v1/embeddings", { model: "gpt", input: "Hi" }],
  ])("when the wallet is empty: %s", async (_, path, body) => {
    await start();
    gateway.budget.free = 0n;
    await expectSigned(gateway.post(path, body), 429);
    if (path !== "/v1/embeddings") await expectSigned(gateway.post(path, { ...body, stream: true }), 429);
  });

  test.each([
    ["chat", "/v1/chat/completions", { model: "gpt", messages: MAGIC }],
    ["messages", "/v1/messages", { model: "gpt", max_tokens: 9, messages: MAGIC }],
    ["responses", "/v1/responses", { model: "gpt", input: "/tokenbill" }],
  ])("by the Magic Command: %s", async (_, path, body) => {
    await start();
    gateway.budget.low = true;
    await expectSigned(gateway.post(path, body), 200);
    await expectSigned(gateway.post(path, { ...body, stream: true }), 200);
  });

  test.each([
    ["chat", "/v1/chat/completions", { model: "gpt", messages: [{ role: "user", content: "Hi" }] }],
    ["messages", "/v1/messages", { model: "gpt", max_tokens: 9000, messages: [{ role: "user", content: "Hi" }] }],
    ["responses", "/v1/responses", { model: "gpt", input: "Hi" }],
  ])("in a stream whose wallet runs dry: %s", async (_, path, body) => {
    await start();
    gateway.budget.free = 2_500_000_000_000n;
    const pieces = Array.from({ length: 80 }, () => chunk({ content: "word".repeat(100) }));
    gateway.upstreams[0]!.next(sse(pieces, "hang"));
    await expectSigned(gateway.post(path, { ...body, stream: true }), 200);
  });

  test("where files are written", async () => {
    await start();
    gateway.budget.left = 0n;
    gateway.budget.balance = { creditRemaining: 0n, creditBudget: 5n };
    await expectSigned(gateway.post("/v1/uploads", {}), 429);
  });

  test("in realtime: before a session, in it, by its Magic Command, and at its end", async () => {
    const realtime = await startRealtimeGateway({ ve: VE_FIELDS, wallNow });
    close = () => realtime.close();
    const { budget } = realtime;
    const client = await realtime.connect();
    const { free } = budget;
    budget.free = 0n;
    client.send({ type: "response.create" });
    expect(new Set(linksIn(JSON.stringify(await client.next("error"))))).toEqual(new Set([SIGNED]));
    budget.low = true;
    const content = [{ type: "input_text", text: "/tokenbill" }];
    client.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    client.send({ type: "response.create" });
    expect(linksIn(JSON.stringify(await client.next("response.output_text.done")))).toEqual([SIGNED]);
    const upstream = await realtime.upstream.session();
    upstream.respond({ id: "resp_vad", open: true });
    await upstream.next("response.cancel");
    expect(new Set(linksIn(JSON.stringify(await client.next("error"))))).toEqual(new Set([SIGNED]));
    const refused: unknown = await realtime.connect().catch((error: unknown) => error);
    expect(refused).toMatchObject({ status: 429, error: { checkout_url: SIGNED } });
    upstream.send({ type: "response.done", response: { id: "resp_vad", status: "cancelled", usage: null } });
    budget.free = free;
  });
});
