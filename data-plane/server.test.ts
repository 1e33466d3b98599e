/** The HTTP edge: whatever comes in, the answer has the right shape, nothing crashes and nothing is left open. */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TEXT_BODY_BYTES_MAX } from "./endpoints.ts";
import { JSON_DEPTH_MAX } from "./json_scan.ts";
import { HEADERS_BYTES_MAX } from "./server.ts";
import { type Gateway, KEY, startGateway } from "./testing.ts";
import { chunk, hang, sse } from "./testing_upstream.ts";

let gateway: Gateway;
let closed = false;
beforeEach(async () => {
  closed = false;
  gateway = await startGateway();
});
afterEach(async () => {
  // After anything, the gateway still serves.
  if (!closed) {
    expect((await (await gateway.chat()).json()) as unknown).toMatchObject({ object: "chat.completion" });
    await gateway.close();
  }
});

function open(): Socket {
  const { port, hostname } = new URL(gateway.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => undefined);
  return socket;
}

interface Answer {
  readonly status: number;
  readonly head: string;
  readonly body: any;
}

/** Sends bytes as they are and reads one answer. `close` says that the client sends no more. */
async function raw(text: string | Buffer, close = false): Promise<Answer> {
  const socket = open();
  socket.write(text);
  if (close) socket.end();
  let seen = "";
  for await (const data of socket) {
    seen += String(data);
    const [head, body] = seen.split("\r\n\r\n", 2) as [string, string | undefined];
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? -1);
    if (body === undefined || length < 0 || Buffer.byteLength(body) < length) continue;
    socket.destroy();
    return { status: Number(seen.slice(9, 12)), head, body: JSON.parse(body) };
  }
  return { status: 0, head: seen, body: null };
}

function post(path: string, body: string | Buffer, headers = ""): Buffer {
  const head = `POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\n${headers}`;
  return Buffer.concat([Buffer.from(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n`), Buffer.from(body)]);
}

const CHAT = "/v1/chat/completions";

describe("bodies", () => {
  const good = '{"model":"gpt","messages":[]';
  const cases: [string, string | Buffer, string | null][] = [
    ["empty", "", null],
    ["not JSON", "hello", null],
    ["cut", good, null],
    ["an array", "[]", null],
    ["null", "null", null],
    ["trailing text", `${good}} x`, null],
    ["two objects", `${good}}{}`, null],
    ["a trailing comma", `${good},}`, null],
    ["single quotes", "{'model':'gpt'}", null],
    ["NaN", `${good},"temperature":NaN}`, null],
    [
      "invalid UTF-8",
      Buffer.concat([Buffer.from('{"model":"gpt","x":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]),
      null,
    ],
    ["a NUL byte", `${good},\0}`, null],
    ["nested too deep", `${good},"x":${"[".repeat(JSON_DEPTH_MAX + 1)}`, null],
    ["a bad escape in the model", '{"model":"\\x"}', null],
    ["no model", "{}", "model"],
    ["a model of null", '{"model":null}', "model"],
    ["a model that is a number", '{"model":1}', "model"],
    ["a model that is an object", '{"model":{"a":1}}', "model"],
    ["a stream that is a string", `${good},"stream":"true"}`, "stream"],
    ["max_tokens of a wrong type", `${good},"max_tokens":"many"}`, "max_tokens"],
    ["n of zero", `${good},"n":0}`, "n"],
  ];
  test.each(cases)("%s: 400", async (_, body, param) => {
    const { status, body: answer, head } = await raw(post(CHAT, body));
    expect(status).toBe(400);
    expect(answer.error).toMatchObject({ type: "invalid_request_error", param });
    expect(typeof answer.error.message).toBe("string");
    expect(head).toMatch(/x-request-id: usg_[a-z2-7]{26}/);
    expect(head).toContain("x-should-retry: false");
    expect(gateway.upstreams[0]!.seen).toEqual([]);
  });

  test("a duplicated key reaches the upstream once, as it was checked here", async () => {
    const { status } = await raw(post(CHAT, '{"model":"expensive","model":"gpt","messages":[]}'));
    expect(status).toBe(200);
    expect(gateway.upstreams[0]!.seen[0]!.text).toBe('{"model":"up-0","messages":[]}');
  });

  test("chunked bodies are read like others", async () => {
    const body = '{"model":"gpt","messages":[]}';
    const chunks = [...body].map((char) => `1\r\n${char}\r\n`).join("");
    const { status } = await raw(
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ntransfer-encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`,
    );
    expect(status).toBe(200);
    expect(gateway.upstreams[0]!.seen[0]!.body["model"]).toBe("up-0");
  });

  test("an announced length over the limit is refused before anything is sent", async () => {
    const head = `POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-length: ${TEXT_BODY_BYTES_MAX + 1}\r\n\r\n`;
    const { status, body } = await raw(head);
    expect([status, body.error.code]).toEqual([413, "request_too_large"]);
  });

  test("a chunked body is refused as soon as it is over the limit", async () => {
    const socket = open();
    socket.write(
      `POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ntransfer-encoding: chunked\r\n\r\n`,
    );
    const piece = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(0x100000, 0x20), Buffer.from("\r\n")]);
    let answer = "";
    socket.on("data", (data) => (answer += String(data)));
    for (let i = 0; i <= TEXT_BODY_BYTES_MAX / 0x100000; i++) if (!socket.write(piece)) await once(socket, "drain");
    if (answer === "") await once(socket, "data");
    expect(answer).toContain("HTTP/1.1 413");
    socket.destroy();
  });

  test.each(["gzip", "br", "deflate, gzip"])("content-encoding %s: 415", async (encoding) => {
    const { status, body } = await raw(post(CHAT, "xx", `content-encoding: ${encoding}\r\n`));
    expect([status, body.error.code]).toEqual([415, "unsupported_content_encoding"]);
  });

  test("large bodies beyond what the node gives to bodies are refused, small ones are not", async () => {
    await gateway.close();
    gateway = await startGateway({ bodiesBytesMax: 100_000 });
    const large = `POST ${CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-length: 200000\r\n\r\n`;
    const sockets = [open(), open()];
    for (const socket of sockets) socket.write(large + " ".repeat(90_000));
    // Whichever crosses the line.
    const [answer] = await Promise.race(sockets.map((socket) => once(socket, "data")));
    expect(String(answer)).toMatch(/^HTTP\/1.1 503 [^]*"code":"service_unavailable"/);
    expect((await gateway.chat()).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await gateway.pipeline.idle();
  });

  test("a body that never ends its sentence is forgotten when the client goes", async () => {
    const socket = open();
    socket.write(
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-length: 100\r\n\r\n{"model":`,
    );
    await expect.poll(() => gateway.pipeline.live).toBe(1);
    socket.destroy();
    await gateway.pipeline.idle();
    expect(gateway.budget.reservations).toEqual([]);
  });
});

describe("heads", () => {
  test.each([
    ["no HTTP", "hello\r\n\r\n"],
    ["a bad version", "GET / HTTP/9.9\r\nhost: x\r\n\r\n"],
    ["a header without a colon", "GET /v1/models HTTP/1.1\r\nhost x\r\n\r\n"],
    ["a space before the colon", "GET /v1/models HTTP/1.1\r\nhost : x\r\n\r\n"],
    ["a control character in a header", "GET /v1/models HTTP/1.1\r\nhost: x\r\na: b\x01c\r\n\r\n"],
    ["two lengths", `POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx`],
    [
      "length and chunks at once",
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ["a length that is no number", `POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n`],
  ])("%s: 400", async (_, text) => {
    const { status, body, head } = await raw(text);
    expect(status).toBe(400);
    expect(body.error.type).toBe("invalid_request_error");
    expect(head).toMatch(/x-request-id: usg_/);
  });

  test("a broken chunk ends the request", async () => {
    const { status } = await raw(
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n`,
    );
    expect(status).toBe(400);
    await gateway.pipeline.idle();
  });

  test("headers over the limit: 431", async () => {
    const { status, body } = await raw(
      `GET /v1/models HTTP/1.1\r\nhost: x\r\na: ${"x".repeat(HEADERS_BYTES_MAX)}\r\n\r\n`,
    );
    expect([status, body.error.code]).toEqual([431, "headers_too_large"]);
  });

  test.each([
    ["no host", "GET /v1/models HTTP/1.1\r\n\r\n", 400],
    [
      "an expectation nobody knows",
      `POST ${CHAT} HTTP/1.1\r\nhost: x\r\nexpect: foo\r\ncontent-length: 0\r\n\r\n`,
      417,
    ],
    ["a tunnel", "CONNECT a.example:80 HTTP/1.1\r\nhost: a.example:80\r\n\r\n", 400],
  ])("%s", async (_, request, expected) => {
    const { status, head, body } = await raw(request);
    expect([status, body.error.type]).toEqual([expected, "invalid_request_error"]);
    expect(head).toMatch(/x-request-id: usg_/i);
  });

  test("a target that is no path: 404", async () => {
    expect((await raw("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")).status).toBe(404);
  });

  test("several requests on one connection, also after a refusal with a body", async () => {
    const socket = open();
    socket.write(
      Buffer.concat([
        post("/v1/nope", "x".repeat(1000)),
        post(CHAT, "{}"),
        post(CHAT, '{"model":"gpt","messages":[]}'),
      ]),
    );
    let text = "";
    for await (const data of socket) {
      text += String(data);
      if ((text.match(/HTTP\/1\.1 \d{3}/g) ?? []).length === 3 && text.includes('"usage"')) break;
    }
    expect(text.match(/HTTP\/1\.1 (\d{3})/g)).toEqual(["HTTP/1.1 404", "HTTP/1.1 400", "HTTP/1.1 200"]);
  });
});

describe("closing", () => {
  test("lets what runs end, and refuses what comes", async () => {
    let finish: () => void = () => undefined;
    const [upstream] = gateway.upstreams;
    upstream!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ content: "first" }));
      finish = () => response.end(chunk({}, "stop") + "data: [DONE]\n\n");
    });
    const response = await gateway.chat({ stream: true });
    closed = true;
    const closing = gateway.close();
    await expect(gateway.chat()).rejects.toThrow();
    finish();
    expect(await response.text()).toContain("[DONE]");
    await closing;
    expect(gateway.journal.settlements[0]!.outcome).toBe(1);
  });

  test("ends what would not: streams are told, settled and cut", async () => {
    gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" })], "hang"), hang);
    const response = await gateway.chat({ stream: true });
    const waiting = gateway.chat();
    await expect.poll(() => gateway.upstreams[0]!.seen.length).toBe(2);
    const server = gateway.server.close({ drainMs: 10 });
    expect(await response.text()).toContain('"code":"shutting_down"');
    expect((await waiting).status).toBe(503);
    await server;
    expect(gateway.journal.settlements.map(({ outcome }) => outcome).sort()).toEqual([2, 3]);
    closed = true;
    await gateway.close();
  });
});

describe("connections that are kept, while the server closes", () => {
  const LINGER_MS = 300;
  /** One request after the other on one connection; null: the connection ended before an answer. */
  async function on(socket: Socket, request: Buffer | string): Promise<string | null> {
    socket.write(request);
    for await (const data of socket.iterator({ destroyOnReturn: false })) return String(data);
    return null;
  }
  const models = `GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\n\r\n`;

  afterEach(async () => {
    closed = true;
    await gateway.close();
  });

  test("an idle one is still answered, with its end announced; later ones are closed", async () => {
    const [used, idle, watched] = [open(), open(), open()];
    for (const socket of [used, idle]) expect(await on(socket, models)).toMatch(/200 OK[^]*connection: keep-alive/i);
    expect(await on(watched, "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")).toContain("200 OK");
    const beganMs = performance.now();
    const closing = gateway.server.close({ drainMs: 5_000, lingerMs: LINGER_MS });
    expect(await on(watched, "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")).toMatch(/ 503 [^]*connection: close/);
    expect(await on(used, models)).toMatch(/200 OK[^]*connection: close/);
    await once(idle.resume(), "close");
    expect(performance.now() - beganMs).toBeGreaterThanOrEqual(LINGER_MS - 20);
    await closing;
    expect(performance.now() - beganMs).toBeLessThan(3_000);
  });

  test("one whose stream ends meanwhile is not broken under the client's next request", async () => {
    let finish: () => void = () => undefined;
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ content: "first" }));
      finish = () => response.end(chunk({}, "stop") + "data: [DONE]\n\n");
    });
    const socket = open();
    expect(await on(socket, post(CHAT, '{"model":"gpt","messages":[],"stream":true}'))).toContain("200 OK");
    const closing = gateway.server.close({ drainMs: 5_000, lingerMs: LINGER_MS });
    // Longer than idle connections live.
    await new Promise((resolve) => setTimeout(resolve, LINGER_MS + 100));
    finish();
    let text = "";
    while (!text.includes("[DONE]")) text += (await on(socket, "")) ?? "";
    expect(await on(socket, models)).toMatch(/200 OK[^]*connection: close/);
    await closing;
    socket.destroy();
  });

  test("one that comes back after the time is over does not keep the server from ending", async () => {
    await gateway.close();
    // The second bill takes a while, and its request is live meanwhile.
    let bills = 0;
    const countMs = (): number => (bills++ === 0 ? 0 : 500);
    gateway = await startGateway({
      tokens: { count: (_, done) => void setTimeout(() => done({ input: 1, output: 1 }), countMs()) },
    });
    gateway.upstreams[0]!.next(...[1, 2].map(() => sse([chunk({ content: "x" })], "hang")), hang, hang);
    const stream = post(CHAT, '{"model":"gpt","messages":[],"stream":true}');
    const sockets = [open(), open()];
    for (const socket of sockets) expect(await on(socket, stream)).toContain("200 OK");
    const closing = gateway.server.close({ drainMs: 50 });
    let text = "";
    while (!text.endsWith("0\r\n\r\n")) text += await on(sockets[0]!, "");
    expect(text).toContain("shutting_down");
    expect(await on(sockets[0]!, stream)).toMatch(/ 503 [^]*connection: close/);
    await closing;
    for (const socket of sockets) socket.destroy();
  });

  test("no linger is longer than the time to drain", async () => {
    const socket = open();
    await on(socket, models);
    const beganMs = performance.now();
    await gateway.server.close({ drainMs: 50 });
    expect(performance.now() - beganMs).toBeLessThan(1_000);
    socket.destroy();
  });
});

test("no connection is left open at an upstream whose client went away", async () => {
  gateway.upstreams[0]!.next(hang);
  const controller = new AbortController();
  const pending = gateway.chat({}, controller.signal);
  await expect.poll(() => gateway.upstreams[0]!.seen.length).toBe(1);
  controller.abort();
  await expect(pending).rejects.toThrow();
  await gateway.journal.settled();
  await expect.poll(() => gateway.upstreams[0]!.sockets.size).toBe(0);
});
