/** Serves the built page as the control plane does, with its policy, and a processor and a caller to go to and come from. */

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { FakeCheckout } from "./fake_checkout.ts";

const CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const TYPES: Readonly<Record<string, string>> = {
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
};

export interface PageServer {
  readonly url: string;
  close(): Promise<void>;
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, {
    "content-type": type,
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
  });
  response.end(body);
}

async function sendFile(dist: string, name: string, response: ServerResponse): Promise<void> {
  try {
    const file = normalize(join(dist, name));
    if (!file.startsWith(dist)) throw new Error("outside");
    send(response, 200, TYPES[extname(file)] ?? "application/octet-stream", await readFile(file));
  } catch {
    send(response, 404, "text/plain", "not found");
  }
}

function page(title: string, links: Readonly<Record<string, string>>): string {
  const list = Object.entries(links).map(([text, href]) => `<p><a href="${href}">${text}</a></p>`);
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${list.join("")}</html>`;
}

/** The processor's page, and what its buttons do. */
function processor(url: URL, fake: FakeCheckout, response: ServerResponse): void {
  const id = url.searchParams.get("id") ?? "";
  const does = url.searchParams.get("does");
  if (does === null) {
    const to = (what: string): string => `/processor?id=${id}&does=${what}`;
    return send(response, 200, TYPES[".html"]!, page("Processor", { Approve: to("approve"), Leave: to("leave") }));
  }
  if (does === "approve") fake.paidAtProcessor.add(id);
  response.writeHead(302, { location: `/checkout/${id}` }).end();
}

export async function servePage(dist: string, fake: FakeCheckout): Promise<PageServer> {
  const rpc = connectNodeAdapter({ routes: (router) => fake.routes(router) });
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url ?? "/", "http://page.test");
    const { pathname } = url;
    if (pathname.startsWith("/tokenbill.v1.")) return rpc(request, response);
    if (pathname === "/processor") return processor(url, fake, response);
    if (pathname === "/caller") return send(response, 200, TYPES[".html"]!, page("Caller", {}));
    if (pathname === "/wechat-authorize") {
      const location = `${url.searchParams.get("back")}?code=wechat_code&state=x`;
      return void response.writeHead(302, { location }).end();
    }
    if (pathname.startsWith("/console/")) return void sendFile(dist, pathname.slice("/console/".length), response);
    if (/^\/checkout(\/|$)/.test(pathname)) return void sendFile(dist, "checkout.html", response);
    send(response, 404, "text/plain", "not found");
  };
  const server: Server = createServer(handle);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  fake.url = url;
  return {
    url,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
