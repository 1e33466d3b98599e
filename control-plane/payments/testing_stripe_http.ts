/** The imitation of Stripe: its HTTP side. Keys, versions, idempotency, and faults that a test asks for. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { STRIPE_API_VERSION } from "./stripe_client.ts";
import { answerCall, parseForm } from "./testing_stripe_api.ts";
import { invalid, type StripeBooks, StripeFault } from "./testing_stripe_books.ts";

/**
 * What happens to a call instead. `lose`: it is carried out, and the answer never comes. `drop`: it never arrives. `garbage`: a
 * proxy answers with something else. A status: Stripe answers with that and does nothing.
 */
export type StripeImitationFault = "lose" | "drop" | "garbage" | "empty" | 409 | 429 | 500 | 503;

export interface StripeRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface StripeSide {
  readonly url: string;
  /** By secret key. */
  readonly accounts: Map<string, StripeBooks>;
  readonly faults: StripeImitationFault[];
  /** Beginnings of paths that keys may not use: `/v1/disputes`. */
  readonly forbidden: Set<string>;
  readonly requests: StripeRequest[];
  readonly kept: Map<string, KeptAnswer>;
  readonly seconds: () => number;
}

export interface KeptAnswer {
  readonly request: string;
  readonly status: number;
  readonly body: string;
  readonly at: number;
}

interface Reply {
  readonly status: number;
  readonly body: string;
  readonly headers?: Record<string, string>;
}

const KEPT_SECONDS = 86_400;

export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

function refusal(status: number, error: Record<string, unknown>, headers: Record<string, string> = {}): Reply {
  return { status, body: JSON.stringify({ error }), headers };
}

function booksOf(side: StripeSide, request: IncomingMessage): StripeBooks {
  const key = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "";
  const books = side.accounts.get(key);
  if (books !== undefined) return books;
  // As the real one: it quotes the key, with stars in its middle.
  const quoted = `${key.slice(0, 8)}${"*".repeat(Math.max(0, key.length - 12))}${key.slice(-4)}`;
  throw new StripeFault(401, { type: "invalid_request_error", message: `Invalid API Key provided: ${quoted}` });
}

function checkHeaders(side: StripeSide, request: IncomingMessage): void {
  const { method, headers } = request;
  const version = headers["stripe-version"];
  if (version !== STRIPE_API_VERSION) throw invalid(`Invalid Stripe API version: ${String(version)}`);
  if (method === "POST" && headers["content-type"] !== "application/x-www-form-urlencoded") {
    throw invalid("Invalid request: unsupported content type");
  }
  for (const beginning of side.forbidden) {
    if (!request.url!.startsWith(beginning)) continue;
    throw new StripeFault(403, {
      type: "invalid_request_error",
      message: "The provided key does not have the required permissions for this endpoint.",
    });
  }
}

/** What is kept under a key: answers of calls that were carried out, declined cards and errors of the server among them. */
function isKept(status: number): boolean {
  return status < 300 || status === 402 || status >= 500;
}

function carryOut(side: StripeSide, books: StripeBooks, request: IncomingMessage, body: string): Reply {
  const url = new URL(request.url!, side.url);
  const form = parseForm(request.method === "GET" ? url.search : body);
  const path = url.pathname.split("/").slice(2).map(decodeURIComponent);
  try {
    const answered = answerCall(books, { method: request.method!, path, form, url: side.url });
    return { status: 200, body: JSON.stringify(answered) };
  } catch (error) {
    if (error instanceof StripeFault) return refusal(error.status, error.error);
    throw error;
  }
}

/** The same key with the same request gets the same answer, with another one an error. */
function once(side: StripeSide, books: StripeBooks, request: IncomingMessage, body: string): Reply {
  const key = request.headers["idempotency-key"];
  if (request.method !== "POST" || typeof key !== "string") return carryOut(side, books, request, body);
  if (key.length > 255) return refusal(400, { type: "invalid_request_error", message: "The key is too long." });
  const name = `${books.account} ${key}`;
  const asked = `${request.url} ${body}`;
  const kept = side.kept.get(name);
  if (kept !== undefined && side.seconds() - kept.at <= KEPT_SECONDS) {
    if (kept.request === asked) {
      return { status: kept.status, body: kept.body, headers: { "idempotent-replayed": "true" } };
    }
    const message = `Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '${key}' if you meant to execute a different request.`;
    return refusal(400, { type: "idempotency_error", message });
  }
  const reply = carryOut(side, books, request, body);
  if (isKept(reply.status)) side.kept.set(name, { ...reply, request: asked, at: side.seconds() });
  return reply;
}

const FAULT_ERRORS: Readonly<Record<number, Record<string, unknown>>> = {
  409: { type: "invalid_request_error", code: "lock_timeout", message: "Another request is using this object." },
  429: { type: "invalid_request_error", code: "rate_limit", message: "Request rate limit exceeded." },
  500: { type: "api_error", message: "An unknown error occurred." },
  503: { type: "api_error", message: "Stripe is unavailable." },
};

function reply(response: ServerResponse, { status, body, headers }: Reply, requestId: string): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "request-id": requestId,
    "stripe-version": STRIPE_API_VERSION,
    ...headers,
  });
  response.end(body);
}

/** One call of the API. */
export async function answerApi(side: StripeSide, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await bodyOf(request);
  side.requests.push({ method: request.method!, path: request.url!, headers: request.headers, body });
  const requestId = `req_${side.requests.length}`;
  const fault = side.faults.shift();
  if (fault === "drop") {
    request.socket.destroy();
    return;
  }
  if (fault === "garbage") {
    response.writeHead(200, { "content-type": "text/html" }).end("<html>Welcome to this network</html>");
    return;
  }
  if (fault === "empty") {
    reply(response, { status: 200, body: "{}" }, requestId);
    return;
  }
  if (typeof fault === "number") {
    // The SDK would wait before it asks again; tests have no time for that.
    reply(response, refusal(fault, FAULT_ERRORS[fault]!, { "stripe-should-retry": "false" }), requestId);
    return;
  }
  let made: Reply;
  try {
    const books = booksOf(side, request);
    checkHeaders(side, request);
    made = once(side, books, request, body);
  } catch (error) {
    if (!(error instanceof StripeFault)) throw error;
    made = refusal(error.status, error.error);
  }
  if (fault === "lose") request.socket.destroy();
  else reply(response, made, requestId);
}
