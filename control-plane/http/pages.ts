/** What every control plane answers from its first moment to its last: health, readiness and metrics. */

import type { ServerResponse } from "node:http";
import { Code } from "@connectrpc/connect";
import { collectDefaultMetrics, register } from "prom-client";
import { type NodeRequest, type NodeResponse, writeError } from "../api/adapter.ts";
import { withInfo } from "../api/errors.ts";
import { securityHeaders } from "./headers.ts";

export interface PageContext {
  /** Null when calls can be served, else why not. */
  ready(): Promise<string | null>;
}

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const TEXT = "text/plain; charset=utf-8";

let collecting = false;

/** Metrics of the process, once for all servers in it. */
export function collectProcessMetrics(): void {
  if (collecting) return;
  collecting = true;
  collectDefaultMetrics({ register });
}

async function find(path: string, context: PageContext): Promise<Page | null> {
  switch (path) {
    case "/healthz":
      return { status: 200, type: TEXT, body: "ok\n" };
    case "/readyz": {
      const reason = await context.ready();
      return reason === null
        ? { status: 200, type: TEXT, body: "ready\n" }
        : { status: 503, type: TEXT, body: `${reason}\n` };
    }
    case "/metrics":
      return { status: 200, type: register.contentType, body: await register.metrics() };
    default:
      return null;
  }
}

export function isPage(path: string): boolean {
  return path === "/healthz" || path === "/readyz" || path === "/metrics";
}

/** Answers a path that nothing else serves. */
export async function servePage(
  path: string,
  context: PageContext,
  request: NodeRequest,
  response: NodeResponse,
): Promise<void> {
  request.resume();
  const page = await find(path, context);
  if (page === null) {
    return writeError(response, 404, withInfo("there is no such path", Code.Unimplemented, "not_found", {}));
  }
  const isHead = request.method === "HEAD";
  if (request.method !== "GET" && !isHead) {
    return writeError(response, 405, withInfo("this path takes GET", Code.Unimplemented, "not_available", {}));
  }
  const body = Buffer.from(page.body, "utf8");
  // HTTP/2's responses have the same two methods; only their declared overloads differ.
  const out = response as ServerResponse;
  out.writeHead(page.status, {
    ...securityHeaders(""),
    "content-type": page.type,
    "content-length": String(body.length),
    "cache-control": "no-store",
  });
  out.end(isHead ? undefined : body);
}
