/** What the control plane answers besides calls: health, metrics, and where payers land. */

import type { ServerResponse } from "node:http";
import { Code } from "@connectrpc/connect";
import { collectDefaultMetrics, register } from "prom-client";
import { type NodeRequest, type NodeResponse, writeError } from "./adapter.ts";
import { withInfo } from "./errors.ts";

export interface PageContext {
  /** Null when calls can be served, else why not. */
  ready(): Promise<string | null>;
}

/** The same for every VE, known or not, so that ids cannot be tried out here. */
const CHECKOUT_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Top up</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1.5rem; color: #1c1e21; background: #fff; }
h1 { font-size: 1.5rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181b; } }
</style>
</head>
<body>
<main>
<h1>Online payment is not set up</h1>
<p>Your Credit balance is used up or low, and this gateway does not take payments online yet.</p>
<p>Please ask the one who gave you the access key for more Credits. Your key keeps working as it is: nothing has to be changed in your application afterwards.</p>
</main>
</body>
</html>
`;

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
    case "/checkout":
      return { status: 200, type: "text/html; charset=utf-8", body: CHECKOUT_PAGE };
    default:
      return null;
  }
}

/** Answers a path that is no call. */
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
    "content-type": page.type,
    "content-length": String(body.length),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  });
  out.end(isHead ? undefined : body);
}
