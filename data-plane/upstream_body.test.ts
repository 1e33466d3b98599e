/** Bodies that are streamed to an upstream: whole, in chunks, broken, aborted; each is closed in the end. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { BodySource, BodySourceSink, OutboundCall, OutboundSink, Upstream } from "./transport.ts";
import { createUpstream } from "./upstream.ts";

let toClose: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of toClose.reverse()) await close();
  toClose = [];
});

/** Gives what it is told to. */
class FakeSource implements BodySource {
  readonly length: number | null;
  opened = 0;
  closed = 0;
  pauses = 0;
  sink: BodySourceSink | null = null;
  private readonly onOpen: (sink: BodySourceSink) => void;
  constructor(length: number | null, onOpen: (sink: BodySourceSink) => void = () => undefined) {
    this.length = length;
    this.onOpen = onOpen;
  }
  open(sink: BodySourceSink) {
    this.opened++;
    this.sink = sink;
    setImmediate(() => this.onOpen(sink));
    return { pause: () => void this.pauses++, resume() {}, close: () => void this.closed++ };
  }
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(handler: Handler): Promise<string> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  toClose.push(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const echo: Handler = (request, response) => {
  const chunks: Buffer[] = [];
  request.on("error", () => undefined);
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const { "content-length": length, "transfer-encoding": coding } = request.headers;
    response.end(`${length ?? coding} ${Buffer.concat(chunks).toString()}`);
  });
};

function make(): Upstream {
  const upstream = createUpstream({ allowPrivate: true, connectionsPerOriginMax: 1 });
  toClose.push(() => upstream.close());
  return upstream;
}

function send(upstream: Upstream, origin: string, body: BodySource, events: string[], done: () => void): OutboundCall {
  const sink: OutboundSink = {
    onSent: () => void events.push("sent"),
    onBodySent: () => void events.push("body sent"),
    onHead: (status) => void events.push(`head ${status}`),
    onChunk: (chunk) => void events.push(String(chunk)),
    onEnd: () => (events.push("end"), done()),
    onError: (kind) => (events.push(`error ${kind}`), done()),
  };
  return upstream.send({ origin, path: "/x", method: "POST", headers: ["content-type", "a/b"], body }, sink);
}

async function run(upstream: Upstream, origin: string, body: BodySource): Promise<string[]> {
  const events: string[] = [];
  await new Promise<void>((resolve) => void send(upstream, origin, body, events, resolve));
  return events;
}

const hello = (sink: BodySourceSink): void => {
  sink.onChunk(Buffer.from("hel"));
  setImmediate(() => {
    sink.onChunk(Buffer.from("lo"));
    sink.onEnd();
  });
};

test("a body of known length, and one without", async () => {
  const origin = await serve(echo);
  const upstream = make();
  for (const length of [5, null]) {
    const source = new FakeSource(length, hello);
    const told = `${length ?? "chunked"} hello`;
    expect(await run(upstream, origin, source)).toEqual(["sent", "body sent", "head 200", told, "end"]);
    expect([source.opened, source.closed]).toEqual([1, 1]);
  }
});

test("an empty body", async () => {
  const origin = await serve(echo);
  const source = new FakeSource(0, (sink) => sink.onEnd());
  expect((await run(make(), origin, source)).slice(-2)).toEqual(["0 ", "end"]);
});

test.each([
  ["less", 9],
  ["more", 3],
])("a source that gives %s than it said fails, and does no harm", async (_, length) => {
  const origin = await serve(echo);
  const upstream = make();
  const source = new FakeSource(length, hello);
  expect((await run(upstream, origin, source)).at(-1)).toMatch(/^error/);
  expect(source.closed).toBe(1);
  expect((await run(upstream, origin, new FakeSource(5, hello))).at(-1)).toBe("end");
});

test("a source that fails is this node's own failure", async () => {
  let broken = 0;
  const origin = await serve((request) => void request.resume().on("error", () => broken++));
  const upstream = make();
  const source = new FakeSource(100, (sink) => {
    sink.onChunk(Buffer.from("x"));
    setTimeout(() => sink.onError(new Error("disk")), 10);
  });
  expect(await run(upstream, origin, source)).toEqual(["sent", "error body"]);
  expect(source.closed).toBe(1);
  await expect.poll(() => broken).toBe(1);
});

test("an aborted call reads no more, and its connection closes", async () => {
  let closed = 0;
  const origin = await serve(
    (request) =>
      void request
        .resume()
        .on("close", () => closed++)
        .on("error", () => undefined),
  );
  const upstream = make();
  const source = new FakeSource(1000, (sink) => sink.onChunk(Buffer.from("x")));
  const events: string[] = [];
  const call = send(upstream, origin, source, events, () => events.push("TOLD"));
  await expect.poll(() => source.opened).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  call.abort();
  call.abort();
  expect(source.closed).toBe(1);
  source.sink!.onChunk(Buffer.from("late"));
  source.sink!.onError(new Error("late"));
  await expect.poll(() => closed).toBe(1);
  expect(events).toEqual(["sent"]);
});

test("what is not sent is not opened", async () => {
  const upstream = make();
  const origin = await serve(() => undefined);
  const source = new FakeSource(5, hello);
  expect(await run(upstream, "http://127.0.0.1:1", source)).toEqual(["error connect"]);
  expect(await run(upstream, "http://169.254.169.254", source)).toEqual(["error address_not_allowed"]);
  const first = send(upstream, origin, new FakeSource(5, hello), [], () => undefined);
  expect(await run(upstream, origin, source)).toEqual(["error shortage"]);
  first.abort();
  await new Promise((resolve) => setTimeout(resolve, 20));
  send(upstream, origin, source, [], () => undefined).abort();
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([source.opened, source.closed]).toEqual([0, 0]);
});

test("an upstream that does not read holds the source back", async () => {
  const origin = await serve((request) => void request.on("error", () => undefined).pause());
  const source = new FakeSource(null, (sink) => {
    for (let i = 0; i < 100 && source.pauses === 0; i++) sink.onChunk(Buffer.alloc(256 * 1024));
  });
  const call = send(make(), origin, source, [], () => undefined);
  await expect.poll(() => source.pauses).toBeGreaterThan(0);
  call.abort();
});
