// The merchant's server: opens Checkout Sessions, hears of payments, tells its own page how an order stands.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { CheckoutState, errorInfo } from "@tokenbill/sdk";
import { verifyWebhook } from "./webhook.mjs";

const BODY_BYTES_MAX = 1_000_000;

/** What is served as it is. */
const FILES = /** @type {Record<string, [file: string, type: string]>} */ ({
  "/": ["index.html", "text/html; charset=utf-8"],
  "/return": ["return.html", "text/html; charset=utf-8"],
  "/shop.js": ["shop.js", "text/javascript; charset=utf-8"],
  "/return.js": ["return.js", "text/javascript; charset=utf-8"],
  "/shop.css": ["shop.css", "text/css; charset=utf-8"],
});

const STATES = new Map(Object.entries(CheckoutState).map(([name, state]) => [Number(state), name]));

/**
 * @typedef {object} Order
 * @property {string} sessionId
 * @property {string} state the name of a CheckoutState
 * @property {string} creditsGranted
 */

/**
 * @typedef {object} ShopOptions
 * @property {import("@tokenbill/sdk").TokenBill} tb with the merchant's API token, which never leaves this server
 * @property {string} veId whose wallet is topped up: in a real shop, that of the user who is logged in
 * @property {string} publicUrl where browsers reach this server; `return_url_prefixes` must have it, with a slash at the end
 * @property {string} webhookSecret `whsec_…`
 * @property {() => number} now
 */

/**
 * @param {ShopOptions} options
 * @returns {import("node:http").RequestListener}
 */
export function createShop({ tb, veId, publicUrl, webhookSecret, now }) {
  // A real shop keeps both in its database: orders for good, webhook ids for some days.
  const orders = /** @type {Map<string, Order>} */ (new Map());
  const seen = new Set();

  /** Asks TokenBill how a session stands. @param {string} sessionId */
  async function refresh(sessionId) {
    const { checkoutSession } = await tb.checkout.getCheckoutSession({ id: sessionId });
    for (const order of orders.values()) {
      if (order.sessionId !== sessionId || checkoutSession === undefined) continue;
      order.state = STATES.get(checkoutSession.state) ?? "UNSPECIFIED";
      order.creditsGranted = checkoutSession.creditsGranted;
    }
  }

  /** A session for an order: the payer goes to `url`. */
  async function topUp() {
    const orderId = randomUUID();
    const { checkoutSession, checkoutUrl } = await tb.checkout.createCheckoutSession({
      requestId: orderId, // A repeated call gives the same session.
      veId,
      returnUrl: `${publicUrl}/return?order=${orderId}`,
      metadata: { order: orderId },
    });
    orders.set(orderId, { sessionId: checkoutSession?.id ?? "", state: "OPEN", creditsGranted: "0" });
    return { url: checkoutUrl };
  }

  /** A webhook is a reason to look, and what TokenBill answers then is what counts. @returns {Promise<number>} */
  async function hear(/** @type {import("node:http").IncomingMessage} */ request) {
    const event = verifyWebhook(webhookSecret, request.headers, await bodyOf(request), now());
    if (event === null) return 401;
    // Every delivery of an event has the same id: the second one says nothing new.
    if (seen.has(event.id)) return 204;
    const sessionId = event.data?.checkout_session?.id;
    if (typeof sessionId === "string") await refresh(sessionId);
    seen.add(event.id); // Only now: had it failed, TokenBill would send it again.
    return 204;
  }

  /** @type {(request: import("node:http").IncomingMessage, url: URL) => Promise<{ status: number, body?: unknown }>} */
  async function call(request, url) {
    const { pathname } = url;
    if (request.method === "POST" && pathname === "/webhooks/tokenbill") return { status: await hear(request) };
    if (request.method === "POST" && pathname === "/api/top-up") return { status: 200, body: await topUp() };
    if (request.method === "GET" && pathname === "/api/wallet") {
      const { wallet } = await tb.virtualEndpoints.getBalance({ veId });
      return { status: 200, body: { creditRemaining: wallet?.creditRemaining } };
    }
    if (request.method === "GET" && pathname.startsWith("/api/orders/")) {
      const order = orders.get(pathname.slice("/api/orders/".length));
      if (order === undefined) return { status: 404, body: { error: "there is no such order" } };
      // The webhook may be late, or this machine out of its reach: then this call finds out.
      if (order.state === "OPEN" || order.state === "PENDING") await refresh(order.sessionId);
      return { status: 200, body: { state: order.state, creditsGranted: order.creditsGranted } };
    }
    return { status: 404, body: { error: "there is no such path" } };
  }

  return (request, response) => {
    const url = new URL(request.url ?? "/", publicUrl);
    const file = request.method === "GET" ? FILES[url.pathname] : undefined;
    const answer = file === undefined ? call(request, url) : serveFile(response, ...file);
    answer.then(
      (given) => {
        if (given === undefined) return;
        response.writeHead(given.status, { "content-type": "application/json", "cache-control": "no-store" });
        response.end(given.body === undefined ? undefined : JSON.stringify(given.body));
      },
      (error) => {
        console.error(`${request.method} ${url.pathname}: ${errorInfo(error).message}`);
        response.writeHead(502, { "content-type": "application/json" }).end(JSON.stringify({ error: "try again" }));
      },
    );
  };
}

/** @param {import("node:http").ServerResponse} response @param {string} file @param {string} type @returns {Promise<undefined>} */
async function serveFile(response, file, type) {
  const content = await readFile(new URL(`public/${file}`, import.meta.url));
  response
    .writeHead(200, { "content-type": type, "content-security-policy": "default-src 'self'; img-src 'self' data:" })
    .end(content);
}

/** @param {import("node:http").IncomingMessage} request @returns {Promise<string>} */
async function bodyOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Error("the body is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
