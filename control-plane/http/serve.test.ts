/** Routes through the real server, on both versions of HTTP. */

import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp } from "node:net";
import pino from "pino";
import { afterEach, describe, expect, test } from "vitest";
import { type App, type ControlPlaneServer, listen } from "../server.ts";
import { PAGE_POLICY } from "./headers.ts";
import { HttpError, type HttpExchange, type HttpRoute } from "./route.ts";
import { plainAnswer, serveRoute } from "./serve.ts";

interface Seen {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}
interface Sent {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array | string;
}
type Send = (port: number, path: string, sent?: Sent) => Promise<Seen>;

const sendHttp1: Send = async (port, path, { method = "GET", headers = {}, body } = {}) => {
  const request = httpRequest({ port, path, method, headers, agent: false });
  request.on("error", () => {});
  request.end(body);
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode!, headers: response.headers, text };
};

const sendHttp2: Send = async (port, path, { method = "GET", headers = {}, body } = {}) => {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({ ":method": method, ":path": path, ...headers }, { endStream: body === undefined });
    stream.on("error", () => {});
    if (body !== undefined) stream.end(body);
    const [head] = (await once(stream, "response")) as [IncomingHttpHeaders & { ":status": number }];
    let text = "";
    stream.on("data", (chunk: Buffer) => (text += String(chunk)));
    await once(stream, "end");
    return { status: head[":status"], headers: head, text };
  } finally {
    session.destroy();
  }
};

const VERSIONS = [
  { version: "HTTP/1.1", send: sendHttp1 },
  { version: "HTTP/2", send: sendHttp2 },
];

let server: ControlPlaneServer | undefined;
const logLines: string[] = [];

afterEach(async () => {
  await server?.close({ drainMs: 0 });
  logLines.length = 0;
});

function app(routes: readonly HttpRoute[], settings: Partial<App["settings"]> = {}): App {
  return {
    rpc: { knows: () => false, handle: async () => {} },
    routes,
    settings: { publicUrl: "http://127.0.0.1", trustedProxyHops: 0, ...settings },
    ping: async () => {},
    shutdown: new AbortController(),
  };
}

function routeOf(handle: HttpRoute["handle"]): HttpRoute {
  return { matches: (path) => path === "/here", methods: () => ["GET", "POST"], handle };
}

const echo = routeOf(async ({ method, path, query, headers, clientAddress, body }: HttpExchange) => {
  const text = method === "POST" ? Buffer.from(await body(1000)).toString() : "";
  const { host, "x-twice": twice } = headers;
  return plainAnswer(200, JSON.stringify({ method, path, query: [...query], host, twice, clientAddress, text }));
});

async function start(): Promise<number> {
  const log = pino({ level: "trace" }, { write: (line: string) => void logLines.push(line) });
  server = await listen({ host: "127.0.0.1", port: 0 }, log);
  return server.address.port;
}

async function serve(...parts: Parameters<typeof app>): Promise<number> {
  const port = await start();
  server!.serve(app(...parts));
  return port;
}

describe.each(VERSIONS)("routes on $version", ({ send }) => {
  test("see the request, and answer with the headers that keep a page safe", async () => {
    const port = await serve([echo], { publicUrl: "https://pay.example", trustedProxyHops: 1 });
    const headers = { host: "pay.example", "x-forwarded-for": "9.9.9.9, 8.8.8.8", "x-twice": "a" };
    const seen = await send(port, "/here?a=1&a=%3F", { method: "POST", headers, body: "hello" });
    expect(JSON.parse(seen.text)).toMatchObject({
      method: "POST",
      path: "/here",
      query: [
        ["a", "1"],
        ["a", "?"],
      ],
      clientAddress: "8.8.8.8",
      text: "hello",
      twice: "a",
    });
    expect(seen.headers).toMatchObject({
      "content-security-policy": PAGE_POLICY,
      "x-frame-options": "DENY",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-opener-policy": "same-origin",
      "x-robots-tag": "noindex, nofollow",
      "strict-transport-security": "max-age=31536000",
      "permissions-policy": expect.stringContaining("camera=()"),
    });
  });

  test("HEAD has no body, and other methods are told which there are", async () => {
    const port = await serve([echo]);
    const head = await send(port, "/here", { method: "HEAD" });
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(Number(head.headers["content-length"])).toBeGreaterThan(10);
    expect(head.headers["strict-transport-security"]).toBeUndefined();
    const put = await send(port, "/here", { method: "PUT", body: "x" });
    expect(put).toMatchObject({ status: 405, headers: { allow: "GET, HEAD, POST" } });
    expect((await send(port, "/elsewhere")).status).toBe(404);
  });

  test.each([true, false])("a body above the limit is refused (length told: %s)", async (tellsLength) => {
    const port = await serve([echo]);
    const body = Buffer.alloc(300_000, 65);
    const headers: Record<string, string> = tellsLength ? { "content-length": String(body.length) } : {};
    expect(await send(port, "/here", { method: "POST", headers, body })).toMatchObject({ status: 413 });
    const fits = await send(port, "/here", { method: "POST", body: Buffer.alloc(1000, 65) });
    expect(fits.status).toBe(200);
  });

  test("a long answer arrives whole, also if nobody read the body", async () => {
    const long = "x".repeat(3_000_000);
    const port = await serve([routeOf(async () => ({ status: 200, headers: {}, body: long }))]);
    expect((await send(port, "/here")).text.length).toBe(long.length);
    const unread = await send(port, "/here", { method: "POST", body: Buffer.alloc(100_000) });
    expect(unread.text.length).toBe(long.length);
  });

  test("what goes wrong is logged, and nothing of it is told", async () => {
    const port = await serve([
      routeOf(async ({ method }) => {
        throw method === "GET" ? new Error("secret detail") : new HttpError(429, "slower", { "retry-after": "7" });
      }),
    ]);
    const failed = await send(port, "/here");
    expect(failed.status).toBe(500);
    expect(failed.text).not.toContain("secret");
    expect(failed.headers["content-security-policy"]).toBe(PAGE_POLICY);
    expect(logLines.join("")).toContain("secret detail");
    expect(await send(port, "/here", { method: "POST" })).toMatchObject({
      status: 429,
      headers: { "retry-after": "7" },
    });
  });

  test("before there is anything to serve, and while it stops, what is posted is refused", async () => {
    const port = await start();
    expect((await send(port, "/healthz")).status).toBe(200);
    expect((await send(port, "/here")).status).toBe(503);
    expect((await send(port, "/here", { method: "POST", body: "x" })).status).toBe(503);
    const entered = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const slow: HttpRoute = {
      matches: (path) => path === "/slow",
      methods: () => ["POST"],
      async handle() {
        entered.resolve();
        await release.promise;
        return plainAnswer(200, "done");
      },
    };
    server!.serve(app([echo, slow]));
    const last = send(port, "/slow", { method: "POST" });
    await entered.promise;
    const closed = server!.close({ drainMs: 5_000 });
    expect((await send(port, "/here")).status).toBe(200);
    expect((await send(port, "/readyz")).status).toBe(503);
    expect((await send(port, "/here", { method: "POST", body: "x" })).status).toBe(503);
    release.resolve();
    expect((await last).text).toBe("done\n");
    await closed;
  });
});

describe("clients that do not do their part", () => {
  const settings = { publicUrl: "", trustedProxyHops: 0 };

  async function slowly(text: string, limits: { bodyTimeoutMs: number; answerTimeoutMs: number }): Promise<string> {
    const log = pino({ level: "silent" });
    const plain = createServer((request, response) => {
      void serveRoute({ ...settings, log, limits }, echoSlowly, "/here", request, response);
    });
    await once(plain.listen(0, "127.0.0.1"), "listening");
    const socket = connectTcp((plain.address() as { port: number }).port, "127.0.0.1");
    socket.write(text);
    const [data] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    plain.close();
    return String(data);
  }
  const echoSlowly = routeOf(async ({ body, query }) => {
    if (query.has("hang")) await new Promise(() => {});
    return plainAnswer(200, String((await body(100)).length));
  });

  test("a body that does not come is given up", async () => {
    const text = "POST /here HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab";
    expect(await slowly(text, { bodyTimeoutMs: 20, answerTimeoutMs: 5000 })).toMatch(/^HTTP\/1\.1 408 /);
  });

  test("an answer that does not come is given up", async () => {
    const text = "GET /here?hang=1 HTTP/1.1\r\nhost: x\r\n\r\n";
    expect(await slowly(text, { bodyTimeoutMs: 5000, answerTimeoutMs: 20 })).toMatch(/^HTTP\/1\.1 503 /);
  });

  test("a body that is cut is no body", async () => {
    const ended = Promise.withResolvers<unknown>();
    const port = await serve([
      routeOf(async ({ body }) => {
        await body(100).then(ended.resolve, ended.resolve);
        return plainAnswer(200, "");
      }),
    ]);
    const socket = connectTcp(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write("POST /here HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab", () => socket.resetAndDestroy());
    expect(await ended.promise).toMatchObject({ status: 400 });
  });
});
