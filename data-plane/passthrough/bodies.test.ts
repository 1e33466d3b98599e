/** Bodies as they flow: nothing is held, either side may stop, and everything ends in time. */

import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PLAIN_HEAD_MS, PLAIN_STALL_MS } from "../plain_call.ts";
import { type Gateway, KEY, startGateway } from "../testing.ts";
import { PASS_HEAD_MS } from "./passthrough.ts";
import { PASS_JSON_BYTES_MAX } from "./routes.ts";
import { type Account, reply, startAccount } from "./testing.ts";

const MIB = 1024 * 1024;
const BLOCK = Buffer.alloc(64 * 1024, 0x61);
/** What the sockets of two connections may hold, and more. */
const IN_FLIGHT_BYTES_MAX = 32 * MIB;
let account: Account;
let gateway: Gateway;
let clockMs = 0;
beforeEach(async () => {
  account = await startAccount();
  clockMs = 1_700_000_000_000;
  gateway = await startGateway({
    ve: { passthroughProviderId: "prov_0" },
    provider: { baseUrl: `${account.url}/v1` },
    now: () => clockMs,
  });
});
afterEach(async () => {
  await gateway.close();
  await account.close();
});

interface Sent {
  readonly request: ClientRequest;
  readonly answer: Promise<{ status: number; code: string; text: string }>;
}

function open(path: string, headers: Record<string, string>, method = "POST"): Sent {
  const { hostname, port } = new URL(gateway.url);
  const request = httpRequest({
    hostname,
    port,
    method,
    path,
    headers: { authorization: `Bearer ${KEY}`, ...headers },
  });
  const answer = new Promise<{ status: number; code: string; text: string }>((resolve, reject) => {
    request.on("error", reject);
    request.on("response", (response) => {
      let text = "";
      response.on("error", reject);
      response.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
      response.on("end", () => {
        const code = text.startsWith('{"error"') ? (JSON.parse(text) as { error: { code: string } }).error.code : "";
        resolve({ status: response.statusCode!, code, text });
      });
    });
  });
  answer.catch(() => undefined);
  return { request, answer };
}
const FORM = { "content-type": "multipart/form-data; boundary=b" };
const openFile = (bytes: number) => open("/v1/files", { ...FORM, "content-length": String(bytes) });

/** Sends so many bytes as fast as they are taken; the count says how far it is. */
function pump({ request }: Sent, bytes: number): { sent: number } {
  const count = { sent: 0 };
  const more = (): void => {
    while (count.sent < bytes && !request.destroyed) {
      count.sent += BLOCK.length;
      if (!request.write(BLOCK)) return void request.once("drain", more);
    }
    request.end();
  };
  more();
  return count;
}

/** Resolves when it has not grown for a while. */
async function still(count: { sent: number }): Promise<number> {
  for (let before = -1; before !== count.sent;) {
    before = count.sent;
    await sleep(150);
  }
  return count.sent;
}

/** The next call's request, whose body nobody reads. */
function nextCall(): Promise<{ request: IncomingMessage; answer(status: number, body?: unknown): void }> {
  return new Promise((resolve) =>
    account.next.push((request, response) =>
      resolve({ request, answer: (status, body = {}) => reply(response, status, body) }),
    ),
  );
}

test("what the upstream does not take, the client does not send", async () => {
  const bytes = 48 * MIB;
  const call = nextCall();
  const file = openFile(bytes);
  const count = pump(file, bytes);
  const { request, answer } = await call;
  expect(await still(count)).toBeLessThan(IN_FLIGHT_BYTES_MAX);
  expect(request.headers["content-length"]).toBe(String(bytes));
  let got = 0;
  request.on("data", (chunk: Buffer) => (got += chunk.length));
  request.on("end", () => answer(200, { id: "file-1" }));
  expect(await file.answer).toMatchObject({ status: 200, text: '{"id":"file-1"}' });
  expect(got).toBe(bytes);
});

test("what the client does not take, the upstream does not send", async () => {
  const count = { sent: 0 };
  const bytes = 48 * MIB;
  account.next.push((_, response) => {
    response.writeHead(200, { "content-type": "application/octet-stream", "content-length": String(bytes) });
    const more = (): void => {
      while (count.sent < bytes && !response.destroyed) {
        count.sent += BLOCK.length;
        if (!response.write(BLOCK)) return void response.once("drain", more);
      }
      response.end();
    };
    more();
  });
  const { hostname, port } = new URL(gateway.url);
  const headers = { authorization: `Bearer ${KEY}` };
  const response = await new Promise<IncomingMessage>((resolve) => {
    httpRequest({ hostname, port, path: "/v1/files/file-1/content", headers }, resolve).end();
  });
  expect(await still(count)).toBeLessThan(IN_FLIGHT_BYTES_MAX);
  let got = 0;
  for await (const chunk of response) got += (chunk as Buffer).length;
  expect(got).toBe(bytes);
});

test.each([
  ["refuses", 400, { error: { message: "Invalid purpose", code: "bad_purpose" } }, 400, "bad_purpose"],
  ["refuses for its account", 401, {}, 503, "no_available_target"],
  ["answers", 200, { id: "file-1" }, 200, ""],
])("an upstream that %s before it has the body is heard at once", async (_, status, body, told, code) => {
  const bytes = 16 * MIB;
  const call = nextCall();
  const file = openFile(bytes);
  file.request.write(BLOCK);
  (await call).answer(status, body);
  expect(await file.answer).toMatchObject({ status: told, code });
  file.request.destroy();
  expect((await fetch(`${gateway.url}/v1/files`, { headers: { authorization: `Bearer ${KEY}` } })).status).toBe(200);
});

test("an upstream that breaks off is an error, before its answer and in it", async () => {
  account.next.push((request) => void request.socket.destroy());
  const file = openFile(BLOCK.length);
  file.request.end(BLOCK);
  expect(await file.answer).toMatchObject({ status: 503, code: "no_available_target" });
  account.next.push((request, response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write("half", () => request.socket.destroy());
  });
  const content = open("/v1/files/file-1/content", {}, "GET");
  content.request.end();
  await expect(content.answer).rejects.toThrow(/aborted|hang up|ECONNRESET/);
});

test("a client that leaves takes its call along, in its body and in the answer", async () => {
  const call = nextCall();
  const file = openFile(16 * MIB);
  file.request.write(BLOCK);
  const { request } = await call;
  request.resume();
  const closed = new Promise((resolve) => request.on("close", resolve));
  file.request.destroy();
  await closed;
  expect(request.complete).toBe(false);
  const ended = Promise.withResolvers<void>();
  account.next.push((_, response) => {
    response.on("close", ended.resolve);
    response.writeHead(200);
    response.write("half");
  });
  const content = open("/v1/files/file-1/content", {}, "GET");
  content.request.on("response", () => content.request.destroy());
  content.request.end();
  await ended.promise;
  await vi.waitFor(() => expect(gateway.pipeline.live).toBe(0));
});

test("a body of unknown length is cut at its limit", async () => {
  const call = nextCall();
  const sent = open("/v1/vector_stores", { "content-type": "application/json" });
  pump(sent, PASS_JSON_BYTES_MAX + MIB);
  const { request } = await call;
  expect(request.headers["transfer-encoding"]).toBe("chunked");
  const closed = new Promise((resolve) => request.on("close", resolve));
  let got = 0;
  request.on("data", (chunk: Buffer) => (got += chunk.length));
  expect(await sent.answer).toMatchObject({ status: 413, code: "request_too_large" });
  await closed;
  expect([request.complete, got <= PASS_JSON_BYTES_MAX]).toEqual([false, true]);
});

test("a client that stalls is told so in time", async () => {
  const call = nextCall();
  const file = openFile(MIB);
  file.request.write(BLOCK);
  (await call).request.resume();
  await sleep(20);
  clockMs += PLAIN_STALL_MS + 100;
  expect(await file.answer).toMatchObject({ status: 408, code: "request_timeout" });
  file.request.destroy();
});

test("an upstream that takes no more of the body is given up", async () => {
  const call = nextCall();
  const file = openFile(48 * MIB);
  const count = pump(file, 48 * MIB);
  await call;
  await still(count);
  clockMs += PLAIN_STALL_MS + 100;
  expect(await file.answer).toMatchObject({ status: 504, code: "timeout" });
  file.request.destroy();
});

test.each([
  ["a read", PLAIN_HEAD_MS, () => open("/v1/files", {}, "GET")],
  ["an upload", PASS_HEAD_MS, () => openFile(BLOCK.length)],
])("%s that is not answered ends in time", async (_, ms, start) => {
  const call = nextCall();
  const sent = start();
  sent.request.end(ms === PASS_HEAD_MS ? BLOCK : undefined);
  const { request } = await call;
  request.resume();
  await new Promise((resolve) => request.on("end", resolve));
  await sleep(20);
  clockMs += ms - 1000;
  await sleep(120);
  expect(gateway.pipeline.live).toBe(1);
  clockMs += 1100;
  expect(await sent.answer).toMatchObject({ status: 504, code: "timeout" });
});

test("a node that stops ends what is under way", async () => {
  const call = nextCall();
  const file = openFile(MIB);
  file.request.write(BLOCK);
  await call;
  gateway.pipeline.abortAll();
  expect(await file.answer).toMatchObject({ status: 503, code: "shutting_down" });
  file.request.destroy();
});
