/** Routes on Node's HTTP servers: reads what they ask for, in bounds, and writes what they answer. */

import type { ServerResponse } from "node:http";
import { constants } from "node:http2";
import type { Logger } from "pino";
import type { NodeRequest, NodeResponse } from "../api/adapter.ts";
import { clientAddress } from "../domain/client_address.ts";
import { securityHeaders } from "./headers.ts";
import { type HttpAnswer, HttpError, type HttpExchange, type HttpMethod, type HttpRoute } from "./route.ts";

export interface ServeLimits {
  /** For the whole body to arrive. */
  readonly bodyTimeoutMs: number;
  /** For the answer, the body included. */
  readonly answerTimeoutMs: number;
}

export const SERVE_LIMITS: ServeLimits = { bodyTimeoutMs: 10_000, answerTimeoutMs: 60_000 };

export interface ServeContext {
  readonly trustedProxyHops: number;
  readonly publicUrl: string;
  readonly log: Logger;
  readonly limits?: ServeLimits;
}

export function plainAnswer(status: number, text: string, headers: Readonly<Record<string, string>> = {}): HttpAnswer {
  return {
    status,
    headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store", ...headers },
    body: text === "" ? "" : `${text}\n`,
  };
}

function headersOf(request: NodeRequest): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (value === undefined || name.startsWith(":")) continue;
    headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  const authority = request.headers[":authority"];
  if (headers["host"] === undefined && typeof authority === "string") headers["host"] = authority;
  return headers;
}

async function readBody(request: NodeRequest, max: number, timeoutMs: number): Promise<Uint8Array> {
  const tooLarge = (): HttpError => new HttpError(413, `the body has more than ${max} bytes`);
  if (Number(request.headers["content-length"] ?? 0) > max) throw tooLarge();
  if (request.destroyed) throw new HttpError(400, "the client is gone");
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const onData = (chunk: Uint8Array): void => {
    bytes += chunk.length;
    if (bytes > max) reject(tooLarge());
    else chunks.push(chunk);
  };
  const onEnd = (): void => resolve(Buffer.concat(chunks));
  const onGone = (): void => reject(new HttpError(400, "the body ended early"));
  const timer = setTimeout(() => reject(new HttpError(408, "the body did not come in time")), timeoutMs);
  request.on("data", onData).on("end", onEnd).on("close", onGone).on("error", onGone);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    request.off("data", onData).off("end", onEnd).off("close", onGone).off("error", onGone);
  }
}

async function limited<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new HttpError(503, "no answer in time: try again")), timeoutMs);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Always with the headers that keep it safe. Whatever was not read of the request is thrown away on HTTP/1.1, where it
 * stands before the next one, and refused on HTTP/2, where the stream is over.
 */
function write(context: ServeContext, request: NodeRequest, response: NodeResponse, answer: HttpAnswer): void {
  if (response.headersSent || response.destroyed) return;
  const body = typeof answer.body === "string" ? Buffer.from(answer.body, "utf8") : answer.body;
  // HTTP/2's responses have the same two methods; only their declared overloads differ.
  const out = response as ServerResponse;
  out.writeHead(answer.status, {
    ...securityHeaders(context.publicUrl),
    ...answer.headers,
    "content-length": String(body.length),
  });
  out.end(request.method === "HEAD" ? undefined : body);
  request.resume();
  if (!("stream" in response)) return;
  const { stream } = response;
  setImmediate(() => {
    if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
  });
}

function failure(context: ServeContext, path: string, error: unknown): HttpAnswer {
  if (error instanceof HttpError) return plainAnswer(error.status, error.message, error.headers);
  // The path may hold what is not for logs: the first part says enough.
  const part = path.split("/", 2).join("/");
  context.log.error({ part, reason: (error as Error).message }, "request failed");
  return plainAnswer(500, "something went wrong here: try again later");
}

/** Answers a request by a route that matches its path. Never rejects. */
export async function serveRoute(
  context: ServeContext,
  route: HttpRoute,
  path: string,
  request: NodeRequest,
  response: NodeResponse,
): Promise<void> {
  const limits = context.limits ?? SERVE_LIMITS;
  const method = request.method === "HEAD" ? "GET" : request.method;
  const methods = route.methods(path);
  if (!methods.includes(method as HttpMethod)) {
    const allow = methods.flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name])).join(", ");
    return write(context, request, response, plainAnswer(405, `this path takes ${methods.join(" and ")}`, { allow }));
  }
  const headers = headersOf(request);
  const exchange: HttpExchange = {
    method: method as HttpMethod,
    path,
    query: new URLSearchParams((request.url ?? "").slice(path.length + 1)),
    headers,
    clientAddress: clientAddress(
      request.socket.remoteAddress ?? "",
      headers["x-forwarded-for"] ?? null,
      context.trustedProxyHops,
    ),
    body: (max) => readBody(request, max, limits.bodyTimeoutMs),
  };
  const answer = await limited(route.handle(exchange), limits.answerTimeoutMs).catch((error: unknown) =>
    failure(context, path, error),
  );
  write(context, request, response, answer);
}
