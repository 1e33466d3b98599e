/** Heads of answers: what every answer carries, CORS included. */

import type { ErrorAnswer } from "./errors.ts";
import type { ClientShape } from "./formats/format.ts";
import type { Exchange } from "./transport.ts";

const RATE_LIMIT_HEADERS = ["limit", "remaining", "reset"].flatMap((what) => [
  `x-ratelimit-${what}-requests`,
  `x-ratelimit-${what}-tokens`,
]);
const EXPLANATIONS = ["clamped-max-tokens", "attempts", "request-id", "model", "physical-model", "credits"];
const EXPOSED = [
  "x-request-id",
  "request-id",
  "retry-after",
  "retry-after-ms",
  "x-should-retry",
  ...RATE_LIMIT_HEADERS,
  ...EXPLANATIONS.map((name) => `x-tokenbill-${name}`),
].join(", ");
const PREFLIGHT_S = "86400";

/** The value of `access-control-allow-origin` for an origin, "" if it is not allowed or CORS is off. */
export function allowedOrigin(origins: readonly string[], origin: string): string {
  if (origins.length === 0 || origin === "") return "";
  if (origins.includes("*")) return "*";
  return origins.includes(origin) ? origin : "";
}

/** Headers that every answer to this exchange has. */
export function commonHeaders(
  id: string,
  origins: readonly string[],
  exchange: Exchange,
  shape: ClientShape,
): string[] {
  // Anthropic's clients look for it under another name.
  const headers = shape === "messages" ? ["x-request-id", id, "request-id", id] : ["x-request-id", id];
  if (origins.length > 0) addCors(headers, origins, exchange);
  return headers;
}

function addCors(headers: string[], origins: readonly string[], exchange: Exchange): void {
  const allowed = allowedOrigin(origins, exchange.header("origin"));
  if (allowed !== "*") headers.push("vary", "Origin");
  if (allowed !== "") headers.push("access-control-allow-origin", allowed, "access-control-expose-headers", EXPOSED);
}

export function isPreflight(exchange: Exchange): boolean {
  return exchange.method === "OPTIONS" && exchange.header("access-control-request-method") !== "";
}

/** Answers a browser's preflight. The caller has checked that the origin is allowed. */
export function replyPreflight(exchange: Exchange, headers: string[], methods: string): void {
  headers.push("access-control-allow-methods", methods);
  const wanted = exchange.header("access-control-request-headers");
  if (wanted !== "") headers.push("access-control-allow-headers", wanted);
  headers.push("access-control-max-age", PREFLIGHT_S, "content-length", "0");
  exchange.writeHead(204, headers);
  exchange.end();
}

export function replyJson(exchange: Exchange, status: number, headers: string[], body: Buffer): void {
  headers.push("content-type", "application/json", "content-length", String(body.length));
  exchange.writeHead(status, headers);
  exchange.end(body);
}

/** Adds what the head of a served answer says of it. `bytes` is its length if that is known. */
export function addAnswerHeaders(
  headers: string[],
  stream: boolean,
  contentType: string,
  bytes: number | null,
  attempts: number,
): void {
  if (attempts > 1) headers.push("x-tokenbill-attempts", String(attempts));
  headers.push("content-type", contentType || (stream ? "text/event-stream" : "application/json"));
  if (bytes !== null) headers.push("content-length", String(bytes));
  if (stream) headers.push("cache-control", "no-cache");
}

/** The end of an answer: its last bytes, null for none; an error in its place; or its connection breaks. */
export type Last = Uint8Array | ErrorAnswer | "break" | null;

export function replyLast(exchange: Exchange, headers: string[], last: Last): void {
  if (last === "break") exchange.destroy();
  else if (last === null || last instanceof Uint8Array) exchange.end(last ?? undefined);
  else replyError(exchange, headers, last);
}

export function replyError(exchange: Exchange, headers: string[], error: ErrorAnswer): void {
  headers.push(...error.headers);
  replyJson(exchange, error.status, headers, error.body);
}
