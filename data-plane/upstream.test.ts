import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { startTestUpstream, json, reset, sse, type TestUpstream } from "./testing_upstream.ts";
import type { OutboundCall, OutboundRequest, OutboundSink, Upstream } from "./transport.ts";
import { createUpstream } from "./upstream.ts";

let toClose: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const close of toClose.reverse()) await close();
  toClose = [];
});

function make(allowPrivate = true, addresses?: string[]): Upstream {
  const lookup = ((_: string, __: unknown, done: (error: null, list: unknown[]) => void) =>
    done(
      null,
      addresses!.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
    )) as never;
  const upstream = createUpstream({ allowPrivate, ...(addresses === undefined ? {} : { lookup }) });
  toClose.push(() => upstream.close());
  return upstream;
}

async function target(): Promise<TestUpstream> {
  const upstream = await startTestUpstream();
  toClose.push(() => upstream.close());
  return upstream;
}

const request = (origin: string, fields: Partial<OutboundRequest> = {}): OutboundRequest => ({
  origin,
  path: "/v1/x",
  method: "POST",
  headers: ["content-type", "application/json"],
  body: Buffer.from("{}"),
  ...fields,
});

/** Makes a call and resolves with everything that was told of it. */
function call(upstream: Upstream, outbound: OutboundRequest): Promise<string[]> {
  return new Promise((resolve) => {
    const events: string[] = [];
    let returned = false;
    const note = (event: string): void => {
      if (!returned) events.push("TOO EARLY");
      events.push(event);
    };
    upstream.send(outbound, {
      onSent: () => note("sent"),
      onHead: (status) => note(`head ${status}`),
      onChunk: (chunk) => note(`chunk ${chunk.toString()}`),
      onEnd: () => (note("end"), resolve(events)),
      onError: (kind) => (note(`error ${kind}`), resolve(events)),
    });
    returned = true;
  });
}

describe("calls", () => {
  test("tell what happens, in order", async () => {
    const server = await target();
    server.next(json(200, "{}"));
    expect(await call(make(), request(server.url))).toEqual(["sent", "head 200", "chunk {}", "end"]);
    expect(server.seen[0]).toMatchObject({
      path: "/v1/x",
      text: "{}",
      headers: { "content-type": "application/json", "content-length": "2" },
    });
  });

  test("redirects are told, not followed", async () => {
    const server = await target();
    server.next(json(307, "", { location: "/elsewhere" }));
    expect(await call(make(), request(server.url))).toEqual(["sent", "head 307", "end"]);
    expect(server.seen).toHaveLength(1);
  });

  test("connections are kept and used again", async () => {
    const server = await target();
    const upstream = make();
    for (let i = 0; i < 10; i++) await call(upstream, request(server.url));
    // A call made while the one before is being finished opens a second one.
    expect(server.sockets.size).toBeLessThanOrEqual(2);
  });

  test("errors have kinds", async () => {
    const server = await target();
    const upstream = make();
    server.next(reset);
    expect(await call(upstream, request(server.url))).toEqual(["sent", "error reset"]);
    server.next((response) => {
      response.writeHead(200, { "content-length": "100" });
      response.write("part", () => response.socket?.destroy());
    });
    expect((await call(upstream, request(server.url))).at(-1)).toBe("error reset");
    server.next((response) => void response.socket?.end("what?\r\n\r\n"));
    expect((await call(upstream, request(server.url))).at(-1)).toBe("error protocol");
    const closed = createTcpServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => closed.once("listening", resolve));
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => closed.close(resolve));
    expect(await call(upstream, request(`http://127.0.0.1:${port}`))).toEqual(["error connect"]);
    expect(await call(upstream, request("http://nowhere.invalid"))).toEqual(["error connect"]);
  });

  test("where all connections are in use, a call fails at once as a shortage, and goes through when one is free", async () => {
    const server = await target();
    const upstream = createUpstream({ allowPrivate: true, connectionsPerOriginMax: 1 });
    toClose.push(() => upstream.close());
    let answer: (() => void) | null = null;
    const asked = new Promise<void>((resolve) =>
      server.next((response) => {
        answer = () => response.end("late");
        resolve();
      }),
    );
    const first = call(upstream, request(server.url));
    await asked;
    expect(await call(upstream, request(server.url))).toEqual(["error shortage"]);
    answer!();
    expect(await first).toEqual(["sent", "head 200", "chunk late", "end"]);
    server.next(json(200, "{}"));
    expect((await call(upstream, request(server.url))).at(-1)).toBe("end");
    expect(server.seen).toHaveLength(2);
  });

  test("a lack of ports on this host is a shortage, not the upstream's fault", async () => {
    const lookup = ((_: string, __: unknown, done: (error: Error) => void) =>
      done(Object.assign(new Error("no ports"), { code: "EADDRNOTAVAIL" }))) as never;
    const upstream = createUpstream({ allowPrivate: true, lookup });
    toClose.push(() => upstream.close());
    expect(await call(upstream, request("http://full.example"))).toEqual(["error shortage"]);
  });

  test("an aborted call tells nothing more, and its connection closes", async () => {
    const server = await target();
    server.next(sse(["data: x\n\n"], "hang"));
    const upstream = make();
    let started: OutboundCall | null = null;
    const events: string[] = [];
    await new Promise<void>((resolve) => {
      started = upstream.send(request(server.url), {
        onSent: () => events.push("sent"),
        onHead: () => events.push("head"),
        onChunk: () => resolve(),
        onEnd: () => events.push("end"),
        onError: () => events.push("error"),
      } as OutboundSink);
    });
    started!.abort();
    await expect.poll(() => server.sockets.size).toBe(0);
    expect(events).toEqual(["sent", "head"]);
  });

  test("a call that is aborted before it began is never sent", async () => {
    const server = await target();
    const upstream = make();
    const fail = (): void => {
      throw new Error("told after abort");
    };
    upstream
      .send(request(server.url), { onSent: fail, onHead: fail, onChunk: fail, onEnd: fail, onError: fail })
      .abort();
    await call(upstream, request(server.url));
    expect(server.seen).toHaveLength(1);
  });
});

describe("addresses", () => {
  test.each([
    ["http://169.254.169.254", true],
    ["http://[fe80::1]", true],
    ["http://127.0.0.1:1", false],
    ["http://[::1]:1", false],
    ["http://10.0.0.1", false],
    ["http://0x7f000001:1", false],
    ["http://2130706433:1", false],
    ["http://[::ffff:127.0.0.1]:1", false],
  ])("%s is refused (private allowed: %s) without a connection", async (origin, allowPrivate) => {
    expect(await call(make(allowPrivate), request(origin))).toEqual(["error address_not_allowed"]);
  });

  test("names are checked by what they lead to, at each connection", async () => {
    expect(await call(make(true, ["169.254.169.254"]), request("http://innocent.example"))).toEqual([
      "error address_not_allowed",
    ]);
    expect(await call(make(false, ["127.0.0.1"]), request("http://innocent.example"))).toEqual([
      "error address_not_allowed",
    ]);
    expect(await call(make(false, ["10.0.0.8", "::1"]), request("http://innocent.example"))).toEqual([
      "error address_not_allowed",
    ]);
  });

  test("of several addresses only those that are allowed are used", async () => {
    const server: Server = createServer((_, response) => response.end("ok")).listen(0, "127.0.0.1");
    toClose.push(() => new Promise((resolve) => server.close(resolve)));
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    const events = await call(make(true, ["169.254.169.254", "127.0.0.1"]), request(`http://mixed.example:${port}`));
    expect(events).toEqual(["sent", "head 200", "chunk ok", "end"]);
  });
});
